// @ts-check
// Words, figures and symbols for a person. The same words as in `claude-jobs top` (server/tui/cells.py).

import { svg } from "./dom.js";

/** @typedef {Record<string, any>} Row A row of the job feed. */

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86_400;

/** The character of each state, for texts; `symbol` draws them. @type {Record<string, string>} */
export const SYMBOLS = {
  asking: "?",
  running: "◐",
  waiting: "◌",
  paused: "‖",
  queued: "○",
  completed: "●",
  failed: "✗",
  timeout: "⧗",
  cancelled: "⊘",
};

/** The word for each state. @type {Record<string, string>} */
export const words = {
  asking: "asks you",
  running: "running",
  waiting: "waiting",
  paused: "paused",
  queued: "queued",
  completed: "done",
  failed: "failed",
  timeout: "timed out",
  cancelled: "cancelled",
};

/**
 * Returns the word for so many jobs in a state: "1 asks you", "2 ask you".
 *
 * @param {string} state
 * @param {number} n
 */
export function wordFor(state, n) {
  return state === "asking" && n > 1 ? "ask you" : (words[state] ?? state);
}

/** The states in the order in which they are counted. */
export const STATES = Object.keys(SYMBOLS);

/** The states of jobs that are not over. */
export const LIVE_STATES = STATES.slice(0, 5);

/** The states that a retry runs again. */
export const RETRIED = ["failed", "timeout", "cancelled"];

/** Strokes and fills of the symbols in a square of 16. @type {Record<string, string[]>} */
const SHAPES = {
  asking: ["M5.2 6.2a2.8 2.8 0 1 1 4.3 2.4c-1 .6-1.5 1.1-1.5 2.1M8 13v.01"],
  running: ["M8 2.75a5.25 5.25 0 1 0 0 10.5 5.25 5.25 0 0 0 0-10.5z", "M8 2.75a5.25 5.25 0 0 0 0 10.5z"],
  waiting: ["M8 2.75a5.25 5.25 0 1 0 0 10.5 5.25 5.25 0 0 0 0-10.5z"],
  paused: ["M5.75 3.75v8.5M10.25 3.75v8.5"],
  queued: ["M8 2.75a5.25 5.25 0 1 0 0 10.5 5.25 5.25 0 0 0 0-10.5z"],
  completed: ["M3.25 8.5l3.25 3.25 6.25-7.25"],
  failed: ["M4 4l8 8M12 4l-8 8"],
  timeout: ["M4.5 2.75h7M4.5 13.25h7M5.25 2.75c0 3.5 5.5 7 5.5 10.5M10.75 2.75c0 3.5-5.5 7-5.5 10.5"],
  cancelled: ["M8 2.75a5.25 5.25 0 1 0 0 10.5 5.25 5.25 0 0 0 0-10.5z", "M4.4 11.6l7.2-7.2"],
};

/**
 * Draws the symbol of a state. A font may lack the characters; the word is there for those who do not see it.
 *
 * @param {string} state
 * @param {{hidden?: boolean}} [how] `hidden`: the word stands beside it already.
 * @returns {SVGElement}
 */
export function symbol(state, { hidden = false } = {}) {
  const spoken = hidden ? { "aria-hidden": "true" } : { role: "img", "aria-label": words[state] ?? state };
  const paths = (SHAPES[state] ?? SHAPES.queued).map((d) => svg("path", { d }));
  return svg("svg", { class: `symbol is-${state}`, viewBox: "0 0 16 16", ...spoken }, paths);
}

// Escape sequences, then control and format characters but newline and tab, and the marks that turn the direction.
const ESCAPES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[ -/]*[0-~])?/g;
const UNSEEN = /(?![\n\t\u200c\u200d])[\p{Cc}\p{Cf}\p{Co}\p{Cs}]/gu;

/**
 * Returns a text without what a person cannot see: codes for a terminal, and characters that turn the direction.
 *
 * @param {unknown} text
 */
export function plain(text) {
  return String(text ?? "")
    .replace(ESCAPES, "")
    .replace(UNSEEN, "");
}

/**
 * Returns a text in one line.
 *
 * @param {unknown} text
 */
export function oneLine(text) {
  return plain(text).replace(/\s+/g, " ").trim();
}

/**
 * Returns US dollars: "$1.84", "$0.0042" where it is less than a cent; an empty text for nothing.
 *
 * @param {number | undefined} usd
 */
export function money(usd) {
  if (!usd || usd <= 0) return "";
  if (usd < 0.00005) return "<$0.0001";
  if (usd < 0.01) return `$${usd.toFixed(4)}`;
  return usd < 1000 ? `$${usd.toFixed(2)}` : `$${Math.round(usd).toLocaleString("en-US")}`;
}

/**
 * Returns a number of tokens: "850", "31k", "2.4M"; an empty text for none.
 *
 * @param {number | undefined} n
 */
export function tokens(n) {
  if (!n) return "";
  if (n < 1000) return String(n);
  if (n < 9950) return `${(n / 1000).toFixed(1).replace(/\.0$/, "")}k`;
  if (n < 999_500) return `${Math.round(n / 1000)}k`;
  return `${(n / 1e6).toFixed(n < 9.95e6 ? 1 : 0).replace(/\.0$/, "")}M`;
}

/**
 * Returns a length of time: "4s", "4:12", "1:04:12", "3d 02h".
 *
 * @param {number | undefined | null} seconds
 */
