"""Draws a job of a report: its line with its bar, and what opens below it."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import tzinfo
from html import escape
from typing import Any, Final

from server.report.job_times import attempts_of, parts_of, pauses_of
from server.report.prose import prose
from server.report.time_axis import TimeAxis, kind_of
from server.report.wording import (
    NOTHING,
    WORDS,
    clock,
    counted,
    duration,
    in_words,
    money,
    name_of,
    outcome_of,
    span,
    state_of,
    tokens,
)

_DEEPEST_INDENT: Final = 16
_ABOUT: Final = "About this job"
_ABOUT_SYMBOL: Final = f'<svg class="symbol" role="img" aria-label="{_ABOUT}"><use href="#about"/></svg>'

Row = Mapping[str, Any]


class JobSections:
    """Draws the jobs of one tree, in the order of the tree.

    Args:
        document: What `document_of` returned.
        axis: Its time.
        home: The person's home directory, or empty.
        zone: The time zone, or None for that of this machine.

    Attributes:
        kinds: The kinds of bars that were drawn.
    """

    def __init__(self, document: Row, axis: TimeAxis, home: str, zone: tzinfo | None) -> None:
        self._tree = document["tree"]
        self._axis = axis
        self._home = home
        self._zone = zone
        self.kinds: set[str] = set()
        self._above: list[str] = []
        self._names = {row["jobId"]: name_of(row) for row in document["jobs"]}

    def begin(self, row: Row, depth: int, *, has_answer: bool) -> Iterator[str]:
        """Yield the line of a job and what is about it alone; its section is open for what is below it.

        Args:
            row: The job.
            depth: Levels above it on the page.
            has_answer: Whether its answer is shown here, and not elsewhere on the page.
        """
        del self._above[depth:]
        self._above.append(row["jobId"])
        has_below = "below" in row
        yield '<li class="has-below"><details open>' if has_below else "<li><details>"
        yield f'<summary class="line">{self._line(row, depth)}</summary>\n'
        about = "".join(self._about(row, has_answer=has_answer))
        if has_below:
            yield f'<details class="about"><summary title="{_ABOUT}">{_ABOUT_SYMBOL}</summary>'
            yield f'<div class="more">{about}</div></details>\n'
        else:
            yield f'<div class="more">{about}</div>\n'

    def _line(self, row: Row, depth: int) -> str:
        state, name = state_of(row), self._names[row["jobId"]]
        below = row.get("below")
        count = f"<small>{counted(sum(below['counts'].values()), 'job')}</small>" if below else ""
        cost = row.get("costUsd", 0.0) + (below["costUsd"] if below else 0.0)
        parts = parts_of(row, self._pauses(), self._tree["now"])
        self.kinds.update(map(kind_of, parts))
        indent = min(depth, _DEEPEST_INDENT)
        return (
            f'<span class="name d{indent}">{symbol(state)}'
            f'<span class="job-text" dir="auto">{escape(name)}</span>{count}</span>'
            f'<span class="now is-{state}" dir="auto">{escape(outcome_of(row, self._names))}</span>'
            f'<span class="num">{money(cost) or NOTHING}</span><span class="num">{self._time(row)}</span>'
            f"{self._axis.bar(parts)}"
        )

    def _pauses(self) -> list[tuple[float, float]]:
        pauses = self._tree.get("pauses", ())
        return pauses_of([self._tree["rootId"], *self._above], pauses, self._tree["now"]) if pauses else []

    def _time(self, row: Row) -> str:
        attempts = attempts_of(row)
        if not attempts:
            return NOTHING
        return duration(row.get("endedAt", self._tree["now"]) - attempts[0]["from"])

    def _about(self, row: Row, *, has_answer: bool) -> Iterator[str]:
        if (task := row.get("task", "")) and task != self._names[row["jobId"]]:
            yield f'<h3>Task</h3><div class="prose task" dir="auto">{"".join(prose(task))}{_task_note(row)}</div>'
        if "error" in row:
            yield f'<h3>Error</h3><div class="prose error" dir="auto">{"".join(prose(row["error"]))}</div>'
        if has_answer and "answer" in row:
            yield f'<h3>Answer</h3><div class="prose" dir="auto">{"".join(prose(row["answer"]))}{cut_note(row)}</div>'
        attempts = attempts_of(row)
        if len(attempts) > 1 or (attempts and attempts[0].get("waits")):
            yield "<h3>Attempts</h3>"
            yield f'<ol class="attempts">{"".join(self._attempt(one) for one in attempts)}</ol>'
        facts = "".join(f"<div><dt>{term}</dt><dd>{escape(value)}</dd></div>" for term, value in self._facts(row))
        yield f'<dl class="facts">{facts}</dl>'

    def _attempt(self, attempt: Row) -> str:
        until = attempt.get("to", self._tree["now"])
        how = "runs" if "to" not in attempt else in_words(attempt.get("reason") or attempt.get("status", ""))
        said = [how, duration(until - attempt["from"]), money(attempt.get("costUsd", 0.0)), attempt.get("model", "")]
        for what, word in (("children", "for its jobs"), ("permission", "for a permission")):
            waited = sum(
                (ends[0] if ends else until) - since for kind, since, *ends in attempt.get("waits", ()) if kind == what
            )
            said.append(f"waited {duration(waited)} {word}" if waited >= 1 else "")
        shown = " · ".join(escape(one) for one in said if one)
        return f'<li value="{int(attempt["number"])}"><time>{clock(attempt["from"], self._zone)}</time> · {shown}</li>'

    def _facts(self, row: Row) -> Iterator[tuple[str, str]]:
        yield "State", _state_words(row)
        if times := self._times(row):
            yield "When", times
        models = dict.fromkeys(
            [*(one["model"] for one in row.get("attempts", ()) if "model" in one), row.get("answeringModel", "")]
        )
        if model := ", ".join(one for one in models if one) or row.get("model", ""):
            asked = row.get("model", "")
            yield "Model", model if not asked or asked in model else f"{model} (asked for {asked})"
        own = row.get("costUsd", 0.0)
        used = f"{tokens(row.get('inputTokens', 0))} in, {tokens(row.get('outputTokens', 0))} out"
        yield "Own cost", f"{money(own) or '$0'} · {used}"
        if "below" in row or "maxBudgetUsd" in row:
            whole = own + row.get("below", {}).get("costUsd", 0.0)
            budget = f" of {money(row['maxBudgetUsd'])}" if "maxBudgetUsd" in row else ""
            yield "With all below", f"{money(whole) or '$0'}{budget}"
        if rights := _rights_words(row.get("rights", {})):
            yield "Rights", rights
        if (cwd := row.get("cwd")) and cwd != self._tree.get("cwd"):
            yield "Directory", short_path(cwd, self._home)
        if after := row.get("dependsOn"):
            yield "After", ", ".join(self._names.get(one, one) for one in after)
        yield "Job", row["jobId"]

    def _times(self, row: Row) -> str:
        begun = attempts_of(row)
        if not begun:
            return ""
        waited = begun[0]["from"] - row.get("createdAt", begun[0]["from"])
        queued = f", after {duration(waited)} in the queue" if waited >= 1 else ""
        return f"{span(begun[0]['from'], row.get('endedAt'), self._zone)}{queued}"


def symbol(state: str) -> str:
    """Return the symbol of a state; its word is there for those who do not see it."""
    return f'<svg class="symbol is-{state}" role="img" aria-label="{WORDS[state]}"><use href="#{state}"/></svg>'


def short_path(path: str, home: str) -> str:
    """Return a path with "~" for the home directory: whom a report is sent to need not know its name."""
    home = home.rstrip("/")
    return f"~{path[len(home) :]}" if home and (path == home or path.startswith(f"{home}/")) else path


def cut_note(row: Row) -> str:
    """Return what says that an answer was cut, or nothing."""
    left = row.get("answerChars", 0) - len(row["answer"])
    whole = f"<code>claude-jobs result {escape(row['jobId'])}</code> prints all of it."
    return f'<p class="cut">… {left:,} characters more. {whole}</p>' if left > 0 else ""


def _task_note(row: Row) -> str:
    left = row.get("taskChars", 0) - len(row["task"])
    # The text may have been made shorter by what was hidden in it.
    return f'<p class="cut">… about {left:,} characters more.</p>' if left > 200 else ""


def _state_words(row: Row) -> str:
    state = state_of(row)
    reason = in_words(row.get("reason", ""))
    return WORDS[state] if reason in ("", row["status"]) or state == "completed" else f"{WORDS[state]}: {reason}"


def _rights_words(rights: Row) -> str:
    said = [rights.get("permissionMode", "")]
    for name, word in (("allowedTools", "may use"), ("disallowedTools", "may not use"), ("mcpServers", "MCP servers")):
        if listed := rights.get(name):
            said.append(f"{word} {_listed(listed)}")
    return " · ".join(one for one in said if one)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
