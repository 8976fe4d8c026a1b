// @ts-check
// The jobs of one tree: order, totals, what is folded and what the filter leaves. Nothing here draws.

import { factsOfJob } from "./filter.js";
import { LIVE_STATES, counted, isLive, nameOf, stateOf } from "./format.js";

/** @typedef {import("./format.js").Row} Row */
/** @typedef {import("./filter.js").Matches} Matches */

/** Jobs up to which everything is open at first; in a larger tree, as many levels as this many lines take. */
const OPEN_LINES = 200;

/** A job, or the batch at the root of a tree, which has no row. */
export class Node {
  /**
   * @param {string} id
   * @param {Row | null} row
   */
  constructor(id, row = null) {
    this.id = id;
    this.row = row;
    /** @type {Row | null} The tree's row, at its root. */
    this.tree = null;
    /** @type {Node | null} */
    this.parent = null;
    /** @type {Node[]} In the order of their submission. */
    this.children = [];
    this.depth = 0;
    /** @type {Record<string, number>} Jobs at and below it by state. */
    this.counts = {};
    this.cost = 0;
    /** Number of jobs right below it, also of those that are not loaded. */
    this.width = 0;
  }

  /** Number of jobs at and below it. */
  get total() {
    return Object.values(this.counts).reduce((sum, count) => sum + count, 0);
  }

  /** Number of jobs at and below it that are not over. */
  get live() {
    return LIVE_STATES.reduce((sum, state) => sum + (this.counts[state] ?? 0), 0);
  }

  /** Number of jobs at and below it that ask for a permission. */
  get asking() {
    return this.counts.asking ?? 0;
  }

  get isPaused() {
    return Boolean((this.row ?? this.tree ?? {}).paused);
  }

  /** Whether the jobs right below it are known. */
  get isLoaded() {
    return this.children.length >= this.width;
  }

  get name() {
    return this.row ? nameOf(this.row) : `batch, ${counted(this.total, "job")} in all`;
  }

  /** What `doing` needs beside the row. @returns {import("./format.js").Around} */
  get around() {
    return {
      children: this.width,
      live: this.isLoaded
        ? this.children.filter((child) => child.live).length
        : this.live - (isLive(this.row ?? {}) ? 1 : 0),
      names: (ids) => {
        const beside = this.parent?.children ?? [];
        return beside
          .filter((one) => ids.includes(one.id) && one.row && isLive(one.row))
          .map((one) => one.name);
      },
    };
  }

  /** When it began and when it ended, in seconds since the epoch; null where it has not. */
  get times() {
    if (this.row) return [this.row.startedAt ?? null, this.row.endedAt ?? null];
    return [this.tree?.createdAt ?? null, this.live ? null : (this.tree?.endedAt ?? null)];
  }
}

export class JobTree {
  /** @type {Map<string, Row>} */
  #rows = new Map();
  /** @type {Map<string, Row> | null} What arrives after a reset, until it is complete. */
  #arriving = null;
  /** @type {Map<string, Node>} */
  #nodes = new Map();
  /** @type {Map<string, boolean>} */
  #folded = new Map();
  #openDepth = Infinity;
  #hasShape = false;
  /** @type {Matches | null} */
  #matches = null;

  /** @param {string} rootId */
  constructor(rootId) {
    this.rootId = rootId;
    /** @type {Row | null} */
    this.tree = null;
    /** @type {Node | null} */
    this.root = null;
    /** @type {Node[]} The nodes that have a line. */
    this.lines = [];
    /** Seconds since the epoch by the engine's clock, less those of this browser. */
    this.clockAhead = 0;
    this.isComplete = false;
    /** Whether it was pruned while it was open. */
    this.isGone = false;
    /** @type {Set<Node>} Jobs that the filter matches, without those that are shown for being above them. */
    this.found = new Set();
    /** @type {string | null} The first of them. */
    this.firstFound = null;
  }

  /** Seconds since the epoch by the engine's clock. */
  now() {
    return Date.now() / 1000 + this.clockAhead;
  }

  /**
   * Takes in a page of the feed.
   *
   * @param {any} page
   * @returns {boolean} Whether there is something new to show.
   */
  apply(page) {
    this.clockAhead = page.now - Date.now() / 1000;
    if (page.reset) this.#arriving = new Map();
    const into = this.#arriving ?? this.#rows;
    for (const row of page.jobs) into.set(row.jobId, row);
    this.tree = page.trees.find((/** @type {Row} */ tree) => tree.rootId === this.rootId) ?? this.tree;
    if (page.gone.includes(this.rootId)) this.#forget();
    else if (page.jobs.length) this.isGone = false;
    if (page.more) return false;
    if (this.#arriving) {
      // What was shown stays until all of it is there again.
      this.#rows = this.#arriving;
      this.#arriving = null;
    }
    this.isComplete = true;
    this.arrange();
    return true;
  }

