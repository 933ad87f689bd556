// Asks the agent's pages, each at its own pace, while somebody looks. What comes goes on to read.mjs.

/** Seconds between two questions for a page. What only a person changes is asked for seldom: a large cluster's is long. */
const PACE = new Map([
  ["endpoints", 1],
  ["calls", 1],
  ["streams?limit=100", 1],
  ["status", 1],
  ["pods", 2],
  ["services", 5],
  ["problems", 5],
  ["config", 60],
]);

const TURN_MS = 1_000;

/** The agent itself answers within five seconds, or says that it is busy. */
const PATIENCE_MS = 6_000;

const pathOf = (question) => question.split("?")[0];

async function ask(question) {
  const answer = await fetch(`../${question}`, {
    headers: { Accept: "application/json" },
    cache: "no-store",
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${answer.status}: ${text.trim().slice(0, 200)}`);
  return text;
}

/** What there is to look at, by the agent's own index: an older agent has fewer pages. */
async function questions() {
  const paths = new Set(JSON.parse(await ask("")).map((row) => row.path));
  return [...PACE.keys()].filter((question) => paths.has(`/${pathOf(question)}`));
}

/** Why there was no answer, in words. */
function why(error) {
  if (error.name === "TimeoutError") return "it takes longer than six seconds";
  return error instanceof TypeError ? "no connection" : error.message;
}

export class Poller {
  /**
   * `answered(pages, at)`: pages by their path, and when they came, in milliseconds of the browser's own clock.
   * `silent(since, cause)`: no answer; the last one came at the Date `since` (null: none ever).
   */
  constructor(answered, silent) {
    Object.assign(this, { answered, silent, timer: null, runs: false, lastAnswer: null });
    this.forget();
  }

  forget() {
    this.questions = null;
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

  async turn() {
    const began = performance.now();
    this.timer = 0;
    try {
      this.questions ??= await questions();
      const due = this.questions.filter((question) => (this.due.get(question) ?? 0) <= began);
      const pages = await Promise.all(due.map(async (question) => [pathOf(question), JSON.parse(await ask(question))]));
      // Half a turn of grace: timers are never exact.
      for (const question of due) this.due.set(question, began + PACE.get(question) * 1_000 - TURN_MS / 2);
      this.lastAnswer = new Date();
      if (this.runs) this.answered(Object.fromEntries(pages), performance.now());
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
