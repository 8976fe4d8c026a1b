// @ts-check
// The banner for what needs a decision: which job asks to run what, and the two answers.

import { get } from "./api.js";
import { add, el, fill, setTo } from "./dom.js";
import { nameOf, symbol } from "./format.js";
import { briefCall } from "./requests.js";
import { answer, decide } from "./steer.js";

/** @typedef {import("./requests.js").PermissionRequest} PermissionRequest */

/**
 * For so long a request that has just taken the place of another cannot be answered: a click may have been meant for
 * the one before.
 */
const GUARD_MS = 500;
const RETRY_MS = 2000;

export class AskBanner {
  #host;
  #onOpen;
  /** The rows that ask, the one that is shown first. @type {Record<string, any>[]} */
  #rows = [];
  /** @type {PermissionRequest[]} */
  #requests = [];
  #jobId = "";
  #asked = "";
  #shownId = "";
  #isBusy = false;
  #guardedUntil = 0;
  #timer = 0;

  /**
   * @param {HTMLElement} host
   * @param {{onOpen?: (jobId: string, rootId: string) => void}} [how] Opens a job; otherwise the address does.
   */
  constructor(host, { onOpen } = {}) {
    this.#host = host;
    this.#onOpen = onOpen ?? ((jobId, rootId) => void (location.hash = `#/tree/${rootId}/${jobId}`));
    host.classList.add("asks");
    host.setAttribute("role", "region");
    host.setAttribute("aria-label", "What needs a decision");
    this.#draw();
  }

  /**
   * Shows who asks for what.
   *
   * @param {Iterable<Record<string, any>>} rows Rows of jobs; those that ask for nothing are left out.
   */
  update(rows) {
    const asking = [...rows].filter((row) => row.waitingFor === "permission");
    // The one that is shown stays until it is answered.
    const order = new Map(this.#rows.map((row, index) => [row.jobId, index]));
    asking.sort((a, b) => (order.get(a.jobId) ?? order.size) - (order.get(b.jobId) ?? order.size));
    this.#rows = asking;
    const first = asking[0];
    if (!first) {
      this.#jobId = this.#asked = "";
      this.#requests = [];
      this.#draw();
      return;
    }
    const asked = `${first.jobId} ${first.waitingBecause ?? ""} ${first.waitingUntil ?? ""}`;
    if (asked !== this.#asked) this.#read(first, asked);
    else this.#draw();
  }

  /** Shows nothing, and asks for nothing more. */
  hide() {
    clearTimeout(this.#timer);
    this.update([]);
  }

  /**
   * @param {Record<string, any>} row
   * @param {string} asked
   */
  async #read(row, asked) {
    clearTimeout(this.#timer);
    this.#asked = asked;
    if (row.jobId !== this.#jobId) this.#requests = [];
    this.#jobId = row.jobId;
    let found;
    try {
      found = (await get(`/api/jobs/${row.jobId}`)).requests ?? [];
    } catch {
      // The engine is being replaced; the next page asks again, or this does.
      if (this.#asked === asked) this.#timer = setTimeout(() => this.#again(), RETRY_MS);
      return;
    }
    if (this.#asked !== asked) return;
    this.#requests = found;
    // Answered a moment ago; the row that says so is on its way.
    if (!found.length) this.#timer = setTimeout(() => this.#again(), RETRY_MS);
    this.#draw();
  }

  #again() {
    this.#asked = "";
    this.update(this.#rows);
  }

  #draw() {
    const row = this.#rows[0];
    const request = this.#requests[0];
    this.#host.hidden = !row || !request;
    const shown = row && request ? `${request.requestId} ${this.#more()}` : "";
    if (shown === this.#shownId) return;
    const isOther = shown.split(" ")[0] !== this.#shownId.split(" ")[0];
    this.#shownId = shown;
    if (shown) this.#show(row, request, isOther);
    else fill(this.#host);
  }

  /** How many more requests there are, as far as that is known. */
  #more() {
    return this.#rows.length - 1 + Math.max(0, this.#requests.length - 1);
  }

  /**
   * @param {Record<string, any>} row
   * @param {PermissionRequest} request
   * @param {boolean} isOther
   */
  #show(row, request, isOther) {
    const hadFocus = this.#host.contains(document.activeElement);
    const brief = briefCall(request);
    const open = el("button", {
      type: "button",
      class: "link asks-name job-text",
      title: "Open this job",
      text: nameOf(row),
      on: { click: () => this.#onOpen(row.jobId, row.rootId) },
    });
    const said = el("div", { class: "asks-said", "aria-live": "polite" }, open);
    add(said, [" asks to run ", brief ?? [el("code", { text: request.tool }), " with a long input"]]);
    const buttons = this.#buttons(row, request, brief !== null);
    fill(this.#host, symbol("asking", { hidden: true }), said, this.#next(), buttons);
    if (isOther) this.#guard();
    if (hadFocus) open.focus({ preventScroll: true });
  }

  #next() {
    const more = this.#more();
    if (!more) return null;
    if (this.#rows.length < 2) return el("span", { class: "asks-more", text: `and ${more} more` });
    return el("button", {
      type: "button",
      class: "quiet asks-more",
      text: `and ${more} more`,
      title: "Show the next one",
      on: {
        click: () => {
          this.#rows.push(.../** @type {any} */ (this.#rows.splice(0, 1)));
          this.#again();
        },
      },
    });
  }

  /**
   * @param {Record<string, any>} row
   * @param {PermissionRequest} request
   * @param {boolean} isWhole
   */
  #buttons(row, request, isWhole) {
    /** @param {string} text @param {string | null} kind @param {() => Promise<boolean>} work */
    const button = (text, kind, work) =>
      el("button", { type: "button", class: kind, text, on: { click: () => this.#run(work) } });
    const deny = button("Deny", null, () => decide(request.requestId, false));
    // Nobody allows what is not shown.
    const look = () => answer(request, /** @type {any} */ ({ id: row.jobId, row }));
    const allow = isWhole
      ? button("Allow once", "primary", () => decide(request.requestId, true))
      : button("Look at it…", "primary", look);
    return el("div", { class: "asks-buttons" }, deny, allow);
  }

  #guard() {
    this.#guardedUntil = performance.now() + GUARD_MS;
    this.#showBusy();
    setTimeout(() => this.#showBusy(), GUARD_MS + 10);
  }

  #isHeld() {
    return this.#isBusy || performance.now() < this.#guardedUntil;
  }

  /** @param {() => Promise<boolean>} work */
  async #run(work) {
    if (this.#isHeld()) return;
    const answered = this.#shownId;
    this.#isBusy = true;
    this.#showBusy();
    const isDone = await work();
    this.#isBusy = false;
    if (isDone && answered === this.#shownId) this.#requests.shift();
    this.#draw();
    this.#showBusy();
    // Where it was refused it may have been answered elsewhere.
    this.#again();
  }

  #showBusy() {
    for (const button of this.#host.querySelectorAll(".asks-buttons button")) {
      setTo(button, "aria-disabled", this.#isHeld() ? "true" : null);
    }
  }
}
