// @ts-check
// The transcript of one attempt as a conversation. Only a part of a long one is on the page: blocks of entries, each
// with the bytes of the file that it shows, so that what is before and after it can be asked for.

import { ApiError, get } from "./api.js";
import { el, fill } from "./dom.js";
import { Calls, entryView } from "./entries.js";
import { plain } from "./format.js";

/** Most entries on the page. */
const MOST_ENTRIES = 2000;
/** Least milliseconds between two questions for what is new. */
const POLL_MS = 1000;
/** So near to its end a transcript counts as read to the end, in pixels. */
const NEAR_END = 48;

/** @typedef {{element: HTMLElement, from: number, next: number, size: number}} Block */

export class TranscriptView {
  #host;
  #scroller;
  #list = el("div", { class: "transcript" });
  #earlier = el("button", { type: "button", class: "quiet earlier", text: "Show earlier", hidden: true });
  #said = el("p", { class: "dim transcript-said" });
  #below = el("button", { type: "button", class: "new-below", text: "New below ↓", hidden: true });
  /** @type {Block[]} */
  #blocks = [];
  #calls = new Calls();
  #jobId = "";
  #attempt = 0;
  /** What is under way belongs to this turn; another job begins another. */
  #turn = 0;
  #isReading = false;
  #isWanted = false;
  #isFollowing = true;
  #hasLater = false;
  #isLive = false;
  #lastAsked = 0;
  #timer = 0;
  #skip = "";

