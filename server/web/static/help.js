// @ts-check
// The keys and the symbols, in a dialog.

import { el } from "./dom.js";
import { STATES, symbol, words } from "./format.js";

/** @type {[string[], string][]} */
const KEYS = [
  [["↑", "↓"], "move; also page up and down, home and end, g and G"],
  [["←", "→"], "fold, then the job above; unfold, then the job below; also h and l"],
  [["space"], "fold or unfold"],
  [["enter"], "open the job; esc closes it"],
  [["/"], "filter; esc clears it"],
  [["+", "-", "0"], "zoom the timeline; 0 fits it. Also ctrl and the wheel, or drag over it"],
  [["c"], "critical path: the jobs that decided the end, alone in full colour"],
  [["a"], "allow or deny what a job asks for"],
  [["k"], "kill a job and all below it; asks first"],
  [["r"], "retry what failed in a job and below it"],
  [["s"], "send a message to the session of a finished job; also m"],
  [["p"], "pause a job and all below it, or let it go on"],
  [["y"], "copy an id, or of an open job the command that opens its session"],
  [["?"], "this help"],
];

/** @type {[string, string][]} Classes of a bar, and what it means. */
const BARS = [
  ["queued", "queued"],
  ["working running", "runs"],
  ["children running", "waits for its jobs"],
  ["permission running", "waits for your permission"],
  ["paused", "paused"],
  ["working completed", "done"],
  ["working failed", "failed attempt"],
  ["working cancelled", "cancelled, cut off"],
  ["path", "critical path"],
];

/** Shows the help until it is closed. */
export function openHelp() {
  const close = el("button", { type: "button", class: "primary", text: "Close", autofocus: true });
  const dialog = el(
    "dialog",
    { class: "help", "aria-label": "Keys and symbols" },
    el("h2", { class: "help-keys", text: "Keys" }),
    el(
      "div",
      { class: "keys help-keys" },
      KEYS.map(([keys, meaning]) => [
        el(
          "span",
          {},
          keys.map((key) => el("kbd", { text: key })),
        ),
        el("span", { text: meaning }),
      ]),
    ),
    el("h2", { text: "Symbols" }),
    el(
      "div",
      { class: "key-symbols" },
      STATES.map((state) => el("span", {}, symbol(state, { hidden: true }), ` ${words[state]}`)),
    ),
    el("h2", { text: "Timeline" }),
    el(
      "div",
      { class: "key-symbols" },
      BARS.map(([kind, meaning]) => el("span", {}, el("i", { class: `key-bar bar ${kind}` }), ` ${meaning}`)),
    ),
    close,
  );
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  // Not at the button, which has the focus.
  dialog.scrollTop = 0;
}
