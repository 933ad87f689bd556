// From counts that only grow to what happened lately: the last minutes, kept in the browser. Next: view.mjs.

/** How far back the bars go, and how long each is. */
export const KEPT_SECONDS = 180;
export const BAR_SECONDS = 3;
export const BARS = KEPT_SECONDS / BAR_SECONDS;

/** What is called a rate is of so long. */
export const RATE_SECONDS = 10;

/** After a longer silence nobody knows when the calls between were: they belong to no bar. */
const GAP_SECONDS = 6;

/** Sums of calls by key, over a span of time. */
export class Span {
  constructor(seconds, sums) {
    Object.assign(this, { seconds, sums });
  }

  calls(key) {
    return this.sums.get(key)?.calls ?? 0;
  }

  failed(key) {
    return this.sums.get(key)?.failed ?? 0;
  }

  /** Calls a second; `undefined` before there are two answers. */
  rate(key) {
    return this.seconds > 0 ? this.calls(key) / this.seconds : undefined;
  }

  /** The share of calls that failed; `undefined` without calls. */
  errors(key) {
    const calls = this.calls(key);
    // Calls end later than they begin: of those that failed now, some began before the span.
    return calls > 0 ? Math.min(this.failed(key) / calls, 1) : undefined;
  }
}

export class Rates {
  constructor() {
    this.samples = [];
    this.baseline = null;
    this.lastAt = 0;
  }

  /** Takes totals in: key → { calls, failed }, as they were at `at` (milliseconds). */
  take(totals, at) {
    const seconds = (at - this.lastAt) / 1_000;
    if (this.baseline !== null && seconds <= GAP_SECONDS) {
      const deltas = new Map();
      for (const [key, total] of totals) {
        const before = this.baseline.get(key) ?? { calls: 0, failed: 0 };
        // A count that fell began anew: the agent's worker process is another one.
        const isNew = total.calls < before.calls;
        const calls = isNew ? total.calls : total.calls - before.calls;
        const failed = isNew ? total.failed : Math.max(total.failed - before.failed, 0);
        if (calls > 0 || failed > 0) deltas.set(key, { calls, failed });
      }
      this.samples.push({ at, seconds, deltas });
    }
    this.baseline = totals;
    this.lastAt = at;
    const oldest = at - KEPT_SECONDS * 1_000;
    while (this.samples.length > 0 && this.samples[0].at <= oldest) this.samples.shift();
  }

  /** Sums over the last so many seconds, as far as there are answers. */
  over(seconds) {
    const sums = new Map();
    let covered = 0;
    for (let i = this.samples.length - 1; i >= 0 && this.samples[i].at > this.lastAt - seconds * 1_000; i -= 1) {
      const sample = this.samples[i];
      covered += sample.seconds;
      for (const [key, delta] of sample.deltas) add(sums, key, delta);
    }
    return new Span(covered, sums);
  }

  /** The bars of the keys, the newest last: key → [{ calls, failed }, …]; one without a call is `undefined`. */
  bars(keys) {
    const rows = new Map(keys.map((key) => [key, new Array(BARS)]));
    const newest = Math.floor(this.lastAt / (BAR_SECONDS * 1_000));
    for (const { at, deltas } of this.samples) {
      const bar = BARS - 1 - (newest - Math.floor(at / (BAR_SECONDS * 1_000)));
      if (bar < 0) continue;
      for (const [key, delta] of deltas) {
        const row = rows.get(key);
        if (row === undefined) continue;
        const sum = (row[bar] ??= { calls: 0, failed: 0 });
        sum.calls += delta.calls;
        sum.failed += delta.failed;
      }
    }
    return rows;
  }
}

function add(sums, key, delta) {
  const sum = sums.get(key);
  if (sum === undefined) {
    sums.set(key, { ...delta });
  } else {
    sum.calls += delta.calls;
    sum.failed += delta.failed;
  }
}
