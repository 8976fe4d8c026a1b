// @ts-check
// The rows of a tree: job, what it does now, cost, time, and the bars of its time.

import { stateOfMany } from "./counts.js";
import { el, setText, setTo } from "./dom.js";
import { counted, doing, duration, isLive, money, stateOf, symbol, wordFor, words } from "./format.js";
import { Rows } from "./rows.js";
import { criticalPath, partsOf, toldOf } from "./timeline.js";
import { TimelineView, drawBars } from "./timeline-view.js";

/** @typedef {import("./jobs.js").JobTree} JobTree */
/** @typedef {import("./jobs.js").Node} Node */

/** @param {Node} node */
function stateOfNode(node) {
  return node.row ? stateOf(node.row) : stateOfMany(node.counts);
}

/** Levels up to which a job is moved to the right. */
const DEEPEST = 12;

export class TreeGrid {
  /** @type {ReturnType<typeof criticalPath>} */
  #critical = { ids: new Set(), links: [] };
  #pauses = /** @type {[number, number | null, string][]} */ ([]);
  #options;

  /**
   * @param {JobTree} jobs
   * @param {object} options
   * @param {(node: Node) => void} options.onOpen
   * @param {(node: Node | null) => void} options.onSelect
   * @param {(node: Node) => void} options.onFold
   */
  constructor(jobs, options) {
    this.jobs = jobs;
    this.#options = options;
    this.rows = new Rows({
      label: "Jobs of this tree",
      role: "treegrid",
      idPrefix: "job-",
      keyOf: (/** @type {Node} */ node) => node.id,
      make: makeRow,
      draw: (row, node, index) => this.#draw(row, node, index),
      height: () => (matchMedia("(max-width: 700px)").matches ? 64 : 32),
      preferred: () => jobs.firstFound,
      onSelect: options.onSelect,
      onOpen: options.onOpen,
    });
    this.rows.element.addEventListener("click", (event) => this.#twist(event), { capture: true });
    this.body = el("div", { class: "grid-body" });
    this.timeline = new TimelineView({
      body: this.body,
      onChange: () => this.draw(),
      partsAt: (event) => this.#partsAt(event),
    });
    this.links = el("div", { class: "links", "aria-hidden": "true" });
    this.rows.space.append(this.links);
    this.rows.onScroll = () => this.#drawLinks();
    this.body.append(this.rows.element);
    this.head = el(
      "div",
      { class: "grid-head line", "aria-hidden": "true" },
      ["Job", "Now", "Cost", "Time"].map((name) =>
        el("div", { class: `head-${name.toLowerCase()}`, text: name }),
      ),
      this.timeline.axis,
    );
    /** @type {HTMLElement} */
    this.element = el("div", { class: "grid" }, this.head, this.body);
    new ResizeObserver(() => this.draw()).observe(this.timeline.axis);
  }

  /** Shows the jobs as they are now. */
  update() {
    this.#pauses = this.jobs.tree?.pauses ?? [];
    this.#critical = criticalPath(this.jobs.root);
    this.rows.set(this.jobs.lines);
    this.draw();
  }

  /** Draws what is seen again: times go on without a change. */
  draw() {
    const { root, tree } = this.jobs;
    if (!root || !this.element.isConnected) return;
    const now = this.jobs.now();
    const isAlive = root.live > 0;
    const scroll = this.rows.element;
    this.head.style.setProperty("--bar-room", `${scroll.offsetWidth - scroll.clientWidth}px`);
    const zero = tree?.createdAt ?? root.row?.createdAt ?? now;
    const end = isAlive ? now : (tree?.endedAt ?? root.row?.endedAt ?? now);
    this.timeline.draw({ zero, now, end, isLive: isAlive });
    this.rows.draw();
    this.#drawLinks();
  }

  /** Draws what led to what, where a part of it is seen. */
  #drawLinks() {
    const { scale } = this.timeline;
    const height = this.rows.rowHeight;
    const [first, last] = this.rows.seen;
    const left = this.timeline.plot.offsetLeft;
    let used = 0;
    for (const { from, to, at } of this.#critical.links) {
      const [above, below] = [this.rows.indexOf(from), this.rows.indexOf(to)].sort(
        (one, other) => one - other,
      );
      const x = scale.x(at);
      // What is not over has let nothing go on.
      if (at === Infinity || above < 0 || below < first || above > last || x < 0 || x > scale.width) continue;
      const link = /** @type {HTMLElement} */ (this.links.children[used] ?? this.links.appendChild(el("i")));
      used += 1;
      const [top, bottom] = [Math.max(above, first - 1), Math.min(below, last + 1)];
      link.style.transform = `translate(${(left + x).toFixed(1)}px, ${(top + 0.5) * height}px)`;
      link.style.height = `${(bottom - top) * height}px`;
    }
    while (this.links.children.length > used) /** @type {Element} */ (this.links.lastElementChild).remove();
  }

