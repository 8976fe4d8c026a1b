// @ts-check
// What the pane says about a job above its transcript, as values: names and texts.

import { ago, clock, counted, doing, duration, inWords } from "./format.js";
import { isLive, money, oneLine, stateOf, tokens, wordFor, words } from "./format.js";

/** @typedef {Record<string, any>} Row */
/** @typedef {Record<string, any>} Details As `GET /api/jobs/ID` returns them. */
/** @typedef {{name: string, text: string, kind?: string, title?: string, bar?: number}} Fact */

/**
 * Returns the line below the heading: "running · attempt 2 · again after overloaded".
 *
 * @param {Row} row
 * @param {Details | null} details
 */
export function stateLine(row, details) {
  if (row.isBatch) return countWords(row.below.counts);
  const said = [row.cancelling && isLive(row) ? "is being ended" : words[stateOf(row)]];
  const reason = row.reason ?? details?.attempts?.at(-1)?.reason;
  const isToldAlready = !reason || ["completed", row.status].includes(reason);
  if (!isLive(row) && !isToldAlready) said.push(inWords(reason));
  const attempt = row.attempt ?? 0;
  if (attempt > 1) {
    said.push(`attempt ${attempt}`);
    const before = attemptsOf(row, details).find(({ number }) => number === attempt - 1);
    if (before?.reason) said.push(`again after ${why(before.reason)}`);
  }
  return said.join(" · ");
}

/** @param {Record<string, number>} counts */
function countWords(counts) {
  return joined(Object.entries(counts).map(([state, count]) => count > 0 && `${count} ${wordFor(state, count)}`));
}

/** What the API answers where an attempt ended for this reason. @type {Record<string, number>} */
const HTTP = { overloaded: 529, rate_limit: 429 };

/** @param {string} reason */
function why(reason) {
  return HTTP[reason] ? `${HTTP[reason]} ${inWords(reason)}` : inWords(reason);
}

/**
 * Returns the attempts that are known, the first first.
 *
 * @param {Row} row
 * @param {Details | null} details
 * @returns {{number: number, status?: string, reason?: string, from?: number, to?: number, costUsd?: number}[]}
 */
export function attemptsOf(row, details) {
  const found = new Map();
  for (const one of details?.attempts ?? []) {
    found.set(one.number, { ...one, from: one.startedAt, to: one.endedAt });
  }
  for (const one of row.attempts ?? []) found.set(one.number, { ...found.get(one.number), ...one });
  return [...found.values()].sort((a, b) => a.number - b.number);
}

/**
 * Returns what is shown, and what is shown on demand.
 *
 * @param {Row} row
 * @param {Details | null} details
 * @param {number} now
 * @param {import("./format.js").Around} around
 * @param {boolean} isNarrow Few are shown at once, so that there is room for the conversation.
 * @returns {[Fact[], Fact[]]}
 */
export function factsOf(row, details, now, around, isNarrow) {
  const main = mainFacts(row, details, now, around);
  const more = moreFacts(row, details, now);
  if (!isNarrow) return [main, more];
  const [first, rest] = [main.filter(isFirst), main.filter((fact) => !isFirst(fact))];
  return [first, [...rest, ...more]];
}

/** @param {Fact} fact */
function isFirst({ name }) {
  return name === "Now" || name === "Cost" || name === "Time";
}

/**
 * @param {Row} row
 * @param {Details | null} details
 * @param {number} now
 * @param {import("./format.js").Around} around
 * @returns {Fact[]}
 */
function mainFacts(row, details, now, around) {
  return /** @type {Fact[]} */ (
    [
      isLive(row) && !row.isBatch && { name: "Now", ...present(row, now, around) },
      { name: "Model", text: model(row, details) },
      { name: "Cost", ...cost(row, details) },
      { name: "Tokens", text: tokenWords(row, details) },
      { name: "Rights", text: rights(details?.rights ?? {}) },
      { name: "Directory", text: oneLine(details?.cwd), kind: "path" },
      { name: "Time", text: time(row, now) },
    ].filter((fact) => fact && fact.text)
  );
}

/**
 * @param {Row} row
 * @param {Details | null} details
 * @param {number} now
 * @returns {Fact[]}
 */
function moreFacts(row, details, now) {
  const given = details?.rights ?? {};
  const limits = details?.limits ?? {};
  const left = typeof limits.leftUsd === "number" ? `${money(limits.leftUsd) || "$0.00"} left` : "";
  const of = limits.leftOf && `of ${oneLine(limits.leftOf)}`;
  return [
    { name: "Tools", text: list(given.allowedTools) },
    { name: "Not allowed", text: list(given.disallowedTools) },
    { name: "Also in", text: list(given.directories), kind: "path" },
    { name: "MCP servers", text: list(given.mcpServers) },
    { name: "Budget", text: joined([budgetOf(row, given, limits), left, of]) },
    { name: "Time limit", text: given.timeoutSeconds ? duration(given.timeoutSeconds) : "" },
    { name: "Deadline", text: oneLine(limits.deadline) },
    { name: "Jobs below", text: jobsBelow(given, limits) },
    { name: "At once", text: oneAtOnce(limits) },
    { name: "After", text: list(row.dependsOn), kind: "path" },
    { name: "Admitted", text: row.createdAt ? `${clock(row.createdAt, now)}, ${ago(row.createdAt, now)}` : "" },
    { name: "Session", text: oneLine(details?.sessionId ?? row.sessionId), kind: "path" },
    { name: "Id", text: row.jobId, kind: "path" },
  ].filter((fact) => fact.text);
}

