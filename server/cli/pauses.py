"""The commands `pause` and `resume`."""

import time
from typing import Annotated, Any

import typer

from server.cli.completion import complete_id
from server.cli.console import AsJson, client, note, say, say_json
from server.cli.job_ids import whole_id
from server.cli.times import here
from server.cli.wording import for_a_person

OneOrAll = Annotated[
    str | None,
    typer.Argument(help="Job, batch or tree; without it, everything.", metavar="ID", autocompletion=complete_id),
]


def pause(
    identity: OneOrAll = None,
    *,
    now: Annotated[
        bool, typer.Option("--now", help="Also end what runs there; it goes on in its sessions once resumed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Let nothing start in a job, batch or tree, or anywhere, until it is resumed. What runs goes on to its end."""
    identity, answer = _asked(identity, now=now)
    if as_json:
        say_json(_without_next(answer))
        return
    say(here(for_a_person(answer["message"]), time.time()))
    note(f"resume: claude-jobs resume{f' {identity}' if identity else ''}")


def resume(identity: OneOrAll = None, *, as_json: AsJson = False) -> None:
    """Let go on what was paused, all below it included; status 1 if it stays paused with something above it."""
    identity, answer = _asked(identity, resume=True)
    if as_json:
        say_json(_without_next(answer))
    else:
        (say if answer["success"] else note)(here(for_a_person(answer["message"]), time.time()))
    if not answer["success"]:
        raise typer.Exit(1)


def _asked(identity: str | None, **arguments: bool) -> tuple[str | None, dict[str, Any]]:
    with client() as engine:
        whole = None if identity is None else whole_id(engine, identity)
        return whole, engine.call_json("claude_pause", {"jobId": whole or "all", **arguments})


def _without_next(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "next"}
