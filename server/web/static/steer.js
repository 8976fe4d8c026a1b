// @ts-check
// What buttons and keys do to jobs: asks where something would be lost or cost money, does it, and says how it went.
// The same questions in the same words as `claude-jobs top` (server/tui/steering.py, server/tui/dialogs.py).

import { act, ApiError, get } from "./api.js";
import { ask, confirm, offerCopy, toast } from "./dialogs.js";
import { clock, counted, isLive, nameOf, RETRIED } from "./format.js";
import { callView } from "./requests.js";

/**
 * @typedef {object} Steered A job or a batch, as jobs.js makes them.
 * @property {string} id
 * @property {Record<string, any> | null} row Null for a batch.
 * @property {Record<string, any> | null} [tree]
 * @property {Steered | null} [parent]
 * @property {Steered[]} [children]
 * @property {Record<string, number>} counts Jobs at and below it by state.
 * @property {number} live
 * @property {number} total
 * @property {boolean} isPaused
 */

const OVER = "It is over already.";

/** What is under way: the same is not asked for twice. @type {Map<string, Promise<boolean>>} */
const underWay = new Map();

/** Keys of messages that may or may not have arrived: the same message again is the same submission. */
const keys = new Map();

/**
 * Asks whether a node and all below it are to be killed.
 *
 * @param {Steered} node
 * @returns {Promise<boolean>} Whether it was done; so with all below.
 */
export async function kill(node) {
  if (!node.live) return refuse(OVER);
  const below = node.live - (node.row && isLive(node.row) ? 1 : 0);
  const said = await confirm({
    title: node.row ? "Kill this job?" : "Kill this batch?",
    text: `${named(node)}\n\n${killed(node, below)}`,
    buttons: [
      { value: "", label: "Keep", focus: true },
      { value: "yes", label: node.row && !below ? "Kill" : `Kill ${counted(node.live, "job")}`, kind: "danger" },
    ],
  });
  return said ? done({ do: "kill", id: node.id }) : false;
}

/**
 * @param {Steered} node
 * @param {number} below
 */
function killed(node, below) {
  if (!node.row) return `This ends ${counted(below, "job")} now.`;
  const also = below ? ` and ${counted(below, "job")} below it that ${below === 1 ? "is" : "are"} not over` : "";
  const dependents = dependentsOf(node).length;
  const lost = dependents
    ? `\n${counted(dependents, "job that depends", "jobs that depend")} on it will not run.`
    : "";
  return `This ends it now${also}.${lost}`;
}

/**
 * Runs a job again, or what failed below it; asks where that is more than one job.
 *
 * @param {Steered} node
 */
export async function retry(node) {
  const hasFailed = node.row !== null && RETRIED.includes(node.row.status);
  const below = RETRIED.map((state) => {
    const count = (node.counts[state] ?? 0) - (node.row?.status === state ? 1 : 0);
    return /** @type {[string, number]} */ ([state, count]);
  }).filter(([, count]) => count > 0);
  const total = below.reduce((sum, [, count]) => sum + count, 0) + (hasFailed ? 1 : 0);
  // Where nothing is known to have failed the engine says so: it may know more.
  if (total < 2) return done({ do: "retry", id: node.id, subtree: !hasFailed });
  const counts = below.map(([state, count]) => `${count} ${state === "timeout" ? "timed out" : state}`).join(", ");
  const said = await confirm({
    title: "Run again what failed?",
    text: `${named(node)}\n\n${hasFailed ? "It failed. " : ""}Below it: ${counts}. Jobs that run again may cost money.`,
    buttons: [
      { value: "", label: "Leave them" },
      ...(hasFailed ? [{ value: "one", label: "This job alone", focus: true }] : []),
      { value: "all", label: `All ${total}`, kind: /** @type {const} */ ("primary"), focus: !hasFailed },
    ],
  });
  return said ? done({ do: "retry", id: node.id, subtree: said === "all" }) : false;
}

/**
 * Pauses a node, or lets it go on.
 *
 * @param {Steered} node
 */
export async function pause(node) {
  if (!node.live) return refuse(OVER);
  return done({ do: node.isPaused ? "resume" : "pause", id: node.id });
}

/**
 * Asks for a message to the session of a job that is over.
 *
 * @param {Steered} node
 */
