"""A gRPC client on grpcio (the C core): calls at a steady rate on one channel, and counts who answered.

Speaks tests/proto/greeter.proto without generated code, and says what `peer load` says.
"""

import argparse
import json
import signal
import sys
import threading
import time
from collections import Counter

import grpc

TELL_EVERY_SECONDS = 0.05
# A call without an answer for so long is an error of its own: nothing in a test holds a call so long.
NO_ANSWER_SECONDS = 30


def varint(data, position):
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position


def strings(message):
    """The length-delimited fields of a protobuf message, by number."""
    fields, position = {}, 0
    while position < len(message):
        key, position = varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == 0:
            _, position = varint(message, position)
        elif kind == 2:
            length, position = varint(message, position)
            fields[number] = message[position : position + length].decode()
            position += length
        else:
            raise ValueError(f"field {number} has wire type {kind}")
    return fields


class Tally:
    def __init__(self):
        self.lock = threading.Lock()
        self.calls, self.errors, self.seen_as = Counter(), Counter(), Counter()
        self.told = None

    def count(self, future):
        with self.lock:
            error = future.exception()
            if error is None:
                reply = strings(future.result())
                self.calls[reply.get(1, "")] += 1
                self.seen_as[reply.get(2, "")] += 1
            else:
                self.errors[f"{future.code()}: {future.details()}"] += 1

    def tell(self, keyword="tally"):
        with self.lock:
            now = json.dumps(
                {"calls": self.calls, "errors": self.errors, "seen_as": self.seen_as}
            )
        if now != self.told or keyword != "tally":
            print(keyword, now, flush=True)
            self.told = now


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--to", required=True)
    arguments.add_argument("--rate", type=int, default=200)
    arguments.add_argument("--calls", type=int)
    arguments = arguments.parse_args()

    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    tally = Tally()
    # Bytes go as they are: no serializer.
    with grpc.insecure_channel(arguments.to) as channel:
        say_hello = channel.unary_unary("/evenkeel.test.Greeter/SayHello")
        request = b"\x0a\x06python"  # HelloRequest { name: "python" }
        begun, in_flight = 0, []
        start = last_told = time.monotonic()
        while not stopped.is_set() and (arguments.calls is None or begun < arguments.calls):
            future = say_hello.future(request, timeout=NO_ANSWER_SECONDS)
            future.add_done_callback(tally.count)
            in_flight.append(future)
            begun += 1
            now = time.monotonic()
            if now - last_told > TELL_EVERY_SECONDS:
                tally.tell()
                last_told = now
                in_flight = [future for future in in_flight if not future.done()]
            time.sleep(max(0.0, start + begun / arguments.rate - now))
        for future in in_flight:
            future.exception()
        # Callbacks run after the result is there.
        while sum(tally.calls.values()) + sum(tally.errors.values()) < begun:
            time.sleep(0.01)
    tally.tell("done")


if __name__ == "__main__":
    sys.exit(main())
