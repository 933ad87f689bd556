// The agent's pages as what is drawn: a model of names, numbers and keys, whatever else the JSON has. Its counts go to rates.mjs.

/** A key of several parts: names may hold anything, so no separator would do. */
export const keyOf = (...parts) => JSON.stringify(parts);

const number = (value) => (Number.isFinite(value) ? value : undefined);
const total = (value) => Math.max(number(value) ?? 0, 0);
const text = (value) => (value === undefined || value === null ? "" : String(value));
/** What is in a list; nulls are nothing to draw. */
const list = (value) => (Array.isArray(value) ? value : []).filter((one) => one !== null && one !== undefined);

/** Keeps the last of each page: not all are asked for each time. */
export class Reader {
  constructor() {
    this.pages = {};
  }

  read(pages) {
    Object.assign(this.pages, pages);
    const { status, config, pods, services, endpoints, problems, calls, methods, streams } = this.pages;
    const model = {
      node: text(status?.node ?? config?.node_name),
      version: text(status?.version),
      ready: status?.ready,
      pods: list(pods).map(readPod),
      ports: list(services).flatMap(readPorts),
      endpoints: list(endpoints).map(readEndpoint),
      problems: list(problems).map(readProblem),
      flows: calls === undefined ? null : readFlows(calls),
      methods: methods === undefined ? null : readMethods(methods),
      // Of very many the agent tells the busiest alone.
      isPart: calls?.cut === true || methods?.cut === true,
      flowsInAll: total(calls?.total),
      streams: streams === undefined ? null : readStreams(streams),
    };
    for (const kind of ["pods", "ports", "endpoints"]) model[kind].sort(byName);
    return model;
  }
}

const names = new Intl.Collator("en", { numeric: true });

/** Rows stay where they are from one answer to the next. */
export const byName = (one, other) => names.compare(one.name, other.name);

const POD_STATES = {
  enrolled: "enrolled",
  waiting: "waiting",
  refused: "refused",
  unasked: "not asked for",
};

function readPod(pod) {
  const reason = text(pod.reason);
  let state = "unasked";
  if (pod.enrolled === true) state = "enrolled";
  else if (pod.enrol === true) state = "waiting";
  // What nobody asked for has no word among the reasons.
  else if (text(pod.reason_name) !== "") state = "refused";
  const straight = Object.entries(pod.connections ?? {}).filter(([name, count]) => name !== "taken" && count > 0);
  return {
    key: text(pod.uid),
    name: `${text(pod.namespace)}/${text(pod.name)}`,
    addresses: list(pod.addresses).map(text).join(" "),
    state,
    stateText: POD_STATES[state],
    reason,
    waitingSeconds: number(pod.waiting_seconds),
    taken: number(pod.connections?.taken),
    straight: straight.map(([name, count]) => `${text(name).replaceAll("_", " ")} ${count}`).join(", "),
    open: number(pod.open_connections),
    memory: number(pod.memory_bytes),
    memoryLimit: number(pod.memory_limit_bytes),
  };
}

function readPorts(service) {
  const name = `${text(service.namespace)}/${text(service.name)}`;
  return list(service.ports).map((port) => ({
    key: `${name}:${text(port.port)}`,
    name: `${name}:${text(port.port)}`,
    portName: text(port.name),
    picker: text(service.picker),
    captured: list(port.captured).map(text),
    straight: list(port.straight).map(text),
    endpoints: total(port.endpoints),
    unused: list(port.unused).map((one) => `${text(one.pod ?? one.address)}: ${text(one.reason)}`),
  }));
}

