// What each table has: its columns, and which rows the search leaves.

import { byId } from "./dom.mjs";
import { says } from "./chosen.mjs";
import { severity } from "./flows.mjs";
import { keyOf } from "./read.mjs";
import { RATE_SECONDS } from "./rates.mjs";
import { Table } from "./tables.mjs";
import { NOTHING, age, bytes, count, duration, latency, percent, rate } from "./words.mjs";

const MOODS = { enrolled: "good", waiting: "odd", refused: "bad", unasked: "" };
const ERROR_MOODS = { many: "bad", some: "odd", fine: "", idle: "" };

const numbers = { isNumber: true };
const wide = { isWide: true };

/** So many of a method's statuses are named. */
const MOST_STATUSES = 6;

export class Lists {
  constructor(choice) {
    this.choice = choice;
    this.now = null;
    const chooser = (kind, nameOf) => ({
      toggle: (row) => choice.toggle(kind, nameOf(row)),
      isChosen: (row) => choice[kind] === nameOf(row),
    });
    const perSecond = { title: "Calls/s", of: (row) => rate(this.now.rate(row.key)), ...numbers };
    const failing = { title: "Failing", of: (row) => this.failing(row.key), ...numbers };

    this.flows = new Table(byId("flow-table"), {
      caption: "Where calls go: from pod over Service port to endpoint",
      empty: "No calls are known.",
      keyOf: (row) => row.key,
      columns: [
        { title: "From", of: (row) => row.pod || "clients" },
        { title: "Service port", of: (row) => row.service, ...wide },
        { title: "Endpoint", of: (row) => row.endpoint || "none", ...wide },
        perSecond,
        failing,
        { title: "Calls", of: (row) => count(row.calls), ...numbers },
        { title: "Failed", of: (row) => count(row.failed), ...numbers },
        { title: "Latency", of: (row) => latency(row.latency), ...numbers },
      ],
    });
    this.pods = new Table(byId("pod-table"), {
      caption: "Pods of this node, and why one is not enrolled",
      empty: "No pod is among what is shown.",
      keyOf: (row) => row.key,
      choose: chooser("pod", (row) => row.name),
      columns: [
        { title: "Pod", of: (row) => row.name },
        { title: "State", of: (row) => ({ text: row.stateText, mood: MOODS[row.state] }) },
        { title: "Why not", of: (row) => why(row), ...wide },
        { title: "Calls/s", of: (row) => rate(this.ofPod(row.name)?.perSecond), ...numbers },
        { title: "Failing", of: (row) => this.ofPod(row.name)?.failing ?? NOTHING, ...numbers },
        { title: "Connections taken", of: (row) => count(row.taken), ...numbers },
        { title: "Open", of: (row) => count(row.open), ...numbers },
        { title: "Straight, because", of: (row) => row.straight, ...wide },
        { title: "Memory", of: (row) => ({ text: bytes(row.memory), mood: row.memory > row.memoryLimit / 2 ? "odd" : "" }), ...numbers },
      ],
    });
    this.services = new Table(byId("service-table"), {
      caption: "Service ports, and why connections to one go straight",
      empty: "No Service port is among what is shown.",
      keyOf: (row) => row.key,
      choose: chooser("service", (row) => row.name),
      columns: [
        { title: "Service port", of: (row) => row.name },
        { title: "State", of: captured },
        { title: "Goes straight, because", of: (row) => row.straight.join("; "), ...wide },
        { title: "Endpoints", of: (row) => count(row.endpoints), ...numbers },
        { title: "Not used", of: (row) => row.unused.join("; "), ...wide },
        { title: "Picker", of: (row) => row.picker },
      ],
    });
    this.methods = new Table(byId("method-table"), {
      caption: "Methods of each Service port, with all the statuses that their calls ended with",
      empty: "No call is known.",
      keyOf: (row) => row.key,
      columns: [
        { title: "Method", of: (row) => row.name || "not gRPC" },
        { title: "Service port", of: (row) => row.service, ...wide },
        perSecond,
        failing,
        { title: "Took", of: (row) => duration(this.now.took(row.key)), ...numbers },
        { title: "Calls", of: (row) => count(row.calls), ...numbers },
        { title: "Ended with", of: (row) => ({ text: statuses(row), mood: row.failed > 0 ? "odd" : "" }), ...wide },
      ],
    });
    this.endpoints = new Table(byId("endpoint-table"), {
      caption: "Endpoints, with calls since each was first seen",
      empty: "No endpoint is among what is shown.",
      keyOf: (row) => row.key,
      choose: chooser("endpoint", (row) => row.address),
      columns: [
        { title: "Endpoint", of: (row) => row.name },
        { title: "Address", of: (row) => row.address, ...wide },
        { title: "Service port", of: (row) => row.service, ...wide },
        perSecond,
        failing,
        { title: "Under way", of: (row) => count(row.active), ...numbers },
        { title: "Calls", of: (row) => count(row.calls), ...numbers },
        { title: "Failed", of: (row) => count(row.failed), ...numbers },
        { title: "Latency", of: (row) => latency(row.latency), ...numbers },
        { title: "Left out", of: (row) => ({ text: row.mark, mood: row.mark === "" ? "" : "bad" }), ...wide },
      ],
    });
    this.streams = new Table(byId("stream-table"), {
      caption: "Calls under way, the oldest first",
      empty: "No call is under way.",
      isScrolled: true,
      // A call has no name: the first row is the oldest one's, whichever that is.
      keyOf: (row) => row.place,
      columns: [
        { title: "Method", of: (row) => row.method || "not known any more" },
        { title: "From", of: (row) => row.pod || NOTHING, ...wide },
        { title: "Service port", of: (row) => row.service || NOTHING, ...wide },
        { title: "Endpoint", of: (row) => row.endpoint || NOTHING, ...wide },
        { title: "Stage", of: (row) => row.stage },
        { title: "Age", of: (row) => duration(row.age), ...numbers },
        { title: "To its deadline", of: (row) => ({ text: duration(row.left), mood: row.left < 0 ? "bad" : "" }), ...numbers },
      ],
    });
  }

