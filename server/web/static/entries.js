// @ts-check
// Draws the entries of a transcript. All of them hold what a job wrote: they become text nodes.

import { el, fill } from "./dom.js";
import { clock, oneLine, plain } from "./format.js";

/** @typedef {Record<string, any>} Entry As server/transcript/entries.py makes them. */

/** A task or an answer that is longer is shown folded. */
const LONG_CHARS = 1400;
const LONG_LINES = 18;

/**
 * Returns a text as paragraphs, its parts between ``` as blocks of code. No address in it becomes a link.
 *
 * @param {string} text
 * @returns {HTMLElement[]}
 */
export function prose(text) {
  /** @type {HTMLElement[]} */
  const blocks = [];
  /** @type {string[]} */
  let lines = [];
  let fence = "";
  const end = () => {
    const body = lines.join("\n");
    if (fence) blocks.push(el("pre", { class: "code", tabindex: 0 }, el("code", { text: body })));
    else if (body.trim()) blocks.push(el("p", { class: "say" }, inline(body.replace(/^\n+|\s+$/g, ""))));
    lines = [];
  };
  for (const line of plain(text).split("\n")) {
    const mark = /^\s*(`{3,}|~{3,})/.exec(line)?.[1] ?? "";
    const closes = fence && mark.startsWith(fence) && line.trim() === mark;
    if (closes || (!fence && mark)) {
      end();
      fence = closes ? "" : mark;
    } else {
      lines.push(line);
    }
  }
  end();
  return blocks;
}

/**
 * Returns a text with what is between two ` of a line as code, and between two ** as strong.
 *
 * @param {string} text
 */
function inline(text) {
  return text.split(/(`[^`\n]{1,200}`|\*\*[^*\s][^*\n]{0,300}\*\*)/).map((part, index) => {
    if (!(index % 2)) return part;
    if (part.startsWith("`")) return el("code", { class: "inline", text: part.slice(1, -1) });
    return el("strong", { text: part.slice(2, -2) });
  });
}

/**
 * Returns a text that is folded where it is long.
 *
 * @param {string} text
 * @param {number} [chars] How many characters it has, where it was cut.
 */
export function foldable(text, chars = 0) {
  const body = el("div", { class: "folds" }, prose(text), cutNote(text, chars));
  if (text.length < LONG_CHARS && text.split("\n").length < LONG_LINES) return body;
  const more = el("button", { type: "button", class: "quiet folds-more", "aria-expanded": "false", text: "Show all" });
  body.classList.add("is-folded");
  more.addEventListener("click", () => {
    const isFolded = body.classList.toggle("is-folded");
    more.textContent = isFolded ? "Show all" : "Show less";
    more.setAttribute("aria-expanded", String(!isFolded));
  });
  return el("div", {}, body, more);
}

/**
 * @param {string} text
 * @param {number} [chars]
 */
function cutNote(text, chars) {
  const left = (chars ?? 0) - text.length;
  return left > 0 ? el("p", { class: "dim", text: `… ${left.toLocaleString("en-US")} characters more` }) : null;
}

/**
 * Returns an element for an entry; a result that finds its call has none.
 *
 * @param {Entry} entry
 * @param {Calls} calls
 * @returns {HTMLElement | null}
 */
export function entryView(entry, calls) {
  const drawn = (DRAWN[entry.kind] ?? DRAWN.notice)(entry, calls);
  if (drawn && entry.agent) drawn.classList.add("is-sub");
  if (drawn && entry.at) drawn.title = clock(entry.at, Date.now() / 1000);
  return drawn;
}

/** What Claude Code says by the way, which is no trouble. */
const QUIET = new Set(["said", "compacted"]);

/** @type {Record<string, (entry: Entry, calls: Calls) => HTMLElement | null>} */
const DRAWN = {
  task: (entry) => el("div", { class: "entry is-task" }, label("Task"), foldable(entry.text, entry.chars)),
  text: (entry) => el("div", { class: "entry" }, prose(entry.text), cutNote(entry.text, entry.chars)),
  // Without a text it was said before.
  answer: (entry) =>
    entry.text &&
    el("div", { class: "entry" }, label("Answer"), prose(entry.text), cutNote(entry.text, entry.chars)),
  thinking: (entry) =>
    folded(
      "entry is-thinking",
      () => [el("span", { class: "call-title", text: "Thinking" }), el("small", { text: beginning(entry.text) })],
      () => [el("div", { class: "thought" }, prose(entry.text)), cutNote(entry.text, entry.chars)],
    ),
  call: (entry, calls) => calls.call(entry),
  result: (entry, calls) => calls.result(entry),
  notice: (entry) =>
    el("div", { class: QUIET.has(entry.notice) ? "entry is-said" : "entry is-notice", text: plain(entry.text) }),
  error: (entry) =>
    el("div", { class: "entry is-error" }, label("Error"), el("p", { class: "say", text: plain(entry.text) })),
  stderr: (entry) =>
    el("div", { class: "entry is-stderr" }, label("stderr"), el("pre", { tabindex: 0, text: plain(entry.text) })),
};

/** @param {string} text */
function label(text) {
  return el("div", { class: "label", text });
}

/** @param {string} text */
function beginning(text) {
  const line = oneLine(text.slice(0, 400));
  return line.length > 90 ? `${line.slice(0, 90)}…` : line;
}

/**
 * A part that is built when it is opened first.
 *
 * @param {string} kind
 * @param {() => import("./dom.js").Child} head
 * @param {() => import("./dom.js").Child} body
 */
function folded(kind, head, body) {
  const inner = el("div", { class: "call-body" });
  const details = el("details", { class: kind }, el("summary", {}, head()), inner);
  details.addEventListener("toggle", () => {
    if (details.open && !inner.childElementCount) fill(inner, body());
  });
  return details;
}

/** Calls of tools and their results, which come later, are one thing to a reader. */
export class Calls {
  /** @type {Map<string, {details: any, size: HTMLElement, entry: Entry, result: Entry | null}>} */
  #known = new Map();
  /** Results whose call is further up than what is shown. @type {Map<string, {element: HTMLElement, entry: Entry}>} */
  #orphans = new Map();

  /** @param {Entry} entry */
  call(entry) {
    const size = el("small", { text: "…" });
    const known = { details: null, size, entry, result: null };
    const title = plain(entry.title || entry.tool);
    known.details = folded(
      "entry call is-open-call",
      () => [el("span", { class: "call-title", title: title.slice(0, 500) }, titled(title, entry.tool)), size],
      () => this.#body(known.entry, known.result),
    );
    this.#known.set(entry.id, /** @type {any} */ (known));
    const orphan = this.#orphans.get(entry.id);
    if (orphan) {
      this.#orphans.delete(entry.id);
      orphan.element.remove();
      this.#join(/** @type {any} */ (known), orphan.entry);
    }
    return known.details;
  }

  /** @param {Entry} entry */
  result(entry) {
    const known = this.#known.get(entry.of);
    if (known?.details.isConnected || (known && !known.result)) {
      this.#join(known, entry);
      return null;
    }
    const title = el("span", { class: "call-title dim", text: "Result of an earlier call" });
    const element = folded(
      `entry call${entry.isError ? " is-failed-call" : ""}`,
      () => [title, el("small", { text: sizeOf(entry) })],
      () => resultView(entry),
    );
    this.#orphans.set(entry.of, { element, entry });
    return element;
  }

  /** Forgets calls that are not shown any more. */
  prune() {
    for (const [id, { details }] of this.#known) if (!details.isConnected) this.#known.delete(id);
    for (const [id, { element }] of this.#orphans) if (!element.isConnected) this.#orphans.delete(id);
  }

  /**
   * @param {{details: any, size: HTMLElement, entry: Entry, result: Entry | null}} known
   * @param {Entry} result
   */
  #join(known, result) {
    known.result = result;
    known.size.textContent = sizeOf(result);
    known.details.classList.remove("is-open-call");
    known.details.classList.toggle("is-failed-call", Boolean(result.isError));
    const inner = known.details.lastElementChild;
    if (inner.childElementCount) fill(inner, this.#body(known.entry, result));
  }

  /**
   * @param {Entry} call
   * @param {Entry | null} result
   */
  #body(call, result) {
    const given = (call.arguments ?? []).map((/** @type {[string, string]} */ [name, value]) => [
      el("div", { class: "label", text: plain(name) }),
      el("pre", { tabindex: 0, text: plain(value) }),
    ]);
    return [given, result ? resultView(result) : el("p", { class: "dim", text: "No result yet." })];
  }
}

/**
 * @param {string} title
 * @param {string} tool
 */
function titled(title, tool) {
  const name = plain(tool);
  if (!name || !title.startsWith(name)) return title;
  return [el("b", { text: name }), title.slice(name.length)];
}

/** @param {Entry} result */
function resultView(result) {
  return [
    el("div", { class: "label", text: result.isError ? "Error" : "Result" }),
    el("pre", { tabindex: 0, text: plain(result.text) || "(no output)" }),
    cutNote(result.text, result.chars),
  ];
}

/** @param {Entry} result */
function sizeOf(result) {
  if (result.isError) return "error";
  if (!result.text) return "no output";
  const lines = result.lines ?? 1;
  if (lines > 1) return `${lines.toLocaleString("en-US")} lines`;
  return result.text.length > 60 ? "1 line" : oneLine(result.text);
}
