// The page's arithmetic: what is a rate, what is a share, what is even, and how a long tail is put together.

import assert from "node:assert/strict";
import test from "node:test";
import { Choice, related } from "../../agent/src/admin/ui/chosen.mjs";
import { evenness } from "../../agent/src/admin/ui/even.mjs";
import { graphOf } from "../../agent/src/admin/ui/flows.mjs";
import { BARS, Rates } from "../../agent/src/admin/ui/rates.mjs";
import { Reader, statusName, totals } from "../../agent/src/admin/ui/read.mjs";
import { Lines, questionOf, rowOf } from "../../agent/src/admin/ui/tap.mjs";
import { latency, percent, rate, short } from "../../agent/src/admin/ui/words.mjs";

const counts = (calls, failed = 0) => new Map([["a", { calls, failed }]]);

test("a rate is what came in the last seconds, by the time that they took", () => {
  const rates = new Rates();
  rates.take(counts(1_000), 0);
  assert.equal(rates.over(10).rate("a"), undefined, "of one answer nobody can tell");
  for (let second = 1; second <= 20; second += 1) rates.take(counts(1_000 + 40 * second, second), second * 1_000);
  assert.equal(rates.over(10).rate("a"), 40);
  assert.equal(rates.over(10).errors("a"), 10 / 400);
  assert.equal(rates.over(180).calls("a"), 800);
  const [bars, none] = rates.bars([["a"], ["b"]]);
  assert.equal(bars.length, BARS);
  assert.equal(bars.reduce((sum, bar) => sum + (bar?.calls ?? 0), 0), 800);
  assert.ok(none.every((bar) => bar === undefined));
});

test("where answers are seldom, their calls are spread over the bars between", () => {
  const rates = new Rates();
  for (let second = 0; second <= 60; second += 5) rates.take(counts(30 * second), second * 1_000);
  const [bars] = rates.bars([["a"]]);
  assert.deepEqual(bars.slice(-20).map((bar) => Math.round(bar.calls)), new Array(20).fill(90));
  assert.equal(rates.over(10).rate("a"), 30);
});

test("what was cut off before has not just begun", () => {
  const rates = new Rates();
  rates.take(counts(900), 0, true);
  rates.take(new Map([["a", { calls: 910, failed: 0 }], ["b", { calls: 800, failed: 0 }]]), 1_000, true);
  assert.deepEqual([rates.over(10).calls("a"), rates.over(10).calls("b")], [10, 0]);
  rates.take(new Map([["a", { calls: 910, failed: 0 }], ["b", { calls: 805, failed: 0 }]]), 2_000, true);
  assert.equal(rates.over(10).calls("b"), 5);
});

test("how long calls took is of the last ones alone", () => {
  const rates = new Rates();
  rates.take(new Map([["a", { calls: 100, failed: 0, ms: 100_000 }]]), 0);
  rates.take(new Map([["a", { calls: 110, failed: 0, ms: 100_050 }]]), 1_000);
  assert.deepEqual([rates.over(10).took("a"), rates.over(10).took("b")], [5, undefined]);
});

test("a count that falls makes no calls, and calls of a pause belong to no bar", () => {
  const rates = new Rates();
  rates.take(counts(500), 0);
  rates.take(counts(30), 1_000);
  assert.equal(rates.over(10).calls("a"), 0);
  rates.take(counts(45), 2_000);
  assert.equal(rates.over(10).calls("a"), 15);
  rates.take(counts(9_000), 60_000);
  assert.equal(rates.over(180).calls("a"), 15);
  rates.take(counts(9_010), 61_000);
  assert.equal(rates.over(10).rate("a"), 10);
});

test("what is older than three minutes is forgotten", () => {
  const rates = new Rates();
  for (let second = 0; second <= 1_000; second += 1) rates.take(counts(second), second * 1_000);
  assert.equal(rates.samples.length, 180);
  assert.equal(rates.over(1_000).calls("a"), 180);
});