export function duration(seconds) {
  if (seconds === undefined || seconds === null || Number.isNaN(seconds)) return "";
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < MINUTE) return `${whole}s`;
  if (whole >= DAY) return `${Math.floor(whole / DAY)}d ${two(Math.floor((whole % DAY) / HOUR))}h`;
  const minutes = Math.floor(whole / MINUTE);
  const rest = two(whole % MINUTE);
  return minutes < 60 ? `${minutes}:${rest}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${rest}`;
}

/** @param {number} n */
function two(n) {
  return String(n).padStart(2, "0");
}

/**
 * Returns a time of day in the zone of the browser; with its date unless that is today.
 *
 * @param {number} t Seconds since the epoch.
 * @param {number} now Seconds since the epoch.
 */
export function clock(t, now) {
  const [then, today] = [new Date(t * 1000), new Date(now * 1000)];
  const time = `${two(then.getHours())}:${two(then.getMinutes())}:${two(then.getSeconds())}`;
  if (then.toDateString() === today.toDateString()) return time;
  const month = then.toLocaleString("en", { month: "short" });
  const year = then.getFullYear() === today.getFullYear() ? "" : ` ${then.getFullYear()}`;
  return `${then.getDate()} ${month}${year} ${time}`;
}

/**
 * Returns how long ago a time was, or how far ahead it is, in its largest unit: "5m ago".
 *
 * @param {number} t Seconds since the epoch.
 * @param {number} now Seconds since the epoch.
 */
export function ago(t, now) {
  const away = Math.abs(now - t);
  if (away < 1) return "now";
  const units = /** @type {[number, string][]} */ ([
    [DAY, "d"],
    [HOUR, "h"],
    [MINUTE, "m"],
    [1, "s"],
  ]);
  const [size, unit] = units.find(([one]) => away >= one) ?? [1, "s"];
  const said = `${Math.floor(away / size)}${unit}`;
  return t > now ? `in ${said}` : `${said} ago`;
}

/**
 * Returns "1 job", "4 jobs".
 *
 * @param {number} n
 * @param {string} word
 * @param {string} [many]
 */
export function counted(n, word, many = `${word}s`) {
  return `${n.toLocaleString("en-US")} ${n === 1 ? word : many}`;
}

/**
 * Returns what a job is in for a person.
 *
 * @param {Row} row
 */
export function stateOf(row) {
  if (row.status !== "running" && row.status !== "queued") return row.status;
  if (row.waitingFor === "permission") return "asking";
  if (row.waitingFor === "pause" || (row.paused && row.status === "queued")) return "paused";
  if (row.waitingFor && row.waitingFor !== "slot") return "waiting";
  return row.status;
}

/** @param {Row} row */
export function isLive(row) {
  return row.status === "running" || row.status === "queued";
}

/**
 * Returns a job's name: the key of its task, else its task.
 *
 * @param {Row} row
 */
export function nameOf(row) {
  return oneLine(row.key || row.task) || row.jobId;
}

/**
 * What a job's own row does not hold.
 *
 * @typedef {object} Around
 * @property {number} [children] How many children it has.
 * @property {number} [live] How many of them are not over.
 * @property {(ids: string[]) => string[]} [names] Names of those of these jobs that are not over.
 */

/** Silence from which on a running job says how long it lasts, in seconds. */
const SILENT = 10;

/**
 * Returns what a job does now, what it waits for, or how it ended.
 *
 * @param {Row} row
 * @param {number} now Seconds since the epoch.
 * @param {Around} [around]
 */
export function doing(row, now, around = {}) {
  // What it waited for did not complete; nobody has cancelled it itself.
  if (row.status === "cancelled") return row.reason === "dependency_failed" ? inWords(row.reason) : "cancelled";
  if (row.status === "completed") {
    const said = oneLine(row.excerpt);
    return !row.reason || row.reason === "completed" ? said : `${inWords(row.reason)}: ${said}`;
  }
  if (!isLive(row)) return oneLine(row.error) || inWords(row.reason || row.status);
  if (row.cancelling) return "is being ended";
  if (row.waitingFor) return waits(row, now, around);
  if (row.status === "queued") return row.paused ? "paused" : "queued";
  const silent = row.lastOutputAt ? now - row.lastOutputAt : 0;
  const said = oneLine(row.activity) || "running";
  return `${row.paused ? "(paused) " : ""}${said}${silent >= SILENT ? ` · ${duration(silent)}` : ""}`;
}

/** @type {Record<string, string>} */
const WAITS = {
  slot: "waits for a slot",
  memory: "waits for free memory",
  back_off: "waits after an error",
};

/**
 * @param {Row} row
 * @param {number} now
 * @param {Around} around
 */
function waits(row, now, around) {
  const because = oneLine(row.waitingBecause);
  const when = row.waitingUntil ? ` until ${clock(row.waitingUntil, now)}` : "";
  switch (row.waitingFor) {
    case "permission":
      return because ? `asks: ${because}` : "asks for a permission";
    case "children":
      if (!around.children) return "waits for its jobs";
      return `waits for ${around.live ?? 0} of ${counted(around.children, "job")}`;
    case "siblings":
      return `waits for ${around.names?.(row.dependsOn ?? []).join(", ") || "other tasks"}`;
    case "limit":
      return `${because || "usage limit"}${when}`;
    case "pause":
      return because || "paused";
    default:
      return `${WAITS[row.waitingFor] ?? `waits for ${inWords(row.waitingFor)}`}${when}`;
  }
}

/**
 * Returns a status or a reason as words.
 *
 * @param {unknown} word
 */
export function inWords(word) {
  return oneLine(word).replaceAll("_", " ");
}
