// @ts-check
// The selected job beside the tree: what it is and does, what it asks for, its conversation, and what can be done.

import { ApiError, get } from "./api.js";
import { el, fill, setText, setTo } from "./dom.js";
import { foldable } from "./entries.js";
import { doing, isLive, nameOf, RETRIED, stateOf, symbol } from "./format.js";
import { attemptsOf, attemptWords, factsOf, stateLine } from "./job-facts.js";
import { box, buttonsOf, drawList, nodeOfRow, partsOf, requestBox, rowOfBatch } from "./job-parts.js";
import { answer, copy, decide, kill, pause, retry, send } from "./steer.js";
import { TranscriptView } from "./transcript.js";

/** @typedef {Record<string, any>} Row */
/** @typedef {import("./steer.js").Steered} Steered */

/** Least milliseconds between two looks at a job that has no row in the feed. */
const LOOK_MS = 2000;

/** Fields of a row that tell that something else is known of its job now. */
const TELLING = ["status", "attempt", "waitingFor", "waitingBecause", "waitingUntil", "sessionId", "cancelling"];

/** Here the pane covers everything else. */
const NARROW = matchMedia("(max-width: 700px)");

export class JobPane {
  #host;
  #onClose;
  #nodeOf;
  #onWide;
  #jobId = "";
  /** @type {Row | null} */
  #row = null;
  /** @type {any} */
  #details = null;
  #error = "";
  /** The attempt that the person chose, or 0 for the last. */
  #chosen = 0;
  #shownAttempt = -1;
  #told = "";
  #poked = "";
  #looked = 0;
  #offset = 0;
  #timer = 0;
  #isBusy = false;
  #drawn = new Map();
  #parts = partsOf();
  #buttons = buttonsOf();
  #transcript;

