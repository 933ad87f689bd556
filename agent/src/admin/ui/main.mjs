// The page's wiring, in the order in which data meets it: fetch.mjs → read.mjs → rates.mjs → head, graph, bars, tables. The tap has a way of
// its own: tap.mjs → tap-panel.mjs.

import { Announcer } from "./announce.mjs";
import { Bars } from "./bars.mjs";
import { Choice, KINDS, related, says } from "./chosen.mjs";
import { byId, el, keyed, set, setText } from "./dom.mjs";
import { Poller } from "./fetch.mjs";
import { graphOf } from "./flows.mjs";
import { Graph } from "./graph.mjs";
import { drawHead, drawSilence } from "./head.mjs";
import { Lists } from "./lists.mjs";
import { Rates } from "./rates.mjs";
import { Reader, totals } from "./read.mjs";
import { TapPanel } from "./tap-panel.mjs";
import { count } from "./words.mjs";

const reader = new Reader();
const rates = new Rates();
const announcer = new Announcer();
const choice = new Choice(changed);
const graph = new Graph(byId("graph"), choice);
const bars = new Bars(byId("bars"));
const lists = new Lists(choice);
const tap = new TapPanel(announcer);
const poller = new Poller(answered, silent);

let model = null;
let silence = null;
let isPaused = false;

function answered(pages, at, known) {
  if (silence !== null) announcer.say("The agent answers again.");
  silence = null;
  drawSilence(null);
  model = reader.read(pages);
  if ("endpoints" in pages) rates.take(totals(model), at, model.isPart);
  announcer.compare(model);
  drawHead(model, rates);
  tap.offer(model, known.has("/tap"));
  draw();
}

function silent(since, cause) {
  if (silence === null) announcer.say(`The agent does not answer: ${cause}.`);
  silence = { since, cause };
  drawSilence(silence);
}

/** All below the head. */
function draw() {
  if (model === null) return;
  const shown = related(model, choice);
  graph.draw(graphOf(model, rates, choice));
  setText(byId("part"), model.isPart ? `Of ${count(model.flowsInAll)} ways of calls the agent tells the busiest ${count(model.flows?.length)}.` : "");
  bars.draw(barsOf(shown), rates);
  lists.draw(shown, rates);
  drawChosen();
}

/** The captured Service ports with their endpoints; where a pod or a workload is chosen, with its own calls alone. */
function barsOf(shown) {
  const ports = new Map();
  for (const endpoint of shown.endpoints) {
    if (!says(choice.words, endpoint.service, endpoint.name, endpoint.address)) continue;
    if (!ports.has(endpoint.service)) ports.set(endpoint.service, { name: endpoint.service, endpoints: [] });
    let keys = [endpoint.key];
    if ((choice.pod !== null || choice.workload !== null) && shown.flows !== null) {
      keys = shown.flows.filter((one) => one.service === endpoint.service && one.endpoint === endpoint.address).map((one) => one.key);
    }
    ports.get(endpoint.service).endpoints.push({ ...endpoint, keys });
  }
  return [...ports.values()].sort((one, other) => (one.name < other.name ? -1 : 1));
}

function changed() {
  if (byId("words").value.trim().toLowerCase() !== choice.words) byId("words").value = choice.words;
  draw();
  const chosen = KINDS.filter((kind) => choice[kind] !== null).map((kind) => `${kind} ${nameOf(kind)}`);
  if (choice.words !== "") chosen.push(`what has “${choice.words}”`);
  announcer.say(chosen.length === 0 ? "All is shown." : `Shown: ${chosen.join(", ")}.`);
}

const nameOf = (kind) => (kind === "endpoint" && model?.endpoints.find((one) => one.address === choice.endpoint)?.name) || choice[kind];

function drawChosen() {
  keyed(
    byId("chosen"),
    KINDS.filter((kind) => choice[kind] !== null),
    (kind) => kind,
    (kind) => {
      const button = el("button", { type: "button" });
      button.addEventListener("click", () => {
        choice.toggle(kind, choice[kind]);
        byId("words").focus();
      });
      return el("li", {}, button);
    },
    (item, kind) => {
      setText(item.firstElementChild, `${kind} ${nameOf(kind)} ✕`);
      set(item.firstElementChild, { "aria-label": `Show every ${kind} again, not ${nameOf(kind)} alone` });
    },
  );
  byId("clear").disabled = choice.isEmpty;
}

/** Nobody looks at a hidden page, and nothing is asked for it. */
function run() {
  const rests = isPaused || document.hidden;
  if (rests) poller.stop();
  else poller.start();
  tap.hold(rests);
}

byId("words").addEventListener("input", (event) => choice.search(event.target.value));
byId("clear").addEventListener("click", () => {
  choice.clear();
  // It is disabled now, and would lose the focus to nowhere.
  byId("words").focus();
});
byId("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  set(byId("pause"), { "aria-pressed": isPaused });
  setText(byId("pause"), isPaused ? "Go on" : "Pause");
  run();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !choice.isEmpty) choice.clear();
});
document.addEventListener("visibilitychange", run);
// How long the silence lasts goes on while nothing comes.
setInterval(() => silence !== null && drawSilence(silence), 1_000);
run();
