// @ts-check
// The filter: words, `status:failed`, `cost>0.5`, `age<2h`, `dir:/src`. All of its terms must fit.

import { isLive, stateOf } from "./format.js";

/**
 * What a filter looks at.
 *
 * @typedef {object} Facts
 * @property {string} text Everything that words are looked for in.
 * @property {Set<string>} states The states that it is in, or that its jobs are in.
 * @property {number} cost In US dollars.
 * @property {number} age Seconds since it was submitted.
 * @property {string} dir Its directory.
 */

/** @typedef {(facts: Facts) => boolean} Matches */

/** What the filter understands, for the hint below its field. */
export const HINTS = [
  ["words", "in names, answers, errors, ids"],
  ["status:failed", "or running, waiting, asking, queued, done, live"],
  ["cost>0.5", "in dollars; also cost<"],
  ["age<2h", "since it was submitted: s, m, h, d, w; also age>"],
  ["dir:/src", "a part of the directory"],
];

/** @type {Record<string, number>} */
const UNITS = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 };

const COST = /^cost([<>])\$?(\d*\.?\d+)$/;
const AGE = /^age([<>])(\d*\.?\d+)([smhdw])$/;

/** @type {Record<string, string>} */
const SAME = { done: "completed", asks: "asking", waits: "waiting", "timed-out": "timeout", error: "failed" };

/**
 * Returns what a filter means, or null where it means none.
 *
 * @param {string} text
 * @returns {Matches | null}
 */
export function parse(text) {
  const terms = text.toLowerCase().split(/\s+/).filter(Boolean).map(term);
  return terms.length ? (facts) => terms.every((one) => one(facts)) : null;
}

/**
 * @param {string} word
 * @returns {Matches}
 */
function term(word) {
  const cost = COST.exec(word);
  if (cost) return compared(cost[1], Number(cost[2]), (facts) => facts.cost);
  const age = AGE.exec(word);
  if (age) return compared(age[1], Number(age[2]) * UNITS[age[3]], (facts) => facts.age);
  if (word.startsWith("status:")) return withStatus(word.slice(7));
  if (word.startsWith("dir:")) return (facts) => facts.dir.toLowerCase().includes(word.slice(4));
  return (facts) => facts.text.includes(word);
}

/**
 * @param {string} sign
 * @param {number} limit
 * @param {(facts: Facts) => number} value
 * @returns {Matches}
 */
function compared(sign, limit, value) {
  return sign === ">" ? (facts) => value(facts) > limit : (facts) => value(facts) < limit;
}

/**
 * @param {string} word
 * @returns {Matches}
 */
function withStatus(word) {
  const meant = SAME[word] ?? word;
  return ({ states }) => [...states].some((state) => state.startsWith(meant));
}

const SEARCHED = ["jobId", "key", "task", "activity", "error", "excerpt", "waitingBecause", "reason"];

/**
 * Returns what a filter looks at in a job.
 *
 * @param {Record<string, any>} row
 * @param {{cost: number, now: number, dir?: string}} more
 * @returns {Facts}
 */
export function factsOfJob(row, { cost, now, dir = "" }) {
  const states = new Set([row.status, stateOf(row)]);
  if (isLive(row)) states.add("live");
  if (row.waitingFor) states.add("waiting");
  const text = SEARCHED.map((name) => row[name] ?? "")
    .join("\n")
    .toLowerCase();
  return { text, states, cost, age: now - (row.createdAt ?? now), dir };
}

/**
 * Returns what a filter looks at in a tree.
 *
 * @param {Record<string, any>} tree
 * @param {number} now Seconds since the epoch.
 * @returns {Facts}
 */
export function factsOfTree(tree, now) {
  const states = new Set(Object.keys(tree.counts ?? {}).filter((state) => tree.counts[state]));
  if (states.has("running") || states.has("queued")) states.add("live");
  if (tree.asking) states.add("asking").add("waiting");
  if (tree.paused) states.add("paused");
  const text = [tree.title, tree.rootId, tree.cwd, tree.client].join("\n").toLowerCase();
  return { text, states, cost: tree.costUsd ?? 0, age: now - (tree.createdAt ?? now), dir: tree.cwd ?? "" };
}
