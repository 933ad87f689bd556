// Calls of each endpoint over time, a Service port a picture: what is even looks even, and a number says how even.

import { el, keyed, set, setText, svg } from "./dom.mjs";
import { evenness } from "./even.mjs";
import { BARS, BAR_SECONDS, KEPT_SECONDS } from "./rates.mjs";
import { count, rate, short, times } from "./words.mjs";

/** So many Service ports are drawn, and endpoints of each: the busiest. */
const MOST_PORTS = 12;
const MOST_ENDPOINTS = 24;
/** A picture's height in its own units, of which a bar is one wide. */
const HEIGHT = 20;
/** A name's room. */
const NAME_CHARACTERS = 28;

const VERDICTS = {
  even: "even",
  uneven: "uneven",
  few: "too few calls to say",
  one: "one endpoint",
  idle: "no calls",
};

export class Bars {
  constructor(parent) {
    this.ports = el("div");
    this.rest = el("p", { class: "muted" });
    parent.append(this.ports, this.rest);
  }

  /** `ports`: [{ name, endpoints: [{ keys, name, address, mark, out, weight }] }], with the counters' keys. */
  draw(ports, rates) {
    const kept = rates.over(KEPT_SECONDS);
    const counted = ports.map((port) => ({ ...port, endpoints: port.endpoints.map((one) => ({ ...one, ...sumOf(kept, one.keys) })) }));
    const busy = counted.map((port) => ({ ...port, calls: port.endpoints.reduce((sum, one) => sum + one.calls, 0) }));
    const shown = most(busy, MOST_PORTS, (port) => port.calls);
    const drawn = shown.flatMap((port) => port.endpoints);
    const bars = rates.bars(drawn.map((one) => one.keys));
    drawn.forEach((one, index) => { one.bars = bars[index]; });
    keyed(this.ports, shown, (port) => port.name, portBox, (box, port) => updatePort(box, port, kept.seconds));
    const left = ports.length - shown.length;
    let rest = left > 0 ? `${count(left)} Service ports more, with fewer calls: choose one, or search, to see it.` : "";
    if (ports.length === 0) rest = "No captured Service port is among what is shown.";
    setText(this.rest, rest);
  }
}

/** What is counted under the keys together. */
function sumOf(kept, keys) {
  const sum = (of) => keys.reduce((all, key) => all + of(key), 0);
  return { calls: sum((key) => kept.calls(key)), failed: sum((key) => kept.failed(key)) };
}

/** The most of them by that number, in their own order. */
function most(rows, limit, numberOf) {
  if (rows.length <= limit) return rows;
  const top = new Set([...rows].sort((one, other) => numberOf(other) - numberOf(one)).slice(0, limit));
  return rows.filter((row) => top.has(row));
}

function portBox(port) {
  const title = el("h3", {}, port.name);
  return el("article", { class: "port" }, el("div", { class: "port-head" }, title, el("p", { class: "verdict" })), el("ul"), el("p", { class: "muted" }));
}

function updatePort(box, { endpoints }, seconds) {
  const [head, rows, rest] = box.children;
  // What one pod alone passes over has some part, and nobody knows which.
  const even = evenness(endpoints.map((one) => ({ ...one, out: one.mark !== "", family: one.address.startsWith("[") ? 6 : 4 })));
  const verdict = head.lastElementChild;
  set(verdict, { class: `verdict ${even.verdict}` });
  const isSaid = even.verdict === "even" || even.verdict === "uneven";
  setText(verdict, isSaid ? `${VERDICTS[even.verdict]}: the busiest has ${times(even.max)} × its share` : VERDICTS[even.verdict]);
  const withShare = endpoints.map((one, index) => ({ ...one, share: even.shares[index] }));
  const shown = most(withShare, MOST_ENDPOINTS, (one) => one.calls);
  const highest = Math.max(...shown.flatMap((one) => one.bars.map((bar) => Math.max(bar?.calls ?? 0, bar?.failed ?? 0))).filter(Number.isFinite), 1);
  keyed(rows, shown, (one) => one.key, endpointRow, (row, one) => updateEndpoint(row, one, highest, seconds));
  const scale = highest > 1 ? `Highest bar: ${rate(highest / BAR_SECONDS)} calls a second.` : "";
  const left = endpoints.length - shown.length;
  setText(rest, left > 0 ? `${scale} ${count(left)} endpoints with fewer calls are in the table.` : scale);
}

function endpointRow(one) {
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${BARS} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
    svg("path", { class: "ground", d: `M0 ${HEIGHT}H${BARS}` }),
    svg("path", { class: "calls" }),
    svg("path", { class: "failed" }),
  );
  // Start and end tell; the namespace is the Service's.
  const bare = one.name.startsWith(`${one.service.split("/")[0]}/`) ? one.name.slice(one.name.indexOf("/") + 1) : one.name;
  const name = el("span", { class: "name", title: `${one.name} ${one.address}` }, short(bare, NAME_CHARACTERS));
  return el("li", {}, name, picture, el("span", { class: "share" }), el("span", { class: "mark" }));
}

function updateEndpoint(row, one, highest, seconds) {
  const [, picture, share, mark] = row.children;
  const [, calls, failed] = picture.children;
  set(calls, { d: path(one.bars, highest, (bar) => bar.calls) });
  set(failed, { d: path(one.bars, highest, (bar) => Math.min(bar.failed, bar.calls)) });
  const said = one.share === undefined ? "no share" : `${times(one.share)} ×`;
  set(picture, { "aria-label": `${count(one.calls)} calls, ${count(one.failed)} of them failed, in ${Math.round(seconds)} seconds` });
  setText(share, said);
  setText(mark, one.mark === "" ? "" : `⚠ ${one.mark}`);
  mark.hidden = one.mark === "";
  row.classList.toggle("out", one.out);
}

function path(bars, highest, numberOf) {
  let d = "";
  for (let i = 0; i < bars.length; i += 1) {
    const number = bars[i] === undefined ? 0 : numberOf(bars[i]);
    // A single call is seen beside thousands.
    if (number > 0) d += `M${i + 0.1} ${HEIGHT}v${-Math.max((number / highest) * HEIGHT, 0.6).toFixed(2)}h.8V${HEIGHT}z`;
  }
  return d;
}
