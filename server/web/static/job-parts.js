// @ts-check
// The elements of the pane beside the tree.

import { el, fill, setText, setTo } from "./dom.js";
import { counted, isLive, LIVE_STATES, RETRIED, stateOf, symbol } from "./format.js";
import { callView } from "./requests.js";

const WIDE = "Wide, for reading";

/** Makes the elements of a pane. */
export function partsOf() {
  const mark = el("span", { class: "job-mark" });
  const name = el("h2", { class: "job-name job-text", tabindex: -1 });
  const state = el("p", { class: "job-state" });
  const icon = { type: "button", class: "quiet icon-button" };
  const wide = el("button", { ...icon, "aria-pressed": "false", title: WIDE, "aria-label": WIDE, text: "⤢" });
  const close = el("button", { ...icon, "aria-label": "Close", title: "Close (esc)", text: "×" });
  const [main, more] = [el("dl", { class: "facts" }), el("dl", { class: "facts" })];
  const folded = el("details", { class: "job-more" }, el("summary", { text: "More" }), more);
  const attempts = el("div", { class: "job-attempts", hidden: true });
  const [outcome, conversation] = [el("div", { class: "job-outcome" }), el("div")];
  const region = { role: "region", "aria-label": "Conversation" };
  return {
    mark,
    name,
    state,
    wide,
    close,
    main,
    more,
    attempts,
    outcome,
    conversation,
    head: el("header", { class: "job-head" }, el("div", { class: "job-title" }, mark, name, wide, close), state),
    facts: el("div", { class: "job-facts" }, main, attempts, folded),
    asked: el("div", { class: "job-asked", hidden: true }),
    talk: el("div", { class: "job-talk", tabindex: 0, ...region }, outcome, conversation),
    actions: el("footer", { class: "job-actions", role: "group", "aria-label": "What to do" }),
  };
}

/**
 * Makes the buttons by the key that does the same.
 *
 * @returns {Record<string, HTMLButtonElement>}
 */
export function buttonsOf() {
  const button = (/** @type {string} */ key, /** @type {string} */ text, /** @type {string} */ kind = "") =>
    el("button", { type: "button", class: kind || null, title: `Key ${key}`, "data-action": key, text });
  return {
    k: button("k", "Kill", "danger"),
    p: button("p", "Pause"),
    s: button("s", "Send…"),
    r: button("r", "Run again"),
    y: button("y", "Copy resume line"),
    i: button("i", "Copy id", "quiet"),
  };
}

/**
 * Draws facts, and leaves alone what is there already: a selection in it stays.
 *
 * @param {HTMLElement} host
 * @param {import("./job-facts.js").Fact[]} facts
 */
export function drawList(host, facts) {
  const names = facts.map(({ name }) => name).join(" ");
  if (host.dataset.names !== names) {
    host.dataset.names = names;
    fill(host, facts.map(({ name }) => [el("dt", { text: name }), el("dd", {}, el("span"))]));
  }
  facts.forEach((fact, index) => {
    const value = host.children[2 * index + 1];
    setText(/** @type {Element} */ (value.firstElementChild), fact.text);
    setTo(value, "class", fact.kind ? `is-${fact.kind}` : "");
    setTo(value, "title", fact.kind === "path" ? fact.text : null);
    drawBar(value, fact.bar);
  });
}

/**
 * @param {Element} value
 * @param {number | undefined} part Of one.
 */
function drawBar(value, part) {
  const old = value.querySelector(".budget");
  if (part === undefined) return void old?.remove();
  const bar = old ?? el("span", { class: "budget", "aria-hidden": "true" }, el("i"));
  if (!old) value.append(bar);
  bar.classList.toggle("is-over", part >= 0.9);
  /** @type {HTMLElement} */ (bar.firstElementChild).style.width = `${Math.min(100, 100 * part)}%`;
}

/**
 * Makes a box with a title.
 *
 * @param {string} kind A class.
 * @param {string} title
 * @param {HTMLElement} body
 */
export function box(kind, title, body) {
  return el("section", { class: `box ${kind}` }, el("h3", { class: "label", text: title }), body);
}

/**
 * Makes the box of a permission request, with the whole call and the two answers.
 *
 * @param {import("./requests.js").PermissionRequest} request
 * @param {(requestId: string, allow: boolean) => void} decided
 */
export function requestBox(request, decided) {
  const button = (/** @type {string} */ text, /** @type {boolean} */ allow) =>
    el("button", {
      type: "button",
      class: allow ? "primary" : null,
      text,
      on: { click: () => decided(request.requestId, allow) },
    });
  return el(
    "section",
    { class: "asked" },
    el("h3", {}, symbol("asking", { hidden: true }), "asks to call ", el("code", { text: request.tool })),
    callView(request),
    el("div", { class: "asked-buttons" }, button("Deny", false), button("Allow once", true)),
  );
}

/**
 * Returns what a row says of a job and what is around it, where the tree does not hold the job.
 *
 * @param {string} jobId
 * @param {Record<string, any>} row
 * @returns {import("./steer.js").Steered}
 */
export function nodeOfRow(jobId, row) {
  const counts = { ...row.below?.counts };
  const state = isLive(row) ? row.status : stateOf(row);
  if (!row.isBatch) counts[state] = (counts[state] ?? 0) + 1;
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
  const over = ["completed", ...RETRIED].reduce((sum, one) => sum + (counts[one] ?? 0), 0);
  return { id: jobId, row: row.isBatch ? null : row, counts, total, live: total - over, isPaused: Boolean(row.paused) };
}

/**
 * Returns as much of a row as there is of a batch: it has no attempt, and costs nothing itself.
 *
 * @param {string} batchId
 * @param {import("./steer.js").Steered | null} node
 * @param {any} details
 * @returns {Record<string, any>}
 */
export function rowOfBatch(batchId, node, details) {
  const sums = details?.subtree ?? {};
  const counts = node?.counts ?? sums.counts ?? {};
  const worst = [...LIVE_STATES, ...RETRIED].find((state) => counts[state]) ?? "completed";
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
  return {
    jobId: batchId,
    isBatch: true,
    status: worst,
    key: `batch, ${counted(total, "job")} in all`,
    below: { counts, ...sums, ...node?.tree },
    maxBudgetUsd: node?.tree?.maxBudgetUsd,
    createdAt: node?.tree?.createdAt,
    endedAt: node?.tree?.endedAt,
    paused: node?.isPaused,
  };
}
