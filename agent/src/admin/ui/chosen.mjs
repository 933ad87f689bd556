// What somebody has chosen to see, and what belongs to it.

/** The kinds that can be chosen, one of each. */
export const KINDS = ["workload", "pod", "service", "endpoint"];

export class Choice {
  constructor(changed) {
    Object.assign(this, { workload: null, pod: null, service: null, endpoint: null, words: "", changed });
  }

  get isEmpty() {
    return this.words === "" && KINDS.every((kind) => this[kind] === null);
  }

  /** Chooses one, or, if it is chosen, lets go of it. */
  toggle(kind, value) {
    this[kind] = this[kind] === value ? null : value;
    this.changed();
  }

  search(words) {
    this.words = words.trim().toLowerCase();
    this.changed();
  }

  clear() {
    Object.assign(this, { workload: null, pod: null, service: null, endpoint: null, words: "" });
    this.changed();
  }
}

/** Whether all words are in one of the texts together. */
export function says(words, ...texts) {
  if (words === "") return true;
  const all = texts.join(" ").toLowerCase();
  return words.split(/\s+/).every((word) => all.includes(word));
}

/** The model without what was not chosen. The words go for rows, not for the graph. */
export function related(model, choice) {
  const takes = (kind, value) => choice[kind] === null || choice[kind] === value;
  const flows = model.flows?.filter((flow) => KINDS.every((kind) => takes(kind, flow[kind])));
  const met = (kind) => new Set(flows?.map((flow) => flow[kind]));
  const [pods, services, endpoints] = ["pod", "service", "endpoint"].map(met);
  // Without calls by pod nobody knows who called what.
  const knowsPods = flows !== undefined && model.flows.length > 0;
  const isSourced = choice.pod !== null || choice.workload !== null;
  const ofPod = (set, value) => !isSourced || !knowsPods || set.has(value);
  const ofWorkload = new Set(model.flows?.filter((flow) => takes("workload", flow.workload)).map((flow) => flow.pod));
  const ofEndpoint = new Set(model.endpoints.filter((one) => takes("endpoint", one.address)).map((one) => one.service));
  const isDestined = choice.service !== null || choice.endpoint !== null;
  const streams = model.streams && {
    ...model.streams,
    rows: model.streams.rows.filter(
      (row) =>
        takes("pod", row.pod) && (choice.workload === null || ofWorkload.has(row.pod)) && takes("service", row.service) && takes("endpoint", row.endpoint),
    ),
  };
  return {
    ...model,
    flows: flows ?? null,
    streams,
    pods: model.pods.filter(
      (pod) =>
        takes("pod", pod.name) &&
        (choice.workload === null || ofWorkload.has(pod.name)) &&
        (choice.pod !== null || !isDestined || !knowsPods || pods.has(pod.name)),
    ),
    ports: model.ports.filter(
      (port) =>
        takes("service", port.name) &&
        (choice.endpoint === null || ofEndpoint.has(port.name)) &&
        ofPod(services, port.name),
    ),
    // Methods are counted by Service port alone.
    methods: model.methods?.filter((method) => takes("service", method.service) && ofPod(services, method.service)) ?? null,
    endpoints: model.endpoints.filter(
      (one) =>
        takes("service", one.service) && takes("endpoint", one.address) && ofPod(endpoints, one.address) && ofPod(services, one.service),
    ),
  };
}
