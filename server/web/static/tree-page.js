// @ts-check
// The page of one tree: heading, what asks for a decision, the rows with their timeline, and the job beside them.

import { AskBanner } from "./asks.js";
import { heldBack } from "./counts.js";
import { confirm } from "./dialogs.js";
import { el, fill, setText } from "./dom.js";
import { Feed } from "./feed.js";
import { parse } from "./filter.js";
import { counted } from "./format.js";
import { JobPane } from "./job-pane.js";
import { JobTree } from "./jobs.js";
import { TreeGrid } from "./tree-grid.js";
import { TreeHead, titleOf } from "./tree-head.js";
import { TreeKeys } from "./tree-keys.js";

/** @typedef {import("./jobs.js").Node} Node */
/** @typedef {import("./main.js").Shell} Shell */

/** Jobs of a tree up to which all of them are loaded at once. */
const WHOLE = 2000;
/** Jobs below one that are shown without a question. */
const UNASKED = 1000;
/** Milliseconds for which a job stays selected before it is shown beside the rows. */
const SETTLE = 150;

export class TreePage {
  /** @type {Feed | null} */
  #feed = null;
  #rootId = "";
  #wanted = /** @type {string | undefined} */ (undefined);
  /** @type {string[] | null} The jobs whose jobs are loaded; null for all. */
  #parents = null;
  #ticker = 0;
  #settle = 0;
  #filter = "";
  /** What is offered below the rows. */
  #offered = "";
  /** Whether the step of the history before this one is the tree without a job beside it. */
  #isPushed = false;
  #jobs = new JobTree("");
  // What is built for each tree.
  #grid = /** @type {TreeGrid} */ (/** @type {unknown} */ (null));
  #head = /** @type {TreeHead} */ (/** @type {unknown} */ (null));
  #keys = /** @type {TreeKeys} */ (/** @type {unknown} */ (null));
  #asks = /** @type {AskBanner} */ (/** @type {unknown} */ (null));

  /**
   * @param {HTMLElement} host
   * @param {Shell} shell
   */
  constructor(host, shell) {
    this.host = host;
    this.shell = shell;
    /** @type {string | undefined} Id of the job that is shown beside the rows. */
    this.shown = undefined;
    this.pane = el("aside", { class: "pane", "aria-label": "Job", hidden: true });
    this.jobPane = new JobPane(this.pane, {
      onClose: () => this.#close(),
      nodeOf: (/** @type {string} */ id) => this.#jobs.node(id),
      onWide: (/** @type {boolean} */ isWide) => this.body.classList.toggle("is-wide", isWide),
    });
  }

