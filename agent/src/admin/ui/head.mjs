// What is said of the node as a whole: is it on, for how many pods, how do its calls fare, what is wrong.

import { byId, el, keyed, set, setText } from "./dom.mjs";
import { RATE_SECONDS } from "./rates.mjs";
import { age, clock, count, percent, rate } from "./words.mjs";

const READY = { true: ["ready", "good"], false: ["not ready", "bad"], undefined: ["answers", ""] };

export function drawHead(model, rates) {
  setText(byId("node"), model.node);
  document.title = model.node === "" ? "Evenkeel" : `${model.node} · Evenkeel`;
  setText(byId("version"), model.version === "" ? "" : `version ${model.version}`);
  const [ready, mood] = READY[model.ready];
  badge(ready, mood);
  const pods = (state) => model.pods.filter((pod) => pod.state === state).length;
  tile("enrolled", count(pods("enrolled")), "");
  tile("waiting", count(pods("waiting")), pods("waiting") > 0 ? "odd" : "");
  tile("refused", count(pods("refused")), pods("refused") > 0 ? "bad" : "");
  const { calls, failed, seconds } = sums(model, rates);
  tile("rate", rate(seconds > 0 ? calls / seconds : undefined), "");
  tile("errors", percent(calls > 0 ? Math.min(failed / calls, 1) : undefined), failed > 0 ? "bad" : "");
  tile("active", count(model.endpoints.reduce((sum, one) => sum + one.active, 0)), "");
  drawProblems(model.problems);
}

/** The node's calls of the last seconds: by who made them where that is known, as some reach no endpoint. */
function sums(model, rates) {
  const now = rates.over(RATE_SECONDS);
  const rows = model.isPart ? model.endpoints : (model.flows ?? model.endpoints);
  const sum = (of) => rows.reduce((total, row) => total + of(row.key), 0);
  return { calls: sum((key) => now.calls(key)), failed: sum((key) => now.failed(key)), seconds: now.seconds };
}

function badge(text, mood) {
  setText(byId("ready"), text);
  set(byId("ready"), { class: `badge ${mood}`.trim() });
}

function tile(id, text, mood) {
  setText(byId(id), text);
  set(byId(id), { class: mood });
}

function drawProblems(problems) {
  setText(byId("problem-count"), problems.length === 0 ? "none" : count(problems.length));
  set(byId("problems"), { class: problems.length === 0 ? "" : "has-some" });
  keyed(
    byId("problem-list"),
    problems.length === 0 ? [{ severity: "", text: "Everything that the agent was given could be used." }] : [...new Map(problems.map((problem) => [problem.text, problem])).values()],
    (problem) => problem.text,
    () => el("li"),
    (item, problem) => setText(item, problem.severity === "" ? problem.text : `${problem.severity}: ${problem.text}`),
  );
}

/** Says that there is no answer, since when, and why; `null`: there is one. */
export function drawSilence(silence) {
  const notice = byId("silence");
  notice.hidden = silence === null;
  document.body.classList.toggle("silent", silence !== null);
  if (silence === null) return;
  const { since, cause } = silence;
  const ago = since && age(Math.round((Date.now() - since.getTime()) / 1_000));
  setText(notice, since === null
    ? `The agent does not answer: ${cause}.`
    : `The agent does not answer, since ${clock(since)}, ${ago} ago: ${cause}. What stands below is from then.`);
  badge("no answer", "bad");
}