test("even is what chance would do; weights say what is due; who is out has no part", () => {
  const of = (...calls) => evenness(calls.map((number) => ({ calls: number, weight: 100, out: false })));
  for (const [calls, verdict] of [
    [[0, 0], "idle"],
    [[7, 3], "few"],
    [[90], "one"],
    [[100, 104, 96], "even"],
    [[60, 40, 50], "even"],
    [[300, 0, 0], "uneven"],
    [[150, 75, 75], "uneven"],
    // The others are hardly above their share: it is the one without calls that tells.
    [[100, 100, 100, 100, 100, 100, 100, 100, 100, 0], "uneven"],
  ]) {
    assert.equal(of(...calls).verdict, verdict, calls.join());
  }
  assert.equal(of(300, 0, 0).max, 3);
  const weighted = evenness([{ calls: 300, weight: 300, out: false }, { calls: 100, weight: 100, out: false }]);
  assert.deepEqual([weighted.verdict, weighted.max], ["even", 1]);
  const left = evenness([{ calls: 100, weight: 1, out: false }, { calls: 100, weight: 1, out: false }, { calls: 20, weight: 1, out: true }]);
  assert.deepEqual([left.verdict, left.shares], ["even", [1, 1, undefined]]);
  const families = evenness([4, 4, 6, 6].map((family) => ({ calls: family === 4 ? 100 : 0, weight: 100, out: false, family })));
  assert.deepEqual([families.verdict, families.shares], ["even", [1, 1, undefined, undefined]]);
});

const endpoint = (number, calls) => ({ service_port: "shop/cart:1", address: `10.0.0.${number}:1`, calls, failures: 0 });
const call = (pod, number, calls, failures = 0) => ({ namespace: "shop", pod, workload: pod.split("-")[0], service: "shop/cart:1", endpoint: `10.0.0.${number}:1`, calls, failures });

function modelOf(pages) {
  const rates = new Rates();
  const empty = { endpoints: pages.endpoints.map((row) => ({ ...row, calls: 0 })), calls: pages.calls && { calls: pages.calls.calls.map((row) => ({ ...row, calls: 0, failures: 0 })) } };
  rates.take(totals(new Reader().read(empty)), 0);
  const model = new Reader().read(pages);
  rates.take(totals(model), 1_000);
  return { model, rates };
}

const choice = (chosen = {}) => Object.assign(new Choice(() => {}), chosen);

test("each call is once in each column, and a long tail is one node", () => {
  const endpoints = Array.from({ length: 40 }, (_, number) => endpoint(number, number + 1));
  const calls = endpoints.map((_, number) => call(`web${number % 20}-a`, number, number + 1));
  const { model, rates } = modelOf({ endpoints, calls: { calls } });
  const graph = graphOf(model, rates, choice());
  const total = (40 * 41) / 2;
  for (const column of graph.columns) assert.equal(column.reduce((sum, node) => sum + node.calls, 0), total);
  const [workloads, , last] = graph.columns;
  assert.deepEqual([workloads.length, last.length], [8, 14]);
  assert.equal(last.at(-1).label, "27 others");
  const chosen = graphOf(model, rates, choice({ endpoint: "10.0.0.0:1" }));
  assert.ok(chosen.columns[2].some((node) => node.name === "10.0.0.0:1"), "what is chosen is always there");
});

test("pods are drawn as their workload, and one that is chosen alone", () => {
  const { model, rates } = modelOf({ endpoints: [endpoint(1, 100)], calls: { calls: [call("web-1", 1, 90), call("web-2", 1, 10, 3)] } });
  const calls = (graph) => graph.columns.map((column) => column.map((node) => [node.label, node.calls, node.failed]));
  assert.deepEqual(calls(graphOf(model, rates, choice()))[0], [["shop/web", 100, 3]]);
  assert.deepEqual(calls(graphOf(model, rates, choice({ pod: "shop/web-2" })))[0], [["shop/web", 10, 3]]);
});

test("failures are those that the agent counts, and every status is named", () => {
  const row = (grpc_status, calls, failures, flag = "-") => ({ service: "shop/cart:1", method: "shop.Cart/Add", protocol: "grpc", http_status: 200, grpc_status, flag, calls, failures });
  const rows = [row(5, 30, 0), row(0, 90, 0), row(14, 5, 5, "no_endpoint"), { ...row(undefined, 2, 0, "client_cancelled"), http_status: 0 }];
  const { model } = modelOf({ endpoints: [endpoint(1, 100)], calls: { calls: [call("web", 1, 127, 5)] }, methods: { calls: rows } });
  assert.deepEqual(model.flows.map((flow) => [flow.pod, flow.calls, flow.failed]), [["shop/web", 127, 5]]);
  const [method] = model.methods;
  assert.deepEqual([method.name, method.calls, method.failed], ["shop.Cart/Add", 127, 5]);
  assert.deepEqual(method.statuses.map((status) => [status.text, status.calls]), [["OK", 90], ["NOT_FOUND", 30], ["UNAVAILABLE (no endpoint)", 5], ["client cancelled", 2]]);
  assert.equal(statusName({ protocol: "http", http_status: 503, flag: "-" }), "HTTP 503");
  assert.equal(statusName({ protocol: "http", http_status: 0, flag: "server_lost" }), "server lost");
});

