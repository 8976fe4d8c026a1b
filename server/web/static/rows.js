// @ts-check
// A list of which only the rows that are seen are elements: ten thousand scroll as twenty do.

import { el, setTo } from "./dom.js";

/** Rows above and below those that are seen. */
const SPARE = 6;

/**
 * @template T
 * @typedef {object} RowsOptions
 * @property {string} label What the list is, for a screen reader.
 * @property {string} role `treegrid` or `grid`.
 * @property {string} idPrefix Goes before a key in the id of its row.
 * @property {(item: T) => string} keyOf
 * @property {() => HTMLElement} make Makes a row; it is used for one item after the other.
 * @property {(row: HTMLElement, item: T, index: number) => void} draw
 * @property {() => number} height Of a row, in pixels.
 * @property {() => string | null} [preferred] Key of what is selected where nothing is, unless it is null.
 * @property {(item: T | null) => void} [onSelect]
 * @property {(item: T) => void} [onOpen] Enter, or a click.
 */

/** @type {Record<string, number>} Keys that lead to the first and to the last row. */
const ENDS = { Home: -Infinity, g: -Infinity, End: Infinity, G: Infinity };

/** @template T */
export class Rows {
  /** @type {T[]} */
  #items = [];
  /** @type {Map<string, number>} */
  #indexes = new Map();
  /** @type {HTMLElement[]} A row stands in the place of its index modulo their number. */
  #pool = [];
  /** @type {(string | null)[]} The key of what each of them shows. */
  #shown = [];
  #frame = 0;
  #hovered = "";
  #height = 0;
  #options;

