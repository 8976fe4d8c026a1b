// @ts-check
// The job feed over server-sent events: one connection, that comes back by itself.

import { get } from "./api.js";

/** Seconds for which a hidden page keeps its stream. */
const HIDDEN_SECONDS = 10;
/** Seconds between two looks where the browser has so many pages open that not all keep a stream. */
const LATER_SECONDS = 2;
const FIRST_RETRY = 0.5;
const LAST_RETRY = 3;
/** Seconds without an engine after which it counts as over rather than as being replaced. */
const OVER_SECONDS = 15;

/**
 * @typedef {"live" | "lost" | "over" | "denied"} FeedState
 *   `lost`: it is being tried again; `over`: no engine runs, and that is still tried; `denied`: the page has no cookie
 *   that the engine knows.
 */

/**
 * @typedef {object} FeedOptions
 * @property {string} [tree] Only this tree.
 * @property {string[] | null} [parents] Only the jobs right below these.
 * @property {boolean} [trees] Trees alone, without their jobs.
 * @property {(page: any) => void} onPage
 * @property {(state: FeedState) => void} onState
 */

export class Feed {
  /** @type {EventSource | null} */
  #source = null;
  #cursor = "";
  /** @type {FeedState | ""} */
  #state = "";
  #retry = FIRST_RETRY;
  #lostAt = 0;
  #timer = 0;
  #isClosed = false;
  #options;

  /** @param {FeedOptions} options */
  constructor(options) {
    this.#options = options;
    document.addEventListener("visibilitychange", this.#visibility);
    this.#open();
    // One that is opened behind another page may never be seen.
    if (document.hidden) this.#visibility();
  }

  /** Ends it; nothing is called afterwards. */
  close() {
    this.#isClosed = true;
    document.removeEventListener("visibilitychange", this.#visibility);
    this.#drop();
  }

  #url() {
    const { tree, parents, trees } = this.#options;
    const query = new URLSearchParams();
    if (tree) query.set("tree", tree);
    if (parents) query.set("parents", parents.join(","));
    if (trees) query.set("trees", "1");
    if (this.#cursor) query.set("cursor", this.#cursor);
    return `/api/feed?${query}`;
  }

  #open() {
    this.#drop();
    const source = new EventSource(this.#url());
    this.#source = source;
    source.addEventListener("page", (event) => this.#take(/** @type {MessageEvent} */ (event)));
    source.addEventListener("later", () => this.#comeBack());
    source.addEventListener("end", () => this.#lose("over"));
    source.addEventListener("error", () => this.#lose("lost"));
  }

  /** @param {MessageEvent} event */
  #take(event) {
    const page = JSON.parse(event.data);
    this.#cursor = page.cursor;
    this.#retry = FIRST_RETRY;
    this.#lostAt = 0;
    this.#say("live");
    this.#options.onPage(page);
  }

  /**
   * Tries again later. Not left to the browser: it gives up at an error of HTTP, and says none of them.
   *
   * @param {"lost" | "over"} how
   */
  #lose(how) {
    this.#drop();
    this.#lostAt ||= Date.now();
    const isOver =
      how === "over" || this.#state === "over" || Date.now() - this.#lostAt > OVER_SECONDS * 1000;
    // A page that is only a moment without its stream does not say so.
    if (this.#state !== "live" || how === "over" || this.#retry > FIRST_RETRY)
      this.#say(isOver ? "over" : "lost");
    this.#later(this.#retry, () => this.#ask());
    this.#retry = Math.min(LAST_RETRY, this.#retry * 1.6);
  }

  /** Leaves the connection to other pages for a while: a browser has few to one host. */
  #comeBack() {
    this.#drop();
    // A hidden page waits until it is seen.
    if (!document.hidden) this.#later(LATER_SECONDS, () => this.#open());
  }

  /** Asks why there is no stream; opens it again where there is an engine that knows this page. */
  async #ask() {
    try {
      await get("/api/session");
    } catch (error) {
      if (this.#isClosed) return;
      const { status } = /** @type {{status?: number}} */ (error);
      if (status === 401 || status === 403) {
        this.#say("denied");
        this.#later(LAST_RETRY, () => this.#ask());
      } else {
        this.#lose("lost");
      }
      return;
    }
    if (!this.#isClosed) this.#open();
  }

  #visibility = () => {
    if (document.hidden) {
      this.#later(HIDDEN_SECONDS, () => this.#drop());
    } else if (this.#source) {
      clearTimeout(this.#timer);
    } else {
      this.#retry = FIRST_RETRY;
      this.#open();
    }
  };

  /**
   * @param {number} seconds
   * @param {() => void} then
   */
  #later(seconds, then) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(then, seconds * 1000);
  }

  #drop() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  /** @param {FeedState} state */
  #say(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.#options.onState(state);
  }
}
