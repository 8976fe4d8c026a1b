// @ts-check
// The shell: which page is shown, the filter, the keys that hold everywhere, and the state of the engine.

import { get } from "./api.js";
import { el, fill, setText } from "./dom.js";
import { Feed } from "./feed.js";
import { HINTS } from "./filter.js";
import { plain } from "./format.js";
import { openHelp } from "./help.js";

/**
 * A page is a class `new Page(host, shell)`. `host` is an element of its own, which is in the view while it is shown.
 *
 * @typedef {object} Page
 * @property {(params: {tree?: string, job?: string}) => void} show Also called when the parameters change.
 * @property {() => void} hide Ends its streams and timers.
 * @property {(text: string) => void} [filter] The text of the filter has changed.
 * @property {(event: KeyboardEvent) => boolean} [key] Tells whether it has used a key.
 */

/**
 * What a page may ask of the shell.
 *
 * @typedef {object} Shell
 * @property {(text: string) => void} title The page's part of the window's title.
 * @property {(count: number) => void} asks How many jobs ask for something.
 * @property {(state: import("./feed.js").FeedState) => void} connection
 * @property {(hash: string, how?: {replace?: boolean}) => void} go
 * @property {(text: string, placeholder?: string) => void} setFilter
 */

/** @type {Record<string, () => Promise<any>>} */
const MODULES = {
  trees: () => import("./trees-page.js").then((module) => module.TreesPage),
  tree: () => import("./tree-page.js").then((module) => module.TreePage),
  costs: () => import("./costs-page.js").then((module) => module.CostsPage),
};

/** Pages without a stream of their own: the shell follows the trees for them. */
const STILL = new Set(["costs"]);

const ID = /^[0-9A-Za-z_-]{1,64}$/;

/**
 * Returns the page that a hash names, and its parameters.
 *
 * @param {string} hash
 * @returns {{page: string, params: {tree?: string, job?: string}}}
 */
export function routeOf(hash) {
  const [first, tree, rest] = hash.replace(/^#\/?/, "").split("/");
  if (first === "costs") return { page: "costs", params: {} };
  if (first !== "tree" || !ID.test(tree ?? "")) return { page: "trees", params: {} };
  if (rest === "costs") return { page: "costs", params: { tree } };
  return { page: "tree", params: ID.test(rest ?? "") ? { tree, job: rest } : { tree } };
}

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

const view = byId("view");
const input = /** @type {HTMLInputElement} */ (byId("filter"));

/** @type {Map<string, {host: HTMLElement, page: Page}>} */
const made = new Map();
let shown = "";
let title = "";
let asking = 0;
/** @type {Feed | null} */
let behind = null;

/** @type {Record<string, [string, string]>} */
const STATES = {
  live: ["live", ""],
  lost: ["reconnecting …", ""],
  over: ["stopped", "The engine has stopped, or the page was ended. Jobs go on. To go on here: "],
  denied: ["no access", "This page may not see the jobs any more. Open it again with: "],
};

/** @type {Shell} */
const shell = {
  title(text) {
    title = text;
    showTitle();
  },
  asks(count) {
    asking = count;
    showTitle();
  },
  connection(state) {
    const [word, told] = STATES[state];
    const engine = byId("engine");
    engine.dataset.state = state;
    engine.title = `The engine: ${word}`;
    if (state === "live") tellEngine(engine);
    fill(engine, el("span", { text: word }));
    const notice = byId("notice");
    notice.hidden = !told;
    fill(notice, told, told && el("code", { text: "claude-jobs web" }));
  },
  go(hash, { replace = false } = {}) {
    if (hash === location.hash) return;
    if (!replace) {
      location.hash = hash;
      return;
    }
    history.replaceState(null, "", hash);
    route();
  },
  setFilter(text, placeholder = "Filter: words, status:failed, cost>0.5") {
    input.value = text;
    input.placeholder = placeholder;
  },
};

/** @param {HTMLElement} engine */
async function tellEngine(engine) {
  try {
    const { version, home, pid } = await get("/api/session");
    if (home)
      engine.title = `The engine: live, version ${version}, process ${pid}, with its state in ${plain(home)}`;
  } catch {
    // It says by its stream that it is gone.
  }
}

function showTitle() {
  const count = asking ? `(${asking}) ` : "";
  const text = `${count}${title ? `${title} · ` : ""}claude-jobs`;
  if (document.title !== text) document.title = text;
}

/**
 * Follows the trees behind a page that has no stream, so that it says too how the engine is and what asks.
 *
 * @param {boolean} isWanted
 */
function followBehind(isWanted) {
  if (isWanted === (behind !== null)) return;
  behind?.close();
  behind = null;
  if (!isWanted) return;
  /** @type {Map<string, number>} */
  const asks = new Map();
  behind = new Feed({
    trees: true,
    onState: shell.connection,
    onPage(page) {
      if (page.reset) asks.clear();
      for (const tree of page.trees) asks.set(tree.rootId, tree.asking ?? 0);
      for (const rootId of page.gone) asks.delete(rootId);
      shell.asks([...asks.values()].reduce((sum, count) => sum + count, 0));
    },
  });
}

async function route() {
  const { page: name, params } = routeOf(location.hash);
  if (!made.has(name)) {
    const host = el("section", { class: `page page-${name}` });
    const Page = await MODULES[name]();
    made.set(name, { host, page: new Page(host, shell) });
    // The person may be elsewhere by now.
    if (routeOf(location.hash).page !== name) return;
  }
  const { host, page } = /** @type {{host: HTMLElement, page: Page}} */ (made.get(name));
  if (shown !== name) {
    made.get(shown)?.page.hide();
    shown = name;
    view.replaceChildren(host);
    byId("search").hidden = !page.filter;
    shell.setFilter("");
    shell.asks(0);
    markNavigation(name);
    followBehind(STILL.has(name));
  }
  page.show(params);
}

/** @param {string} name */
function markNavigation(name) {
  for (const link of document.querySelectorAll("nav a[data-page]")) {
    const isHere = link.getAttribute("data-page") === (name === "tree" ? "trees" : name);
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

/** @param {EventTarget | null} target */
function isTyping(target) {
  return target instanceof HTMLElement && target.matches("input, textarea, select, [contenteditable]");
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
  const page = made.get(shown)?.page;
  if (event.target === input) {
    if (leavesFilter(event, page)) event.preventDefault();
    return;
  }
  if (isTyping(event.target)) return;
  if (ownKey(event) || page?.key?.(event)) event.preventDefault();
}

/**
 * @param {KeyboardEvent} event
 * @param {Page | undefined} page
 */
function leavesFilter(event, page) {
  if (!["Escape", "Enter", "ArrowDown"].includes(event.key) || event.isComposing) return false;
  if (event.key === "Escape" && input.value) {
    input.value = "";
    page?.filter?.("");
  }
  input.blur();
  const list = view.querySelector("[data-focus]");
  /** @type {HTMLElement} */ (list ?? view).focus();
  return true;
}

/** @param {KeyboardEvent} event */
function ownKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  if (event.key === "/" && !byId("search").hidden) {
    input.focus();
    input.select();
    return true;
  }
  if (event.key === "?" || event.key === "F1") {
    openHelp();
    return true;
  }
  return false;
}

fill(
  byId("filter-hint"),
  HINTS.map(([word, meaning]) => [el("code", { text: word }), el("span", { text: meaning })]),
);
setText(byId("engine"), "");
input.addEventListener("input", () => made.get(shown)?.page.filter?.(input.value));
byId("help").addEventListener("click", openHelp);
document.addEventListener("keydown", onKey);
window.addEventListener("hashchange", route);
route();
