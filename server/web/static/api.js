// @ts-check
// Questions to the engine, and what a person has it do.

/** The engine refused, or could not be reached; the message says what, and what to do. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status The HTTP status, or 0 where there was no answer.
   */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const UNREACHABLE = "The engine does not answer. It is tried again.";
const NOT_KNOWN = "The engine does not answer. Look whether it was done before you try again.";

/**
 * Reads something of the engine.
 *
 * @param {string} path With its query, such as `/api/jobs/ID`.
 * @param {{signal?: AbortSignal}} [how]
 * @returns {Promise<any>}
 * @throws {ApiError}
 */
export function get(path, { signal } = {}) {
  return answered(path, { signal });
}

/**
 * Has the engine do something.
 *
 * @param {{do: string, id: string, subtree?: boolean, message?: string, now?: boolean, key?: string}} what
 * @returns {Promise<any>} `{ok: true, message}`.
 * @throws {ApiError}
 */
export function act(what) {
  return answered("/api/actions", {
    method: "POST",
    // No form of another page can send this header.
    headers: { "content-type": "application/json", "x-claude-jobs": "1" },
    body: JSON.stringify(what),
  });
}

/**
 * @param {string} path
 * @param {RequestInit} request
 */
async function answered(path, request) {
  let response;
  let body;
  try {
    response = await fetch(path, { ...request, credentials: "same-origin", cache: "no-store" });
    body = await response.json();
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(request.method === "POST" ? NOT_KNOWN : UNREACHABLE, response?.status ?? 0);
  }
  if (!response.ok || body?.ok === false) {
    throw new ApiError(String(body?.error ?? `The engine refused it (${response.status}).`), response.status);
  }
  return body;
}
