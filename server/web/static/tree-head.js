// @ts-check
// The heading of a tree: its name, counts by state, time, cost of its budget, tokens, and the tools of the timeline.

import { CountedStates, titleOfTree } from "./counts.js";
import { el, setText, setTo } from "./dom.js";
import { clock, duration, money, tokens, wordFor, STATES } from "./format.js";

/** @typedef {import("./jobs.js").JobTree} JobTree */

/** Least seconds between two announcements of the counts. */
const TOLD_SECONDS = 20;

export class TreeHead {
  #counts = new CountedStates({ hasWords: true });
  #toldAt = 0;

  /** @param {{zoom: (factor: number) => void, fit: () => void, critical: () => boolean, rootId: string}} tools */
  constructor({ zoom, fit, critical, rootId }) {
    this.title = el("h1", { class: "job-text" });
    this.time = el("span", { class: "num fact" });
    this.cost = el("b", { class: "num" });
    this.budget = el("span", { class: "dim" });
    this.meter = el("span", { class: "meter", "aria-hidden": "true" }, el("i"));
    this.tokens = el("span", { class: "fact dim num" });
    this.told = el("div", { class: "sr-only", role: "status" });
    this.critical = el("button", {
      type: "button",
      class: "quiet",
      text: "Critical path",
      title: "The jobs that decided when it ends (c)",
      "aria-pressed": "false",
      on: { click: () => this.showCritical(critical()) },
    });
    /** @type {HTMLElement} */
    this.element = el(
      "div",
      { class: "tree-head" },
      this.title,
      el(
        "span",
        { class: "tools", role: "group", "aria-label": "Timeline" },
        el("a", { class: "button quiet-link", href: `#/tree/${rootId}/costs`, text: "Costs" }),
        this.critical,
        button("−", "Show more time (-)", () => zoom(1 / 1.6)),
        button("Fit", "Show all of the time (0)", fit),
        button("+", "Show less time (+)", () => zoom(1.6)),
      ),
      el(
        "div",
        { class: "sums" },
        this.#counts.element,
        this.time,
        el("span", { class: "fact" }, this.cost, this.budget, this.meter),
        this.tokens,
      ),
      this.told,
    );
  }

  /** @param {boolean} isOn */
  showCritical(isOn) {
    setTo(this.critical, "aria-pressed", String(isOn));
  }

  /** @param {JobTree} jobs */
  update(jobs) {
    const { root, tree } = jobs;
    if (!root) return;
    const name = titleOf(jobs);
    setText(this.title, name);
    setTo(this.title, "title", name);
    this.#counts.show(root.counts);
    const cost = Math.max(root.cost, tree?.costUsd ?? 0);
    setText(this.cost, money(cost) || "$0");
    // That of a job is for all below it, too.
    const budget = tree?.maxBudgetUsd ?? root.row?.maxBudgetUsd;
    setText(this.budget, budget ? ` of ${money(budget)}` : "");
    this.meter.hidden = !budget;
    if (budget) {
      const share = Math.min(1, cost / budget);
      /** @type {HTMLElement} */ (this.meter.firstElementChild).style.width = `${share * 100}%`;
      this.meter.classList.toggle("is-full", share > 0.9);
    }
    const used = tokens((tree?.inputTokens ?? 0) + (tree?.outputTokens ?? 0));
    setText(this.tokens, used && `${used} tokens`);
    this.tick(jobs);
    this.#tell(root.counts);
  }

  /** Draws what changes with the time alone. @param {JobTree} jobs */
  tick(jobs) {
    const { root, tree } = jobs;
    if (!root) return;
    const now = jobs.now();
    const began = tree?.createdAt ?? root.row?.createdAt ?? now;
    const ended = root.live ? null : (tree?.endedAt ?? root.row?.endedAt);
    setText(this.time, duration((ended ?? now) - began));
    setTo(this.time, "title", `began ${clock(began, now)}${ended ? `, ended ${clock(ended, now)}` : ""}`);
  }

  /** @param {Record<string, number>} counts */
  #tell(counts) {
    if (Date.now() - this.#toldAt < TOLD_SECONDS * 1000) return;
    this.#toldAt = Date.now();
    setText(
      this.told,
      STATES.filter((state) => counts[state])
        .map((state) => `${counts[state]} ${wordFor(state, counts[state])}`)
        .join(", "),
    );
  }
}

/** @param {JobTree} jobs */
export function titleOf({ root, tree }) {
  return tree ? titleOfTree(tree) : (root?.name ?? "");
}

/**
 * @param {string} text
 * @param {string} title
 * @param {() => void} click
 */
function button(text, title, click) {
  return el("button", {
    type: "button",
    class: "quiet zoom",
    text,
    title,
    "aria-label": title,
    on: { click },
  });
}