  /**
   * @param {HTMLElement} host Where it is drawn.
   * @param {HTMLElement} scroller What scrolls it.
   */
  constructor(host, scroller) {
    this.#host = host;
    this.#scroller = scroller;
    fill(host, this.#earlier, this.#list, this.#said);
    scroller.after(this.#below);
    scroller.addEventListener("scroll", () => this.#onScroll(), { passive: true });
    this.#earlier.addEventListener("click", () => this.#readEarlier());
    this.#below.addEventListener("click", () => this.toEnd());
    // Who opens a call at the end reads it: a scroll position says whether they still follow.
    this.#list.addEventListener("toggle", () => this.#onScroll(), true);
    new ResizeObserver(() => this.#isFollowing && this.#scrollToEnd()).observe(scroller);
  }

  /**
   * Shows an attempt, from its end on where it is live.
   *
   * @param {string} jobId
   * @param {number} attempt
   * @param {{isLive: boolean, task?: string}} how `task`: is above it already, and is left out.
   */
  show(jobId, attempt, { isLive, task = "" }) {
    this.clear();
    this.#jobId = jobId;
    this.#attempt = attempt;
    this.#isLive = isLive;
    this.#isFollowing = isLive;
    this.#skip = plain(task).trim();
    if (attempt) this.#open();
    else this.#say("It has not begun.");
  }

  /** Shows nothing, and asks for nothing more. */
  clear() {
    this.#turn += 1;
    clearTimeout(this.#timer);
    this.#jobId = "";
    this.#attempt = 0;
    this.#forget();
    this.#say("");
  }

  /**
   * Asks for what is new, at most once a second.
   *
   * @param {boolean} isLive Whether the attempt still runs.
   */
  poke(isLive) {
    this.#isLive = isLive;
    if (!this.#jobId || !this.#attempt) return;
    clearTimeout(this.#timer);
    const wait = Math.max(0, this.#lastAsked + POLL_MS - performance.now());
    this.#timer = setTimeout(() => this.#readLater(), wait);
  }

  /** Goes to the end, and follows it. */
  toEnd() {
    this.#isFollowing = true;
    this.#below.hidden = true;
    if (this.#hasLater) this.#open();
    else this.#scrollToEnd();
  }

  #forget() {
    this.#isReading = this.#isWanted = this.#hasLater = false;
    this.#blocks = [];
    this.#calls = new Calls();
    this.#list.replaceChildren();
    this.#below.hidden = this.#earlier.hidden = true;
  }

  async #open() {
    this.#turn += 1;
    this.#forget();
    this.#say("Reading …");
    const page = await this.#read("before=end");
    if (!page) return;
    this.#put(page, "end");
    const nothing = this.#isLive ? "It has written nothing yet." : "It wrote nothing.";
    this.#say(this.#count() ? "" : nothing);
    if (this.#isFollowing) this.#scrollToEnd();
    else this.#scroller.scrollTop = 0;
    this.#afterwards();
  }

  async #readEarlier() {
    const first = this.#blocks[0];
    if (this.#isReading || !first) return;
    const page = await this.#read(`before=${first.from}`);
    if (!page) return;
    this.#isFollowing = false;
    this.#keeping(first.element, () => {
      this.#put(page, "start");
      this.#trim("end");
      this.#earlier.hidden = !page.from;
    });
    this.#afterwards();
  }

  /** Reads on where the end was taken away for what is earlier. */
  async #readNext() {
    const last = this.#blocks.at(-1);
    if (this.#isReading || !last) return;
    const page = await this.#read(`after=${last.next}`);
    if (!page) return;
    this.#hasLater = Boolean(page.more);
    this.#keeping(last.element, () => {
      this.#put(page, "end");
      this.#trim("start");
      this.#earlier.hidden = !this.#blocks[0]?.from;
    });
    this.#below.hidden = !this.#hasLater;
    this.#afterwards();
  }

  /**
   * Changes the list; what the reader looks at stays where it is.
   *
   * @param {HTMLElement} element
   * @param {() => void} change
   */
  #keeping(element, change) {
    const top = element.getBoundingClientRect().top;
    change();
    if (element.isConnected) this.#scroller.scrollTop += element.getBoundingClientRect().top - top;
  }

  async #readLater() {
    if (this.#isReading || this.#hasLater) {
      this.#isWanted = true;
      return;
    }
    const last = this.#blocks.at(-1);
    if (!last) return void this.#open();
    if (!this.#isFollowing && this.#count() >= MOST_ENTRIES) {
      // Nothing is taken away from a reader.
      this.#hasLater = true;
      this.#below.hidden = false;
      return;
    }
    const page = await this.#read(`after=${last.next}`);
    if (!page) return;
    const had = this.#count();
    this.#put(page, "end");
    if (this.#count() > had) {
      this.#say("");
      if (this.#isFollowing) this.#trim("start");
      else this.#below.hidden = false;
    }
    if (this.#isFollowing) this.#scrollToEnd();
    if (page.more) this.#isWanted = true;
    this.#afterwards();
  }

  #afterwards() {
    this.#earlier.hidden = !this.#blocks[0]?.from;
    if (!this.#isWanted || this.#hasLater) return;
    this.#isWanted = false;
    this.poke(this.#isLive);
  }

  /**
   * Reads a page; null where it is not wanted any more, or there was an error.
   *
   * @param {string} where
   */
  async #read(where) {
    const turn = this.#turn;
    this.#isReading = true;
    this.#lastAsked = performance.now();
    try {
      const page = await get(`/api/jobs/${this.#jobId}/transcript?attempt=${this.#attempt}&${where}`);
      return turn === this.#turn ? page : null;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (turn === this.#turn) this.#failed(error);
      return null;
    } finally {
      if (turn === this.#turn) this.#isReading = false;
    }
  }

  /** @param {ApiError} error */
  #failed(error) {
    if (!this.#blocks.length) this.#say(error.message);
    // An engine that is being replaced answers in a moment.
    if (!error.status || error.status === 503) this.#timer = setTimeout(() => this.#readLater(), 2 * POLL_MS);
  }

  /**
   * @param {any} page
   * @param {"start" | "end"} where
   */
  #put(page, where) {
    const element = el("div", { class: "block" });
    const block = { element, from: page.from ?? 0, next: page.next, size: 0 };
    const last = this.#blocks.at(-1);
    for (const entry of page.entries) {
      if (entry.kind === "task" && plain(entry.text).trim() === this.#skip) continue;
      const drawn = entryView(entry, this.#calls);
      if (!drawn) continue;
      element.append(drawn);
      block.size += 1;
    }
    if (where === "start") {
      this.#blocks.unshift(block);
      this.#list.prepend(element);
    } else if (last && !block.size) {
      last.next = page.next;
    } else {
      this.#blocks.push(block);
      this.#list.append(element);
    }
  }

  /**
   * Takes the blocks at one side away until there are few enough; one stays.
   *
   * @param {"start" | "end"} where
   */
  #trim(where) {
    let count = this.#count();
    while (this.#blocks.length > 1) {
      const block = this.#blocks[where === "start" ? 0 : this.#blocks.length - 1];
      if (count - block.size < MOST_ENTRIES / 2 || count <= MOST_ENTRIES) break;
      count -= block.size;
      block.element.remove();
      if (where === "start") this.#blocks.shift();
      else this.#blocks.pop();
      if (where === "end") this.#hasLater = true;
    }
    this.#calls.prune();
    if (this.#hasLater) this.#below.hidden = false;
  }

  #count() {
    return this.#blocks.reduce((sum, { size }) => sum + size, 0);
  }

  #onScroll() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    const isAtEnd = scrollHeight - scrollTop - clientHeight < NEAR_END;
    if (isAtEnd && this.#hasLater) return void this.#readNext();
    this.#isFollowing = isAtEnd;
    if (isAtEnd) this.#below.hidden = true;
  }

  #scrollToEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  /** @param {string} text */
  #say(text) {
    this.#said.textContent = text;
    this.#said.hidden = !text;
  }
}
