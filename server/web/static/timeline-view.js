// @ts-check
// Draws the timeline: the axis and its lines, the bars of a row, zoom, and what a bar says when pointed at.

import { el, fill, setText, setTo } from "./dom.js";
import { clock, duration, inWords } from "./format.js";
import { Scale, inWordsOf } from "./timeline.js";

/** @typedef {import("./timeline.js").Part} Part */

/** Least pixels of a part, so that a short one is seen. */
const LEAST = 2;
/** Pixels that a pointer moves before it draws a range. */
const DRAG = 5;

/**
 * Draws the parts of a job's time into a cell.
 *
 * @param {HTMLElement} cell
 * @param {Part[]} parts
 * @param {Scale} scale
 * @param {boolean} isCritical Draw a line below them.
 */
export function drawBars(cell, parts, scale, isCritical) {
  let used = isCritical && parts.length ? drawPath(cell, parts, scale) : 0;
  for (const [at, part] of parts.entries()) {
    const [left, right] = [scale.x(part.from), scale.x(part.to)];
    if (right < 0 || left > scale.width) continue;
    const bar = /** @type {HTMLElement} */ (cell.children[used] ?? cell.appendChild(el("i")));
    used += 1;
    const kind = `bar ${part.what} ${part.how}${edges(parts, at)}`;
    if (bar.className !== kind) bar.className = kind;
    const from = Math.max(-4, left);
    bar.style.left = `${from.toFixed(1)}px`;
    bar.style.width = `${Math.max(LEAST, Math.min(scale.width + 4, right) - from).toFixed(1)}px`;
  }
  while (cell.children.length > used) /** @type {Element} */ (cell.lastElementChild).remove();
}

/**
 * @param {HTMLElement} cell
 * @param {Part[]} parts
 * @param {Scale} scale
 */
function drawPath(cell, parts, scale) {
  const begun = parts.find((part) => part.attempt) ?? parts[0];
  const [left, right] = [
    Math.max(-4, scale.x(begun.from)),
    Math.min(scale.width + 4, scale.x(parts[parts.length - 1].to)),
  ];
  if (right < left) return 0;
  const line = /** @type {HTMLElement} */ (cell.firstElementChild ?? cell.appendChild(el("i")));
  line.className = "path";
  line.style.left = `${left.toFixed(1)}px`;
  line.style.width = `${(right - left).toFixed(1)}px`;
  return 1;
}

/**
 * Returns where a bar of an attempt begins and ends: its parts are one bar.
 *
 * @param {Part[]} parts
 * @param {number} at
 */
function edges(parts, at) {
  const { attempt } = parts[at];
  if (!attempt) return "";
  const first = parts[at - 1]?.attempt === attempt ? "" : " first";
  return `${first}${parts[at + 1]?.attempt === attempt ? "" : " last"}`;
}

/** The axis above the rows, the lines behind them, and what the pointer does there. */
export class TimelineView {
  #drag = /** @type {{x: number, isRange: boolean} | null} */ (null);
  #wasDragged = false;
  #now = 0;
  #options;

  /**
   * @param {object} options
   * @param {HTMLElement} options.body Holds the rows; the lines are drawn in it.
   * @param {() => void} options.onChange Another part of the time is shown.
   * @param {(event: PointerEvent) => {name: string, parts: Part[]} | null} options.partsAt
   */
  constructor({ body, onChange, partsAt }) {
    this.#options = { body, onChange, partsAt };
    this.scale = new Scale();
    this.axis = el("div", { class: "axis", "aria-hidden": "true" });
    this.lines = el("div", { class: "plot-lines", "aria-hidden": "true" });
    this.nowLine = el("div", { class: "plot-now", hidden: true });
    this.range = el("div", { class: "plot-range", hidden: true });
    this.plot = el("div", { class: "plot", "aria-hidden": "true" }, this.lines, this.nowLine, this.range);
    this.tip = el("div", { class: "tip", role: "tooltip", hidden: true });
    body.append(this.plot);
    document.body.append(this.tip);
    for (const target of [body, this.axis]) this.#listen(target);
  }

