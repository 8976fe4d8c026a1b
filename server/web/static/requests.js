// @ts-check
// A permission request as a person decides on it: everything is shown, also what is made not to be seen.

import { el } from "./dom.js";
import { counted, oneLine } from "./format.js";

/**
 * @typedef {object} PermissionRequest As `GET /api/jobs/ID` returns them.
 * @property {string} requestId
 * @property {string} tool
 * @property {string} input JSON, or its beginning.
 * @property {number} inputChars
 */

/** What fits into the banner without being cut. */
const BRIEF_CHARS = 260;

/** Characters that change nothing on the screen, or where the others stand. */
const UNSEEN =
  /(?![\n\t])[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Default_Ignorable_Code_Point}\u2028\u2029\u2800]/gu;

/**
 * Returns a text with a mark in the place of each character that cannot be seen: a command may hide behind it.
 *
 * @param {string} text
 * @returns {(string | HTMLElement)[]}
 */
export function unhidden(text) {
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(UNSEEN)) {
    const code = (found[0].codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
    parts.push(text.slice(end, found.index));
    parts.push(el("span", { class: "unseen", title: "A character that cannot be seen", text: `U+${code}` }));
    end = found.index + found[0].length;
  }
  parts.push(text.slice(end));
  return parts.filter((part) => part !== "");
}

/**
 * Returns the arguments of a call as names and texts; one without a name where they are no object, or were cut.
 *
 * @param {PermissionRequest} request
 * @returns {[string, string][]}
 */
export function argumentsOf(request) {
  let given;
  try {
    given = JSON.parse(request.input);
  } catch {
    // Cut, or what was redacted was a part of its form.
    return [["", request.input]];
  }
  if (given === null || typeof given !== "object" || Array.isArray(given)) return [["", request.input]];
  return Object.entries(given).map(([name, value]) => [
    name,
    typeof value === "string" ? value : JSON.stringify(value),
  ]);
}

/** @param {PermissionRequest} request */
function missing(request) {
  // Counted as the engine counts: in code points.
  return Math.max(0, request.inputChars - [...request.input].length);
}

/**
 * Returns the whole call.
 *
 * @param {PermissionRequest} request
 */
export function callView(request) {
  const cut = missing(request);
  return el(
    "div",
    { class: "asked-call" },
    argumentsOf(request).map(([name, value]) => [
      name ? el("div", { class: "asked-name" }, unhidden(oneLine(name) || name)) : null,
      el("pre", { class: "asked-value", tabindex: 0 }, unhidden(value)),
    ]),
    cut ? el("p", { class: "dim", text: `… ${counted(cut, "character")} more: the transcript has them` }) : null,
  );
}

/**
 * Returns the call in a line or two, or null where it is too long for that: nobody allows what is not shown.
 *
 * @param {PermissionRequest} request
 * @returns {HTMLElement | null}
 */
export function briefCall(request) {
  const given = argumentsOf(request);
  const chars = given.reduce((sum, [name, value]) => sum + name.length + value.length, 0);
  const lines = given.reduce((sum, [, value]) => sum + value.split("\n").length, 0);
  if (missing(request) || chars > BRIEF_CHARS || lines > 4 || given.length > 4) return null;
  const parts = given.map(([name, value], index) => [
    index ? " · " : "",
    index || !isMain(name) ? `${name}${name ? ": " : ""}` : "",
    unhidden(value),
  ]);
  return el("code", { class: "asked-brief" }, unhidden(request.tool), given.length ? ": " : "", parts);
}

/** @param {string} name The first argument of a call. */
function isMain(name) {
  return ["", "command", "file_path", "path", "pattern", "url", "query"].includes(name);
}
