// The graph as a picture: three columns of nodes that can be chosen, and lines as thick as there are calls.

import { el, keyed, set, setText, svg } from "./dom.mjs";
import { severity } from "./flows.mjs";
import { latency, percent, rate, short } from "./words.mjs";

const NODE_HEIGHT = 42;
const ROW = 54;
const HEAD = 24;
/** How thick the lines of nearly none and of most calls are. */
const THIN = 1.5;
const THICK = 13;
/** A glyph's usual width beside the size of 12 px that style.css gives: how much of a name has room. */
const GLYPH = 6.6;
const TITLES = ["Pods", "Service ports", "Endpoints"];
const NAMES = { pod: "Pod", service: "Service port", endpoint: "Endpoint" };

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
    const gap = Math.max(width * 0.11, 22);
    const nodeWidth = Math.min((width - 2 * gap) / 3, 260);
    const step = (width - nodeWidth) / 2;
    const rows = Math.max(...graph.columns.map((column) => column.length), 1);
    const height = HEAD + rows * ROW;
    graph.columns.forEach((column, index) => {
      const start = HEAD + ((rows - column.length) * ROW) / 2;
      column.forEach((node, row) => nodes.set(node.key, { ...node, x: index * step, y: start + row * ROW, width: nodeWidth }));
      set(this.titles[index], { x: index * step });
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
      svg("rect", { class: "body", rx: 7, height: NODE_HEIGHT }),
      svg("text", { class: "name", x: 9, y: 17 }),
      svg("text", { class: "numbers", x: 9, y: 33 }),
    ];
    if (node.isFixed) return svg("g", { class: "node", role: "img" }, ...parts);
    const element = svg("g", { class: "node", role: "button", tabindex: 0 }, ...parts);
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
    const [title, body, name, numbers] = element.children;
    const kind = severity(node.calls, node.failed);
    const said = this.numbers(node);
    const isChosen = this.choice[node.kind] === node.name && !node.isOther;
    element.setAttribute("transform", `translate(${node.x} ${node.y})`);
    const states = [node.out && "out", isChosen && "chosen"].filter(Boolean).join(" ");
    set(element, { class: `node ${kind} ${states}`, "aria-label": `${NAMES[node.kind]} ${node.label}: ${said}${node.mark && `, ${node.mark}`}` });
    if (!node.isFixed) set(element, { "aria-pressed": isChosen });
    set(body, { width: node.width });
    const room = Math.floor((node.width - 14) / GLYPH);
    // Of the namespace there is room for on a wide screen only.
    const label = node.label.length <= room ? node.label : node.label.slice(node.label.indexOf("/") + 1);
    setText(title, `${node.label}${node.label === node.name ? "" : ` ${node.name}`}: ${said}${node.mark && `\n${node.mark}`}`);
    setText(name, short(label, room));
    setText(numbers, short(said, room + 1));
  }

  numbers(node) {
    const perSecond = this.graph.seconds > 0 ? node.calls / this.graph.seconds : undefined;
    const said = [`${rate(perSecond)}/s`];
    if (node.out) said.unshift("out");
    if (node.failed > 0) said.push(`${percent(Math.min(node.failed / Math.max(node.calls, 1), 1))} fail`);
    if (node.latency !== undefined && node.calls > 0) said.push(latency(node.latency));
    return said.join(" · ");
  }

  lines(graph, nodes) {
    keyed(
      this.edges,
      graph.edges,
      (edge) => edge.key,
      () => svg("path", { class: "edge" }),
      (path, edge) => {
        const [from, to] = [nodes.get(edge.from), nodes.get(edge.to)];
        const [x, y] = [from.x + from.width, from.y + NODE_HEIGHT / 2];
        const [toX, toY] = [to.x, to.y + NODE_HEIGHT / 2];
        const middle = (x + toX) / 2;
        const thick = edge.calls === 0 ? 1 : THIN + (THICK - THIN) * Math.sqrt(edge.calls / graph.most);
        set(path, {
          class: `edge ${severity(edge.calls, edge.failed)}`,
          d: `M${x} ${y}C${middle} ${y} ${middle} ${toY} ${toX} ${toY}`,
          "stroke-width": thick.toFixed(1),
        });
      },
    );
  }
}