  /** Ends what it shows outside of its place. */
  hide() {
    this.tip.hidden = true;
    this.#drag = null;
    this.range.hidden = true;
  }

  /**
   * Draws axis and lines.
   *
   * @param {{zero: number, now: number, end: number, isLive: boolean}} time Seconds since the epoch.
   */
  draw({ zero, now, end, isLive }) {
    this.#now = now;
    const { scale, axis, lines } = this;
    const [box, body] = [axis.getBoundingClientRect(), this.#options.body.getBoundingClientRect()];
    scale.width = Math.max(1, axis.clientWidth);
    scale.cover(zero, end, isLive);
    this.plot.style.left = `${box.left - body.left}px`;
    this.plot.style.width = `${scale.width}px`;
    const ticks = scale.ticks();
    drawTicks(axis, ticks, true);
    drawTicks(lines, ticks, false);
    const x = scale.x(now);
    this.nowLine.hidden = !isLive || x < 0 || x > scale.width;
    this.nowLine.style.left = `${x.toFixed(1)}px`;
  }

  /** @param {HTMLElement} target */
  #listen(target) {
    target.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    target.addEventListener("pointerdown", (event) => this.#press(event));
    target.addEventListener("pointermove", (event) => this.#move(event));
    target.addEventListener("pointerup", (event) => this.#release(event));
    target.addEventListener("pointercancel", () => this.hide());
    target.addEventListener("pointerleave", () => (this.tip.hidden = true));
    // A range that was drawn opens no job.
    target.addEventListener("click", (event) => this.#wasDragged && event.preventDefault(), {
      capture: true,
    });
    target.addEventListener("dblclick", (event) => this.#isOver(event) && this.fit());
  }

  fit() {
    this.scale.fit();
    this.#options.onChange();
  }

  /**
   * @param {number} factor
   * @param {number} [x]
   */
  zoom(factor, x) {
    this.scale.zoom(factor, x);
    this.#options.onChange();
  }

  /** @param {MouseEvent} event */
  #x(event) {
    return event.clientX - this.axis.getBoundingClientRect().left;
  }

  /** @param {MouseEvent} event */
  #isOver(event) {
    const x = this.#x(event);
    return x >= 0 && x <= this.scale.width;
  }

  /** @param {WheelEvent} event */
  #wheel(event) {
    if (!this.#isOver(event)) return;
    const sideways = event.shiftKey ? event.deltaY : event.deltaX;
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 240), this.#x(event));
    } else if (!this.scale.isFitted && Math.abs(sideways) > Math.abs(event.shiftKey ? 0 : event.deltaY)) {
      event.preventDefault();
      this.scale.pan(sideways);
      this.#options.onChange();
    }
  }

  /** @param {PointerEvent} event */
  #press(event) {
    this.#wasDragged = false;
    if (event.button === 0 && event.pointerType !== "touch" && this.#isOver(event)) {
      this.#drag = { x: this.#x(event), isRange: false };
    }
  }

  /** @param {PointerEvent} event */
  #move(event) {
    if (!this.#drag) {
      this.#point(event);
      return;
    }
    const [from, to] = [this.#drag.x, Math.min(this.scale.width, Math.max(0, this.#x(event)))];
    if (!this.#drag.isRange && Math.abs(to - from) < DRAG) return;
    if (!this.#drag.isRange) {
      this.#drag.isRange = true;
      /** @type {Element} */ (event.currentTarget).setPointerCapture(event.pointerId);
      this.tip.hidden = true;
    }
    this.range.hidden = false;
    this.range.style.left = `${Math.min(from, to)}px`;
    this.range.style.width = `${Math.abs(to - from)}px`;
    const span = Math.abs(this.scale.at(to) - this.scale.at(from));
    setText(this.range, duration(span));
  }

  /** @param {PointerEvent} event */
  #release(event) {
    const drag = this.#drag;
    this.#drag = null;
    this.range.hidden = true;
    if (!drag?.isRange) return;
    this.#wasDragged = true;
    const ends = [drag.x, Math.min(this.scale.width, Math.max(0, this.#x(event)))].sort(
      (one, other) => one - other,
    );
    const [from, to] = ends.map((x) => this.scale.at(x) - this.scale.zero);
    this.scale.show(from, to);
    this.#options.onChange();
  }

  /** @param {PointerEvent} event */
  #point(event) {
    const found = event.pointerType === "mouse" && this.#isOver(event) ? this.#options.partsAt(event) : null;
    const part = found && this.#nearest(found.parts, this.#x(event));
    this.tip.hidden = !part;
    if (!found || !part) return;
    fill(this.tip, tipOf(found.name, part, found.parts, this.scale.zero, this.#now));
    const { width, height } = this.tip.getBoundingClientRect();
    const left = Math.min(innerWidth - width - 8, Math.max(8, event.clientX + 14));
    const below = event.clientY + 18;
    const top = below + height < innerHeight - 4 ? below : event.clientY - height - 12;
    this.tip.style.left = `${left}px`;
    this.tip.style.top = `${top}px`;
  }

  /**
   * Returns the part at a place, or one that is some pixels away: a short part is hard to hit.
   *
   * @param {Part[]} parts
   * @param {number} x
   */
  #nearest(parts, x) {
    let [nearest, distance] = [/** @type {Part | null} */ (null), 6];
    for (const part of parts) {
      const away = Math.max(this.scale.x(part.from) - x, x - this.scale.x(part.to), 0);
      if (away < distance) [nearest, distance] = [part, away];
    }
    return nearest;
  }
}

/**
 * @param {HTMLElement} host
 * @param {{x: number, label: string}[]} ticks
 * @param {boolean} hasLabels
 */
function drawTicks(host, ticks, hasLabels) {
  for (const [at, { x, label }] of ticks.entries()) {
    const tick = /** @type {HTMLElement} */ (
      host.children[at] ?? host.appendChild(el("span", { class: "tick" }))
    );
    tick.style.transform = `translateX(${x.toFixed(1)}px)`;
    if (hasLabels) setText(tick, label);
    // A label at the end would be cut.
    if (hasLabels) setTo(tick, "data-at", host.clientWidth - x < 34 ? "end" : null);
  }
  while (host.children.length > ticks.length) /** @type {Element} */ (host.lastElementChild).remove();
}

/**
 * @param {string} name
 * @param {Part} part
 * @param {Part[]} parts
 * @param {number} zero
 * @param {number} now
 */
function tipOf(name, part, parts, zero, now) {
  const key = el("i", { class: `key bar ${part.what} ${part.how}` });
  return [
    el("b", { class: "job-text", text: name }),
    el("span", {}, key, `${inWordsOf(part)} ${duration(part.to - part.from)}`),
    el("span", { class: "dim num", text: spanOf(part, zero, now) }),
    part.attempt ? el("span", { class: "dim", text: attemptOf(part, parts) }) : null,
  ];
}

/**
 * @param {Part} part
 * @param {Part[]} parts
 */
function attemptOf(part, parts) {
  const same = parts.filter((one) => one.attempt === part.attempt);
  const isOnly = parts.every((one) => one.attempt <= 1);
  const whole = same.length > 1 ? `, ${duration(same[same.length - 1].to - same[0].from)} in all` : "";
  const because = part.reason && part.reason !== part.how ? `: ${inWords(part.reason)}` : "";
  const fate = part.how === "running" ? "" : ` · ${part.how}${because}`;
  return `${isOnly ? "one attempt" : `attempt ${part.attempt}`}${whole}${fate}`;
}

/**
 * @param {Part} part
 * @param {number} zero
 * @param {number} now
 */
function spanOf(part, zero, now) {
  const ends = part.isOpen ? ["now", "now"] : [duration(part.to - zero), clock(part.to, now)];
  return `${duration(part.from - zero)} – ${ends[0]} (${clock(part.from, now)} – ${ends[1]})`;
}
