"""The commands on existing jobs: `kill`, `retry`, `approve` and `prune`."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from server.cli.completion import complete_id
from server.cli.console import AsJson, client, fail, note, say, say_json
from server.cli.engine import ask
from server.cli.job_ids import whole_ids
from server.cli.wording import for_a_person
from server.client.tool_client import Client, ToolError

AnyIds = Annotated[
    list[str], typer.Argument(help="Ids of jobs, batches or trees.", metavar="ID", autocompletion=complete_id)
]


def kill(identities: AnyIds, *, as_json: AsJson = False) -> None:
    """Cancel jobs and everything below them; status 1 if one of them is over already."""
    with client() as engine:
        answers = [_killed(engine, one) for one in whole_ids(engine, identities)]
    if as_json:
        say_json({"killed": answers})
    for answer in () if as_json else answers:
        if answer["success"]:
            say(answer["message"])
        else:
            note(answer["message"])
    if not all(answer["success"] for answer in answers):
        raise typer.Exit(1)


def _killed(engine: Client, identity: str) -> dict[str, Any]:
    answer = engine.call_json("claude_kill_job", {"jobId": identity})
    # The id is known, so the tool's message on an unknown one does not apply.
    message = answer["message"] if answer["success"] else f"{identity} is over already, so nothing was cancelled."
    return {"id": identity, "success": answer["success"], "message": message}


def retry(
    identities: AnyIds,
    *,
    subtree: Annotated[bool, typer.Option("--subtree", help="Also run again what failed below the job.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run jobs again that failed, timed out or were cancelled; of a batch, each such job. Status 1 if none was."""
    found: dict[str, list[Any]] = {"retried": [], "live": [], "busy": [], "errors": []}
    with client() as engine:
        asked = whole_ids(engine, identities)
        for identity in asked:
            try:
                answer = engine.call_json("claude_retry", {"jobId": identity, "subtree": subtree})
            except ToolError as error:
                words = for_a_person(str(error)).replace(" ID`", f" {identity}`")
                found["errors"].append(f"{identity}: {words}")
                continue
            found["retried"] += answer["jobIds"]
            found["live"] += answer.get("live", ())
            found["busy"] += answer.get("busy", ())
    if as_json:
        say_json(found)
    else:
        _say_retried(found, found["retried"] if subtree else asked)
    if found["errors"] or not found["retried"]:
        raise typer.Exit(1)


def _say_retried(found: Mapping[str, list[Any]], awaited: Sequence[str]) -> None:
    for job_id in found["retried"]:
        say(f"{job_id}  queued again")
    for job_id in found["live"]:
        say(f"{job_id}  not over yet")
    for one in found["busy"]:
        say(f"{one['jobId']}  its session is in use: try again once {one['heldBy']} is over")
    for error in found["errors"]:
        note(error)
    if found["retried"]:
        note(f"follow: claude-jobs wait {' '.join(awaited)}")
    elif not found["errors"]:
        note("Nothing was queued again.")


def approve(
    requests: Annotated[
        list[str] | None,
        typer.Argument(help="Ids of requests; without one, the open ones are listed.", metavar="REQUEST"),
    ] = None,
    *,
    deny: Annotated[bool, typer.Option("--deny", help="Say no.")] = False,
    as_json: AsJson = False,
) -> None:
    """Answer jobs that wait for a permission, or list what jobs wait for."""
    with client() as engine:
        if requests:
            named = _whole_requests(engine, requests)
            lines = [_decided(engine, one, allow=not deny) for one in named]
        else:
            lines = engine.call_json("claude_approve", {})
    if as_json:
        say_json({"requests": lines})
    elif not lines:
        note("No job waits for a permission.")
    else:
        _say_requests(lines)
    if any("error" in line for line in lines):
        raise typer.Exit(1)


def _decided(engine: Client, request_id: str, *, allow: bool) -> dict[str, Any]:
    """Answer a request; an error is returned, so that the other requests are reported too."""
    try:
        answer: dict[str, Any] = engine.call_json("claude_approve", {"requestId": request_id, "allow": allow})
    except ToolError as error:
        return {"requestId": request_id, "error": for_a_person(str(error))}
    return answer


def _whole_requests(engine: Client, beginnings: Sequence[str]) -> list[str]:
    """Return the ids of open requests with these prefixes; a prefix of none or of several stays as it is."""
    open_ones = [line["requestId"] for line in engine.call_json("claude_approve", {}) if "requestId" in line]
    found = ([one for one in open_ones if one.startswith(beginning)] for beginning in beginnings)
    return [ids[0] if len(ids) == 1 else beginning for ids, beginning in zip(found, beginnings, strict=True)]


def _say_requests(lines: Sequence[dict[str, Any]]) -> None:
    for line in lines:
        if "error" in line:
            note(line["error"])
        elif "allowed" in line:
            say(f"{line['requestId']}  {line['jobId']}  {'permitted' if line['allowed'] else 'denied'}")
        elif "requestId" in line:
            say(f"{line['requestId']}  {line['jobId']}  {line['tool']}  {line['input']}")
        else:
            note(for_a_person(line["more"]))
    if open_ones := [line["requestId"] for line in lines if "tool" in line]:
        note(f"permit: claude-jobs approve {open_ones[0]} · refuse: claude-jobs approve --deny {open_ones[0]}")


def prune(
    trees: Annotated[
        list[str] | None,
        typer.Argument(
            help="Trees to delete now; without one, those that are too old or too large.",
            metavar="ID",
            autocompletion=complete_id,
        ),
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be deleted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete trees that are over: their rows and their directories."""
    # Only the engine opens the database; this starts one where none runs.
    with client() as engine:
        only = whole_ids(engine, trees or ())
        answer = ask({"do": "prune", "dry_run": dry_run, "trees": only})
    if answer is None:
        fail("The engine stopped meanwhile. Try again.")
    if as_json:
        say_json({name: value for name, value in answer.items() if name != "ok"})
        return
    kept = answer["keptBytes"] / 2**20
    if not answer["trees"]:
        note(f"Nothing to delete; {kept:.1f} MiB are kept.")
        return
    for tree_id in answer["trees"]:
        say(tree_id)
    verb = "Would delete" if dry_run else "Deleted"
    gone = f"{_counted(len(answer['trees']), 'tree')}, {_counted(answer['jobs'], 'job')}"
    gone += f", {answer['bytes'] / 2**20:.1f} MiB"
    note(f"{verb} {gone}; {kept:.1f} MiB are kept.")


def _counted(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"
