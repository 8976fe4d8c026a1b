// @ts-check
// What keys do on the page of a tree: the same letters as in `claude-jobs top`.

import { toast } from "./dialogs.js";
import { stateOf } from "./format.js";
import * as steer from "./steer.js";

/** @typedef {import("./jobs.js").Node} Node */

/**
 * What keys have the page do.
 *
 * @typedef {object} Doing
 * @property {(node: Node) => void} open Shows a job beside the rows.
 * @property {(node: Node, folded: boolean) => void} fold
 * @property {(node: Node) => void} show Selects a job, with everything above it open.
 * @property {() => boolean} leave Leaves the job beside the rows, else the filter; tells whether there was one.
 */

/** @type {Record<string, (node: Node) => unknown>} */
const STEERING = {
  k: steer.kill,
  K: steer.kill,
  r: steer.retry,
  s: steer.send,
  m: steer.send,
  p: steer.pause,
  y: (node) => steer.copy(node.id, "the id"),
};

export class TreeKeys {
  #jobs;
  #grid;
  #head;
  #doing;

  /**
   * @param {import("./jobs.js").JobTree} jobs
   * @param {import("./tree-grid.js").TreeGrid} grid
   * @param {import("./tree-head.js").TreeHead} head
   * @param {Doing} doing
   */
  constructor(jobs, grid, head, doing) {
    this.#jobs = jobs;
    this.#grid = grid;
    this.#head = head;
    this.#doing = doing;
  }

  /**
   * Does what a key means.
   *
   * @param {KeyboardEvent} event
   * @returns {boolean} Whether it means something.
   */
  use(event) {
    const { rows } = this.#grid;
    const node = rows.selectedItem;
    const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (isPlain && (this.#always(event.key, node) || this.#steer(event.key, node))) return true;
    if (event.key === "Escape") return this.#doing.leave();
    const target = /** @type {Element} */ (event.target);
    // Arrows elsewhere scroll what has the focus, and enter presses a button.
    if (target !== document.body && target !== rows.element && target.id !== "view") return false;
    return rows.key(event) || (isPlain && node !== null && this.#walk(event.key, node));
  }

  /**
   * @param {string} key
   * @param {Node | null} node
   */
  #always(key, node) {
    const { timeline } = this.#grid;
    if (key === "+" || key === "=") timeline.zoom(1.6);
    else if (key === "-") timeline.zoom(1 / 1.6);
    else if (key === "0") timeline.fit();
    else if (key === "c") this.#head.showCritical(this.#grid.toggleCritical());
    else if (key === "a") this.#answer(node);
    else return false;
    return true;
  }

  /**
   * @param {string} key
   * @param {Node | null} node
   */
  #steer(key, node) {
    if (!node || !Object.hasOwn(STEERING, key)) return false;
    STEERING[key](node);
    return true;
  }

  /**
   * @param {string} key
   * @param {Node} node
   */
  #walk(key, node) {
    const isOpen = this.#jobs.isOpen(node);
    if (key === "Enter") this.#doing.open(node);
    else if (key === " ") {
      if (node.width) this.#doing.fold(node, isOpen);
    } else if (key === "ArrowRight" || key === "l") this.#into(node, isOpen);
    else if (key === "ArrowLeft" || key === "h") this.#out(node, isOpen);
    else return false;
    return true;
  }

  /**
   * @param {Node} node
   * @param {boolean} isOpen
   */
  #into(node, isOpen) {
    if (isOpen) this.#grid.rows.select(node.children[0].id);
    else if (node.width) this.#doing.fold(node, false);
  }

  /**
   * @param {Node} node
   * @param {boolean} isOpen
   */
  #out(node, isOpen) {
    if (isOpen && !this.#jobs.isFiltered) this.#doing.fold(node, true);
    else if (node.parent) this.#grid.rows.select(node.parent.id);
  }

  /**
   * Shows what the selected job asks for; where it asks for nothing, what the first one does.
   *
   * @param {Node | null} node
   */
  #answer(node) {
    const isAsking = node?.row && stateOf(node.row) === "asking";
    const asking = isAsking ? node : this.#jobs.asking()[0];
    if (!asking) {
      toast("No job asks for a permission.");
      return;
    }
    this.#doing.show(asking);
    steer.answer(null, asking);
  }
}