  /** @param {RowsOptions<T>} options */
  constructor(options) {
    this.#options = options;
    /** @type {string | null} Key of the selected item. */
    this.selected = null;
    this.space = el("div", { class: "rows-space", role: "presentation" });
    /** @type {HTMLElement} */
    this.element = el(
      "div",
      { class: "rows", role: options.role, "aria-label": options.label, tabindex: "0", "data-focus": true },
      this.space,
    );
    /** Called once the rows of another place are drawn. */
    this.onScroll = () => {};
    this.element.addEventListener("scroll", () => this.#soon(), { passive: true });
    this.element.addEventListener("pointermove", (event) => this.#hover(event), { passive: true });
    this.element.addEventListener("pointerleave", () => (this.#hovered = ""));
    this.element.addEventListener("click", (event) => this.#click(event));
    this.element.addEventListener("focus", () => this.#focused());
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  get items() {
    return this.#items;
  }

  /** @returns {T | null} */
  get selectedItem() {
    const index = this.indexOf(this.selected);
    return index < 0 ? null : this.#items[index];
  }

  /** @param {string | null} key */
  indexOf(key) {
    return key === null ? -1 : (this.#indexes.get(key) ?? -1);
  }

  /** In pixels. */
  get rowHeight() {
    return this.#height;
  }

  /** The indexes of the first and the last row that are seen. */
  get seen() {
    const { scrollTop, clientHeight } = this.element;
    return [Math.floor(scrollTop / this.#height), Math.floor((scrollTop + clientHeight) / this.#height)];
  }

  /** Whether the rows begin above the first one that is seen. */
  get isScrolled() {
    return this.element.scrollTop > 0;
  }

  /**
   * Takes the items to show. What the person looks at stays where it is.
   *
   * @param {T[]} items
   * @param {{keepsTop?: boolean}} [how] `keepsTop`: what is new at the top is not hidden above.
   */
  set(items, { keepsTop = false } = {}) {
    const anchor = this.#anchor(keepsTop);
    const before = this.indexOf(anchor);
    this.#items = items;
    this.#indexes = new Map(items.map((item, index) => [this.#options.keyOf(item), index]));
    setTo(this.element, "aria-rowcount", items.length);
    this.#stretch();
    const after = this.indexOf(anchor);
    if (before >= 0 && after >= 0 && before !== after) {
      this.element.scrollTop += (after - before) * this.#height;
    }
    this.draw();
  }

  /** @param {boolean} keepsTop */
  #anchor(keepsTop) {
    if (this.indexOf(this.#hovered) >= 0) return this.#hovered;
    if (
      this.selected &&
      this.#isSeen(this.indexOf(this.selected)) &&
      document.activeElement === this.element
    ) {
      return this.selected;
    }
    if (keepsTop && !this.isScrolled) return null;
    const first = this.#items[Math.ceil(this.element.scrollTop / (this.#height || 1))];
    return first === undefined ? null : this.#options.keyOf(first);
  }

  /** @param {number} index */
  #isSeen(index) {
    const top = index * this.#height;
    const { scrollTop, clientHeight } = this.element;
    return index >= 0 && top + this.#height > scrollTop && top < scrollTop + clientHeight;
  }

  #stretch() {
    this.#height = this.#options.height();
    this.space.style.height = `${this.#items.length * this.#height}px`;
  }

  #soon() {
    this.#frame ||= requestAnimationFrame(() => {
      this.draw();
      this.onScroll();
    });
  }

  /** Draws the rows that are seen. */
  draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    if (this.#height !== this.#options.height()) this.#stretch();
    const seen = Math.ceil(this.element.clientHeight / this.#height) + 1;
    const size = Math.min(this.#items.length, seen + 2 * SPARE);
    this.#fitPool(size);
    const top = Math.floor(this.element.scrollTop / this.#height) - SPARE;
    const first = Math.max(0, Math.min(top, this.#items.length - size));
    for (let index = first; index < first + size; index += 1) this.#drawAt(index, size);
    const active =
      this.indexOf(this.selected) >= 0 ? this.#idOf(/** @type {string} */ (this.selected)) : null;
    setTo(this.element, "aria-activedescendant", active && document.getElementById(active) ? active : null);
  }

  /** @param {number} size */
  #fitPool(size) {
    if (size === this.#pool.length) return;
    while (this.#pool.length < size) {
      const row = this.#options.make();
      row.setAttribute("role", "row");
      this.#pool.push(row);
      this.space.append(row);
    }
    for (const row of this.#pool.splice(size)) row.remove();
    this.#shown = [];
  }

  /**
   * @param {number} index
   * @param {number} size
   */
  #drawAt(index, size) {
    const row = this.#pool[index % size];
    const item = this.#items[index];
    const key = this.#options.keyOf(item);
    if (this.#shown[index % size] !== key) {
      this.#shown[index % size] = key;
      row.id = this.#idOf(key);
    }
    row.style.transform = `translateY(${index * this.#height}px)`;
    row.style.height = `${this.#height}px`;
    setTo(row, "aria-rowindex", index + 1);
    setTo(row, "aria-selected", String(key === this.selected));
    this.#options.draw(row, item, index);
  }

  /** @param {string} key */
  #idOf(key) {
    return `${this.#options.idPrefix}${key}`;
  }

  /** @param {Event} event */
  rowAt(event) {
    const row = event.target instanceof Element ? event.target.closest('[role="row"]') : null;
    const at = row === null ? -1 : this.#pool.indexOf(/** @type {HTMLElement} */ (row));
    return at < 0 ? null : (this.#shown[at] ?? null);
  }

  /** @param {PointerEvent} event */
  #hover(event) {
    // A finger that has left the screen reads no row.
    if (event.pointerType === "mouse") this.#hovered = this.rowAt(event) ?? "";
  }

  /** @param {MouseEvent} event */
  #click(event) {
    const key = this.rowAt(event);
    if (key === null || event.defaultPrevented) return;
    this.select(key);
    const item = this.selectedItem;
    if (item !== null) this.#options.onOpen?.(item);
  }

  #focused() {
    if (this.selectedItem || !this.#items.length) return;
    const first = Math.ceil(this.element.scrollTop / (this.#height || 1));
    const preferred = this.#options.preferred?.() ?? null;
    this.select(preferred ?? this.#options.keyOf(this.#items[Math.min(first, this.#items.length - 1)]));
  }

  /**
   * Selects an item.
   *
   * @param {string | null} key
   * @param {{scroll?: boolean}} [how] `scroll`: bring it into sight.
   */
  select(key, { scroll = true } = {}) {
    const isNew = key !== this.selected;
    this.selected = key;
    if (scroll) this.scrollTo(this.indexOf(key));
    this.draw();
    if (isNew) this.#options.onSelect?.(this.selectedItem);
  }

  /** @param {number} index */
  scrollTo(index) {
    if (index < 0) return;
    const { scrollTop, clientHeight } = this.element;
    const top = index * this.#height;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + this.#height > scrollTop + clientHeight)
      this.element.scrollTop = top + this.#height - clientHeight;
  }

  /**
   * Moves the selection by a key of the list.
   *
   * @param {KeyboardEvent} event
   * @returns {boolean} Whether the key was one.
   */
  key(event) {
    const page = Math.max(1, Math.floor(this.element.clientHeight / (this.#height || 1)) - 1);
    /** @type {Record<string, number>} */
    const moves = { ArrowUp: -1, ArrowDown: 1, PageUp: -page, PageDown: page, ...ENDS };
    const by = moves[event.key];
    if (by === undefined || event.altKey || event.metaKey || event.ctrlKey) return false;
    if (!this.#items.length) return true;
    const at = this.indexOf(this.selected);
    const wanted = at < 0 ? 0 : Math.min(this.#items.length - 1, Math.max(0, at + by));
    this.select(this.#options.keyOf(this.#items[wanted]));
    return true;
  }
}
