// Tables: of pods, Services, endpoints, calls. On a narrow screen each row is a card (style.css), so the roles are said.

import { el, keyed, set, setText } from "./dom.mjs";
import { count } from "./words.mjs";

/** A browser takes its time over more rows each second. */
const MOST_ROWS = 300;

/** A cell's value: a text, or a text with what to make of it ("good", "odd", "bad"). */
const valueOf = (cell) => (typeof cell === "object" && cell !== null ? cell : { text: String(cell), mood: "" });

export class Table {
  /**
   * `columns`: { title, of(row) → cell, isNumber, isWide, isPlain }. `chosen(row)`, where there is one: what a click on the first column's name
   * chooses. `keyOf(row)`: what makes a row the same as before.
   */
  constructor(parent, { caption, empty, columns, keyOf, choose, isScrolled }) {
    Object.assign(this, { columns, keyOf, choose, emptyText: empty });
    const heads = columns.map((column) =>
      el("th", { scope: "col", role: "columnheader", class: classOf(column) }, column.title),
    );
    this.body = el("tbody", { role: "rowgroup" });
    const table = el(
      "table",
      { role: "table" },
      el("caption", { class: "unseen" }, caption),
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...heads)),
      this.body,
    );
    this.rest = el("p", { class: "muted" });
    const box = el("div", isScrolled ? { class: "table-box scrolled", tabindex: 0, role: "region", "aria-label": caption } : { class: "table-box" }, table);
    parent.append(box, this.rest);
  }

  draw(rows, hint = "") {
    const shown = rows.slice(0, MOST_ROWS);
    keyed(this.body, shown, this.keyOf, () => this.row(), (element, row) => this.update(element, row));
    const left = rows.length - shown.length;
    let rest = left > 0 ? `${count(left)} more: search for what you want to see.` : "";
    if (rows.length === 0) rest = this.emptyText;
    setText(this.rest, [rest, hint].filter(Boolean).join(" "));
  }

  row() {
    const cells = this.columns.map((column, index) => {
      const label = { "data-label": column.title, class: classOf(column) };
      if (index > 0) return el("td", { role: "cell", ...label });
      return el("th", { scope: "row", role: "rowheader", ...label }, this.choose ? el("button", { type: "button", class: "name" }) : el("span"));
    });
    return el("tr", { role: "row" }, ...cells);
  }

  update(element, row) {
    this.columns.forEach((column, index) => {
      const cell = element.children[index];
      const { text, mood } = valueOf(column.of(row));
      set(cell, { class: `${classOf(column)} ${mood}`.trim() });
      if (index > 0) {
        setText(cell, text);
        cell.classList.toggle("nothing", text === "");
        return;
      }
      const name = cell.firstElementChild;
      setText(name, text);
      if (this.choose) {
        set(name, { "aria-pressed": this.choose.isChosen(row) });
        name.onclick = () => this.choose.toggle(row);
      }
    });
  }
}

function classOf(column) {
  return [column.isNumber && "number", column.isWide && "wide", column.isPlain && "plain"].filter(Boolean).join(" ");
}