  /** Takes in that the tree was pruned. */
  #forget() {
    this.isGone = true;
    this.#rows.clear();
    this.#arriving = null;
    this.tree = null;
  }

  /** Builds the nodes from the rows. */
  arrange() {
    const ordered = [...this.#rows.values()].sort((one, other) => (one.order ?? 0) - (other.order ?? 0));
    const isSame =
      ordered.length === this.#nodes.size - (this.root?.row ? 0 : 1) &&
      ordered.every((row) => this.#nodes.has(row.jobId));
    if (isSame && this.root) {
      for (const row of ordered) /** @type {Node} */ (this.#nodes.get(row.jobId)).row = row;
    } else {
      this.#build(ordered);
    }
    if (!this.root) return;
    this.root.tree = this.tree;
    for (const row of ordered.reverse()) sumUp(/** @type {Node} */ (this.#nodes.get(row.jobId)));
    if (!this.root.row) sumUp(this.root);
    if (!this.#hasShape) this.#shape();
    if (!isSame || this.#matches) this.choose();
  }

  /** @param {Row[]} ordered */
  #build(ordered) {
    const before = this.#nodes;
    this.#nodes = new Map();
    this.root = null;
    const isBatch = !this.#rows.has(this.rootId);
    if (isBatch && (ordered.length || this.tree)) this.root = this.#take(before, this.rootId, null);
    for (const row of ordered) {
      const node = this.#take(before, row.jobId, row);
      const parent = row.jobId === this.rootId ? null : (this.#nodes.get(row.parentJobId ?? "") ?? this.root);
      if (parent && parent !== node) {
        node.parent = parent;
        node.depth = parent.depth + 1;
        parent.children.push(node);
      } else {
        this.root = node;
      }
    }
  }

  /**
   * @param {Map<string, Node>} before
   * @param {string} id
   * @param {Row | null} row
   */
  #take(before, id, row) {
    const node = before.get(id) ?? new Node(id);
    node.row = row;
    node.parent = null;
    node.children = [];
    node.depth = 0;
    this.#nodes.set(id, node);
    return node;
  }

  /** Decides once how many levels are open; what is watched never folds by itself. */
  #shape() {
    this.#hasShape = true;
    let level = this.root ? [this.root] : [];
    let lines = level.length;
    this.#openDepth = 0;
    const fits = () => lines + level.reduce((sum, node) => sum + node.width, 0) <= OPEN_LINES;
    while (level.length && level.every((node) => node.isLoaded) && fits()) {
      level = level.flatMap((node) => node.children);
      lines += level.length;
      this.#openDepth += 1;
    }
    if (!level.length) this.#openDepth = Infinity;
    if (this.root?.isLoaded) this.#openDepth ||= 1;
  }

  /**
   * Tells whether what is below a node has lines.
   *
   * @param {Node} node
   */
  isOpen(node) {
    return node.children.length > 0 && (this.isFiltered || !this.#isFolded(node));
  }

  /** @param {Node} node */
  #isFolded(node) {
    return this.#folded.get(node.id) ?? !(node.depth < this.#openDepth);
  }

  /**
   * @param {Node} node
   * @param {boolean} folded
   */
  fold(node, folded) {
    this.#folded.set(node.id, folded);
    this.choose();
  }

  /**
   * Shows only what matches and what is above it; null shows all.
   *
   * @param {Matches | null} matches
   */
  filter(matches) {
    this.#matches = matches;
    this.choose();
  }

  get isFiltered() {
    return this.#matches !== null;
  }

  /** Chooses which nodes have a line. */
  choose() {
    this.lines = [];
    this.found = new Set();
    this.firstFound = null;
    if (!this.root) return;
    const shown = this.#matches ? this.#shownByFilter(this.#matches) : null;
    const pending = [this.root];
    while (pending.length) {
      const node = /** @type {Node} */ (pending.pop());
      if (shown && !shown.has(node)) continue;
      this.lines.push(node);
      if (this.found.has(node)) this.firstFound ??= node.id;
      if (shown || !this.#isFolded(node)) {
        for (let at = node.children.length - 1; at >= 0; at -= 1) pending.push(node.children[at]);
      }
    }
  }

  /** @param {Matches} matches */
  #shownByFilter(matches) {
    /** @type {Set<Node>} */
    const shown = new Set();
    const now = this.now();
    for (const node of this.#nodes.values()) {
      if (!node.row || !matches(factsOfJob(node.row, { cost: node.cost, now, dir: this.tree?.cwd })))
        continue;
      this.found.add(node);
      for (let above = /** @type {Node | null} */ (node); above && !shown.has(above); above = above.parent)
        shown.add(above);
    }
    return shown;
  }

  /** @param {string | null | undefined} id */
  node(id) {
    return id ? (this.#nodes.get(id) ?? null) : null;
  }

  /** Every loaded node, parents first. */
  nodes() {
    return this.#nodes.values();
  }

  /** The jobs that ask for a permission, as far as they are loaded. */
  asking() {
    return [...this.#nodes.values()].filter((node) => node.row && stateOf(node.row) === "asking");
  }

  /**
   * Opens everything above a job, so that it has a line.
   *
   * @param {Node} node
   */
  reveal(node) {
    for (let above = node.parent; above; above = above.parent) {
      if (this.#isFolded(above)) this.#folded.set(above.id, false);
    }
    this.choose();
  }
}

/**
 * Adds up a node whose children are added up already.
 *
 * @param {Node} node
 */
function sumUp(node) {
  node.counts = {};
  node.cost = node.row?.costUsd ?? 0;
  node.width = Math.max(node.row?.children ?? 0, node.children.length);
  if (node.row) count(node, stateOf(node.row), 1);
  if (node.isLoaded && (node.row || node.children.length)) {
    for (const child of node.children) {
      for (const state in child.counts) count(node, state, child.counts[state]);
      node.cost += child.cost;
    }
  } else {
    const below = node.row ? node.row.below : node.tree;
    countBelow(node, below ?? {});
    node.cost += below?.costUsd ?? 0;
  }
  if (!node.row && !node.children.length) node.width = node.total;
}

/**
 * Counts what the engine says is below a node: by status, of which those that ask are told apart.
 *
 * @param {Node} node
 * @param {Row} below
 */
function countBelow(node, below) {
  for (const [state, many] of Object.entries(below.counts ?? {})) count(node, state, many);
  if (below.asking) {
    count(node, "asking", below.asking);
    count(node, "running", -below.asking);
  }
}

/**
 * @param {Node} node
 * @param {string} state
 * @param {number} many
 */
function count(node, state, many) {
  node.counts[state] = (node.counts[state] ?? 0) + many;
}
