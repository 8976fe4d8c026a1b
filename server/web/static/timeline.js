// @ts-check
// The times of jobs as bars on a scale: which parts a job's time has, which jobs decided the end, where ticks stand.

import { duration, inWords, isLive } from "./format.js";

/** @typedef {import("./jobs.js").Node} Node */

/**
 * A part of a job's time. Times are in seconds since the epoch.
 *
 * @typedef {object} Part
 * @property {"queued" | "paused" | "working" | "children" | "permission"} what
 * @property {"running" | "completed" | "failed" | "cancelled"} how What became of its attempt.
 * @property {number} from
 * @property {number} to
 * @property {number} attempt Its number; 0 outside of attempts.
 * @property {string} reason Why the attempt ended.
 * @property {boolean} isOpen Whether it goes on.
 */

const ENDED_WELL = new Set(["completed", "completed_with_denials"]);
const CUT_OFF = new Set(["cancelled", "interrupted", "dependency_failed"]);

/**
 * Returns the parts of a job's time, in their order.
 *
 * @param {Node} node
 * @param {number} now Seconds since the epoch.
 * @param {[number, number | null, string][]} pauses From, to and path, of the tree.
 * @returns {Part[]}
 */
export function partsOf(node, now, pauses) {
  const row = node.row;
  if (!row) return [];
  /** @type {Part[]} */
  const parts = [];
  const attempts = attemptsOf(row);
  let reached = row.createdAt ?? attempts[0]?.from ?? now;
  let last = null;
  for (const attempt of attempts) {
    parts.push(...idle(node, reached, attempt.from, last, pauses, false));
    parts.push(...partsOfAttempt(attempt, now, row));
    reached = attempt.to ?? now;
    last = attempt;
  }
  if (row.status === "queued") parts.push(...idle(node, reached, now, last, pauses, true));
  else if (!attempts.length && row.endedAt)
    parts.push(...idle(node, reached, row.endedAt, null, pauses, false));
  return parts.filter((part) => part.to > part.from || part.isOpen);
}

/** @param {Record<string, any>} row */
function attemptsOf(row) {
  if (row.attempts?.length) return row.attempts;
  if (!row.startedAt) return [];
  return [
    { number: row.attempt, from: row.startedAt, to: row.endedAt, status: row.status, reason: row.reason },
  ];
}

/**
 * @param {Record<string, any>} attempt
 * @param {number} now
 * @param {Record<string, any>} row
 * @returns {Part[]}
 */
function partsOfAttempt(attempt, now, row) {
  const isOpen = attempt.to === undefined && isLive(row);
  const to = attempt.to ?? (isOpen ? now : (row.endedAt ?? now));
  const shared = {
    how: isOpen ? "running" : fate(attempt),
    attempt: attempt.number,
    reason: attempt.reason ?? "",
  };
  /** @type {Part[]} */
  const parts = [];
  let reached = attempt.from;
  for (const [what, from, until] of attempt.waits ?? []) {
    const [begin, end] = [Math.max(reached, from), Math.min(to, until ?? to)];
    if (end <= begin && !(isOpen && !until)) continue;
    parts.push(/** @type {Part} */ ({ ...shared, what: "working", from: reached, to: begin, isOpen: false }));
    parts.push(/** @type {Part} */ ({ ...shared, what, from: begin, to: end, isOpen: isOpen && !until }));
    reached = end;
  }
  const goesOn = isOpen && !parts.at(-1)?.isOpen;
  parts.push(/** @type {Part} */ ({ ...shared, what: "working", from: reached, to, isOpen: goesOn }));
  return parts.filter((part) => part.to > part.from || part.isOpen);
}

/**
 * Tells what became of an attempt that is over.
 *
 * @param {Record<string, any>} attempt
 */
function fate(attempt) {
  if (ENDED_WELL.has(attempt.reason) || (attempt.status === "completed" && !attempt.reason))
    return "completed";
  if (attempt.status === "completed") return "completed";
  return CUT_OFF.has(attempt.reason) || attempt.status === "cancelled" ? "cancelled" : "failed";
}

/**
 * Returns the parts of a time in which a job waits for its next attempt.
 *
 * @param {Node} node
 * @param {number} from
 * @param {number} to
 * @param {Record<string, any> | null} last The attempt before, if any.
 * @param {[number, number | null, string][]} pauses
 * @param {boolean} isOpen
 * @returns {Part[]}
 */
