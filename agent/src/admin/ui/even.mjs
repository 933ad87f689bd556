// Whether calls are spread evenly: what chance alone would do is not called uneven.

/** Fewer calls an endpoint than that say nothing. */
const ENOUGH_CALLS = 10;
/** Beyond these times its part an endpoint gets much, or little. */
const MUCH = 1.25;
const LITTLE = 0.75;
/** And so many standard deviations of a random choice away from it. */
const DEVIATIONS = 3;

/**
 * `endpoints`: [{ calls, weight, out, family }], of which those that are out are left aside, and those of an IP family that nobody calls:
 * a Service's addresses of each family have endpoints of their own. Gives the verdict, `max` and `min` times their
 * part, and each endpoint's own (`undefined` where it is out or there are no calls).
 */
export function evenness(endpoints) {
  const called = new Set(endpoints.filter((endpoint) => endpoint.calls > 0).map((endpoint) => endpoint.family));
  const isAside = (endpoint) => endpoint.out || (called.size > 0 && !called.has(endpoint.family));
  const serving = endpoints.filter((endpoint) => !isAside(endpoint));
  const calls = serving.reduce((sum, endpoint) => sum + endpoint.calls, 0);
  const weight = serving.reduce((sum, endpoint) => sum + endpoint.weight, 0);
  const part = (endpoint) => (calls * endpoint.weight) / weight;
  const shares = endpoints.map((endpoint) => (isAside(endpoint) || calls === 0 ? undefined : endpoint.calls / part(endpoint)));
  const known = shares.filter((share) => share !== undefined);
  const [max, min] = known.length > 0 ? [Math.max(...known), Math.min(...known)] : [];
  let verdict = "even";
  if (calls === 0) verdict = "idle";
  else if (serving.length === 1) verdict = "one";
  else if (calls < ENOUGH_CALLS * serving.length) verdict = "few";
  else if (serving.some((endpoint) => isFarFrom(endpoint.calls, part(endpoint)))) verdict = "uneven";
  return { verdict, max, min, shares };
}

function isFarFrom(calls, part) {
  const times = calls / part;
  return (times > MUCH || times < LITTLE) && Math.abs(calls - part) > DEVIATIONS * Math.sqrt(part);
}
