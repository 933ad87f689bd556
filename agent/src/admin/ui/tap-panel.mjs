// The panel of the live tap: its filters, start and stop, and the newest rows. What a call's client or server chose to say (header values,
// methods) becomes text nodes, as everything.

import { byId, el, set, setText } from "./dom.mjs";
import { grpcName, statusName } from "./read.mjs";
import { Tap, rowOf } from "./tap.mjs";
import { Table } from "./tables.mjs";
import { count, duration } from "./words.mjs";

/** The newest so many rows are kept. */
const MOST_ROWS = 200;
/** Rows are drawn so often at most, however fast calls end. */
const DRAW_EVERY_MS = 250;
/** A listener is told how many calls came so often at most. */
const TELL_EVERY_MS = 10_000;
const LAST_STATUS = 16;
/** Names that a browser offers for a field. */
const MOST_OFFERS = 200;

const numbers = { isNumber: true };
const wide = { isWide: true };

export class TapPanel {
  constructor(announcer) {
    Object.assign(this, { announcer, tap: null, wants: false, held: false, filters: null, rows: [], timer: null });
    this.forget();
    const statuses = [["", "any"], ["error", "failed"]];
    for (let code = 0; code <= LAST_STATUS; code += 1) statuses.push([grpcName(code), grpcName(code)]);
    byId("tap-status").append(...statuses.map(([value, name]) => el("option", { value }, name)));
    const columns = (more) => [
      { title: "Method", of: (row) => row.method || "not gRPC" },
      { title: "Ended", of: (row) => row.time },
      { title: "Status", of: (row) => ({ text: row.status, mood: row.isFailure ? "bad" : "" }) },
      { title: "Took", of: (row) => duration(row.took), ...numbers },
      { title: "From", of: (row) => row.from, ...wide },
      { title: "Service port", of: (row) => row.service, ...wide },
      { title: "Endpoint", of: (row) => row.endpoint, ...wide },
      { title: "Remarks", of: (row) => row.remarks, ...wide },
      ...more,
    ];
    const table = (id, caption, more) => new Table(byId(id), { caption, empty: "", isScrolled: true, keyOf: (row) => row.place, columns: columns(more) });
    this.table = table("tap-table", "Calls that ended, the newest first", []);
    this.tableWithHeaders = table("tap-table-headers", "Calls that ended, with their headers, the newest first", [
      { title: "Request headers", of: (row) => row.headers, isWide: true, isPlain: true },
    ]);
    byId("tap-form").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.wants) this.stop("Stopped");
      else this.start();
    });
    byId("tap-clear").addEventListener("click", () => {
      this.rows = [];
      this.forget();
      this.draw();
    });
    this.draw();
  }

  forget() {
    Object.assign(this, { seen: 0, failed: 0, dropped: 0, told: { seen: 0, failed: 0 }, place: this.place ?? 0 });
  }

  /** Offers the names that there are for the filters; `isThere`: the agent has a tap. */
  offer(model, isThere) {
    byId("tap").hidden = !isThere;
    this.offerNames("tap-pods", model.pods.filter((pod) => pod.state === "enrolled").map((pod) => pod.name));
    this.offerNames("tap-services", model.ports.map((port) => port.name));
    this.offerNames("tap-methods", (model.methods ?? []).map((method) => method.name).filter((name) => name !== ""));
  }

  offerNames(id, names) {
    const offered = [...new Set(names)].slice(0, MOST_OFFERS);
    const before = [...byId(id).children].map((option) => option.value);
    if (before.join("\n") !== offered.join("\n")) byId(id).replaceChildren(...offered.map((value) => el("option", { value })));
  }

  start() {
    const value = (name) => byId(`tap-${name}`).value.trim();
    this.filters = { pod: value("pod"), service: value("service"), method: value("method"), status: value("status"), headers: byId("tap-headers").checked };
    this.rows = [];
    this.forget();
    this.wants = true;
    this.open();
    this.announcer.say("The tap runs.");
    this.telling = setInterval(() => this.tell(), TELL_EVERY_MS);
    this.draw();
  }

  open() {
    if (!this.wants || this.held || this.tap !== null) return;
    const tap = new Tap(
      this.filters,
      (records, dropped) => this.tap === tap && this.take(records, dropped),
      (cause) => this.tap === tap && cause !== null && this.stop(`Ended: ${cause}`, "bad"),
    );
    this.tap = tap;
  }

  close() {
    this.tap?.stop();
    this.tap = null;
  }

  stop(because, mood = "") {
    this.wants = false;
    clearInterval(this.telling);
    this.close();
    this.because = [because, mood];
    this.announcer.say(`The tap: ${because}. ${count(this.seen)} calls were seen.`);
    this.draw();
  }

  /** Nothing is read while nobody looks: the agent sends to whoever reads. */
  hold(isHeld) {
    this.held = isHeld;
    if (isHeld) this.close();
    else this.open();
    this.draw();
  }

  take(records, dropped) {
    for (const record of records) {
      this.place += 1;
      const row = rowOf(record, this.place, statusName);
      this.seen += 1;
      this.failed += row.isFailure ? 1 : 0;
      this.rows.push(row);
    }
    this.dropped += dropped;
    if (this.rows.length > MOST_ROWS) this.rows.splice(0, this.rows.length - MOST_ROWS);
    this.timer ??= setTimeout(() => {
      this.timer = null;
      this.draw();
    }, DRAW_EVERY_MS);
  }

  tell() {
    const [seen, failed] = [this.seen - this.told.seen, this.failed - this.told.failed];
    this.told = { seen: this.seen, failed: this.failed };
    if (seen > 0) this.announcer.say(`Tap: ${count(seen)} calls more, ${count(failed)} of them failed.`);
  }

  draw() {
    const hasHeaders = this.filters?.headers === true;
    byId("tap-table").hidden = hasHeaders;
    byId("tap-table-headers").hidden = !hasHeaders;
    (hasHeaders ? this.tableWithHeaders : this.table).draw([...this.rows].reverse());
    setText(byId("tap-run"), this.wants ? "Stop" : "Start");
    for (const name of ["pod", "service", "method", "status", "headers"]) byId(`tap-${name}`).disabled = this.wants;
    byId("tap-clear").disabled = this.seen === 0;
    const [state, mood] = this.state();
    const parts = [state];
    if (this.seen > 0 || this.wants) parts.push(`${count(this.seen)} calls seen, ${count(this.failed)} of them failed`);
    if (this.seen > MOST_ROWS) parts.push(`the newest ${MOST_ROWS} are kept`);
    if (this.dropped > 0) parts.push(`${count(this.dropped)} more ended too fast to be told`);
    setText(byId("tap-state"), `${parts.join("; ")}.`);
    set(byId("tap-state"), { class: mood });
  }

  state() {
    if (this.wants) return this.held ? ["Waits until somebody looks", "odd"] : ["Runs", "good"];
    return this.because ?? ["Not running", ""];
  }
}
