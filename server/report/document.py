"""The record of a tree as one document: its jobs in the order of the tree, its sums, and no secret.

This is what `claude-jobs report --json` prints, and what the page and the trace are drawn from.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from jobs.util.text import redact, strip_terminal_codes
from server.transcript.entries import TextCutter

MOST_CHARS: Final = 16_000
"""Most characters of a text; an answer may be cut before that, see `answerChars`."""

NAME_CHARS: Final = 200
"""Characters of a task, a key or an error that are kept where answers are left out."""

_WORDS: Final = ("activity", "waitingBecause", "model", "answeringModel", "cliVersion", "cwd", "client")
_LISTS: Final = ("allowedTools", "disallowedTools", "mcpServers")
_LIVE: Final = frozenset(("queued", "running"))

Row = dict[str, Any]


def document_of(pages: Iterable[Mapping[str, Any]], known: Iterable[str], *, with_answers: bool) -> Row:
    """Return the document of a record.

    Args:
        pages: The pages of the record, in the order in which they were read.
        known: Secret values; text in the form of a secret is hidden too.
        with_answers: Whether tasks and answers are kept, and not only the beginning of a task.

    Returns:
        `tree`, with sums over everything; `depths` and `models`, what was used by each; `jobs`, each before those
        below it, with its attempts, its answer and the sums of what is below it. Names and units are those of the job
        feed: seconds since the epoch, US dollars; what has no value is left out.
    """
    head: Row = {}
    rows: dict[str, Row] = {}
    texts = _Texts(known, with_answers=with_answers)
    for page in pages:
        head = head or dict(page.get("tree", {}))
        for row in page["jobs"]:
            rows.setdefault(row["jobId"], texts.job(row, page["answerChars"]))
    jobs = _in_tree_order(list(rows.values()))
    _add_sums(jobs)
    return {
        "tree": _tree(texts.words(head), jobs),
        "depths": _depths(jobs),
        "models": _models(jobs),
        "jobs": jobs,
    }


class _Texts:
    """Hides secrets in the texts of rows, and cuts them.

    Args:
        known: Secret values.
        with_answers: Whether whole tasks are kept.
    """

    def __init__(self, known: Iterable[str], *, with_answers: bool) -> None:
        self._known = tuple(known)
        self._cutter = TextCutter(self._known, MOST_CHARS if with_answers else NAME_CHARS)
        self._with_answers = with_answers
        # The same models, tools and directories are in thousands of rows.
        self._clean: dict[str, str] = {}

    def job(self, given: Mapping[str, Any], answer_chars: int) -> Row:
        """Return the row of a job."""
        row = self.words(given)
        for name in ("task", "key", "error"):
            if name in given:
                row[name] = self._text(given[name])
        if "rights" in given:
            lists = {name: [*map(self._word, given["rights"].get(name, ()))] for name in _LISTS}
            row["rights"] = given["rights"] | {name: found for name, found in lists.items() if found}
        row["attempts"] = [self.words(attempt) for attempt in given.get("attempts", ())]
        answer, chars = row.pop("answer", ""), row.pop("answerChars", 0)
        if answer and self._with_answers:
            row["answer"] = self._answer(answer, chars, answer_chars)
            if chars > answer_chars:
                row["answerChars"] = chars
        return row

    def words(self, given: Mapping[str, Any]) -> Row:
        """Return a row whose short texts are clean."""
        return {name: self._word(value) if name in _WORDS else value for name, value in given.items()}

    def _word(self, value: Any) -> str:
        said = str(value)
        if said not in self._clean:
            self._clean[said] = " ".join(redact(strip_terminal_codes(said), self._known).split())
        return self._clean[said]

    def _text(self, said: str) -> str:
        self._cutter.begin_line()
        kept, _ = self._cutter.cut(said if self._with_answers else said.strip().partition("\n")[0])
        return kept.strip()

    def _answer(self, said: str, chars: int, most: int) -> str:
        # The engine sends more than is shown, and may have cut a secret at its end.
        whole = said if len(said) >= chars else self._cutter.without_half_a_secret(said)
        return self._cutter.clean(whole)[:most].strip()


def _in_tree_order(rows: Sequence[Row]) -> list[Row]:
    """Return rows so that each is before those below it, and those beside it as they were submitted."""
    known = {row["jobId"] for row in rows}
    below: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda one: one.get("order", 0)):
        parent = row.get("parentJobId", "")
        below.setdefault(parent if parent in known else "", []).append(row)
    ordered: list[Row] = []
    # Not by recursion: a tree may be as deep as it likes.
    pending = below.get("", [])[::-1]
    while pending:
        row = pending.pop()
        ordered.append(row)
        pending += below.get(row["jobId"], [])[::-1]
    return ordered


def _add_sums(jobs: Sequence[Row]) -> None:
    """Add `children` and `below` to each job that has some below it."""
    by_id = {row["jobId"]: row for row in jobs}
    # From the end: what is below a job comes after it.
    for row in reversed(jobs):
        above = by_id.get(row.get("parentJobId", ""))
        if above is None:
            continue
        sums = above.setdefault("below", _no_sums())
        _add(sums, _sums_of(row))
        if "below" in row:
            _add(sums, row["below"])
        above["children"] = above.get("children", 0) + 1
    for row in jobs:
        if "below" in row:
            row["below"]["costUsd"] = round(row["below"]["costUsd"], 6)


def _no_sums() -> Row:
    return {"counts": {}, "asking": 0, "costUsd": 0.0, "inputTokens": 0, "outputTokens": 0}


def _sums_of(row: Mapping[str, Any]) -> Row:
    asks = row["status"] in _LIVE and row.get("waitingFor") == "permission"
    used = {name: row.get(name, 0) for name in ("costUsd", "inputTokens", "outputTokens")}
    return {"counts": {row["status"]: 1}, "asking": int(asks), **used}


def _add(sums: Row, more: Mapping[str, Any]) -> None:
    for status, count in more["counts"].items():
        sums["counts"][status] = sums["counts"].get(status, 0) + count
    for name in ("asking", "costUsd", "inputTokens", "outputTokens"):
        sums[name] += more[name]


def _tree(head: Row, jobs: Sequence[Row]) -> Row:
    sums = _no_sums()
    for row in jobs:
        _add(sums, _sums_of(row))
    sums["costUsd"] = round(sums["costUsd"], 6)
    live = any(status in _LIVE for status in sums["counts"])
    ended = max((row.get("endedAt", 0.0) for row in jobs), default=0.0)
    first = jobs[0] if jobs else {}
    is_whole = head.get("id") == head.get("rootId")
    row = {
        **head,
        "isPart": not is_whole,
        "title": _title(head, jobs),
        "cwd": first.get("cwd"),
        "jobs": len(jobs),
        **sums,
        "deepest": max((one.get("depth", 0) for one in jobs), default=0),
        "endedAt": None if live or not ended else ended,
        "elapsedSeconds": round(
            max(0.0, (head.get("now", ended) if live else ended) - head.get("createdAt", ended)), 3
        ),
    }
    return {name: value for name, value in row.items() if not (value is None or value is False or value == "")}


def _title(head: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]]) -> str:
    """Return the first job's name, and for a batch how many are beside it, as the page does."""
    if not jobs:
        return ""
    first = jobs[0]
    name: str = first.get("key") or first.get("task", "").partition("\n")[0][:NAME_CHARS]
    beside = sum(row.get("depth", 0) == first.get("depth", 0) for row in jobs) - 1
    return f"{name} and {beside:,} more" if beside and head.get("isBatch") else name


