// A browser on the agent's page. Whatever the browser complains of fails the step: an error, a violated policy, a dialog.

import { chromium } from "playwright-core";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Nothing but the page is to be asked for: the machine may have no way out. */
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** The one limit of all waiting: a passing step never meets it. */
const WAIT_LIMIT_MS = 60_000;

/** What Chromium says of a request that it breaks off as a link or an address came or went. */
const NETWORK_CHANGED = "ERR_NETWORK_CHANGED";

export async function withBrowser(act) {
  const profile = await mkdtemp(join(tmpdir(), "evenkeel-page-"));
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: FLAGS, env: { ...process.env, HOME: profile } });
  try {
    return await act(browser);
  } finally {
    await browser.close();
    await rm(profile, { recursive: true, force: true });
  }
}

/** Opens the page; `complaints` is what the browser has said against it. */
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_LIMIT_MS);
  const complaints = [];
  let isInterrupted = false;
  page.on("console", (message) => {
    // Of pods that have just begun, links' own addresses still come.
    if (message.text().includes(NETWORK_CHANGED)) isInterrupted = true;
    else if (["error", "warning"].includes(message.type())) complaints.push(`${message.text()} (${message.location().url})`);
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("dialog", (dialog) => complaints.push(`a dialog: ${dialog.message()}`));
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) complaints.push(`it asks elsewhere: ${request.url()}`);
  });
  await page.addInitScript(() => {
    window.shifts = [];
    new PerformanceObserver((list) => {
      for (const shift of list.getEntries()) {
        if (shift.hadRecentInput) continue;
        const moved = shift.sources.map(({ node }) => (node?.nodeType === 1 ? `${node.tagName}.${node.getAttribute("class")}#${node.id}` : String(node?.nodeName)));
        window.shifts.push({ at: shift.startTime, value: shift.value, moved });
      }
    }).observe({ type: "layout-shift", buffered: true });
  });
  const load = () =>
    page.goto(url, { waitUntil: "load" }).catch((error) => {
      if (!error.message.includes(NETWORK_CHANGED)) throw error;
      isInterrupted = true;
    });
  await load();
  // By the clock: nobody says when a browser without a screen draws.
  const limit = Date.now() + WAIT_LIMIT_MS;
  while (!(await page.evaluate(() => ![undefined, "–"].includes(document.querySelector("#enrolled")?.textContent)))) {
    if (Date.now() > limit) {
      const said = await page.evaluate(() => `${document.visibilityState}: ${document.body.innerText.slice(0, 300)}`);
      throw new Error(`no numbers came\n${complaints.join("\n")}\n${said}`);
    }
    if (isInterrupted) {
      isInterrupted = false;
      await load();
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return { page, complaints };
}

/** Waits until what `look` gives in the page satisfies `isSo`; fails with the last. */
export async function eventually(what, look, isSo) {
  const limit = Date.now() + WAIT_LIMIT_MS;
  for (;;) {
    const last = await look();
    if (isSo(last)) return last;
    if (Date.now() > limit) throw new Error(`waited in vain: ${what}; last: ${JSON.stringify(last)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** A table's rows: title → text. */
export const rows = (page, id) =>
  page.$$eval(`#${id} tbody tr`, (found) =>
    found.map((row) => Object.fromEntries([...row.children].map((cell) => [cell.dataset.label, cell.textContent]))),
  );

export const textOf = (page, selector) => page.$eval(selector, (element) => element.textContent);

/** The agent's JSON, asked by the page itself. */
export const json = (page, path) =>
  page.evaluate(async (asked) => (await fetch(`../${asked}`, { headers: { Accept: "application/json" } })).json(), path);

export const count = (text) => Number(text.replaceAll(",", ""));