  /** How many of a row's calls fail now, and how bad that is. */
  failing(key) {
    return {
      text: percent(this.now.errors(key)),
      mood: ERROR_MOODS[severity(this.now.calls(key), this.now.failed(key))],
    };
  }

  /** What a pod's calls come to now. */
  ofPod(pod) {
    const flows = this.flowsOfPod.get(pod);
    if (flows === undefined || this.now.seconds === 0) return undefined;
    const sum = (of) => flows.reduce((all, flow) => all + of(flow.key), 0);
    const [calls, failed] = [sum((key) => this.now.calls(key)), sum((key) => this.now.failed(key))];
    const share = calls > 0 ? Math.min(failed / calls, 1) : undefined;
    return { perSecond: calls / this.now.seconds, failing: { text: percent(share), mood: ERROR_MOODS[severity(calls, failed)] } };
  }

  draw(model, rates) {
    this.now = rates.over(RATE_SECONDS);
    this.flowsOfPod = new Map();
    for (const flow of model.flows ?? []) {
      if (!this.flowsOfPod.has(flow.pod)) this.flowsOfPod.set(flow.pod, []);
      this.flowsOfPod.get(flow.pod).push(flow);
    }
    const { words } = this.choice;
    const latencies = new Map(model.endpoints.map((one) => [keyOf(one.service, one.address), one.latency]));
    const flows = model.flows ?? model.endpoints.map((one) => ({ ...one, pod: "pods of this node", endpoint: one.address }));
    this.flows.draw(flows.map((flow) => ({ ...flow, latency: latencies.get(keyOf(flow.service, flow.endpoint)) })));
    this.pods.draw(model.pods.filter((row) => says(words, row.name, row.stateText, row.reason, row.addresses, row.straight)));
    this.services.draw(model.ports.filter((row) => says(words, row.name, row.portName, row.picker, captured(row).text, ...row.straight, ...row.unused)));
    this.endpoints.draw(model.endpoints.filter((row) => says(words, row.name, row.address, row.service, row.zone, row.mark)));
    byId("methods").hidden = model.methods === null;
    this.methods.draw((model.methods ?? []).filter((row) => says(words, row.name, row.service, statuses(row))));
    byId("streams").hidden = model.streams === null;
    if (model.streams !== null) this.drawStreams(model.streams);
  }

  drawStreams({ rows, total, silent }) {
    const shown = rows.filter((row) => says(this.choice.words, row.method, row.pod, row.service, row.endpoint, row.stage));
    const hints = [`${count(total)} in all; the oldest 100 are asked for.`];
    if (silent > 0) hints.push(`${count(silent)} worker threads do not answer: theirs are missing.`);
    this.streams.draw(shown.map((row, place) => ({ ...row, place })), hints.join(" "));
  }
}

function why(pod) {
  if (pod.state === "waiting" && pod.waitingSeconds !== undefined) return `${pod.reason} (for ${age(pod.waitingSeconds)})`;
  return pod.reason;
}

function statuses(method) {
  const said = method.statuses.slice(0, MOST_STATUSES).map((status) => `${status.text} ${count(status.calls)}`);
  const left = method.statuses.length - said.length;
  return said.join(", ") + (left > 0 ? `, and ${left} more` : "");
}

function captured(port) {
  if (port.captured.length === 0) return { text: "goes straight", mood: "" };
  return port.straight.length === 0 ? { text: "captured", mood: "good" } : { text: "captured in part", mood: "odd" };
}
