// From counts that only grow to what happened lately: the last minutes, kept in the browser. Next: flows.mjs.

/** How far back the bars go, and how long each is. */
export const KEPT_SECONDS = 180;
export const BAR_SECONDS = 3;
export const BARS = KEPT_SECONDS / BAR_SECONDS;
const BAR_MS = BAR_SECONDS * 1_000;

/** What is called a rate is of so long. */
export const RATE_SECONDS = 10;

/** After a longer silence nobody knows when the calls between were: they belong to no bar. */
const GAP_SECONDS = 11;

const NONE = { calls: 0, failed: 0, ms: 0 };

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

  /** How long they took on average, in milliseconds; `undefined` without calls. */
  took(key) {
    const { calls, ms } = this.sums.get(key) ?? NONE;
    return calls > 0 ? ms / calls : undefined;
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
    this.wasPart = false;
    this.lastAt = 0;
  }

  /**
   * Takes totals in: key → { calls, failed, ms }, as they were at `at` (milliseconds). `isPart`: the agent has told of the busiest
   * alone, and who was not among them before has not just begun.
   */
  take(totals, at, isPart = false) {
    const seconds = (at - this.lastAt) / 1_000;
    if (this.baseline !== null && seconds <= GAP_SECONDS) {
      const deltas = new Map();
      for (const [key, total] of totals) {
        const before = this.baseline.get(key) ?? (isPart || this.wasPart ? total : NONE);
        // A count that fell began anew: the agent's worker process is another one.
        const isNew = total.calls < before.calls;
        const calls = isNew ? total.calls : total.calls - before.calls;
        const failed = isNew ? total.failed : Math.max(total.failed - before.failed, 0);
        const ms = (total.ms ?? 0) - (isNew ? 0 : (before.ms ?? 0));
        if (calls > 0 || failed > 0) deltas.set(key, { calls, failed, ms });
      }
      this.samples.push({ at, seconds, deltas });
    }
    this.baseline = totals;
    this.wasPart = isPart;
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

  /** The bars of rows, each of some keys together, the newest last: [{ calls, failed }, …]; one without a call is `undefined`. */
  bars(rows) {
    const bars = rows.map(() => new Array(BARS));
    const placeOf = new Map(rows.flatMap((keys, row) => keys.map((key) => [key, bars[row]])));
    // The end of a bar belongs to it.
    const newest = Math.ceil(this.lastAt / BAR_MS) - 1;
    for (const { at, seconds, deltas } of this.samples) {
      // Where answers are seldom, one is of several bars: its calls are spread over them.
      const from = at - seconds * 1_000;
      for (let bar = Math.floor(from / BAR_MS); bar * BAR_MS < at; bar += 1) {
        const part = (Math.min((bar + 1) * BAR_MS, at) - Math.max(bar * BAR_MS, from)) / (at - from);
        const place = BARS - 1 - (newest - bar);
        if (place < 0 || place >= BARS || !(part > 0)) continue;
        for (const [key, delta] of deltas) {
          const row = placeOf.get(key);
          if (row === undefined) continue;
          const sum = (row[place] ??= { calls: 0, failed: 0 });
          sum.calls += delta.calls * part;
          sum.failed += delta.failed * part;
        }
      }
    }
    return bars;
  }
}

function add(sums, key, delta) {
  const sum = sums.get(key);
  if (sum === undefined) {
    sums.set(key, { ...delta });
  } else {
    sum.calls += delta.calls;
    sum.failed += delta.failed;
    sum.ms += delta.ms;
  }
}
