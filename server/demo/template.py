"""The template language of turns, for earlier tool results: `{{ expression }}` inside a string.

An expression is one of
- `result[N]` and a path: the N-th result of the conversation, from 0, or from the end where N is negative;
- `latest.NAME` and a path: the newest result that is an object with that name in it;
- `answers`: one line for each job that the `claude_wait` replies report, in the order in which they were spawned.

A path is any number of `.name` and `[index]`. A result without a path is its text, or its JSON value where it is JSON.
A string that is one placeholder and nothing else takes the value as it is, a list for example; inside a longer
string the value is written as text. A `?` after the expression allows the value to be missing: nothing is written
then, and an entry of an object that consists of it is left out.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.errors import JobsError
from server.demo.conversation import ToolResult

_PLACEHOLDER = re.compile(r"\{\{\s*(.+?)\s*\}\}")
_PATH = r"(?:\.\w+|\[-?\d+\])*"
_EXPRESSION = re.compile(
    rf"(?P<source>result\[(?P<index>-?\d+)\]|latest(?=\.\w)|answers(?!\.|\[))(?P<path>{_PATH})(?P<optional>\??)"
)
_STEP = re.compile(r"\.(?P<name>\w+)|\[(?P<index>-?\d+)\]")


class StoryError(JobsError):
    """The story does not fit the conversation.

    Args:
        problem: What does not fit, in a few words.
        remedy: What to change, as a sentence.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}. {remedy}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """A parsed expression.

    Args:
        source: "result", "latest" or "answers".
        index: Which result, for the source "result".
        path: Names and indices into the value.
        optional: The value may be missing.
        text: As it was written.
    """

    source: str
    index: int
    path: tuple[str | int, ...]
    optional: bool
    text: str


def parse(text: str) -> Expression:
    """Return the expression that `text` spells, without its braces.

    Raises:
        ValueError: It spells none.
    """
    match = _EXPRESSION.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is no expression. Write result[N] with a path, latest.NAME with a path, or answers."
        )
    steps = _STEP.finditer(match["path"])
    return Expression(
        source=match["source"].partition("[")[0],
        index=int(match["index"] or 0),
        path=tuple(step["name"] or int(step["index"]) for step in steps),
        optional=bool(match["optional"]),
        text=text,
    )


def expressions(value: object) -> Iterator[Expression]:
    """Yield every expression in the strings of a JSON value.

    Raises:
        ValueError: Braces hold something that is no expression.
    """
    if isinstance(value, str):
        for match in _PLACEHOLDER.finditer(value):
            yield parse(match[1])
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from expressions(one)
    elif isinstance(value, Sequence):
        for one in value:
            yield from expressions(one)


def evaluate(expression: Expression, results: Sequence[ToolResult]) -> Any:
    """Return the value that the expression has after these results; None where an optional one is missing.

    Raises:
        StoryError: The value is missing.
    """
    if expression.source == "answers":
        return answer_lines(results)
    try:
        value = _start(expression, results)
        for step in expression.path:
            value = _step(value, step)
    except LookupError:
        if expression.optional:
            return None
        seen = results[-1].text[:200] if results else "no tool result at all"
        raise StoryError(
            f"No {expression.text} after {len(results)} tool results, the last of which is: {seen}",
            "Change the story, or find out why the tool did not answer as the story expects.",
        ) from None
    return value


def fill(value: Any, results: Sequence[ToolResult]) -> Any:
    """Return a JSON value with every placeholder in it replaced.

    Raises:
        StoryError: A value that is not optional is missing.
    """
    if isinstance(value, str):
        return _fill_string(value, results)
    if isinstance(value, Mapping):
        filled = {name: (one, fill(one, results)) for name, one in value.items()}
        return {name: new for name, (old, new) in filled.items() if old is None or new is not None}
    if isinstance(value, Sequence):
        return [fill(one, results) for one in value]
    return value


def render(text: str, results: Sequence[ToolResult]) -> str:
    """Return a text with the value of every placeholder written into it.

    Raises:
        StoryError: A value that is not optional is missing.
    """
    return _PLACEHOLDER.sub(lambda match: _as_text(evaluate(parse(match[1]), results)), text)


def answer_lines(results: Sequence[ToolResult]) -> str:
    """Return one line for each job that the `claude_wait` replies among these results report as done."""
    values = [result.value for result in results]
    spawned = [job for value in values if isinstance(value, dict) for job in value.get("jobIds") or ()]
    done: dict[str, Mapping[str, Any]] = {}
    for value in values:
        reports = value.get("done") if isinstance(value, dict) else None
        done.update({str(report.get("jobId")): report for report in reports or () if isinstance(report, dict)})
    # Jobs end in any order; a story's text must not depend on it.
    known = [job for job in spawned if job in done]
    return "\n".join(_line(done[job]) for job in [*known, *(job for job in done if job not in known)])


def _line(report: Mapping[str, Any]) -> str:
    excerpt = str(report.get("excerpt") or "").strip()
    if report.get("status") == "completed":
        return f"- {excerpt}"
    return f"- {report.get('jobId')} {report.get('status')}: {excerpt or 'no answer'}"


def _start(expression: Expression, results: Sequence[ToolResult]) -> Any:
    if expression.source == "result":
        return results[expression.index].value
    name = expression.path[0]
    values = (result.value for result in reversed(results))
    for value in values:
        if isinstance(value, dict) and name in value:
            return value
    raise LookupError(name)


def _step(value: Any, step: str | int) -> Any:
    # A string has indices too, but no story means a single character.
    if isinstance(step, str) and isinstance(value, dict):
        return value[step]
    if isinstance(step, int) and isinstance(value, list):
        return value[step]
    raise LookupError(step)


def _fill_string(text: str, results: Sequence[ToolResult]) -> Any:
    whole = _PLACEHOLDER.fullmatch(text)
    if whole is not None and "{{" not in whole[1]:
        return evaluate(parse(whole[1]), results)
    return render(text, results)


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