def _depths(jobs: Sequence[Row]) -> list[Row]:
    return [
        {"depth": depth, "jobs": found.pop("of"), **found} for depth, found in sorted(_used(jobs, _by_depth).items())
    ]


def _by_depth(row: Mapping[str, Any]) -> Iterable[tuple[int, Mapping[str, Any]]]:
    yield row.get("depth", 0), row


def _models(jobs: Sequence[Row]) -> list[Row]:
    found = _used(jobs, _by_model)
    dearest_first = sorted(found, key=lambda model: (-found[model]["costUsd"], model))
    rows = [{"model": model or None, "attempts": found[model].pop("of"), **found[model]} for model in dearest_first]
    # An attempt that no model answered has used nothing, and says nothing here.
    return [row for row in rows if row["model"] or row["costUsd"] or row["inputTokens"]]


def _by_model(row: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    attempts = row.get("attempts", ())
    for attempt in attempts:
        yield attempt.get("model", ""), attempt
    # What earlier attempts used that are not listed any more.
    left = {
        name: max(0, row.get(name, 0) - sum(attempt.get(name, 0) for attempt in attempts))
        for name in ("costUsd", "inputTokens", "outputTokens")
    }
    if left["costUsd"] > 1e-6 or left["inputTokens"]:
        yield "", left


def _used(jobs: Sequence[Row], split: Callable[[Mapping[str, Any]], Iterable[tuple[Any, Mapping[str, Any]]]]) -> Any:
    found: dict[Any, Row] = {}
    for row in jobs:
        for key, used in split(row):
            sums = found.setdefault(key, {"of": 0, "costUsd": 0.0, "inputTokens": 0, "outputTokens": 0})
            sums["of"] += 1
            for name in ("costUsd", "inputTokens", "outputTokens"):
                sums[name] += used.get(name, 0)
    for sums in found.values():
        sums["costUsd"] = round(sums["costUsd"], 6)
    return found