function idle(node, from, to, last, pauses, isOpen) {
  // After an answer that asks for subtasks a job is queued until these are over.
  const divided = last && ENDED_WELL.has(last.reason) ? "children" : "queued";
  /** @type {Part[]} */
  const parts = [];
  /** @param {Part["what"]} what @param {number} begin @param {number} end */
  const put = (what, begin, end) => {
    if (end <= begin) return;
    parts.push({
      what,
      how: "running",
      from: begin,
      to: end,
      attempt: 0,
      reason: "",
      isOpen: isOpen && end >= to,
    });
  };
  let reached = from;
  for (const [begin, end] of pausesOf(node, pauses, to)) {
    put(divided, reached, Math.min(begin, to));
    put("paused", Math.max(begin, reached), Math.min(end, to));
    reached = Math.max(reached, Math.min(end, to));
  }
  put(divided, reached, to);
  return parts;
}

/**
 * Returns the pauses of a job and of what is above it, joined and in their order.
 *
 * @param {Node} node
 * @param {[number, number | null, string][]} pauses
 * @param {number} open The end of those that have none.
 */
function pausesOf(node, pauses, open) {
  if (!pauses.length) return [];
  const above = new Set([""]);
  for (let one = /** @type {Node | null} */ (node); one; one = one.parent) above.add(one.id);
  const held = pauses
    .filter(([, , path]) => above.has(path.split("/").at(-1) ?? ""))
    .map(([from, to]) => /** @type {[number, number]} */ ([from, to ?? open]))
    .sort((one, other) => one[0] - other[0]);
  /** @type {[number, number][]} */
  const joined = [];
  for (const [from, to] of held) {
    const last = joined.at(-1);
    if (last && from <= last[1]) last[1] = Math.max(last[1], to);
    else joined.push([from, to]);
  }
  return joined;
}

/** @type {Record<string, string>} */
const WHAT = {
  queued: "queued",
  paused: "paused",
  children: "waited for its jobs",
  permission: "waited for a permission",
};

/** @type {Record<string, string>} */
const OPEN = {
  ...WHAT,
  children: "waits for its jobs",
  permission: "waits for a permission",
  working: "runs",
};

/**
 * Returns what a part is, in words.
 *
 * @param {Part} part
 */
export function inWordsOf(part) {
  if (part.isOpen) return OPEN[part.what];
  return WHAT[part.what] ?? "ran";
}

/**
 * Returns a job's time in one sentence, for those who do not see the bars.
 *
 * @param {Part[]} parts
 */
export function toldOf(parts) {
  /** @type {string[]} */
  const said = [];
  for (const [at, part] of parts.entries()) {
    const isLast = part.attempt && parts[at + 1]?.attempt !== part.attempt && part.how !== "running";
    const end = isLast
      ? `, ${part.how}${part.how === "failed" && part.reason ? `: ${inWords(part.reason)}` : ""}`
      : "";
    said.push(`${inWordsOf(part)} ${duration(part.to - part.from)}${end}`);
  }
  return said.join("; ");
}

/** The last moment of a job, or infinity where it is not over. @param {Node} node */
function endOf(node) {
  if (!node.row) return 0;
  return isLive(node.row) ? Infinity : (node.row.endedAt ?? 0);
}

/**
 * Returns the jobs that decided when a tree ends: of each parent the child that ends last, and before each job the
 * dependency that it waited for longest, or the job whose end let the parent submit it.
 *
 * @param {Node | null} root
 * @returns {{ids: Set<string>, links: {from: string, to: string, at: number}[]}} `links`: at `at`, in seconds since the
 *   epoch, the end of `from` let `to` begin or go on.
 */
export function criticalPath(root) {
  /** @type {Set<string>} */
  const ids = new Set();
  /** @type {{from: string, to: string, at: number}[]} */
  const links = [];
  const pending = root ? [root] : [];
  while (pending.length) {
    const node = /** @type {Node} */ (pending.pop());
    ids.add(node.id);
    let child = lastOf(node.children);
    // A child that outlives its parent let nothing go on there.
    if (child && node.row && endOf(child) <= endOf(node)) links.push({ from: child.id, to: node.id, at: endOf(child) });
    while (child && !ids.has(child.id)) {
      pending.push(child);
      const before = beforeOf(child, node);
      if (before) links.push({ from: before.id, to: child.id, at: endOf(before) });
      ids.add(child.id);
      child = before;
    }
  }
  return { ids, links };
}

/** @param {Node[]} nodes */
function lastOf(nodes) {
  let last = /** @type {Node | null} */ (null);
  for (const node of nodes) if (last === null || isLater(node, last)) last = node;
  return last;
}

/**
 * Tells whether a job ends after another one. Of two that are not over, it is the one that waits for others of its
 * batch, else one that has not begun, else the one that began first.
 *
 * @param {Node} node
 * @param {Node} other
 */
