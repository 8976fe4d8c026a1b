// @ts-check
// Jobs by state: small counted symbols, and a thin bar of their proportions.

import { el, setText, setTo } from "./dom.js";
import { STATES, clock, oneLine, symbol, wordFor, words } from "./format.js";

/** @typedef {Record<string, number>} Counts */

/** Counted symbols in the order of the states; what is not there is left out. */
export class CountedStates {
  /** @type {Map<string, HTMLElement>} */
  #parts = new Map();
  #hasWords;

  /** @param {{hasWords?: boolean}} [how] */
  constructor({ hasWords = false } = {}) {
    this.#hasWords = hasWords;
    /** @type {HTMLElement} */
    this.element = el("span", { class: "counts" });
  }

  /** @param {Counts} counts */
  show(counts) {
    let place = /** @type {Element | null} */ (null);
    for (const state of STATES) {
      const part = this.#parts.get(state);
      if (!counts[state]) {
        part?.remove();
        continue;
      }
      const shown = part ?? this.#made(state);
      setText(/** @type {Node} */ (shown.querySelector("b")), counts[state].toLocaleString("en-US"));
      const word = shown.querySelector(".word");
      if (word) setText(word, ` ${wordFor(state, counts[state])}`);
      if (shown.previousElementSibling !== place || !shown.isConnected) {
        if (place) place.after(shown);
        else this.element.prepend(shown);
      }
      place = shown;
    }
  }

  /** @param {string} state */
  #made(state) {
    const part = el(
      "span",
      { class: "count", title: this.#hasWords ? null : words[state] },
      symbol(state, { hidden: this.#hasWords }),
      el("b", { class: "num" }),
      this.#hasWords ? el("span", { class: "word" }) : null,
    );
    this.#parts.set(state, part);
    return part;
  }
}

/** The states in the order of the bar: what is over, then what goes on, then what is to come. */
const BAR = [
  "completed",
  "failed",
  "timeout",
  "cancelled",
  "asking",
  "running",
  "waiting",
  "paused",
  "queued",
];

/** A thin bar with a part for each state. */
export class ProportionBar {
  constructor() {
    /** @type {HTMLElement} */
    this.element = el("span", { class: "proportion", "aria-hidden": "true" });
  }

  /** @param {Counts} counts */
  show(counts) {
    const shown = BAR.filter((state) => counts[state] > 0);
    for (const [at, state] of shown.entries()) {
      const part = /** @type {HTMLElement} */ (
        this.element.children[at] ?? this.element.appendChild(el("i"))
      );
      setTo(part, "data-state", state);
      part.style.flexGrow = String(counts[state]);
    }
    while (this.element.children.length > shown.length)
      /** @type {Element} */ (this.element.lastElementChild).remove();
  }
}

/**
 * Returns the jobs of a tree by state, of which those that ask are told apart.
 *
 * @param {Record<string, any>} tree
 * @returns {Counts}
 */
export function countsOfTree(tree) {
  const counts = { ...tree.counts };
  if (tree.asking) {
    counts.asking = tree.asking;
    counts.running = Math.max(0, (counts.running ?? 0) - tree.asking);
  }
  if (tree.paused && counts.queued) {
    counts.paused = counts.queued;
    delete counts.queued;
  }
  return counts;
}

/**
 * Returns a tree's name: the task of its root, or that of the first job of a batch and how many there are beside it.
 *
 * @param {Record<string, any>} tree
 */
export function titleOfTree(tree) {
  const title = oneLine(tree.title) || tree.rootId;
  const beside = tree.rootId.startsWith("b") ? tree.children - 1 : 0;
  return beside > 0 ? `${title} and ${beside.toLocaleString("en-US")} more` : title;
}

/** The states whose symbol a tree has: the first of them that one of its jobs is in. */
const FOR_MANY = ["asking", "running", "waiting", "paused", "queued", "failed", "timeout", "cancelled"];

/** @param {Counts} counts */
export function stateOfMany(counts) {
  return FOR_MANY.find((state) => counts[state] > 0) ?? "completed";
}

/**
 * Returns what holds jobs back, or an empty text.
 *
 * @param {any} page A page of the feed.
 */
export function heldBack(page) {
  if (page.allPaused) return "Everything is paused: no job starts before `claude-jobs resume`.";
  // One for which no job waits holds back none.
  const holding = page.pauses.filter((/** @type {any} */ pause) => pause.waiting);
  if (!holding.length) return "";
  const parts = holding
    .slice(0, 3)
    .map((/** @type {any} */ pause) => `until ${clock(pause.until, page.now)}: ${oneLine(pause.because)}`);
  const waiting = holding.reduce(
    (/** @type {number} */ sum, /** @type {any} */ pause) => sum + pause.waiting,
    0,
  );
  return `Paused ${parts.join(", ")}; ${waiting} job${waiting === 1 ? " waits" : "s wait"}.`;
}
