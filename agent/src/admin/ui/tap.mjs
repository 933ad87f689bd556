// Calls as they end, read from the agent's /tap line by line. Next: tap-panel.mjs.

import { ask, refusal, why } from "./fetch.mjs";

/** A record is far shorter, also with all headers that a server takes. */
const LONGEST_LINE = 1_000_000;

const list = (value) => (Array.isArray(value) ? value : []);

/** Takes a stream's text apart, wherever its pieces end. */
export class Lines {
  constructor() {
    this.rest = "";
  }

  /** The lines that end in this piece. */
  take(piece) {
    const lines = (this.rest + piece).split("\n");
    this.rest = lines.pop();
    if (this.rest.length > LONGEST_LINE) throw new Error("the agent sends a line without an end");
    return lines.filter((line) => line.trim() !== "");
  }
}

/** The question for filters: { pod, service, method, status, headers }, of which the empty ones are left out. */
export function questionOf(filters) {
  const asked = Object.entries(filters).filter(([, value]) => value !== "" && value !== false);
  const query = new URLSearchParams(asked.map(([name, value]) => [name, String(value)]));
  return asked.length === 0 ? "tap" : `tap?${query}`;
}

/** One run of the tap; ends with its `stop`, or with the agent's end. */
export class Tap {
  /** `took(records, dropped)`: what came in a piece; `ended(cause)`: nothing comes any more; null: it was told to stop. */
  constructor(filters, took, ended) {
    this.abort = new AbortController();
    this.run(questionOf(filters), took).then(
      () => ended(this.abort.signal.aborted ? null : "the agent has ended it"),
      (error) => ended(this.abort.signal.aborted ? null : why(error)),
    );
  }

  stop() {
    this.abort.abort();
  }

  async run(question, took) {
    const answer = await ask(question, this.abort.signal, "application/x-ndjson");
    if (!answer.ok) throw new Error(await refusal(answer));
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const lines = new Lines();
    for (;;) {
      const { done, value } = await reader.read();
      if (done || this.abort.signal.aborted) return;
      const records = [];
      let dropped = 0;
      for (const line of lines.take(value)) {
        const record = JSON.parse(line);
        if (Number.isFinite(record?.dropped)) dropped += record.dropped;
        else if (typeof record === "object" && record !== null) records.push(record);
      }
      if (records.length > 0 || dropped > 0) took(records, dropped);
    }
  }
}

/** As much of a text is shown: a header may be long. */
const SHOWN_CHARACTERS = 400;

function text(value) {
  const whole = value === undefined || value === null ? "" : String(value);
  return whole.length > SHOWN_CHARACTERS ? `${whole.slice(0, SHOWN_CHARACTERS)}…` : whole;
}

const named = (object) => (object?.namespace === undefined ? text(object?.pod) : `${text(object.namespace)}/${text(object.pod ?? object.service)}`);

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });

/** A pod's name; its namespace is said already where it is the Service's. */
const bare = (name, namespace) => (name.startsWith(`${text(namespace)}/`) ? name.slice(name.indexOf("/") + 1) : name);

/** A record as a row of the panel. */
export function rowOf(record, place, statusName) {
  const { source, destination, endpoint } = record;
  const time = new Date(record.time);
  const port = destination?.port === undefined ? "" : `:${text(destination.port)}`;
  const status = statusName({ ...record, protocol: record.method === undefined ? "" : "grpc" });
  const remarks = [];
  if (record.attempts > 1) remarks.push(`${text(record.attempts)} attempts`);
  if (record.new_connection === true) remarks.push("new connection");
  if (record.queue_ms >= 1) remarks.push(`waited ${Math.round(record.queue_ms)} ms`);
  return {
    place,
    time: Number.isNaN(time.getTime()) ? text(record.time) : clock.format(time),
    method: text(record.method ?? [record.http_method, record.path].filter((part) => part !== undefined).join(" ")),
    status: text(status),
    isFailure: record.failed === true,
    from: named(source),
    service: destination === undefined ? "" : `${named({ namespace: destination.namespace, pod: destination.service })}${port}`,
    endpoint: bare(text(endpoint?.pod ?? endpoint?.address), destination?.namespace),
    took: Number.isFinite(record.duration_ms) ? record.duration_ms : undefined,
    remarks: remarks.join(", "),
    headers: list(record.headers).map((header) => `${text(header?.[0])}: ${text(header?.[1])}`).join("\n"),
  };
}