function isLater(node, other) {
  if (endOf(node) !== Infinity || endOf(other) !== Infinity) return endOf(node) > endOf(other);
  const [waits, otherWaits] = [node, other].map((one) => one.row?.waitingFor === "siblings");
  if (waits !== otherWaits) return waits;
  return (node.row?.startedAt ?? 0) < (other.row?.startedAt ?? 0);
}

/**
 * Returns the job beside another one whose end let it begin, or null.
 *
 * @param {Node} node
 * @param {Node} parent
 */
function beforeOf(node, parent) {
  const wanted = new Set(node.row?.dependsOn ?? []);
  if (wanted.size) return lastOf(parent.children.filter((one) => wanted.has(one.id)));
  const begun = node.row?.createdAt ?? 0;
  const waits = (parent.row?.attempts ?? []).flatMap((/** @type {any} */ attempt) => attempt.waits ?? []);
  const wait = waits.findLast(
    (/** @type {any} */ [what, , to]) => what === "children" && to && to <= begun + 1,
  );
  if (!wait) return null;
  return lastOf(
    parent.children.filter((one) => one !== node && endOf(one) <= wait[2] + 1 && endOf(one) >= wait[1]),
  );
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400];
const FIVE_DAYS = 432_000;

/** Where times are on a line: from `from` to `to`, in seconds since `zero`, over `width` pixels. */
export class Scale {
  constructor() {
    this.zero = 0;
    this.from = 0;
    this.to = 60;
    this.width = 0;
    /** Whether it shows everything that there is. */
    this.isFitted = true;
    this.#end = 60;
  }

  #end;

  /**
   * Takes in how long a tree has lasted. While it lives there is room for what comes, so that bars are not moved
   * at each second.
   *
   * @param {number} zero When the tree began, in seconds since the epoch.
   * @param {number} end When it ended, or now.
   * @param {boolean} isLive
   */
  cover(zero, end, isLive) {
    this.zero = zero;
    const lasted = Math.max(1, end - zero);
    if (!isLive) this.#end = lasted * 1.01;
    else if (lasted > this.#end * 0.98 || this.#end > lasted * 2.5) this.#end = Math.max(20, lasted * 1.3);
    if (this.isFitted) [this.from, this.to] = [0, this.#end];
  }

  /** @param {number} t Seconds since the epoch. */
  x(t) {
    return ((t - this.zero - this.from) / (this.to - this.from)) * this.width;
  }

  /** @param {number} x Pixels. Returns seconds since the epoch. */
  at(x) {
    return this.zero + this.from + (x / this.width) * (this.to - this.from);
  }

  fit() {
    this.isFitted = true;
    [this.from, this.to] = [0, this.#end];
  }

  /**
   * Shows a part of the time.
   *
   * @param {number} from Seconds since `zero`.
   * @param {number} to Seconds since `zero`.
   */
  show(from, to) {
    const span = Math.min(this.#end, Math.max(1, to - from));
    this.from = Math.min(Math.max(0, from), this.#end - span);
    this.to = this.from + span;
    this.isFitted = span >= this.#end * 0.999;
  }

  /**
   * @param {number} factor Above 1 shows less time.
   * @param {number} [x] The place that stays, in pixels.
   */
  zoom(factor, x = this.width / 2) {
    const fixed = this.at(x) - this.zero;
    this.show(fixed - (fixed - this.from) / factor, fixed + (this.to - fixed) / factor);
  }

  /** @param {number} pixels */
  pan(pixels) {
    if (this.isFitted) return;
    const moved = (pixels / this.width) * (this.to - this.from);
    this.show(this.from + moved, this.to + moved);
  }

  /**
   * Returns where ticks stand, and what they say.
   *
   * @returns {{x: number, label: string}[]}
   */
  ticks() {
    const span = this.to - this.from;
    const room = Math.max(1, Math.floor(this.width / 72));
    const step = STEPS.find((one) => span / one <= room) ?? Math.ceil(span / room / FIVE_DAYS) * FIVE_DAYS;
    const ticks = [];
    for (let t = Math.ceil(this.from / step) * step; t <= this.to && ticks.length < 200; t += step) {
      ticks.push({ x: this.x(this.zero + t), label: tickLabel(t, step) });
    }
    return ticks;
  }
}

/**
 * @param {number} t Seconds.
 * @param {number} step Seconds.
 */
function tickLabel(t, step) {
  if (t === 0) return "0";
  if (step >= 86_400) return `${Math.round(t / 86_400)}d`;
  if (step >= 3600)
    return t >= 86_400 ? `${Math.floor(t / 86_400)}d ${Math.round((t % 86_400) / 3600)}h` : `${t / 3600}h`;
  return duration(t);
}
