"""The commands that start jobs, each in one call that may be repeated: `run`, `batch` and `send`."""

import json
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from server.terminal.answers import say_answer
from server.terminal.speech import AsJson, client, exit_unless_completed, note, out, say, while_it_goes_on
from server.terminal.watching import wait_for, watch

Cwd = Annotated[Path | None, typer.Option(help="Directory that the job works in.")]
Model = Annotated[str | None, typer.Option(help="Model name or alias.")]
Mode = Annotated[str | None, typer.Option("--permission-mode", help="Permission mode of the CLI.")]
Budget = Annotated[float | None, typer.Option("--max-budget-usd", help="Most US dollars of a job's subtree.")]
Timeout = Annotated[float | None, typer.Option("--timeout", help="Seconds that a job may take.")]
Detach = Annotated[bool, typer.Option("--detach", help="Print the ids and leave.")]
JobId = Annotated[str, typer.Argument(help="Id of a job.")]


def run(
    task: Annotated[str, typer.Argument(help="What the job is to do.")],
    *,
    cwd: Cwd = None,
    model: Model = None,
    permission_mode: Mode = None,
    max_budget_usd: Budget = None,
    timeout: Timeout = None,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Run one job, wait for it, and print its answer."""
    options = _options(cwd, model, permission_mode, max_budget_usd, timeout)
    with client() as engine:
        text_or_json = "json" if as_json else "text"
        job_id = engine.call_json("claude_run_async", {"task": task, "outputFormat": text_or_json, **options})["jobId"]
        if detach:
            say(job_id)
            return
        note(f"job {job_id}")
        with while_it_goes_on(job_id):
            wait_for(engine, {"jobIds": [job_id]})
        say_answer(engine, job_id)


def batch(
    tasks: Annotated[list[str], typer.Argument(help="One task a job.")],
    *,
    cwd: Cwd = None,
    model: Model = None,
    permission_mode: Mode = None,
    max_budget_usd: Budget = None,
    timeout: Timeout = None,
    detach: Detach = False,
) -> None:
    """Run several jobs side by side, and draw them until they are over; status 1 if one did not complete."""
    options = _options(cwd, model, permission_mode, max_budget_usd, timeout)
    with client() as engine:
        spawned = engine.call_json("claude_run_batch_async", {"tasks": tasks, "outputFormat": "text", **options})
        if detach:
            say(json.dumps(spawned, indent=2))
            return
        with while_it_goes_on(spawned["batchId"]):
            watch(engine, spawned["batchId"], f"batch {spawned['batchId']}", out)
            # Not by what was drawn: of a large tree that is a part.
            jobs = wait_for(engine, {"batchId": spawned["batchId"]})
    exit_unless_completed(jobs)


def send(
    job_id: JobId,
    task: Annotated[str, typer.Argument(help="What the job's session is told.")],
    *,
    fork: Annotated[bool, typer.Option(help="Go on in a copy of the session.")] = False,
) -> None:
    """Tell the session of a job that is over more, wait, and print the answer."""
    with client() as engine:
        asked = {"jobId": job_id, "task": task, "fork": fork, "outputFormat": "text"}
        new_id = engine.call_json("claude_send", {**asked, "idempotencyKey": uuid4().hex})["jobId"]
        note(f"job {new_id}")
        with while_it_goes_on(new_id):
            wait_for(engine, {"jobIds": [new_id]})
        say_answer(engine, new_id)


def _options(
    cwd: Path | None, model: str | None, permission_mode: str | None, budget: float | None, timeout: float | None
) -> dict[str, Any]:
    return {
        "cwd": _text(cwd),
        "model": model,
        "permissionMode": permission_mode,
        "maxBudgetUsd": budget,
        "timeoutSeconds": timeout,
        "idempotencyKey": uuid4().hex,
    }


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
