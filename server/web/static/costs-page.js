// @ts-check
// What it all cost, or what one tree did: against the budgets, by day, tree, depth and model.

import { ApiError, get } from "./api.js";
import { daysChart } from "./costs-days.js";
import { el, fill } from "./dom.js";
import { ago, counted, money, oneLine, tokens } from "./format.js";

/** Milliseconds between two looks while the page is seen. */
const LOOK_MS = 10_000;

/** @typedef {Record<string, any>} Row */
/** @typedef {{head: string, isText?: boolean, cell: (row: Row) => import("./dom.js").Child}} Column */

export class CostsPage {
  #host;
  #shell;
  #tree = "";
  /** @type {any} */
  #costs = null;
  #timer = 0;
  #shown = "";

  /**
   * @param {HTMLElement} host
   * @param {import("./main.js").Shell} shell
   */
  constructor(host, shell) {
    this.#host = host;
    this.#shell = shell;
    host.classList.add("costs");
    host.tabIndex = 0;
  }

  /** @param {{tree?: string}} params */
  show({ tree = "" }) {
    if (tree !== this.#tree || !this.#costs) fill(this.#host, el("p", { class: "dim", text: "Reading …" }));
    if (tree !== this.#tree) this.#costs = null;
    this.#tree = tree;
    this.#shown = "";
    this.#shell.title("Costs");
    document.addEventListener("visibilitychange", this.#visibility);
    this.#look();
  }

  hide() {
    document.removeEventListener("visibilitychange", this.#visibility);
    clearTimeout(this.#timer);
    this.#timer = 0;
  }

  #visibility = () => {
    clearTimeout(this.#timer);
    if (!document.hidden) this.#look();
  };

  async #look() {
    clearTimeout(this.#timer);
    const tree = this.#tree;
    let found = null;
    let error = "";
    try {
      found = await get(tree ? `/api/trees/${tree}/costs` : "/api/costs");
    } catch (thrown) {
      if (!(thrown instanceof ApiError)) throw thrown;
      error = thrown.message;
      this.#shell.connection(thrown.status === 401 || thrown.status === 403 ? "denied" : "lost");
    }
    if (tree !== this.#tree || !this.#host.isConnected) return;
    if (found) {
      this.#costs = found;
      this.#shell.connection("live");
      this.#draw();
    } else if (!this.#costs) {
      fill(this.#host, el("div", { class: "empty" }, el("h2", { text: "The costs cannot be read" }), error));
    }
    if (!document.hidden) this.#timer = setTimeout(() => this.#look(), LOOK_MS);
  }

  #draw() {
    // What did not change keeps its place and its selection.
    const shown = JSON.stringify([this.#costs, new Date().getMinutes()]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    const top = this.#host.scrollTop;
    fill(this.#host, this.#tree ? treeView(this.#costs) : allView(this.#costs));
    this.#host.scrollTop = top;
    if (this.#tree) this.#shell.title(`Costs of ${oneLine(this.#costs.title) || this.#tree}`);
  }
}

/** @param {any} costs */
function allView(costs) {
  const trees = costs.trees ?? [];
  if (!trees.length && !costs.totalUsd) {
    return el(
      "div",
      { class: "empty" },
      el("h2", { text: "Nothing has cost anything yet" }),
      "Start a job in a terminal:",
      el("pre", { text: 'claude-jobs run "Say what this project does"' }),
    );
  }
  return [
    el(
      "header",
      { class: "costs-head" },
      el("h1", {}, el("span", { class: "costs-sum", text: usd(costs.totalUsd) }), " in all"),
      el("p", { class: "dim", text: counted(trees.length, "tree") + (trees.length >= 200 ? ", those that cost most" : "") }),
    ),
    el(
      "div",
      { class: "costs-top" },
      budgets(costs.accounts ?? []),
      part("The last 30 days", daysChart(costs.days ?? [])),
    ),
    part("Trees that cost most", trees.length ? table(TREES, trees) : nothing()),
    halves(costs),
  ];
}

/** @param {any} costs */
function treeView(costs) {
  const { rootId, title, costUsd, maxBudgetUsd } = costs;
  const of = maxBudgetUsd ? ` of ${usd(maxBudgetUsd)}` : " · no budget";
  return [
    el(
      "header",
      { class: "costs-head" },
      el("p", {}, el("a", { href: `#/tree/${rootId}`, text: "‹ the tree" })),
      el("h1", { class: "job-text", title: oneLine(title), text: oneLine(title) || rootId }),
      el("p", { class: "costs-of" }, el("span", { class: "costs-sum", text: usd(costUsd) }), of),
      maxBudgetUsd ? bar(costUsd, maxBudgetUsd, "Budget of the tree") : null,
    ),
    halves(costs),
  ];
}

/** @param {any} costs */
function halves({ depths = [], models = [] }) {
  const most = Math.max(0, ...depths.map((/** @type {Row} */ one) => one.costUsd ?? 0));
  return el(
    "div",
    { class: "costs-halves" },
    part("By depth", depths.length ? table(depthColumns(most), depths) : nothing()),
    part("By model", models.length ? table(MODELS, models) : nothing()),
  );
}

function nothing() {
  return el("p", { class: "dim", text: "Nothing yet." });
}

/** @param {Row[]} accounts */
function budgets(accounts) {
  const shown = accounts.map((account) =>
    el(
      "div",
      { class: "account" },
      el("h3", { class: "job-text", title: oneLine(account.account), text: accountName(account.account) }),
      used("Today", account.dayUsd, account.dayBudgetUsd),
      used("This month", account.monthUsd, account.monthBudgetUsd),
    ),
  );
  const isSet = accounts.some((one) => one.dayBudgetUsd || one.monthBudgetUsd);
  const setting = el("code", { text: "daily_budget_usd" });
  const hint = isSet ? null : el("p", { class: "dim hint" }, "No budget is set; ", setting, " limits a day.");
  return part("Budgets", [shown.length ? shown : nothing(), hint]);
}

/**
 * A name says for itself that it is one of an account; the beginning of a digest does not.
 *
 * @param {string | undefined} account
 */
function accountName(account) {
  const name = oneLine(account);
  return /^[0-9a-f]*$/.test(name) ? `Account ${name}`.trim() : name;
}

/**
 * @param {string} name
 * @param {number} spent
 * @param {number | undefined} budget
 */
function used(name, spent, budget) {
  const said = budget ? [el("b", { text: usd(spent) }), ` of ${usd(budget)}`] : [el("b", { text: usd(spent) })];
  return el(
    "div",
    { class: "used" },
    el("span", { text: name }),
    el("span", { class: "num" }, said),
    budget ? bar(spent, budget, `Budget, ${name.toLowerCase()}`) : null,
  );
}

/**
 * @param {number} spent
 * @param {number} budget
 * @param {string} name
 */
function bar(spent, budget, name) {
  const part = budget > 0 ? spent / budget : 1;
  const words = `${usd(spent)} of ${usd(budget)}, ${Math.round(100 * part)} %`;
  const inner = el("i");
  inner.style.width = `${Math.min(100, 100 * part)}%`;
  const percent = Math.round(Math.min(part, 1) * 100);
  const props = {
    class: part >= 0.9 ? "budget is-over" : "budget",
    role: "meter",
    title: words,
    "aria-label": name,
    "aria-valuemin": 0,
    "aria-valuemax": 100,
    "aria-valuenow": percent,
    "aria-valuetext": words,
  };
  return el("span", props, inner);
}

/**
 * @param {string} title
 * @param {import("./dom.js").Child} body
 */
function part(title, body) {
  return el("section", { class: "costs-part" }, el("h2", { text: title }), body);
}

/**
 * @param {Column[]} columns
 * @param {Row[]} rows
 */
function table(columns, rows) {
  const kind = (/** @type {Column} */ column) => (column.isText ? "is-text" : "num");
  const head = columns.map((one) => el("th", { scope: "col", class: kind(one), text: one.head }));
  const cells = (/** @type {Row} */ row) => columns.map((one) => el("td", { class: kind(one) }, one.cell(row)));
  const body = rows.map((row) => el("tr", {}, cells(row)));
  const drawn = el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body));
  return el("div", { class: "table-scroll", tabindex: 0, role: "group", "aria-label": "Table" }, drawn);
}

/** @type {Column[]} */
const TREES = [
  {
    head: "Tree",
    isText: true,
    cell: ({ rootId, title }) =>
      el("a", { class: "job-text", href: `#/tree/${rootId}`, title: oneLine(title), text: oneLine(title) || rootId }),
  },
  { head: "Began", cell: ({ createdAt }) => ago(createdAt, Date.now() / 1000) },
  { head: "Jobs", cell: ({ jobs }) => (jobs ?? 0).toLocaleString("en-US") },
  { head: "Cost", cell: ({ costUsd }) => usd(costUsd) },
  {
    head: "Budget",
    cell: ({ costUsd, maxBudgetUsd }) => {
      if (!maxBudgetUsd) return el("span", { class: "dim", text: "–" });
      return [usd(maxBudgetUsd), bar(costUsd, maxBudgetUsd, "Budget of the tree")];
    },
  },
  {
    head: "",
    cell: ({ rootId, title }) => {
      const label = `Costs of ${oneLine(title) || rootId}`;
      return el("a", { class: "dim", href: `#/tree/${rootId}/costs`, "aria-label": label, text: "by depth ›" });
    },
  },
];

/** @param {number} most @returns {Column[]} */
const depthColumns = (most) => [
  {
    head: "Depth",
    isText: true,
    cell: ({ depth, costUsd }) => {
      const share = el("i");
      share.style.width = most ? `${(100 * (costUsd ?? 0)) / most}%` : "0";
      return [String(depth), el("span", { class: "share", "aria-hidden": "true" }, share)];
    },
  },
  { head: "Jobs", cell: ({ jobs }) => (jobs ?? 0).toLocaleString("en-US") },
  { head: "Tokens in", cell: ({ inputTokens }) => tokens(inputTokens) || "0" },
  { head: "Tokens out", cell: ({ outputTokens }) => tokens(outputTokens) || "0" },
  { head: "Cost", cell: ({ costUsd }) => usd(costUsd) },
];

/** @type {Column[]} */
const MODELS = [
  {
    head: "Model",
    isText: true,
    cell: ({ model }) => el("span", { class: "job-text", text: oneLine(model) || "not known" }),
  },
  { head: "Attempts", cell: ({ attempts }) => (attempts ?? 0).toLocaleString("en-US") },
  { head: "Tokens in", cell: ({ inputTokens }) => tokens(inputTokens) || "0" },
  { head: "Tokens out", cell: ({ outputTokens }) => tokens(outputTokens) || "0" },
  { head: "Cost", cell: ({ costUsd }) => usd(costUsd) },
];

/** @param {number | undefined} amount */
function usd(amount) {
  return money(amount) || "$0.00";
}
