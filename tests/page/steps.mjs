// What is asked of the page, a step each: `node steps.mjs STEP URL JSON`. tests/page.rs says what must be true beside it.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { count, eventually, json, open, rows, textOf, withBrowser } from "./browser.mjs";

const SCREENS = {
  desktop: { width: 1280, height: 900 },
  phone: { width: 320, height: 640 },
};

/** WCAG's levels A and AA, and what axe's authors would do beyond. */
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

/** What some polls may move, of 1: nothing that anybody sees (a good page stays below 0.1). */
const MOST_SHIFT = 0.005;

/** Has the page think that nobody, or somebody, looks. */
const hide = (page, isHidden) =>
  page.evaluate((hidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event("visibilitychange"));
  }, isHidden);

const steps = {
  /** The numbers are the agent's, and those that the clients counted: `calls` by the endpoint's pod. */
  async numbers(browser, url, { calls, enrolled }) {
    const { page, complaints } = await open(browser, url);
    assert.equal(await textOf(page, "#ready"), "ready");
    assert.equal(count(await textOf(page, "#enrolled")), enrolled);
    const agents = Object.fromEntries((await json(page, "endpoints")).map((row) => [row.address, row.calls]));
    const shown = await rows(page, "endpoint-table");
    assert.deepEqual(Object.fromEntries(shown.map((row) => [row.Address, count(row.Calls)])), agents);
    const called = shown.filter((row) => count(row.Calls) > 0);
    const counted = Object.fromEntries(called.map((row) => [row.Endpoint.split("/").at(-1), count(row.Calls)]));
    assert.deepEqual(counted, calls);
    const total = Object.values(calls).reduce((sum, number) => sum + number, 0);
    const flows = await rows(page, "flow-table");
    assert.equal(flows.reduce((sum, row) => sum + count(row.Calls), 0), total);
    assert.equal(count(await textOf(page, "#active")), 0);
    assert.deepEqual(complaints, []);
  },

  /** While calls run: the rate is there, an even spread is called even, the other one uneven, by its number. */
  async spread(browser, url, { even, uneven, busiest }) {
    const { page, complaints } = await open(browser, url);
    await eventually("calls are seen", () => textOf(page, "#rate"), (rate) => count(rate) > 0);
    const verdict = (port) =>
      page.$$eval(".port", (boxes, name) => boxes.find((box) => box.querySelector("h3").textContent === name)?.querySelector(".verdict").textContent, port);
    await eventually("even", () => verdict(even), (said) => /^even: the busiest has 1\.\d\d × its share$/.test(said));
    await eventually("uneven", () => verdict(uneven), (said) => said === `uneven: the busiest has ${busiest} × its share`);
    const lines = await page.$$eval("g.edge:not(.idle)", (lines) => lines.length);
    assert.ok(lines >= 4, `${lines} lines with calls`);
    assert.deepEqual(complaints, []);
  },

  /** A failure is what the agent counts as one, everywhere; every other status is there to be seen. `statuses`: [name, calls], the most first. */
  async statuses(browser, url, { method, statuses, failed }) {
    const { page, complaints } = await open(browser, url);
    const of = async (id, title) => (await rows(page, id)).reduce((sum, row) => sum + count(row[title]), 0);
    const row = async () => (await rows(page, "method-table")).find((one) => one.Method === method);
    const found = await eventually("the method is there", row, (one) => one !== undefined);
    assert.equal(found["Ended with"], statuses.map(([name, calls]) => `${name} ${calls}`).join(", "));
    assert.equal(await of("flow-table", "Failed"), failed);
    assert.equal(await of("endpoint-table", "Failed"), failed);
    const summed = await json(page, "calls?by=service");
    assert.deepEqual(summed.calls.map((one) => one.failures), [failed]);
    assert.match(await textOf(page, "#failed-means"), /^Failed: .*INTERNAL.*NOT_FOUND, are no failures/);
    assert.deepEqual(complaints, []);
  },

  /** Calls as they end: filters, start and stop by keys, rows without end kept within bounds, text that stays text, a wrong filter told of. */
  async tap(browser, url, { pod, method, hostile }) {
    const { page, complaints } = await open(browser, url);
    await page.waitForSelector("#tap:not([hidden])");
    const state = () => textOf(page, "#tap-state");
    assert.equal(await state(), "Not running.");
    const taps = [];
    page.on("request", (request) => { if (new URL(request.url()).pathname === "/tap") taps.push(request.url()); });
    const start = async () => {
      await page.focus("#tap-run");
      await page.keyboard.press("Enter");
    };

    await page.fill("#tap-pod", "nobody");
    await start();
    await eventually("a wrong filter is told of", state, (said) => /^Ended: 400: .*expected NAMESPACE\/NAME/.test(said));
    assert.ok(await page.isEnabled("#tap-pod"));
    // The browser's own word on it.
    complaints.splice(0);

    await page.fill("#tap-pod", pod);
    await page.fill("#tap-method", `${method.split("/")[0]}/*`);
    await page.check("#tap-headers");
    await start();
    const shown = () => rows(page, "tap-table-headers");
    const [row] = await eventually("calls are shown", shown, (found) => found.length > 0);
    assert.deepEqual([row.Method, row.From, row.Status], [method, pod, "OK"]);
    assert.match(row.Endpoint, /\/server-\d$/);
    assert.match(row.Ended, /^\d\d:\d\d:\d\d\.\d{3}$/);
    assert.ok(row["Request headers"].includes(hostile), row["Request headers"]);
    assert.ok(!row["Request headers"].includes("hunter2"), row["Request headers"]);
    assert.equal(await page.$$eval("#tap img, #tap script", (found) => found.length), 0);
    assert.equal(await page.evaluate(() => window.harmed), undefined);
    await eventually("counts are said, and no row", () => textOf(page, "#announcer"), (said) => /Tap: [\d,]+ calls more, 0 of them failed\./.test(said));
    const bounded = await eventually("more calls than are kept", state, (said) => said.includes("the newest 200 are kept"));
    assert.match(bounded, /^Runs; [\d,]+ calls seen, 0 of them failed; the newest 200 are kept/);
    assert.ok((await shown()).length <= 200);
    assert.equal(await page.getAttribute("#tap .scrolled", "tabindex"), "0");

    // Nobody looks: nothing is read; somebody looks again: it goes on.
    const before = taps.length;
    await hide(page, true);
    await eventually("it waits", state, (said) => said.startsWith("Waits until somebody looks"));
    await hide(page, false);
    await eventually("it goes on", () => taps.length, (asked) => asked === before + 1);
    await eventually("it runs", state, (said) => said.startsWith("Runs"));

    await page.focus("#tap-run");
    await page.keyboard.press("Space");
    const stopped = await eventually("it has stopped", state, (said) => said.startsWith("Stopped"));
    assert.equal(await textOf(page, "#tap-run"), "Start");
    // Two more turns of the page: no call comes any more.
    for (let polls = 0; polls < 2; polls += 1) await page.waitForResponse((response) => response.url().endsWith("/pods"));
    assert.equal(await state(), stopped);

    await page.uncheck("#tap-headers");
    await page.selectOption("#tap-status", "error");
    await start();
    await eventually("it runs", state, (said) => said.startsWith("Runs"));
    assert.equal((await rows(page, "tap-table")).length, 0, "no call ends in an error");
    assert.ok(taps.at(-1).includes("status=error") && !taps.at(-1).includes("headers"), taps.at(-1));
    assert.deepEqual(complaints, []);
  },

  /** Who fails is marked with the reason, and so are the calls that failed. */
  async ejected(browser, url, { pod }) {
    const { page, complaints } = await open(browser, url);
    const row = async () => (await rows(page, "endpoint-table")).find((one) => one.Endpoint.split("/").at(-1) === pod);
    const found = await eventually("the endpoint is marked", row, (one) => /ejected.*consecutive failures/.test(one?.["Left out"]));
    assert.ok(count(found.Failed) > 0, JSON.stringify(found));
    const mark = await page.$$eval(".port .mark:not([hidden])", (marks) => marks.map((one) => one.textContent).join());
    assert.match(mark, /ejected/);
    assert.deepEqual(complaints, []);
  },

  /** Pods that are not enrolled show why; `hostile` is a text that would do harm as markup. */
  async pods(browser, url, { waiting, unasked, hostile }) {
    const { page, complaints } = await open(browser, url);
    const row = async (name) => (await rows(page, "pod-table")).find((one) => one.Pod.endsWith(`/${name}`));
    const first = await eventually("it waits", () => row(waiting), (one) => one?.State === "waiting");
    assert.match(first["Why not"], /no process/i);
    const second = await row(unasked);
    assert.equal(second.State, "not asked for");
    assert.notEqual(second["Why not"], "");
    await page.click("#problems summary");
    await eventually("the problem is shown as it is", () => textOf(page, "#problem-list"), (text) => text.includes(hostile));
    assert.equal(await page.$$eval("main img, main iframe, body script", (found) => found.length), 0);
    assert.equal(await page.evaluate(() => window.harmed), undefined);
    assert.deepEqual(complaints, []);
  },

  /** Everything can be reached and done by keys, in the order in which it stands; the focus is seen and stays. */
  async keyboard(browser, url, { pod, service }) {
    const { page, complaints } = await open(browser, url);
    await page.waitForSelector(".node[role=button]");
    const focused = () =>
      page.evaluate(() => {
        const { activeElement: element } = document;
        const body = element.querySelector(".body");
        const style = getComputedStyle(element);
        const outline = style.outlineStyle !== "none" || (body && getComputedStyle(body).strokeWidth === "4px");
        return { id: element.id, label: (element.querySelector("title") ?? element).textContent, tag: element.tagName, outline: Boolean(outline), all: [...document.querySelectorAll("*")].indexOf(element) };
      });
    const walk = [];
    for (;;) {
      await page.keyboard.press("Tab");
      const now = await focused();
      if (now.tag === "BODY") break;
      assert.ok(now.outline, `the focus is not seen at ${JSON.stringify(now)}`);
      assert.ok(walk.length === 0 || now.all > walk.at(-1).all, `out of order: ${JSON.stringify(now)}`);
      walk.push(now);
    }
    const reached = walk.map((one) => one.label).join("\n");
    for (const part of ["Skip to", "Pause", "Problems", `Service port ${service}`, "Endpoint ", "The same as a table", `shop/${pod}`]) {
      assert.ok(reached.includes(part), `${part} is not among\n${reached}`);
    }

    const all = (await rows(page, "endpoint-table")).length;
    const node = `.node[data-kind="service"][data-name="${service}"]`;
    const isChosen = () => page.getAttribute(node, "aria-pressed");
    await page.focus(node);
    await page.keyboard.press("Enter");
    assert.equal(await isChosen(), "true");
    const left = await rows(page, "endpoint-table");
    assert.ok(left.length < all && left.every((row) => row["Service port"] === service), JSON.stringify(left));
    await eventually("it is said", () => textOf(page, "#announcer"), (said) => said.includes(`service ${service}`));
    // Polls go on meanwhile, and leave the focus where it is.
    for (let polls = 0; polls < 2; polls += 1) await page.waitForResponse((response) => response.url().endsWith("/pods"));
    assert.ok((await focused()).label.startsWith(`Service port ${service}`));
    await page.keyboard.press("Escape");
    assert.equal(await isChosen(), "false");
    assert.equal((await rows(page, "endpoint-table")).length, all);

    await page.focus(`#pod-table th:has-text("shop/${pod}") button`);
    await page.keyboard.press("Space");
    assert.deepEqual((await rows(page, "pod-table")).map((row) => row.Pod), [`shop/${pod}`]);
    await page.keyboard.press("Escape");
    assert.ok((await rows(page, "pod-table")).length > 1);

    await page.fill("#words", "no such thing");
    assert.equal((await rows(page, "endpoint-table")).length, 0);
    await page.keyboard.press("Escape");
    assert.equal(await page.inputValue("#words"), "");

    await page.focus("#pause");
    await page.keyboard.press("Space");
    assert.equal(await page.getAttribute("#pause", "aria-pressed"), "true");
    assert.deepEqual(complaints, []);
  },

  /** On a screen, light or dark: no violation of the rules for accessibility, nothing jumps, nothing juts out. */
  async screen(browser, url, { screen, colorScheme, pictures }) {
    const viewport = SCREENS[screen];
    const { page, complaints } = await open(browser, url, { viewport, colorScheme, reducedMotion: "reduce" });
    await eventually("calls are seen", () => textOf(page, "#rate"), (rate) => count(rate) > 0);
    const widest = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(widest <= viewport.width, `${widest} px wide`);
    const [brightness] = await page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number));
    assert.equal(brightness > 128, colorScheme === "light");
    const moving = await page.$$eval("*", (all) => all.filter((one) => getComputedStyle(one).transitionDuration !== "0s").length);
    assert.equal(moving, 0, "something moves though it should not");

    // From the first numbers on: polls change texts, and nothing's place.
    await page.evaluate(() => { window.shifts.length = 0; });
    for (let polls = 0; polls < 6; polls += 1) await page.waitForResponse((response) => response.url().endsWith("/endpoints"));
    const shifts = await page.evaluate(() => window.shifts);
    const sum = shifts.reduce((total, shift) => total + shift.value, 0);
    assert.ok(sum < MOST_SHIFT, `things jump by ${sum}: ${JSON.stringify(shifts)}`);
    // Without a filter: whatever ends.
    await page.click("#tap-run");
    await eventually("calls are tapped", () => rows(page, "tap-table"), (found) => found.length > 0);
    if (pictures) await page.screenshot({ path: join(pictures, `page-${screen}-${colorScheme}.png`), fullPage: true });

    for (const details of ["#problems", "#graph-as-table"]) await page.click(`${details} > summary`);
    await page.evaluate(await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8"));
    const { violations } = await page.evaluate((runOnly) => window.axe.run(document, { runOnly }), RULES);
    const found = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).join(" | ")}`);
    assert.deepEqual(found, []);
    assert.deepEqual(complaints, []);
  },

  /** The agent stops when this says so, and another one starts: the page says both. */
  async silence(browser, url) {
    const { page, complaints } = await open(browser, url);
    assert.equal(await page.isVisible("#silence"), false);
    assert.deepEqual(complaints, []);
    console.log("stop the agent");
    await page.waitForSelector("#silence:not([hidden])");
    assert.match(await textOf(page, "#silence"), /^The agent does not answer, since \d\d:\d\d:\d\d, .* ago: .*\. What stands below is from then\.$/);
    assert.equal(await textOf(page, "#ready"), "no answer");
    await eventually("it is said", () => textOf(page, "#announcer"), (said) => said.startsWith("The agent does not answer"));
    console.log("start another");
    await page.waitForSelector("#silence", { state: "hidden" });
    await eventually("it is ready", () => textOf(page, "#ready"), (ready) => ready === "ready");
    // Nothing but that there was nobody to ask.
    assert.deepEqual(complaints.filter((one) => !/ERR_|503/.test(one)), []);
  },

  /** A page that nobody looks at asks for nothing. */
  async hidden(browser, url) {
    const { page, complaints } = await open(browser, url);
    let asked = 0;
    page.on("request", () => { asked += 1; });
    await hide(page, true);
    // What was asked for already may still come.
    await page.waitForLoadState("networkidle");
    asked = 0;
    // Three turns, had it been looked at: there is no other sign of something that does not happen.
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    assert.equal(asked, 0);
    await hide(page, false);
    await page.waitForResponse((response) => response.url().endsWith("/endpoints"));
    assert.deepEqual(complaints, []);
  },
};

const [, , step, url, given] = process.argv;
await withBrowser((browser) => steps[step](browser, url, JSON.parse(given ?? "{}")));
console.log(`done ${step}`);
