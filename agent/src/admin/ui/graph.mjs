// The graph as a picture: three columns of nodes that can be chosen, and lines as thick as there are calls.

import { el, keyed, set, setText, svg } from "./dom.mjs";
import { severity } from "./flows.mjs";
import { latency, percent, rate, short } from "./words.mjs";

/** Heights of a node and a row: on a narrow screen what a node says takes a line more. */
const WIDE = { node: 42, row: 54, left: 9, glyph: 6.8 };
const NARROW = { node: 56, row: 66, left: 5, glyph: 6.7 };
const NARROW_BELOW = 520;
const HEAD = 24;
/** How thick the lines of nearly none and of most calls are. */
const THIN = 1.5;
const THICK = 13;
const TITLES = ["Workloads", "Service ports", "Endpoints"];
const NAMES = { workload: "Workload", service: "Service port", endpoint: "Endpoint" };

export class Graph {
  constructor(parent, choice) {
    this.choice = choice;
    this.graph = null;
    this.titles = TITLES.map((title) => svg("text", { class: "column", y: 14, "aria-hidden": "true" }, title));
    this.edges = svg("g", { "aria-hidden": "true" });
    this.columns = TITLES.map((title) => svg("g", { role: "group", "aria-label": title }));
    this.picture = svg("svg", { role: "group", "aria-label": "Where calls go: the table below says the same" }, ...this.titles, this.edges, ...this.columns);
    this.empty = el("p", { class: "muted", hidden: "" }, "No Service port is captured: there is nothing to draw yet.");
    parent.append(this.picture, this.empty);
    // Redrawn for another width from what is known already.
    new ResizeObserver(() => this.graph && this.draw(this.graph)).observe(parent);
    this.parent = parent;
  }

  draw(graph) {
    this.graph = graph;
    const nodes = new Map();
    const width = Math.max(this.parent.clientWidth, 240);
    const size = width < NARROW_BELOW ? NARROW : WIDE;
    this.size = size;
    const nodeWidth = Math.min(width * (size === NARROW ? 0.285 : 0.26), 280);
    // Half of a border's stroke is outside of its box.
    const step = (width - nodeWidth - 4) / 2;
    const rows = Math.max(...graph.columns.map((column) => column.length), 1);
    const height = HEAD + rows * size.row;
    graph.columns.forEach((column, index) => {
      const start = HEAD + ((rows - column.length) * size.row) / 2;
      column.forEach((node, row) => nodes.set(node.key, { ...node, x: 2 + index * step, y: start + row * size.row, width: nodeWidth }));
      set(this.titles[index], { x: 2 + index * step });
    });
    this.empty.hidden = nodes.size > 0;
    this.picture.classList.toggle("unseen", nodes.size === 0);
    set(this.picture, { viewBox: `0 0 ${width} ${height}`, width, height });
    this.columns.forEach((group, index) => {
      const placed = graph.columns[index].map((node) => nodes.get(node.key));
      keyed(group, placed, (node) => node.key, (node) => this.node(node), (element, node) => this.update(element, node));
    });
    this.lines(graph, nodes);
  }

  node(node) {
    const parts = [
      svg("title"),
      svg("rect", { class: "body", rx: 7 }),
      svg("text", { class: "name", y: 17 }),
      svg("text", { class: "numbers", y: 33 }),
      svg("text", { class: "numbers", y: 48 }),
    ];
    const named = { class: "node", "data-kind": node.kind, "data-name": node.name };
    if (node.isFixed) return svg("g", { ...named, role: "img" }, ...parts);
    const element = svg("g", { ...named, role: "button", tabindex: 0 }, ...parts);
    const choose = () => this.choice.toggle(node.kind, node.name);
    element.addEventListener("click", choose);
    element.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        choose();
      }
    });
    return element;
  }

  update(element, node) {
    const [title, body, name, numbers, more] = element.children;
    const { size } = this;
    const kind = severity(node.calls, node.failed);
    const { pace, wrong } = this.numbers(node);
    const said = [...pace, ...wrong].join(" · ");
    const isChosen = this.choice[node.kind] === node.name && !node.isOther;
    element.setAttribute("transform", `translate(${node.x} ${node.y})`);
    const states = [node.out && "out", isChosen && "chosen"].filter(Boolean).join(" ");
    set(element, { class: `node ${kind} ${states}`.trim() });
    if (!node.isFixed) set(element, { "aria-pressed": isChosen });
    set(body, { width: node.width, height: size.node });
    for (const line of [name, numbers, more]) set(line, { x: size.left });
    const room = Math.floor((node.width - size.left - 3) / size.glyph);
    // Of the namespace there is room for on a wide screen only.
    let label = node.label.length <= room ? node.label : node.label.slice(node.label.indexOf("/") + 1);
    // Nor for a port.
    if (label.length > room && node.kind === "service") label = label.split(":")[0];
    // The title is what a screen reader says, and what shows where the name has no room.
    const address = node.label === node.name || node.isOther ? "" : ` (${node.name})`;
    setText(title, `${NAMES[node.kind]} ${node.label}${address}: ${said}${node.mark && `; ${node.mark}`}`);
    setText(name, short(label, room));
    setText(numbers, size === WIDE ? said : pace.join(" "));
    setText(more, size === WIDE ? "" : wrong.join(" "));
  }

  /** How much and how fast; and what is wrong, if anything. */
  numbers(node) {
    const perSecond = this.graph.seconds > 0 ? node.calls / this.graph.seconds : undefined;
    const pace = [`${rate(perSecond)}/s`];
    if (node.latency !== undefined && node.calls > 0) pace.push(latency(node.latency));
    const wrong = [];
    if (node.out) wrong.push("out");
    if (node.failed > 0) wrong.push(`${percent(Math.min(node.failed / Math.max(node.calls, 1), 1))} fail`);
    return { pace, wrong };
  }

  lines(graph, nodes) {
    const aside = this.aside(graph);
    keyed(
      this.edges,
      graph.edges,
      (edge) => edge.key,
      () => svg("g", {}, svg("path", { class: "calls-line" }), svg("path", { class: "errors-line" })),
      (line, edge) => {
        const [from, to] = [nodes.get(edge.from), nodes.get(edge.to)];
        const [x, y] = [from.x + from.width, from.y + this.size.node / 2];
        const [toX, toY] = [to.x, to.y + this.size.node / 2];
        const middle = (x + toX) / 2;
        const thick = edge.calls === 0 ? 1 : THIN + (THICK - THIN) * Math.sqrt(edge.calls / graph.most);
        set(line, { class: `edge ${severity(edge.calls, edge.failed)}${aside(edge) ? " aside" : ""}` });
        for (const path of line.children) set(path, { d: `M${x} ${y}C${middle} ${y} ${middle} ${toY} ${toX} ${toY}` });
        set(line.firstElementChild, { "stroke-width": thick.toFixed(1) });
      },
    );
  }

  /** Whether a line leads to or from nothing that is chosen. */
  aside(graph) {
    const chosen = graph.columns.flat().filter((node) => !node.isFixed && this.choice[node.kind] === node.name);
    if (chosen.length === 0) return () => false;
    const met = new Set(chosen.map((node) => node.key));
    const ways = (from, to) => {
      const reached = new Set(met);
      // Two steps lead through three columns.
      for (let step = 0; step < 2; step += 1) for (const edge of graph.edges) if (reached.has(edge[from])) reached.add(edge[to]);
      return reached;
    };
    const [after, before] = [ways("from", "to"), ways("to", "from")];
    return (edge) => !after.has(edge.from) && !before.has(edge.to);
  }
}
