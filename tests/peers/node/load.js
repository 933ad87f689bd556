// A gRPC client on Node's own HTTP/2 (@grpc/grpc-js): calls at a steady rate on one channel, and counts who answered.
// Speaks tests/proto/greeter.proto without generated code, and says what `peer load` says.
'use strict';

const grpc = require('@grpc/grpc-js');
const { parseArgs } = require('node:util');

const TELL_EVERY_MILLISECONDS = 50;
// A call without an answer for so long is an error of its own: nothing in a test holds a call so long.
const NO_ANSWER_MILLISECONDS = 30_000;

const { values: options } = parseArgs({
  options: {
    to: { type: 'string' },
    rate: { type: 'string', default: '200' },
    calls: { type: 'string', default: 'Infinity' },
  },
});
const limit = Number(options.calls);
const rate = Number(options.rate);

const tally = { calls: {}, errors: {}, seen_as: {} };
let told = '';
let begun = 0;
let ended = 0;
let stopped = false;

const count = (where, key) => (where[key] = (where[key] ?? 0) + 1);

function tell(keyword) {
  const now = JSON.stringify(tally);
  if (now !== told || keyword !== 'tally') {
    console.log(keyword, now);
    told = now;
  }
}

/** The length-delimited fields of a protobuf message, by number. */
function strings(message) {
  const fields = {};
  let position = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = message[position++];
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (position < message.length) {
    const key = varint();
    if ((key & 7) === 0) {
      varint();
    } else if ((key & 7) === 2) {
      const length = varint();
      fields[key >> 3] = message.toString('utf8', position, position + length);
      position += length;
    } else {
      throw new Error(`field ${key >> 3} has wire type ${key & 7}`);
    }
  }
  return fields;
}

const bytes = (message) => message;
const client = new grpc.Client(options.to, grpc.credentials.createInsecure());
const request = Buffer.from('\x0a\x04node'); // HelloRequest { name: "node" }

function call() {
  begun += 1;
  const deadline = Date.now() + NO_ANSWER_MILLISECONDS;
  client.makeUnaryRequest('/evenkeel.test.Greeter/SayHello', bytes, bytes, request, { deadline }, (error, reply) => {
    ended += 1;
    if (error) {
      count(tally.errors, `${grpc.status[error.code]}: ${error.details}`);
    } else {
      const fields = strings(reply);
      count(tally.calls, fields[1] ?? '');
      count(tally.seen_as, fields[2] ?? '');
    }
    finish();
  });
}

function finish() {
  if ((stopped || begun >= limit) && ended === begun) {
    clearInterval(telling);
    clearInterval(calling);
    client.close();
    tell('done');
  }
}

process.on('SIGTERM', () => {
  stopped = true;
  finish();
});
const start = Date.now();
const telling = setInterval(() => tell('tally'), TELL_EVERY_MILLISECONDS);
const calling = setInterval(() => {
  const due = Math.min(limit, Math.floor(((Date.now() - start) * rate) / 1000) + 1);
  while (!stopped && begun < due) call();
}, 1);
