// @ts-check
// All trees, the newest first: what they are, how their jobs stand, what they cost.

import { CountedStates, ProportionBar, countsOfTree, heldBack, stateOfMany, titleOfTree } from "./counts.js";
import { el, fill, setText, setTo } from "./dom.js";
import { Feed } from "./feed.js";
import { factsOfTree, parse } from "./filter.js";
import { ago, clock, counted, duration, money, oneLine, symbol } from "./format.js";
import { Rows } from "./rows.js";

/** @typedef {Record<string, any>} Tree A tree's row of the feed. */
/** @typedef {import("./main.js").Shell} Shell */

export class TreesPage {
  /** @type {Feed | null} */
  #feed = null;
  /** @type {Map<string, Tree>} */
  #trees = new Map();
  /** @type {Map<string, Tree> | null} */
  #arriving = null;
  /** @type {import("./filter.js").Matches | null} */
  #matches = null;
  #filter = "";
  #ahead = 0;
  #ticker = 0;
  #isComplete = false;

  /**
   * @param {HTMLElement} host
   * @param {Shell} shell
   */
  constructor(host, shell) {
    this.shell = shell;
    this.rows = new Rows({
      label: "Trees of jobs",
      role: "grid",
      idPrefix: "tree-",
      keyOf: (/** @type {Tree} */ tree) => tree.rootId,
      make: makeRow,
      draw: (row, tree) => this.#draw(row, tree),
      height: () => (matchMedia("(max-width: 700px)").matches ? 88 : 58),
      onOpen: (tree) => shell.go(`#/tree/${tree.rootId}`),
    });
    this.held = el("div", { class: "held", role: "status", hidden: true });
    this.empty = el("div", { class: "empty", text: "Reading the trees …" });
    this.head = el(
      "div",
      { class: "trees-head tree-line", "aria-hidden": "true" },
      el("div", { class: "head-tree", text: "Tree" }),
      el("div", { text: "Jobs" }),
      el("div", { class: "num", text: "Cost" }),
      el("div", { class: "num", text: "Time" }),
      el("div", { class: "num", text: "Begun" }),
    );
    this.list = el("div", { class: "trees-list", hidden: true }, this.head, this.rows.element);
    fill(host, el("h1", { class: "sr-only", text: "Trees" }), this.held, this.list, this.empty);
  }