  /** Shows the critical path alone in full colour, or everything. */
  toggleCritical() {
    return this.element.classList.toggle("only-critical");
  }

  /** @param {PointerEvent} event */
  #partsAt(event) {
    const key = this.rows.rowAt(event);
    const node = key === null ? null : this.jobs.node(key);
    if (!node?.row) return null;
    return { name: node.name, parts: partsOf(node, this.jobs.now(), this.#pauses) };
  }

  /** @param {MouseEvent} event */
  #twist(event) {
    const twist = event.target instanceof Element ? event.target.closest(".twist") : null;
    const node = twist ? this.jobs.node(this.rows.rowAt(event)) : null;
    if (!node?.width) return;
    event.preventDefault();
    this.rows.select(node.id, { scroll: false });
    this.rows.element.focus({ preventScroll: true });
    this.#options.onFold(node);
  }

  /**
   * @param {HTMLElement} row
   * @param {Node} node
   * @param {number} index
   */
  #draw(row, node, index) {
    const { twist, mark, name, more, now, cost, time, bars } = cellsOf(row);
    const state = stateOfNode(node);
    const isOpen = this.jobs.isOpen(node);
    setTo(row, "aria-level", node.depth + 1);
    setTo(row, "aria-expanded", node.width ? String(isOpen) : null);
    row.dataset.state = state;
    const isCritical = this.#critical.ids.has(node.id);
    row.classList.toggle("is-critical", isCritical);
    row.classList.toggle("is-over", node.live === 0);
    row.style.setProperty("--depth", String(Math.min(node.depth, DEEPEST)));
    twist.className = node.width ? `twist ${isOpen ? "open" : "shut"}` : "twist";
    if (mark.dataset.state !== state) {
      mark.dataset.state = state;
      mark.replaceChildren(symbol(state));
    }
    setText(name, node.name);
    setTo(name, "title", node.name.length > 24 ? node.name : null);
    setText(more, node.width && !isOpen && node.row ? counted(node.total - 1, "job") : "");
    const at = this.jobs.now();
    const said = this.#said(node, at, isOpen);
    setText(now, said);
    setTo(now, "title", said.length > 20 ? said : null);
    setText(cost, money(node.cost) || "–");
    setText(time, timeOf(node, at));
    const parts = partsOf(node, at, this.#pauses);
    drawBars(bars, parts, this.timeline.scale, isCritical);
    setTo(
      bars.parentElement ?? bars,
      "aria-label",
      parts.length && this.rows.selected === node.id ? toldOf(parts) : null,
    );
  }

  /**
   * @param {Node} node
   * @param {number} now
   * @param {boolean} isOpen
   */
  #said(node, now, isOpen) {
    if (node.row && (isOpen || !node.width || !isLive(node.row) || stateOf(node.row) === "asking")) {
      return doing(node.row, now, node.around);
    }
    if (node.row && !node.live) return doing(node.row, now, node.around);
    return Object.keys(words)
      .filter((state) => node.counts[state] > 0)
      .map((state) => `${node.counts[state].toLocaleString("en-US")} ${wordFor(state, node.counts[state])}`)
      .join(", ");
  }
}

/**
 * @param {Node} node
 * @param {number} now
 */
function timeOf(node, now) {
  const [began, ended] = node.times;
  return began === null ? "–" : duration((ended ?? now) - began);
}

/** @type {WeakMap<HTMLElement, Record<string, HTMLElement>>} */
const CELLS = new WeakMap();

/** @param {HTMLElement} row */
function cellsOf(row) {
  return /** @type {Record<string, HTMLElement>} */ (CELLS.get(row));
}

function makeRow() {
  const cells = {
    twist: el("span", { class: "twist", "aria-hidden": "true" }),
    mark: el("span", { class: "mark" }),
    name: el("span", { class: "name job-text" }),
    more: el("span", { class: "more" }),
    now: el("div", { class: "now job-text", role: "gridcell" }),
    cost: el("div", { class: "cost num", role: "gridcell" }),
    time: el("div", { class: "time num", role: "gridcell" }),
    bars: el("div", { class: "bars" }),
  };
  const row = el(
    "div",
    { class: "line" },
    el(
      "div",
      { class: "job-cell", role: "gridcell" },
      el("span", { class: "indent" }),
      cells.twist,
      cells.mark,
      cells.name,
      cells.more,
    ),
    cells.now,
    cells.cost,
    cells.time,
    el("div", { class: "timeline", role: "gridcell" }, cells.bars),
  );
  CELLS.set(row, cells);
  return row;
}