test("lines are lines wherever the pieces of a stream end", () => {
  const lines = new Lines();
  const whole = '{"a":1}\n{"b":"ü"}\n\n{"dropped":3}\n';
  assert.deepEqual([...whole].flatMap((piece) => lines.take(piece)), ['{"a":1}', '{"b":"ü"}', '{"dropped":3}']);
  assert.throws(() => lines.take("x".repeat(1_000_001)), /without an end/);
});

test("the tap asks for what its filters say, and shows what it is told", () => {
  assert.equal(questionOf({ pod: "", service: "", method: "", status: "", headers: false }), "tap");
  assert.equal(questionOf({ pod: "shop/a b&c", service: "", method: "a.B/*", status: "error", headers: true }), "tap?pod=shop%2Fa+b%26c&method=a.B%2F*&status=error&headers=true");
  const record = {
    time: "2026-01-01T00:00:00.5Z", source: { namespace: "shop", pod: "web-1" }, destination: { namespace: "shop", service: "cart", port: 1, address: "10.96.0.1:1" },
    endpoint: { address: "10.0.0.1:1", pod: "shop/cart-1" }, method: "shop.Cart/Add", http_status: 200, grpc_status: 14, flag: "no_endpoint", failed: true,
    duration_ms: 12.5, queue_ms: 3.2, attempts: 2, new_connection: true, headers: [["x-user", "<b>anna</b>"], ["cookie", "***"], 7],
  };
  const row = rowOf(record, 1, statusName);
  assert.deepEqual(
    [row.from, row.service, row.endpoint, row.status, row.isFailure, row.took, row.remarks, row.headers],
    ["shop/web-1", "shop/cart:1", "cart-1", "UNAVAILABLE (no endpoint)", true, 12.5, "2 attempts, new connection, waited 3 ms", "x-user: <b>anna</b>\ncookie: ***\n: "],
  );
  const cancelled = rowOf({ method: "shop.Cart/Add", http_status: 200, flag: "client_cancelled" }, 3, statusName);
  assert.equal(cancelled.status, "client cancelled", "as /calls has it");
  const plain = rowOf({ http_method: "GET", path: "/a", http_status: 503 }, 4, statusName);
  assert.deepEqual([plain.method, plain.status], ["GET /a", "HTTP 503"]);
  const bare = rowOf({ headers: [["a", "v".repeat(5_000)]] }, 2, statusName);
  assert.deepEqual([bare.from, bare.service, bare.status, bare.took], ["", "", "no answer", undefined]);
  assert.ok(bare.headers.length < 500, "a long value is cut");
});

test("what is chosen leaves what belongs to it", () => {
  const { model } = modelOf({ endpoints: [endpoint(1, 5), endpoint(2, 5)], calls: { calls: [call("one", 1, 5), call("other", 2, 5)] } });
  const shown = related(model, choice({ pod: "shop/one" }));
  assert.deepEqual(shown.endpoints.map((row) => row.address), ["10.0.0.1:1"]);
  assert.deepEqual(related(model, choice({ workload: "shop/other" })).endpoints.map((row) => row.address), ["10.0.0.2:1"]);
  assert.equal(related(model, choice({ service: "shop/cart:1" })).endpoints.length, 2);
  assert.equal(related(model, choice({ service: "shop/none:1" })).endpoints.length, 0);
});

test("an answer of another shape harms nothing", () => {
  const model = new Reader().read({ pods: null, endpoints: { a: 1 }, services: [{}], problems: [{}], calls: "?", methods: { calls: [null, 7] }, streams: {}, status: null });
  assert.deepEqual([model.pods, model.endpoints, model.flows], [[], [], []]);
});

test("numbers are as people read them", () => {
  assert.deepEqual([rate(undefined), rate(0), rate(0.24), rate(1234.5)], ["–", "0", "0.2", "1,235"]);
  assert.deepEqual([percent(0), percent(0.0001), percent(0.012), percent(1)], ["0%", "<0.1%", "1.2%", "100%"]);
  assert.deepEqual([latency(870), latency(1_250), latency(2_500_000)], ["870 µs", "1.3 ms", "2.5 s"]);
  assert.equal(short("checkout-5d9c7b6f4-x2lqp", 12), "checkou…2lqp");
});
