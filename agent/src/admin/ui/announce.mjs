// What a screen reader is told without being asked: changes of state, and those seldom. Numbers change each second and are not.

import { byId } from "./dom.mjs";

/** At most one sentence in so long; what happens between comes together. */
const EVERY_MS = 4_000;
const MOST_SENTENCES = 3;

export class Announcer {
  constructor() {
    Object.assign(this, { waiting: [], timer: null, before: null });
  }

  say(sentence) {
    this.waiting.push(sentence);
    this.timer ??= setTimeout(() => this.flush(), 150);
  }

  flush() {
    const [said, more] = [this.waiting.splice(0, MOST_SENTENCES), this.waiting.splice(0).length];
    byId("announcer").textContent = said.join(" ") + (more > 0 ? ` And ${more} more changes.` : "");
    this.timer = setTimeout(() => {
      this.timer = null;
      if (this.waiting.length > 0) this.flush();
    }, EVERY_MS);
  }

  /** Says what is another thing now than a moment ago. */
  compare(model) {
    const now = {
      ready: model.ready,
      problems: model.problems.length,
      out: new Map(model.endpoints.filter((one) => one.out).map((one) => [one.key, one])),
    };
    const { before } = this;
    this.before = now;
    if (before === null) return;
    if (before.ready !== now.ready && now.ready !== undefined) this.say(now.ready ? "The agent is ready." : "The agent is not ready.");
    if (now.problems > before.problems) this.say(`Problems: ${now.problems}.`);
    for (const [key, one] of now.out) if (!before.out.has(key)) this.say(`Endpoint ${one.name} is left out: ${one.mark}.`);
    for (const [key, one] of before.out) if (!now.out.has(key)) this.say(`Endpoint ${one.name} is no longer left out.`);
  }
}
