// Numbers as people read them. Where there is nothing to say: a dash.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const one = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export const NOTHING = "–";

/** A count. */
export const count = (number) => (number === undefined ? NOTHING : whole.format(number));

/** Calls a second; `undefined`: not known yet. */
export function rate(perSecond) {
  if (perSecond === undefined) return NOTHING;
  return (perSecond > 0 && perSecond < 10 ? one : whole).format(perSecond);
}

/** A share of 0 to 1, in percent; a small one never looks like none. */
export function percent(share) {
  if (share === undefined) return NOTHING;
  if (share > 0 && share < 0.001) return "<0.1%";
  return share > 0 && share < 0.1 ? `${one.format(share * 100)}%` : `${whole.format(share * 100)}%`;
}

/** Microseconds. */
export function latency(microseconds) {
  if (microseconds === undefined) return NOTHING;
  if (microseconds < 1_000) return `${whole.format(microseconds)} µs`;
  return duration(microseconds / 1_000);
}

/** Milliseconds. */
export function duration(ms) {
  if (ms === undefined) return NOTHING;
  if (Math.abs(ms) < 10) return `${one.format(ms)} ms`;
  return Math.abs(ms) < 1_000 ? `${whole.format(ms)} ms` : age(ms / 1_000);
}

/** Seconds, roughly. */
export function age(seconds) {
  if (seconds === undefined) return NOTHING;
  if (Math.abs(seconds) < 10) return `${one.format(seconds)} s`;
  if (seconds < 120) return `${whole.format(seconds)} s`;
  if (seconds < 7_200) return `${whole.format(seconds / 60)} min`;
  return seconds < 172_800 ? `${whole.format(seconds / 3_600)} h` : `${whole.format(seconds / 86_400)} d`;
}

/** Bytes. */
export function bytes(number) {
  if (number === undefined) return NOTHING;
  if (number < 1_024) return `${number} B`;
  return number < 1_048_576 ? `${whole.format(number / 1_024)} KiB` : `${one.format(number / 1_048_576)} MiB`;
}

/** How often `number` is the share that is due. */
export const times = (number) => (number === undefined ? NOTHING : number.toFixed(2));

/** The time of day. */
export const clock = (date) => date.toLocaleTimeString("en-GB");

/** A name cut to so many characters. Of a pod's name start and end tell: the Deployment's, and its own. */
export function short(name, characters) {
  if (name.length <= characters) return name;
  const end = Math.floor((characters - 1) * 0.4);
  return `${name.slice(0, characters - 1 - end)}…${name.slice(name.length - end)}`;
}