  show() {
    this.shell.title("");
    this.shell.setFilter(this.#filter);
    if (!this.#feed) {
      const onState = this.shell.connection;
      this.#feed = new Feed({ trees: true, onPage: (page) => this.#take(page), onState });
    }
    clearInterval(this.#ticker);
    this.#ticker = setInterval(() => !document.hidden && this.rows.draw(), 1000);
    if (this.#isComplete) this.#arrange();
  }

  hide() {
    this.#feed?.close();
    this.#feed = null;
    clearInterval(this.#ticker);
  }

  #now() {
    return Date.now() / 1000 + this.#ahead;
  }

  /** @param {any} page */
  #take(page) {
    this.#ahead = page.now - Date.now() / 1000;
    if (page.reset) this.#arriving = new Map();
    const into = this.#arriving ?? this.#trees;
    for (const tree of page.trees) into.set(tree.rootId, tree);
    for (const rootId of page.gone) into.delete(rootId);
    if (page.more) return;
    if (this.#arriving) [this.#trees, this.#arriving] = [this.#arriving, null];
    this.#isComplete = true;
    const held = heldBack(page);
    this.held.hidden = !held;
    setText(this.held, held);
    this.#arrange();
  }

  #arrange() {
    const now = this.#now();
    const newest = [...this.#trees.values()].sort(
      (one, other) => (other.createdAt ?? 0) - (one.createdAt ?? 0),
    );
    const matches = this.#matches;
    const shown = matches ? newest.filter((tree) => matches(factsOfTree(tree, now))) : newest;
    this.list.hidden = !shown.length;
    this.empty.hidden = Boolean(shown.length);
    if (!shown.length) fill(this.empty, this.#nothing());
    this.rows.set(shown, { keepsTop: true });
    this.shell.asks(newest.reduce((sum, tree) => sum + (tree.asking ?? 0), 0));
    const { offsetWidth, clientWidth } = this.rows.element;
    this.head.style.setProperty("--bar-room", `${offsetWidth - clientWidth}px`);
    if (this.#isComplete && document.activeElement === document.body)
      this.rows.element.focus({ preventScroll: true });
  }

  #nothing() {
    if (this.#trees.size) {
      return [
        el("h2", { text: "No tree matches" }),
        el("p", { text: `Esc in the filter shows all ${this.#trees.size} again.` }),
      ];
    }
    return [
      el("h2", { text: "No jobs yet" }),
      el("p", { text: "Start one in a terminal; it appears here by itself." }),
      el("pre", {
        text: 'claude-jobs run "Say what this project does"\nclaude-jobs batch "Review a.py" "Review b.py"',
      }),
      el("p", { text: "Or say to Claude Code: use claude-jobs to …" }),
      el("p", {}, el("code", { text: "claude-jobs demo --slow" }), " plays a tree without an account."),
    ];
  }

  /** @param {string} text */
  filter(text) {
    this.#filter = text;
    this.#matches = parse(text);
    this.#arrange();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const target = /** @type {Element} */ (event.target);
    if (target !== document.body && target !== this.rows.element && target.id !== "view") return false;
    if (this.rows.key(event)) return true;
    const tree = this.rows.selectedItem;
    if (event.key === "Escape" && this.#filter) {
      this.shell.setFilter("");
      this.filter("");
    } else if (event.key === "a") {
      const asking = this.rows.items.find((one) => one.asking);
      if (asking) this.shell.go(`#/tree/${asking.rootId}`);
    } else if (tree && ["Enter", "ArrowRight", "l"].includes(event.key)) {
      this.shell.go(`#/tree/${tree.rootId}`);
    } else {
      return false;
    }
    return true;
  }

  /**
   * @param {HTMLElement} row
   * @param {Tree} tree
   */
  #draw(row, tree) {
    const cells = /** @type {Cells} */ (CELLS.get(row));
    const now = this.#now();
    const counts = countsOfTree(tree);
    const state = stateOfMany(counts);
    const title = titleOfTree(tree);
    const isOne = tree.jobs === 1;
    if (cells.mark.dataset.state !== state) {
      cells.mark.dataset.state = state;
      cells.mark.replaceChildren(symbol(state));
    }
    setText(cells.name, title);
    setTo(cells.name, "title", title.length > 40 ? title : null);
    setTo(cells.name, "href", `#/tree/${tree.rootId}`);
    setText(cells.place, placeOf(tree));
    setTo(cells.place, "title", oneLine(tree.cwd) || null);
    // Its symbol says it already.
    cells.counts.show(isOne ? {} : counts);
    cells.bar.element.hidden = isOne;
    cells.bar.show(counts);
    setText(cells.cost, money(tree.costUsd) || "–");
    setText(cells.budget, tree.maxBudgetUsd ? `of ${money(tree.maxBudgetUsd)}` : "");
    setText(cells.time, tree.createdAt ? duration((tree.endedAt ?? now) - tree.createdAt) : "–");
    setText(cells.begun, tree.createdAt ? ago(tree.createdAt, now) : "");
    setTo(cells.begun, "title", tree.createdAt ? clock(tree.createdAt, now) : null);
    cells.ask.hidden = !tree.asking;
    if (tree.asking) setText(cells.ask, `asks you${tree.asking > 1 ? ` ${tree.asking} times` : ""}`);
  }
}

/**
 * Returns where a tree works, by the end of its path, and how many jobs it has.
 *
 * @param {Tree} tree
 */
function placeOf(tree) {
  const parts = oneLine(tree.cwd).split("/").filter(Boolean);
  const place = parts.length > 3 ? `…/${parts.slice(-3).join("/")}` : `/${parts.join("/")}`;
  return [tree.cwd ? place : "", tree.jobs ? counted(tree.jobs, "job") : "", oneLine(tree.client)]
    .filter(Boolean)
    .join(" · ");
}

/**
 * @typedef {Record<"mark" | "name" | "place" | "cost" | "budget" | "time" | "begun" | "ask", HTMLElement> &
 *   {counts: CountedStates, bar: ProportionBar}} Cells
 */

/** @type {WeakMap<HTMLElement, Cells>} */
const CELLS = new WeakMap();

function makeRow() {
  /** @type {Cells} */
  const cells = {
    mark: el("span", { class: "mark" }),
    name: el("a", { class: "name job-text", tabindex: "-1" }),
    place: el("div", { class: "place job-text" }),
    counts: new CountedStates(),
    bar: new ProportionBar(),
    cost: el("b", {}),
    budget: el("span", { class: "dim" }),
    time: el("div", { class: "time num", role: "gridcell" }),
    begun: el("div", { class: "begun num dim", role: "gridcell" }),
    ask: el("span", { class: "ask-flag" }),
  };
  const row = el(
    "div",
    { class: "tree-line" },
    el(
      "div",
      { class: "tree", role: "gridcell" },
      cells.mark,
      el(
        "div",
        { class: "tree-names" },
        el("div", { class: "tree-title" }, cells.name, cells.ask),
        cells.place,
      ),
    ),
    el("div", { class: "states", role: "gridcell" }, cells.counts.element, cells.bar.element),
    el("div", { class: "cost num", role: "gridcell" }, cells.cost, cells.budget),
    cells.time,
    cells.begun,
  );
  CELLS.set(row, cells);
  return row;
}