  /**
   * @param {HTMLElement} host
   * @param {{onClose: () => void, nodeOf?: (jobId: string) => Steered | null, onWide?: (isWide: boolean) => void}} how
   *   `nodeOf`: the job in the tree, with what is around it.
   */
  constructor(host, { onClose, nodeOf, onWide }) {
    this.#host = host;
    this.#onClose = onClose;
    this.#nodeOf = nodeOf ?? (() => null);
    this.#onWide = onWide ?? (() => undefined);
    const { head, facts, asked, talk, conversation, actions } = this.#parts;
    host.classList.add("job");
    host.setAttribute("aria-label", "Selected job");
    fill(host, head, facts, asked, el("div", { class: "job-read" }, talk), actions);
    this.#transcript = new TranscriptView(conversation, talk);
    this.#parts.close.addEventListener("click", () => this.#onClose());
    this.#parts.wide.addEventListener("click", () => this.#toggleWide());
    for (const [key, button] of Object.entries(this.#buttons)) {
      button.addEventListener("click", () => this.#run(this.#keys()[key]));
    }
    fill(actions, Object.values(this.#buttons));
    host.addEventListener("keydown", (event) => this.#onKey(event));
    host.hidden = true;
  }

  /**
   * Shows a job.
   *
   * @param {string} jobId
   * @param {Row | null} row Its row of the feed, where that is known.
   */
  show(jobId, row) {
    const isSame = jobId === this.#jobId;
    this.#host.hidden = false;
    if (!isSame) this.#begin(jobId);
    this.update(row, this.#now());
    if (!isSame) this.#look();
  }

  /**
   * Takes in what the feed says now.
   *
   * @param {Row | null | undefined} row
   * @param {number} now Seconds since the epoch.
   */
  update(row, now) {
    if (!this.#jobId) return;
    this.#offset = now - Date.now() / 1000;
    this.#row = row ?? this.#row;
    const told = row ? TELLING.map((name) => row[name]).join(" ") : "";
    const isLateLook = !row && this.#details && isLive(this.#known()) && performance.now() - this.#looked > LOOK_MS;
    if (told !== this.#told || isLateLook) {
      const isFirst = !this.#told;
      this.#told = told;
      if (!isFirst || isLateLook) this.#look();
    }
    this.#draw();
  }

  /** Shows nothing, and asks for nothing more. */
  hide() {
    this.#host.hidden = true;
    this.#jobId = "";
    clearInterval(this.#timer);
    this.#transcript.clear();
  }

  /** Whether the facts are beside the conversation. */
  get isWide() {
    return this.#host.classList.contains("is-wide");
  }

  /** Takes the focus, where it covers the tree. */
  focus() {
    this.#parts.name.focus({ preventScroll: true });
  }

  /**
   * Uses a key of those that `top` has.
   *
   * @param {KeyboardEvent} event
   */
  key(event) {
    if (!this.#jobId || event.ctrlKey || event.metaKey || event.altKey) return false;
    const work = this.#keys()[event.key];
    if (!work) return false;
    this.#run(work);
    return true;
  }

  /** @param {string} jobId */
  #begin(jobId) {
    this.#jobId = jobId;
    this.#row = this.#details = null;
    this.#error = this.#told = this.#poked = "";
    this.#chosen = 0;
    this.#shownAttempt = -1;
    this.#drawn.clear();
    this.#transcript.clear();
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.#draw(), 1000);
  }

  #now() {
    return Date.now() / 1000 + this.#offset;
  }

  /** What is known of the job: its row, or as much of one as its details give. @returns {Row} */
  #known() {
    if (this.#row) return this.#row;
    const node = this.#nodeOf(this.#jobId);
    if (this.#details?.batchId || (node && !node.row)) return rowOfBatch(this.#jobId, node, this.#details);
    const { rights, attempts = [], own, subtree, ...rest } = this.#details ?? {};
    const [first, last] = [attempts[0], attempts.at(-1)];
    const times = { startedAt: first?.startedAt, endedAt: isLive(rest) ? undefined : last?.endedAt };
    return { jobId: this.#jobId, ...times, ...own, reason: last?.reason, ...rest };
  }

  async #look() {
    const jobId = this.#jobId;
    this.#looked = performance.now();
    try {
      const details = await get(`/api/jobs/${jobId}`);
      if (jobId !== this.#jobId) return;
      this.#details = details;
      this.#error = "";
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (jobId !== this.#jobId) return;
      // What is shown already stays: an engine may be on its way.
      this.#error = this.#details ? "" : error.message;
      // The next change asks again.
      this.#told = "";
    }
    this.#draw();
  }

  #draw() {
    if (!this.#jobId) return;
    const row = this.#known();
    const isKnown = Boolean(row.status);
    const { state, facts, actions, talk } = this.#parts;
    facts.hidden = actions.hidden = !isKnown;
    talk.hidden = !isKnown || row.isBatch;
    if (!isKnown) {
      this.#once("name", "", () => setText(this.#parts.name, this.#jobId));
      setText(state, this.#error || "Reading …");
      return;
    }
    this.#drawHead(row);
    this.#drawFacts(row);
    this.#drawActions(row);
    if (row.isBatch) return;
    this.#drawRequests();
    this.#drawOutcome(row);
    this.#drawTranscript(row);
  }

  /**
   * Builds a part again where what it shows has changed: a button under the pointer stays the same.
   *
   * @param {string} part
   * @param {unknown} shown
   * @param {() => void} build
   */
  #once(part, shown, build) {
    const key = JSON.stringify(shown);
    if (this.#drawn.get(part) === key) return;
    this.#drawn.set(part, key);
    build();
  }

  /** @param {Row} row */
  #drawHead(row) {
    const [shown, name] = [row.isBatch ? row.status : stateOf(row), nameOf(row)];
    const { mark, name: heading, state } = this.#parts;
    this.#once("mark", shown, () => fill(mark, symbol(shown, { hidden: true })));
    this.#once("name", name, () => {
      setText(heading, name);
      heading.title = name;
    });
    setText(state, stateLine(row, this.#details));
    setTo(state, "class", `job-state is-${shown}`);
  }

  /** @param {Row} row */
  #drawFacts(row) {
    const now = this.#now();
    const node = this.#nodeOf(this.#jobId);
    const children = node?.children ?? [];
    const beside = node?.parent?.children ?? [];
    const around = {
      children: children.length,
      live: children.filter((one) => one.live).length,
      names: (/** @type {string[]} */ ids) =>
        beside.filter((one) => one.row && one.live && ids.includes(one.id)).map((one) => nameOf(one.row ?? {})),
    };
    const [main, more] = factsOf(row, this.#details, now, around, NARROW.matches);
    drawList(this.#parts.main, main);
    drawList(this.#parts.more, more);
    this.#drawAttempts(row, now);
  }

  /**
   * @param {Row} row
   * @param {number} now
   */
  #drawAttempts(row, now) {
    const found = attemptsOf(row, this.#details);
    const { attempts } = this.#parts;
    attempts.hidden = found.length < 2;
    if (attempts.hidden) return;
    const current = this.#attempt(row);
    const numbers = found.map(({ number }) => number);
    this.#once("attempts", [numbers, current], () => {
      const buttons = numbers.map((number) => {
        const pressed = String(number === current);
        const said = [el("b", { text: String(number) }), el("span")];
        const button = el("button", { type: "button", "aria-pressed": pressed, title: "Show its transcript" }, said);
        button.addEventListener("click", () => this.#choose(number));
        return button;
      });
      fill(attempts, el("div", { class: "label", text: "Attempts" }), el("div", { class: "attempts" }, buttons));
    });
    const said = attempts.querySelectorAll("button span");
    found.forEach((one, index) => setText(said[index], attemptWords(one, now, index === found.length - 1)));
  }

  /** @param {number} number */
  #choose(number) {
    this.#chosen = number;
    this.#draw();
    /** @type {HTMLElement | null} */ (this.#parts.attempts.querySelector('[aria-pressed="true"]'))?.focus();
  }

  /** @param {Row} row */
  #attempt(row) {
    return this.#chosen || row.attempt || 0;
  }

  #drawRequests() {
    const requests = (this.#known().waitingFor === "permission" || !this.#row) && this.#details?.requests;
    const open = requests || [];
    this.#parts.asked.hidden = !open.length;
    this.#once("asked", open, () => {
      const decided = (/** @type {string} */ id, /** @type {boolean} */ allow) => this.#run(() => decide(id, allow));
      fill(this.#parts.asked, open.map((/** @type {any} */ request) => requestBox(request, decided)));
    });
  }

  /** @param {Row} row */
  #drawOutcome(row) {
    const details = this.#details ?? {};
    const hasFailed = !isLive(row) && row.status !== "completed" && row.status !== "cancelled";
    const error = hasFailed ? details.error || row.error || doing(row, this.#now()) : "";
    const result = isLive(row) ? "" : details.answer || "";
    const task = details.task ?? row.task ?? "";
    this.#once("outcome", [error, result, task], () => {
      fill(
        this.#parts.outcome,
        error ? box("is-bad", "Error", foldable(error)) : null,
        result ? box("is-good", "Result", foldable(result, details.answerChars)) : null,
        box("is-task", "Task", foldable(task, details.taskChars)),
      );
    });
  }

  /** @param {Row} row */
  #drawTranscript(row) {
    // With the task, which it leaves out.
    if (!this.#details) return;
    const attempt = this.#attempt(row);
    const isRunning = row.status === "running" && attempt === row.attempt;
    if (attempt !== this.#shownAttempt) {
      this.#shownAttempt = attempt;
      this.#transcript.show(this.#jobId, attempt, { isLive: isRunning, task: this.#details.task });
    }
    const poked = [row.lastOutputAt, row.status, row.attempt, row.waitingFor, this.#row ? 0 : this.#looked].join(" ");
    if (poked === this.#poked) return;
    this.#poked = poked;
    this.#transcript.poke(isRunning);
  }

  /** @param {Row} row */
  #drawActions(row) {
    const node = this.#node(row);
    const failed = RETRIED.includes(row.status) || RETRIED.some((state) => node.counts[state]);
    const { k, p, s, r, y } = this.#buttons;
    setText(p, node.isPaused ? "Resume" : "Pause");
    k.hidden = p.hidden = !node.live;
    s.hidden = isLive(row) || row.isBatch;
    r.hidden = !failed;
    y.hidden = !this.#details?.resume;
  }

  /** @returns {Record<string, () => Promise<boolean>>} */
  #keys() {
    const node = () => this.#node(this.#known());
    const resume = this.#details?.resume;
    return {
      k: () => kill(node()),
      p: () => pause(node()),
      s: () => send(node()),
      r: () => retry(node()),
      a: () => answer(null, node()),
      i: () => copy(this.#jobId, "the id"),
      y: () => (resume ? copy(resume, "the line that opens its session") : copy(this.#jobId, "the id")),
    };
  }

  /**
   * Returns the job in the tree, or what its row says of what is around it.
   *
   * @param {Row} row
   * @returns {Steered}
   */
  #node(row) {
    return this.#nodeOf(this.#jobId) ?? nodeOfRow(this.#jobId, row);
  }

  /** @param {() => Promise<boolean>} work */
  async #run(work) {
    if (this.#isBusy) return;
    this.#setBusy(true);
    try {
      await work();
    } finally {
      this.#setBusy(false);
    }
    if (this.#jobId) this.#look();
  }

  /** @param {boolean} isBusy */
  #setBusy(isBusy) {
    this.#isBusy = isBusy;
    const { actions, asked } = this.#parts;
    for (const part of [actions, asked]) {
      for (const button of part.querySelectorAll("button")) setTo(button, "aria-disabled", isBusy ? "true" : null);
    }
  }

  #toggleWide() {
    const isWide = this.#host.classList.toggle("is-wide");
    this.#parts.wide.setAttribute("aria-pressed", String(isWide));
    this.#onWide(isWide);
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (event.key !== "Escape" || event.defaultPrevented) return;
    event.preventDefault();
    this.#onClose();
  }
}