  /** @param {{tree?: string, job?: string}} params */
  show({ tree = "", job }) {
    this.#wanted = job;
    if (tree !== this.#rootId || !this.#feed) this.#begin(tree);
    this.#showJob();
  }

  hide() {
    this.#feed?.close();
    this.#feed = null;
    clearInterval(this.#ticker);
    clearTimeout(this.#settle);
    this.#grid.timeline.hide();
    this.jobPane.hide();
    this.pane.hidden = true;
    // It is shown from the beginning where the person comes back to it.
    this.shown = undefined;
  }

  /** @param {string} rootId */
  #begin(rootId) {
    if (this.#feed) this.hide();
    this.#rootId = rootId;
    this.#filter = "";
    this.shell.setFilter("");
    this.shell.title("");
    this.#jobs = new JobTree(rootId);
    this.#build();
    // How many there are is asked first: ten thousand rows are not sent unless somebody wants them.
    this.#listen({ trees: true }, (page) => {
      const [tree] = page.trees;
      this.#parents = tree && tree.jobs > WHOLE ? [] : null;
      this.#jobs.tree = tree ?? null;
      this.#load();
    });
    this.#ticker = setInterval(() => this.#tick(), 1000);
  }

  #build() {
    const jobs = this.#jobs;
    this.#grid = new TreeGrid(jobs, {
      onOpen: (node) => this.#open(node),
      onSelect: (node) => this.#selected(node),
      onFold: (node) => this.#fold(node, jobs.isOpen(node)),
    });
    this.#head = new TreeHead({
      rootId: this.#rootId,
      zoom: (factor) => this.#grid.timeline.zoom(factor),
      fit: () => this.#grid.timeline.fit(),
      critical: () => this.#grid.toggleCritical(),
    });
    this.#keys = new TreeKeys(jobs, this.#grid, this.#head, {
      open: (node) => this.#open(node),
      fold: (node, folded) => this.#fold(node, folded),
      show: (node) => this.#show(node),
      leave: () => this.#escape(),
    });
    this.held = el("div", { class: "held", role: "status", hidden: true });
    const asks = el("div", { class: "asks" });
    this.#asks = new AskBanner(asks);
    this.#offered = "";
    this.ask = el("div", { class: "grid-ask", role: "status", hidden: true });
    this.empty = el("div", { class: "empty", text: "Reading the jobs …" });
    this.main = el("div", { class: "tree-main", hidden: true }, this.#grid.element, this.ask);
    this.body = el("div", { class: "tree-body" }, this.empty, this.main, this.pane);
    // The pane keeps its width from one tree to the next.
    this.body.classList.toggle("is-wide", this.jobPane.isWide);
    fill(this.host, this.#head.element, this.held, asks, this.body);
  }

  /**
   * @param {object} scope
   * @param {(page: any) => void} onPage
   */
  #listen(scope, onPage) {
    this.#feed?.close();
    this.#feed = new Feed({
      tree: this.#rootId,
      ...scope,
      onPage,
      onState: (state) => this.shell.connection(state),
    });
  }

  #load() {
    this.#listen({ parents: this.#parents }, (page) => this.#take(page));
  }

  /** @param {any} page */
  #take(page) {
    if (!this.#jobs.apply(page)) return;
    const jobs = this.#jobs;
    const { root } = jobs;
    // A few jobs right below the root are shown without a question, however many are below them.
    if (root?.row && this.#parents?.length === 0 && root.width && root.width <= UNASKED)
      this.#loadBelow(root);
    const held = heldBack(page);
    this.held.hidden = !held;
    setText(this.held, held);
    const isFirst = this.main.hidden;
    this.main.hidden = !jobs.root;
    this.empty.hidden = Boolean(jobs.root);
    this.#head.element.hidden = !jobs.root;
    if (!jobs.root) {
      this.#missing();
      return;
    }
    this.shell.title(titleOf(jobs));
    this.shell.asks(Math.max(jobs.root.asking, jobs.tree?.asking ?? 0));
    this.#grid.update();
    this.#head.update(jobs);
    this.#asks.update(jobs.asking().flatMap((node) => node.row ?? []));
    this.#offer();
    this.#updateJob();
    const isFree = document.activeElement === document.body || document.activeElement?.id === "view";
    if (isFirst && isFree) this.#grid.rows.element.focus({ preventScroll: true });
  }

  #missing() {
    this.shell.title("");
    this.shell.asks(0);
    this.#asks.hide();
    // A job that was beside it is gone with it.
    if (this.#jobs.isGone && this.#wanted) this.shell.go(`#/tree/${this.#rootId}`, { replace: true });
    fill(
      this.empty,
      el("h2", { text: "This tree is not there" }),
      el("p", { text: "It may have been pruned, or its id is not whole." }),
      el("p", {}, el("a", { href: "#/", text: "All trees" })),
    );
  }

  #tick() {
    if (document.hidden || !this.#jobs.root) return;
    this.#grid.draw();
    this.#head.tick(this.#jobs);
    if (this.#jobs.root.live) this.#updateJob();
  }

  // What is not loaded.

  /** Offers what is not loaded: the jobs below the root, or all of them where a filter looks for some. */
  #offer() {
    const { root, tree } = this.#jobs;
    const total = tree?.jobs ?? 0;
    const loaded = [...this.#jobs.nodes()].filter((node) => node.row).length;
    const isShut = root !== null && this.#parents !== null && !this.#parents.includes(root.id);
    const isPart = this.#parents !== null && this.#jobs.isFiltered && loaded < total;
    const isEmpty = this.#jobs.isFiltered && !this.#jobs.lines.length;
    this.ask.hidden = !(isShut || isPart || isEmpty);
    this.ask.classList.toggle("is-inside", (isShut || isEmpty) && !isPart);
    const kind = isPart ? "part" : isShut ? "shut" : isEmpty ? "empty" : "";
    if (kind !== this.#offered) this.#buildOffer(kind);
    const [told, button] = this.ask.children;
    if (isPart) {
      const known = `${counted(loaded, "job")} that are loaded, of ${total.toLocaleString("en-US")}`;
      setText(told, `The filter looks at the ${known}.`);
      setText(button, "Load all");
    } else if (isShut && root) {
      setText(told, `This tree has ${counted(total, "job")}.`);
      setText(
        button,
        root.row
          ? `Show the ${counted(root.width, "job")} right below`
          : `Show all ${counted(total, "job")}`,
      );
    } else if (isEmpty) {
      setText(told, "No job of this tree matches. Esc clears the filter.");
    }
  }

  /**
   * Builds it once: a button that is built again with each page loses the focus, and a click that is under way.
   *
   * @param {"part" | "shut" | "empty" | ""} kind
   */
  #buildOffer(kind) {
    this.#offered = kind;
    const { root } = this.#jobs;
    const click = () => (kind === "part" || !root ? this.#loadAll() : this.#loadBelow(root));
    const button = el("button", { type: "button", class: "primary", on: { click } });
    fill(this.ask, kind && el("p"), kind === "part" || kind === "shut" ? button : null);
  }

  #loadAll() {
    this.#parents = null;
    this.#load();
  }

  /** @param {Node} node */
  #loadBelow(node) {
    this.#parents = [...(this.#parents ?? []), node.id];
    this.#jobs.fold(node, false);
    this.#load();
  }

  /**
   * @param {Node} node
   * @param {boolean} folded
   */
  async #fold(node, folded) {
    const isMissing = !folded && !node.isLoaded && this.#parents !== null && !this.#parents.includes(node.id);
    if (isMissing && node.width > UNASKED) {
      const title = `Show ${counted(node.width, "job")}?`;
      const said = await confirm({
        title,
        text: `That many are right below ${node.name}.`,
        buttons: [
          { value: "", label: "Cancel" },
          { value: "yes", label: "Show them", kind: "primary", focus: true },
        ],
      });
      if (!said) return;
    }
    if (isMissing) this.#loadBelow(node);
    else this.#jobs.fold(node, folded);
    this.#grid.update();
    this.#offer();
  }

  // The job beside the rows.

  /** @param {Node} node */
  #open(node) {
    clearTimeout(this.#settle);
    if (!node.row) this.#fold(node, this.#jobs.isOpen(node));
    else {
      this.#isPushed ||= this.pane.hidden;
      this.shell.go(`#/tree/${this.#rootId}/${node.id}`, { replace: !this.pane.hidden });
    }
  }

  /** @param {Node | null} node */
  #selected(node) {
    clearTimeout(this.#settle);
    if (!node?.row || this.pane.hidden || node.id === this.shown) return;
    const from = location.hash;
    // The person may have gone elsewhere meanwhile.
    this.#settle = setTimeout(() => location.hash === from && this.#open(node), SETTLE);
  }

  #close() {
    clearTimeout(this.#settle);
    // What was opened here is one step of the history, however many jobs were looked at.
    if (this.#isPushed) history.back();
    else this.shell.go(`#/tree/${this.#rootId}`, { replace: true });
    this.#grid.rows.element.focus({ preventScroll: true });
  }

  #showJob() {
    const id = this.#wanted;
    const isOpen = Boolean(id);
    this.body.classList.toggle("has-pane", isOpen);
    this.pane.hidden = !isOpen;
    if (!id) {
      clearTimeout(this.#settle);
      this.#isPushed = false;
      this.shown = undefined;
      this.jobPane.hide();
    } else if (this.shown !== id) {
      this.shown = id;
      this.jobPane.show(id, this.#jobs.node(id)?.row ?? null);
    }
    this.#reveal();
    this.#grid.draw();
  }

  /** Selects the job of the address once it is there. */
  #reveal() {
    const node = this.#jobs.node(this.#wanted);
    if (node && this.#grid.rows.selected !== node.id) this.#show(node);
  }

  #updateJob() {
    if (this.pane.hidden) return;
    if (this.#grid.rows.selected === null) this.#reveal();
    const row = this.#jobs.node(this.shown)?.row;
    if (row) this.jobPane.update(row, this.#jobs.now());
  }

  // Keys and filter.

  /** @param {string} text */
  filter(text) {
    this.#filter = text;
    this.#jobs.filter(parse(text));
    this.#grid.update();
    const { selectedItem } = this.#grid.rows;
    const first = this.#jobs.firstFound;
    if (first && !(selectedItem && this.#jobs.found.has(selectedItem))) this.#grid.rows.select(first);
    this.#offer();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (!this.pane.hidden && event.key === "y" && this.jobPane.key(event)) return true;
    return this.#keys.use(event);
  }

  #escape() {
    if (!this.pane.hidden) {
      this.#close();
    } else if (this.#filter) {
      this.shell.setFilter("");
      this.filter("");
    } else {
      return false;
    }
    return true;
  }

  /** @param {Node} node */
  #show(node) {
    this.#jobs.reveal(node);
    this.#grid.update();
    this.#grid.rows.select(node.id);
  }
}
