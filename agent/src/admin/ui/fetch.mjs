// Asks the agent's pages, each at its own pace, while somebody looks. What comes goes on to read.mjs.

/** What rates are made of: asked for together, so that they are of one moment. The agent bounds each (its `limit`). */
const NUMBERS = {
  endpoints: "endpoints",
  calls: "calls?by=pod,service,endpoint",
  methods: "calls?by=service,method,status",
};

/** Seconds between two questions for the other pages. What only a person changes is asked for seldom: a large cluster's is long. */
const PACE = {
  streams: ["streams?limit=100", 1],
  status: ["status", 1],
  pods: ["pods", 2],
  services: ["services", 5],
  problems: ["problems", 5],
  config: ["config", 60],
};

const TURN_MS = 1_000;

/** Answers that are longer are asked for less often: a port-forward, and the agent, have other work. */
const MOST_CHARACTERS_A_SECOND = 400_000;
/** And so often in any case, or rates would be of long ago. */
const SLOWEST_SECONDS = 5;

/** The agent itself answers within five seconds, or says that it is busy. */
const PATIENCE_MS = 6_000;

/** Asks the agent. */
export const ask = (question, signal, accept = "application/json") =>
  fetch(`../${question}`, { headers: { Accept: accept }, cache: "no-store", signal });

/** What the agent says against a question, in one line. */
export const refusal = async (answer) => `${answer.status}: ${(await answer.text()).trim().slice(0, 200)}`;

async function read(question) {
  const answer = await ask(question, AbortSignal.timeout(PATIENCE_MS));
  if (!answer.ok) throw new Error(await refusal(answer));
  return answer.text();
}

/** Why there was no answer, in words. */
export function why(error) {
  if (error.name === "TimeoutError") return "it takes longer than six seconds";
  return error instanceof TypeError ? "no connection" : error.message;
}

export class Poller {
  /**
   * `answered(pages, at, known)`: pages by their names; when they came, in milliseconds of the browser's own clock; the paths that there are.
   * `silent(since, cause)`: no answer; the last one came at the Date `since` (null: none ever).
   */
  constructor(answered, silent) {
    Object.assign(this, { answered, silent, timer: null, runs: false, lastAnswer: null });
    this.forget();
  }

  forget() {
    this.known = null;
    this.due = new Map();
  }

  start() {
    if (this.runs) return;
    this.runs = true;
    this.due.clear();
    if (this.timer === null) this.turn();
  }

  stop() {
    this.runs = false;
  }

  /** What is due, by name: [question, seconds]. An older agent has fewer pages: its own index says which. */
  questions(now) {
    const numbers = Object.entries(NUMBERS).map(([name, question]) => [name, question, 1, "numbers"]);
    const others = Object.entries(PACE).map(([name, [question, seconds]]) => [name, question, seconds, name]);
    return [...numbers, ...others].filter(([, question, , group]) => this.known.has(`/${question.split("?")[0]}`) && (this.due.get(group) ?? 0) <= now);
  }

  async turn() {
    const began = performance.now();
    this.timer = 0;
    try {
      this.known ??= new Set(JSON.parse(await read("")).map((row) => row.path));
      const due = this.questions(began);
      const texts = await Promise.all(due.map(([, question]) => read(question)));
      const lengths = new Map();
      due.forEach(([, , , group], index) => lengths.set(group, (lengths.get(group) ?? 0) + texts[index].length));
      for (const [, , seconds, group] of due) {
        const slow = Math.min(lengths.get(group) / MOST_CHARACTERS_A_SECOND, SLOWEST_SECONDS);
        // Half a turn of grace: timers are never exact.
        this.due.set(group, began + Math.max(seconds, slow) * 1_000 - TURN_MS / 2);
      }
      this.lastAnswer = new Date();
      const pages = due.map(([name], index) => [name, JSON.parse(texts[index])]);
      if (this.runs) this.answered(Object.fromEntries(pages), performance.now(), this.known);
    } catch (error) {
      this.forget();
      if (this.runs) this.silent(this.lastAnswer, why(error));
    }
    // Never two turns at once: a slow agent is asked less often.
    const rest = Math.max(TURN_MS - (performance.now() - began), TURN_MS / 4);
    this.timer = null;
    if (this.runs) this.timer = setTimeout(() => { this.timer = null; if (this.runs) this.turn(); }, rest);
  }
}
