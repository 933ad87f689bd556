// The graph before it is drawn: who calls whom, how much, in three columns, with the long tail put together. Next: graph.mjs.

import { keyOf } from "./read.mjs";
import { KEPT_SECONDS, RATE_SECONDS } from "./rates.mjs";

/** The most nodes of a column; the others, with the fewest calls, are one node together. */
const MOST = { workload: 8, service: 8, endpoint: 14 };
/** What the columns are of. */
const COLUMNS = ["workload", "service", "endpoint"];

/** From this share of errors on a line is one of many errors. */
const MANY_ERRORS = 0.05;

/** How a share of errors is shown: by a name that has a colour and a pattern. */
export function severity(calls, failed) {
  if (calls === 0) return "idle";
  if (failed === 0) return "fine";
  return failed / calls < MANY_ERRORS ? "some" : "many";
}

/** All pods of the node, where nobody counts which of them calls; and who calls `evenkeel proxy`. */
const ANY_POD = "pods of this node";
const CLIENTS = "clients";

/** Each way of calls through the columns, with its counts now and of all that is kept; where a pod is chosen, of its own calls alone. */
function steps(model, rates, pod) {
  const [now, kept] = [rates.over(RATE_SECONDS), rates.over(KEPT_SECONDS)];
  const of = ({ key }) => ({ calls: now.calls(key), failed: now.failed(key), kept: kept.calls(key), keptFailed: kept.failed(key) });
  const addresses = new Set(model.endpoints.map((one) => keyOf(one.service, one.address)));
  const found = [];
  for (const one of model.endpoints) {
    const counts = model.flows === null ? of(one) : { calls: 0, failed: 0, kept: 0, keptFailed: 0 };
    found.push({ workload: model.flows === null ? ANY_POD : null, service: one.service, endpoint: one.address, ...counts });
  }
  for (const flow of model.flows ?? []) {
    if (pod !== null && flow.pod !== pod) continue;
    // A call that found no endpoint, or one that is no more, still goes to its Service.
    const endpoint = addresses.has(keyOf(flow.service, flow.endpoint)) ? flow.endpoint : null;
    found.push({ workload: flow.workload || CLIENTS, service: flow.service, endpoint, ...of(flow) });
  }
  return { found, seconds: now.seconds };
}

/** A call that fails is worth as many that do not: who fails is not put together with others. */
const FAILED_WORTH = 100;

/** The names of a kind that are worth most, and all that are chosen. */
function foremost(kind, found, chosen) {
  const sums = new Map();
  for (const step of found) {
    if (step[kind] !== null) sums.set(step[kind], (sums.get(step[kind]) ?? 0) + step.kept + FAILED_WORTH * step.keptFailed);
  }
  const all = [...sums].sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1)).map(([name]) => name);
  const kept = new Set(all.length > MOST[kind] ? all.slice(0, MOST[kind] - 1) : all);
  if (chosen !== null && sums.has(chosen)) kept.add(chosen);
  return { kept, others: all.length - kept.size };
}

/**
 * `columns`: for each kind its nodes { kind, name, label, calls, failed, latency, out, others }; `edges`: { from, to, calls, failed },
 * by the nodes' keys; `seconds`: how long what is counted took; `most`: the busiest edge's calls.
 */
export function graphOf(model, rates, choice) {
  const { found, seconds } = steps(model, rates, choice.pod);
  const tops = Object.fromEntries(COLUMNS.map((kind) => [kind, foremost(kind, found, choice[kind])]));
  const details = new Map(model.endpoints.map((one) => [one.address, one]));
  const nodes = new Map();
  const edges = new Map();
  const nodeOf = (kind, name) => {
    const isOther = !tops[kind].kept.has(name);
    const key = isOther ? keyOf(kind) : keyOf(kind, name);
    if (!nodes.has(key)) {
      const endpoint = kind === "endpoint" && !isOther ? details.get(name) : undefined;
      const label = isOther ? `${tops[kind].others} others` : endpoint?.name || name;
      nodes.set(key, {
        key, kind, name, label, isOther, isFixed: isOther || name === ANY_POD || name === CLIENTS,
        calls: 0, failed: 0, latencies: 0, latencyCalls: 0,
        latency: endpoint?.latency, mark: endpoint?.mark ?? "", out: endpoint?.out ?? false,
      });
    }
    return nodes.get(key);
  };
  const count = (target, step) => {
    target.calls += step.calls;
    target.failed += step.failed;
  };
  for (const step of found) {
    const way = COLUMNS.filter((kind) => step[kind] !== null).map((kind) => nodeOf(kind, step[kind]));
    for (const node of way) {
      count(node, step);
      const latency = details.get(step.endpoint)?.latency;
      if (node.kind !== "endpoint" && latency !== undefined) {
        node.latencies += latency * step.calls;
        node.latencyCalls += step.calls;
      }
    }
    for (let i = 1; i < way.length; i += 1) {
      const key = keyOf(way[i - 1].key, way[i].key);
      if (!edges.has(key)) edges.set(key, { key, from: way[i - 1].key, to: way[i].key, calls: 0, failed: 0 });
      count(edges.get(key), step);
    }
  }
  for (const node of nodes.values()) {
    if (node.latencyCalls > 0) node.latency = node.latencies / node.latencyCalls;
  }
  const column = (kind) => [...nodes.values()].filter((node) => node.kind === kind).sort(inOrder);
  return {
    columns: COLUMNS.map(column),
    edges: [...edges.values()],
    seconds,
    most: Math.max(...[...edges.values()].map((edge) => edge.calls), 1),
  };
}

const names = new Intl.Collator("en", { numeric: true });

function inOrder(one, other) {
  return one.isOther - other.isOther || names.compare(one.label, other.label) || names.compare(one.name, other.name);
}