function readEndpoint(endpoint) {
  const [service, address] = [text(endpoint.service_port), text(endpoint.address)];
  const marks = [];
  if (endpoint.unhealthy === true) marks.push("unhealthy: its health check says that it does not serve");
  const by = total(endpoint.ejected_by);
  const pods = by === 1 ? "1 pod" : `${by} pods`;
  const why = text(endpoint.ejection_reason).replaceAll("_", " ") || "failed calls";
  const left = endpoint.ejected_for_seconds === undefined ? "" : `, for ${total(endpoint.ejected_for_seconds)} s more`;
  if (endpoint.ejected === true) marks.push(`ejected for all pods, as ${pods} met the same: ${why}${left}`);
  else if (by > 0) marks.push(`ejected by ${pods}: ${why}${left}`);
  return {
    key: keyOf("E", service, address),
    name: text(endpoint.pod) || address,
    service,
    address,
    zone: text(endpoint.zone),
    active: total(endpoint.active),
    calls: total(endpoint.calls),
    failed: total(endpoint.failures),
    ejections: total(endpoint.ejections),
    weight: number(endpoint.weight) ?? 1,
    latency: number(endpoint.latency_us),
    // Only what all pass over has no part of its own.
    out: endpoint.ejected === true || endpoint.unhealthy === true,
    mark: marks.join("; "),
  };
}

function readProblem(problem) {
  const place = [problem.file, problem.line, problem.column].filter((part) => part !== undefined).map(text).join(":");
  const about = [place, text(problem.object)].filter((part) => part !== "").join(": ");
  return { severity: text(problem.severity), text: about === "" ? text(problem.cause) : `${about}: ${text(problem.cause)}` };
}

const counts = () => ({ calls: 0, failed: 0, ms: 0 });

function addRow(sum, row) {
  sum.calls += total(row.calls);
  sum.failed += total(row.failures);
  sum.ms += total(row.latency?.sum_ms);
}

/** Who called what. */
function readFlows(calls) {
  const flows = new Map();
  for (const row of list(calls?.calls)) {
    const ofNamespace = (name) => (row[name] === undefined ? "" : `${text(row.namespace)}/${text(row[name])}`);
    const [pod, workload, service, endpoint] = [ofNamespace("pod"), ofNamespace("workload"), text(row.service), text(row.endpoint)];
    const key = keyOf("F", pod, service, endpoint);
    // An address may have been several pods'.
    if (!flows.has(key)) flows.set(key, { key, pod, workload, service, endpoint, ...counts() });
    addRow(flows.get(key), row);
  }
  return [...flows.values()];
}

/** What was called, with how often each status came. */
function readMethods(methods) {
  const found = new Map();
  for (const row of list(methods?.calls)) {
    const [service, name] = [text(row.service), text(row.method)];
    const key = keyOf("M", service, name);
    if (!found.has(key)) found.set(key, { key, service, name, statuses: [], ...counts() });
    const method = found.get(key);
    addRow(method, row);
    method.statuses.push({ text: statusName(row), calls: total(row.calls), isFailure: total(row.failures) > 0 });
  }
  for (const { statuses } of found.values()) statuses.sort((one, other) => other.calls - one.calls);
  return [...found.values()].sort((one, other) => names.compare(one.service, other.service) || byName(one, other));
}

const GRPC_NAMES = [
  "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
  "UNAUTHENTICATED",
];

/** All statuses of gRPC, by their numbers. */
export const grpcName = (code) => GRPC_NAMES[code] ?? `status ${text(code)}`;

/** How calls ended: the status, and where something went wrong beside it, what. */
export function statusName(row) {
  const flag = text(row.flag) === "-" ? "" : text(row.flag).replaceAll("_", " ");
  let status = total(row.http_status) > 0 ? `HTTP ${text(row.http_status)}` : "";
  if (Number.isFinite(row.grpc_status)) status = grpcName(row.grpc_status);
  else if (row.protocol === "grpc" && flag !== "") status = "";
  if (status === "" || flag === "") return status || flag || "no answer";
  return `${status} (${flag})`;
}

function readStreams(streams) {
  const rows = list(streams.streams).map((stream) => ({
    pod: text(stream.pod),
    service: text(stream.service_port),
    endpoint: text(stream.endpoint),
    method: text(stream.method),
    stage: text(stream.stage).replaceAll("_", " "),
    age: number(stream.age_ms),
    left: number(stream.deadline_left_ms),
  }));
  return { rows, total: total(streams.total), silent: list(streams.silent_workers).length };
}

/** What rates.mjs counts. */
export function totals(model) {
  const counts = new Map();
  for (const { key, calls, failed, ms } of [...model.endpoints, ...(model.flows ?? []), ...(model.methods ?? [])]) counts.set(key, { calls, failed, ms });
  return counts;
}
