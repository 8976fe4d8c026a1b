"""The command `limits`: what a live tree, a part of it or a batch may still use."""

import sys
import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from server.cli.completion import complete_id
from server.cli.console import AsJson, client, fail, note, say, say_json
from server.cli.engine import ask
from server.cli.job_ids import whole_id
from server.cli.times import here


def limits(
    identity: Annotated[str, typer.Argument(help="Job, batch or tree.", metavar="ID", autocompletion=complete_id)],
    *,
    budget_usd: Annotated[
        float | None,
        typer.Option(
            # The second name is the one of `run` and `batch`.
            "--budget-usd",
            "--max-budget-usd",
            help="Most dollars in all, those that are spent included.",
            metavar="USD",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds from now on after which nothing of it runs.", metavar="S", show_default=False),
    ] = None,
    max_jobs: Annotated[
        int | None, typer.Option(help="Most jobs below it in all.", metavar="N", show_default=False)
    ] = None,
    max_concurrent: Annotated[
        int | None,
        typer.Option(
            help="Most jobs at once: of a batch, or of a job and all below it.", metavar="N", show_default=False
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before running jobs end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print what a job, a batch or a tree may still use, or change it while it runs.

    The options are totals, as where the limits were first set. A budget below what is spent ends what runs.
    """
    given = {
        "budget_usd": budget_usd,
        "timeout_seconds": timeout,
        "max_jobs": max_jobs,
        "max_concurrent": max_concurrent,
    }
    asked = {name: value for name, value in given.items() if value is not None}
    with client() as engine:
        request = {"do": "limits", "id": whole_id(engine, identity), "set": asked, "confirmed": yes}
        answer = _asked(request)
        if question := answer.get("confirm"):
            _confirm(question)
            answer = _asked({**request, "confirmed": True})
    if as_json:
        say_json({name: value for name, value in answer.items() if name != "ok"})
        return
    for line in _lines(answer):
        say(line)
    if asked and answer["failed"]:
        note(f"Run what failed again: claude-jobs retry --subtree {answer['id']}")


def _asked(request: dict[str, Any]) -> dict[str, Any]:
    answer = ask(request)
    if answer is None:
        fail("The engine stopped meanwhile. Try again.")
    return answer


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        fail(f"{question} Nothing was changed. Repeat the command with --yes to do it.")
    note(question)
    if not typer.confirm("Do it?", err=True):
        fail("Nothing was changed.", style=None)


def _lines(answer: Mapping[str, Any]) -> Iterator[str]:
    yield f"{answer['id']}  {answer['running']} running, {answer['queued']} queued"
    yield f"budget     {_budget(answer)}"
    deadline = answer["deadline"]
    yield f"time       {'no limit' if deadline is None else here(f'until {deadline}', time.time())}"
    most, below = answer["maxJobs"], answer["jobsBelow"]
    more = "no limit" if most is None else f"{most} at most, {max(0, most - below)} more"
    yield f"jobs below {below}; {more}"
    slots = answer["maxConcurrent"]
    yield f"at once    {'no limit' if slots is None else f'{slots} at most'}"


def _budget(answer: Mapping[str, Any]) -> str:
    budget, left = answer["budgetUsd"], answer["leftUsd"]
    words = "no limit" if budget is None else f"${budget:.4f}"
    words += f"; ${answer['spentUsd']:.4f} spent"
    if left is None:
        return words
    return f"{words}, ${left:.4f} left" + (f" of the budget of {answer['leftOf']}" if answer["leftOf"] else "")
