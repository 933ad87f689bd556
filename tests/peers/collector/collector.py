"""A collector of spans: OpenTelemetry's published messages on grpcio's server. Says each span that it takes as a line of JSON, and answers as
it is told to.
"""

import argparse
import json
import signal
import sys
import threading
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2


def value_of(any_value):
    kind = any_value.WhichOneof("value")
    return None if kind is None else getattr(any_value, kind)


def attributes_of(pairs):
    return {pair.key: value_of(pair.value) for pair in pairs}


def unknown_fields(message):
    """What the sender has put in that the published messages do not know."""
    from google.protobuf import unknown_fields as of

    count = len(of.UnknownFieldSet(message))
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            children = value if hasattr(value, "__len__") and not hasattr(value, "ListFields") else [value]
            count += sum(unknown_fields(child) for child in children)
    return count


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, answers, retry_after):
        self.answers, self.retry_after = answers, retry_after
        self.lock = threading.Lock()

    def Export(self, request, context):
        with self.lock:
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            spans = sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
            headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
            told = {"answer": answer, "spans": spans, "unknown": unknown_fields(request), "headers": headers}
            print("export", json.dumps(told), flush=True)
        if answer == "hang":
            # Until the client has had enough.
            gone = threading.Event()
            context.add_callback(gone.set)
            gone.wait()
        if answer == "exhausted-later":
            # RetryInfo { retry_delay { seconds } } in google.rpc.Status, as gRPC carries it.
            delay = bytes([0x08, self.retry_after])
            info = b"\x0a" + bytes([len(delay)]) + delay
            url = b"type.googleapis.com/google.rpc.RetryInfo"
            any_message = b"\x0a" + bytes([len(url)]) + url + b"\x12" + bytes([len(info)]) + info
            details = b"\x08\x08\x1a" + bytes([len(any_message)]) + any_message
            context.set_trailing_metadata((("grpc-status-details-bin", details),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "later")
        if answer not in ("ok", "reject-one"):
            context.abort(getattr(grpc.StatusCode, answer.upper()), "as told")
        self.take(request, 1 if answer == "reject-one" else 0)
        response = trace_service_pb2.ExportTraceServiceResponse()
        if answer == "reject-one":
            response.partial_success.rejected_spans = 1
            response.partial_success.error_message = "one is one too many"
        return response

    def take(self, request, rejected):
        with self.lock:
            for resource_spans in request.resource_spans:
                resource = attributes_of(resource_spans.resource.attributes)
                for scope_spans in resource_spans.scope_spans:
                    for span in scope_spans.spans:
                        if rejected > 0:
                            rejected -= 1
                            continue
                        self.tell(span, resource, scope_spans.scope.name)

    def tell(self, span, resource, scope):
        told = {
            "trace_id": span.trace_id.hex(),
            "span_id": span.span_id.hex(),
            "parent_span_id": span.parent_span_id.hex(),
            "trace_state": span.trace_state,
            "name": span.name,
            "kind": trace_pb2.Span.SpanKind.Name(span.kind),
            "start": span.start_time_unix_nano,
            "end": span.end_time_unix_nano,
            "attributes": attributes_of(span.attributes),
            "events": [
                {"name": event.name, "time": event.time_unix_nano, "attributes": attributes_of(event.attributes)}
                for event in span.events
            ],
            "status": trace_pb2.Status.StatusCode.Name(span.status.code),
            "status_message": span.status.message,
            "flags": span.flags,
            "resource": resource,
            "scope": scope,
        }
        print("span", json.dumps(told), flush=True)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--listen", required=True)
    # One after the other, the last again and again.
    arguments.add_argument("--answers", default="ok")
    arguments.add_argument("--retry-after", type=int, default=1)
    arguments.add_argument("--certificate")
    arguments.add_argument("--key")
    arguments = arguments.parse_args()

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    collector = Collector(arguments.answers.split(","), arguments.retry_after)
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    if arguments.certificate:
        with open(arguments.key, "rb") as key, open(arguments.certificate, "rb") as certificate:
            pair = (key.read(), certificate.read())
        server.add_secure_port(arguments.listen, grpc.ssl_server_credentials([pair]))
    else:
        server.add_insecure_port(arguments.listen)
    server.start()
    print("ready", arguments.listen, flush=True)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    stopped.wait()
    server.stop(grace=0)


if __name__ == "__main__":
    sys.exit(main())
