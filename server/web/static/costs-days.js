// @ts-check
// The cost of each of the last days, as bars.

import { el, fill } from "./dom.js";
import { money } from "./format.js";

const DAYS = 30;
const DAY_MS = 86_400_000;

/**
 * Draws the last 30 days; those without a cost too.
 *
 * @param {{day: string, costUsd: number}[]} days `day` as 2025-01-31, or seconds since the epoch.
 */
export function daysChart(days) {
  const costs = new Map(days.map(({ day, costUsd }) => [keyOf(day), costUsd]));
  const today = new Date(`${keyOf(Date.now() / 1000)}T12:00:00Z`).getTime();
  const shown = Array.from({ length: DAYS }, (_, index) => {
    const at = new Date(today - (DAYS - 1 - index) * DAY_MS);
    return { at, cost: costs.get(at.toISOString().slice(0, 10)) ?? 0 };
  });
  const most = Math.max(...shown.map(({ cost }) => cost));
  const sum = shown.reduce((all, { cost }) => all + cost, 0);
  const first = named(shown[0].at);
  const told = el("p", { class: "days-told num" });
  const rest = () => fill(told, `${usd(sum)} in all${most ? `, at most ${usd(most)} a day` : ""}`);
  rest();
  const bars = shown.map(({ at, cost }) => {
    const inner = el("i");
    inner.style.height = most ? `${Math.max(cost ? 2 : 0, (100 * cost) / most)}%` : "0";
    const words = `${named(at)}: ${usd(cost)}`;
    const bar = el("span", { class: "day", title: words }, inner);
    bar.addEventListener("pointerenter", () => fill(told, el("b", { text: usd(cost) }), ` on ${named(at)}`));
    bar.addEventListener("pointerleave", rest);
    return bar;
  });
  const rows = shown
    .filter(({ cost }) => cost)
    .map(({ at, cost }) => el("tr", {}, el("th", { scope: "row", text: named(at) }), el("td", { text: usd(cost) })));
  return el(
    "figure",
    { class: "days" },
    el("div", { class: "days-bars", "aria-hidden": "true" }, bars),
    el("div", { class: "days-axis", "aria-hidden": "true" }, [first, "today"].map((text) => el("span", { text }))),
    el("figcaption", {}, told),
    // A table takes the width that it needs: what hides it is around it.
    el("div", { class: "sr-only" }, el("table", {}, el("caption", { text: "Cost by day" }), rows)),
  );
}

/** @param {string | number} day */
function keyOf(day) {
  if (typeof day === "string") return day.slice(0, 10);
  const at = new Date(day * 1000);
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
}

/** @param {Date} at */
function named(at) {
  return `${at.getUTCDate()} ${at.toLocaleString("en", { month: "short", timeZone: "UTC" })}`;
}

/** @param {number} amount */
function usd(amount) {
  return money(amount) || "$0.00";
}
