// @ts-check
// Questions to the person, and what was done: native dialogs, which take the focus and give it back.

import { add, el, fill } from "./dom.js";
import { plain } from "./format.js";

/**
 * @typedef {object} Choice
 * @property {string} value What the dialog returns; an empty text leaves everything as it is.
 * @property {string} label
 * @property {"primary" | "danger" | ""} [kind]
 * @property {boolean} [focus] Has the focus at first.
 */

const GOOD_SECONDS = 5;
const BAD_SECONDS = 12;
const MOST_TOASTS = 4;

let made = 0;

/**
 * Asks a question.
 *
 * @param {{title: string, text?: string, body?: import("./dom.js").Child, buttons: Choice[]}} question
 * @returns {Promise<string>} The value of the button, or an empty text where it was closed.
 */
export function confirm({ title, text = "", body = null, buttons }) {
  const dialog = dialogOf(title, text, body);
  return opened(dialog, buttons);
}

/**
 * Asks for a text. Enter sends it, shift and enter begins a line.
 *
 * @param {{title: string, text?: string, label: string, button: string}} question
 * @returns {Promise<string>} The text without blanks around it, or an empty text where it was closed.
 */
export async function ask({ title, text = "", label, button }) {
  const field = el("textarea", { rows: 4, maxlength: 200_000, autofocus: true, "data-focus": true });
  const dialog = dialogOf(title, text, el("label", { class: "field" }, el("span", { text: label }), field));
  const asked = opened(dialog, [
    { value: "", label: "Leave it" },
    { value: "send", label: button, kind: "primary" },
  ]);
  const send = /** @type {HTMLButtonElement} */ (dialog.querySelector("button.primary"));
  const check = () => {
    send.disabled = !field.value.trim();
  };
  check();
  field.addEventListener("input", check);
  field.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!send.disabled) send.click();
  });
  return (await asked) ? field.value.trim() : "";
}

/**
 * Shows a text to copy by hand, where the page may not write to the clipboard.
 *
 * @param {string} title
 * @param {string} text
 */
export function offerCopy(title, text) {
  const field = el("textarea", { rows: 3, readonly: true, class: "mono", "aria-label": title, "data-focus": true });
  field.value = text;
  field.addEventListener("focus", () => field.select());
  return opened(dialogOf(title, "The browser does not let the page copy it.", field), [{ value: "", label: "Close" }]);
}

/**
 * Says what was done, or why not. It goes by itself; one that is not good stays longer and can be closed.
 *
 * @param {string} text
 * @param {boolean} [isGood]
 */
export function toast(text, isGood = true) {
  const host = document.getElementById("toasts");
  if (!host || !text) return;
  const said = el("div", { class: isGood ? "toast" : "toast is-bad", role: isGood ? null : "alert" });
  const close = el("button", { type: "button", class: "quiet", "aria-label": "Close", text: "×" });
  add(said, [el("span", { class: "toast-text", text: plain(text) }), close]);
  const end = () => {
    clearTimeout(timer);
    said.remove();
  };
  const timer = setTimeout(end, (isGood ? GOOD_SECONDS : BAD_SECONDS) * 1000);
  close.addEventListener("click", end);
  host.append(said);
  while (host.childElementCount > MOST_TOASTS) host.firstElementChild?.remove();
}

/**
 * @param {string} title
 * @param {string} text
 * @param {import("./dom.js").Child} body
 * @returns {HTMLDialogElement}
 */
function dialogOf(title, text, body) {
  made += 1;
  const [titleId, textId] = [`dialog-${made}`, `dialog-text-${made}`];
  const paragraphs = plain(text).split("\n\n");
  return el(
    "dialog",
    { class: "dialog", "aria-labelledby": titleId, "aria-describedby": text ? textId : null },
    el("h2", { id: titleId, text: title }),
    text ? el("div", { id: textId, class: "dialog-text" }, paragraphs.map((one) => el("p", { text: one }))) : null,
    body,
  );
}

/**
 * @param {HTMLDialogElement} dialog
 * @param {Choice[]} choices
 * @returns {Promise<string>}
 */
function opened(dialog, choices) {
  const before = document.activeElement;
  const row = el("div", { class: "dialog-buttons" });
  fill(
    row,
    choices.map(({ value, label, kind = "", focus = false }) =>
      el("button", {
        type: "button",
        class: kind || null,
        "data-focus": focus || null,
        text: label,
        on: { click: () => dialog.close(value) },
      }),
    ),
  );
  dialog.append(row);
  document.body.append(dialog);
  return new Promise((resolve) => {
    // A click beside it closes it with nothing, as escape does.
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog && isOutside(dialog, event)) dialog.close("");
    });
    dialog.addEventListener("cancel", () => {
      dialog.returnValue = "";
    });
    // One step back leaves a question: on a phone nothing else is as near.
    const leave = () => dialog.close("");
    window.addEventListener("hashchange", leave);
    dialog.addEventListener("close", () => {
      window.removeEventListener("hashchange", leave);
      dialog.remove();
      if (before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true });
      resolve(dialog.returnValue);
    });
    dialog.showModal();
    /** @type {HTMLElement | null} */ (dialog.querySelector("[data-focus]"))?.focus();
  });
}

/**
 * @param {HTMLElement} dialog
 * @param {MouseEvent} event
 */
function isOutside(dialog, event) {
  const box = dialog.getBoundingClientRect();
  const { clientX: x, clientY: y } = event;
  // A key that presses a button has no place.
  if (!x && !y) return false;
  return x < box.left || x > box.right || y < box.top || y > box.bottom;
}