export async function send(node) {
  if (!node.row) return refuse("Select a job: a batch has no session.");
  if (isLive(node.row)) return refuse("It is not over yet; a message can be sent to its session then.");
  const message = await ask({
    title: "Send a message",
    text: `${named(node)}\n\nIts session goes on with this, as a new job.`,
    label: "Message",
    button: "Send",
  });
  if (!message) return false;
  const what = `${node.id} ${message}`;
  const key = keys.get(what) ?? `web-${random()}`;
  keys.set(what, key);
  const isSent = await done({ do: "send", id: node.id, message, key });
  if (isSent) keys.delete(what);
  return isSent;
}

/**
 * Shows a permission request, whole, and answers it.
 *
 * @param {import("./requests.js").PermissionRequest | null} request Null: the first that the job has.
 * @param {Steered} node
 */
export async function answer(request, node) {
  const found = request ? [request] : await requestsOf(node.id);
  if (!found) return false;
  const [first, ...others] = found;
  if (!first) return refuse("It asks for nothing any more.");
  const more = others.length ? ` It asks for ${others.length} more.` : "";
  const until = node.row?.waitingUntil;
  const ends = until ? `\nWithout an answer it is denied at ${clock(until, Date.now() / 1000)}.` : "";
  const said = await confirm({
    title: "Permission",
    text: `${named(node)} asks to call ${first.tool}.${more}${ends}`,
    body: callView(first),
    buttons: [
      { value: "", label: "Later", focus: true },
      { value: "deny", label: "Deny" },
      { value: "allow", label: "Allow once", kind: "primary" },
    ],
  });
  return said ? decide(first.requestId, said === "allow") : false;
}

/**
 * Answers a permission request that the person has seen.
 *
 * @param {string} requestId
 * @param {boolean} allow
 */
export function decide(requestId, allow) {
  return done({ do: allow ? "allow" : "deny", id: requestId }, `decide ${requestId}`);
}

/**
 * Copies a text, and says so.
 *
 * @param {string} text
 * @param {string} what What it is, for the person.
 */
export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    await offerCopy(what, text);
    return false;
  }
  toast(`Copied: ${what}.`);
  return true;
}

/**
 * Returns the jobs beside it that are cancelled with it: those that depend on it, or on one of these.
 *
 * @param {Steered} node
 */
function dependentsOf(node) {
  const beside = (node.parent?.children ?? []).filter((one) => one.live);
  const found = new Set([node.id]);
  for (let size = 0; size < found.size; ) {
    size = found.size;
    for (const one of beside) {
      if ((one.row?.dependsOn ?? []).some((/** @type {string} */ id) => found.has(id))) found.add(one.id);
    }
  }
  return [...found].slice(1);
}

/**
 * @param {string} jobId
 * @returns {Promise<import("./requests.js").PermissionRequest[] | null>}
 */
async function requestsOf(jobId) {
  try {
    return (await get(`/api/jobs/${jobId}`)).requests ?? [];
  } catch (error) {
    refuse(wordsOf(error));
    return null;
  }
}

/**
 * Has the engine do something once, however often it is asked for meanwhile.
 *
 * @param {Parameters<typeof act>[0]} what
 * @param {string} [name] What may be under way once.
 * @returns {Promise<boolean>}
 */
function done(what, name = JSON.stringify({ ...what, key: undefined })) {
  const running = underWay.get(name);
  if (running) return running;
  const work = said(what).finally(() => underWay.delete(name));
  underWay.set(name, work);
  return work;
}

/** @param {Parameters<typeof act>[0]} what */
async function said(what) {
  try {
    toast((await act(what)).message || "Done.");
    return true;
  } catch (error) {
    return refuse(wordsOf(error));
  }
}

/** @param {string} words */
function refuse(words) {
  toast(words, false);
  return false;
}

/** @param {unknown} error */
function wordsOf(error) {
  if (error instanceof ApiError) return error.message;
  throw error;
}

/** @param {Steered} node */
function named(node) {
  const name = node.row ? nameOf(node.row) : `batch, ${counted(node.total, "job")} in all`;
  return name === node.id ? name : `${name} (${node.id})`;
}

function random() {
  return [...crypto.getRandomValues(new Uint8Array(8))].map((one) => one.toString(16).padStart(2, "0")).join("");
}