/**
 * Returns one line about an attempt: "overloaded · 1:12 · $0.10".
 *
 * @param {ReturnType<typeof attemptsOf>[number]} attempt
 * @param {number} now
 * @param {boolean} isLast
 */
export function attemptWords(attempt, now, isLast) {
  const isOver = attempt.to !== undefined;
  const how = attempt.reason ? inWords(attempt.reason) : isOver ? inWords(attempt.status) : isLast ? "runs" : "";
  const span = attempt.from === undefined ? "" : duration((attempt.to ?? now) - attempt.from);
  return joined([how, span, money(attempt.costUsd)]);
}

/** @param {(string | undefined | null | false)[]} parts */
function joined(parts) {
  return parts.filter(Boolean).join(" · ");
}

/** @param {string[] | undefined} texts */
function list(texts) {
  return (texts ?? []).map(oneLine).join(", ");
}

/**
 * @param {Row} row
 * @param {number} now
 * @param {import("./format.js").Around} around
 */
function present(row, now, around) {
  if (row.status === "running" && !row.waitingFor && row.activity && !row.cancelling) {
    const last = row.lastOutputAt ? ago(row.lastOutputAt, now) : "";
    return { text: joined([row.paused && "(paused)", oneLine(row.activity), last]), kind: "activity" };
  }
  const isAsking = row.waitingFor === "permission" && row.waitingUntil;
  const until = isAsking ? ` · is denied at ${clock(row.waitingUntil, now)} without an answer` : "";
  return { text: `${doing(row, now, around)}${until}`, kind: stateOf(row) };
}

/**
 * @param {Row} row
 * @param {Details | null} details
 */
function model(row, details) {
  const last = details?.attempts?.at(-1) ?? {};
  const asked = oneLine(row.model);
  const answering = oneLine(row.answeringModel || last.model || asked);
  const isOther = asked && answering && !answering.includes(asked);
  const version = oneLine(row.cliVersion || last.cliVersion);
  return joined([answering && `${answering}${isOther ? ` (asked for ${asked})` : ""}`, version && `CLI ${version}`]);
}

/**
 * @param {Row} row
 * @param {Details | null} details
 */
function cost(row, details) {
  const own = row.costUsd ?? details?.own?.costUsd ?? 0;
  const below = row.below?.costUsd ?? Math.max(0, (details?.subtree?.costUsd ?? own) - own);
  const all = own + below;
  const budget = details?.limits?.budgetUsd ?? row.maxBudgetUsd ?? details?.rights?.maxBudgetUsd;
  const bar = budget ? all / budget : undefined;
  if (row.isBatch) return { text: joined([money(all) || "nothing yet", budget && `budget ${money(budget)}`]), bar };
  const text = joined([
    money(own) || (below ? "nothing itself" : "nothing yet"),
    below > 0 && `${money(all)} with all below`,
    budget && `budget ${money(budget)}`,
  ]);
  return { text, bar };
}

/**
 * @param {Row} row
 * @param {Details | null} details
 */
function tokenWords(row, details) {
  const own = { ...details?.own, ...row };
  const [read, written] = [own.inputTokens ?? 0, own.outputTokens ?? 0];
  if (!read && !written) return "";
  const below = (row.below?.inputTokens ?? 0) + (row.below?.outputTokens ?? 0);
  return joined([
    `${tokens(read) || "0"} in, ${tokens(written) || "0"} out`,
    below > 0 && `${tokens(read + written + below)} with all below`,
    own.turns && counted(own.turns, "turn"),
  ]);
}

/** @param {Record<string, any>} given */
function rights(given) {
  const tools = (given.allowedTools ?? []).map(oneLine);
  const some = tools.slice(0, 6).join(", ");
  return joined([oneLine(given.permissionMode), tools.length > 6 ? `${some} and ${tools.length - 6} more` : some]);
}

/**
 * @param {Row} row
 * @param {number} now
 */
function time(row, now) {
  if (row.isBatch && row.createdAt) return duration((row.endedAt ?? now) - row.createdAt);
  if (!row.startedAt) return row.createdAt ? `queued for ${duration((row.endedAt ?? now) - row.createdAt)}` : "";
  const span = duration((row.endedAt ?? now) - row.startedAt);
  const ended = row.endedAt ? `ended ${clock(row.endedAt, now)}, ${ago(row.endedAt, now)}` : "";
  return joined([span, ended || `began ${clock(row.startedAt, now)}`]);
}

/**
 * @param {Row} row
 * @param {Record<string, any>} given
 * @param {Record<string, any>} limits
 */
function budgetOf(row, given, limits) {
  const budget = limits.budgetUsd ?? given.maxBudgetUsd ?? row.maxBudgetUsd;
  return budget ? money(budget) : "";
}

/**
 * @param {Record<string, any>} given
 * @param {Record<string, any>} limits
 */
function jobsBelow(given, limits) {
  const most = limits.maxJobs ?? given.maxJobs;
  if (!most) return limits.jobsBelow ? String(limits.jobsBelow) : "";
  return limits.jobsBelow === undefined ? `${most} at most` : `${limits.jobsBelow} of ${most}`;
}

/** @param {Record<string, any>} limits */
function oneAtOnce(limits) {
  const most = limits.maxConcurrent;
  if (!most) return "";
  if (typeof most !== "object") return String(most);
  return Object.entries(most).map(([depth, n]) => `depth ${depth}: ${n}`).join(", ");
}
