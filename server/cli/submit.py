"""The commands that start jobs, each in one call that may be repeated: `run`, `batch` and `send`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from server.cli.answers import say_answer
from server.cli.completion import complete_id
from server.cli.console import AsJson, client, exit_unless_completed, json_option, note, out, say, say_json
from server.cli.follow import wait_for, watch
from server.cli.interrupts import interrupt_hint, interrupt_hint_without_id
from server.cli.job_ids import whole_id
from server.cli.task_input import one_task, several_tasks
from server.cli.task_options import BATCH, RUN, SEND, arguments_of, takes
from server.cli.wording import for_a_person
from server.client.tool_client import Client, ToolError

Detach = Annotated[bool, typer.Option("--detach", help="Print the id and exit.")]
ResultJson = Annotated[bool, json_option("Print Claude's result object; with --detach, one with the id.")]
OneFile = Annotated[
    Path | None,
    typer.Option("--file", "-F", help="File whose whole text is the task.", metavar="FILE", show_default=False),
]


@takes(RUN)
def run(
    task: Annotated[
        str | None, typer.Argument(help="What the job is to do; - reads it from standard input.", metavar="TASK")
    ] = None,
    *,
    file: OneFile = None,
    detach: Detach = False,
    as_json: ResultJson = False,
    **options: Any,
) -> None:
    """Run one job, wait for it, and print its answer; status 1 if it did not complete."""
    asked = {"task": one_task(task, file), **_options(options, as_json=as_json)}
    with client() as engine:
        _name_parent(engine, asked)
        _one_job(engine, "claude_run_async", asked, detach=detach, as_json=as_json)


@takes(BATCH)
def batch(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            help="One task for each job; - reads tasks from standard input.", metavar="TASK", show_default=False
        ),
    ] = None,
    *,
    file: Annotated[
        list[Path] | None,
        typer.Option("--file", "-F", help="File with tasks; repeatable.", metavar="FILE", show_default=False),
    ] = None,
    detach: Detach = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Run several jobs side by side, and draw them until they are over; status 1 if one did not complete.

    A file, and standard input, holds one task in each line. Or it holds
    JSON: an array of texts and objects, or one object in each line. An
    object is a task with its own options, as the tool claude_run_batch
    takes it:

    {"key": "a", "task": "Read a.py", "model": "haiku"}

    {"task": "Sum up: {{results.a}}", "dependsOn": ["a"]}
    """
    asked = {**_options(options, as_json=False), "tasks": several_tasks(tasks or (), file or ())}
    if options["idempotency_key"] is None and _have_keys(asked["tasks"]):
        # The batch is identified by the keys of its tasks.
        del asked["idempotencyKey"]
    with client() as engine:
        _name_parent(engine, asked)
        with interrupt_hint_without_id():
            spawned = engine.call_json("claude_run_batch_async", asked)
        batch_id = spawned["batchId"]
        if detach:
            _say_started(batch_id, {"batchId": batch_id, "jobs": _ids(spawned)}, spawned, as_json=as_json)
            return
        with interrupt_hint(batch_id):
            if as_json:
                note(f"batch {batch_id}")
            else:
                watch(engine, batch_id, f"batch {batch_id}", out)
            # Not from the drawing: that holds only a part of a large tree.
            jobs = wait_for(engine, {"batchId": batch_id})
    if as_json:
        by_id = {job["jobId"]: job for job in jobs}
        say_json({"batchId": batch_id, "jobs": [by_id.get(one["jobId"], one) for one in _ids(spawned)]})
    else:
        _advise(batch_id, jobs)
    exit_unless_completed(jobs)


@takes(SEND)
def send(
    job_id: Annotated[str, typer.Argument(help="Id of a job that is over.", metavar="ID", autocompletion=complete_id)],
    task: Annotated[
        str | None, typer.Argument(help="The message to its session; - reads it from standard input.", metavar="TASK")
    ] = None,
    *,
    file: OneFile = None,
    fork: Annotated[bool, typer.Option("--fork", help="Continue a copy of the session.")] = False,
    detach: Detach = False,
    as_json: ResultJson = False,
    **options: Any,
) -> None:
    """Send a message to the session of an ended job, wait, and print the answer; status 1 if there is none."""
    asked = {"task": one_task(task, file), "fork": fork, **_options(options, as_json=as_json)}
    with client() as engine:
        asked["jobId"] = whole_id(engine, job_id)
        _one_job(engine, "claude_send", asked, detach=detach, as_json=as_json)


def _one_job(engine: Client, tool: str, asked: Mapping[str, Any], *, detach: bool, as_json: bool) -> None:
    with interrupt_hint_without_id():
        started = engine.call_json(tool, asked)
    job_id = started["jobId"]
    if detach:
        _say_started(job_id, {"jobId": job_id}, started, as_json=as_json)
        return
    note(f"job {job_id}")
    with interrupt_hint(job_id):
        wait_for(engine, {"jobIds": [job_id]})
    try:
        say_answer(engine, job_id, as_object=as_json)
    except ToolError as error:
        if not as_json:
            raise
        say_json({"jobId": job_id, "error": for_a_person(str(error))})
        raise typer.Exit(1) from error


def _say_started(identity: str, shape: Mapping[str, Any], reply: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the id alone on stdout, so that a script can use it, and on stderr what a person may do with it."""
    if as_json:
        say_json(shape)
    else:
        say(identity)
        note(f"follow: claude-jobs tree -f {identity} · cancel: claude-jobs kill {identity}")
    if paused := reply.get("paused"):
        note(paused)


def _ids(spawned: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"jobId": job_id} for job_id in spawned["jobIds"]]


def _advise(batch_id: str, jobs: list[dict[str, Any]]) -> None:
    """Say how to read the answers, and why jobs have none."""
    for job in jobs:
        if job["status"] != "completed":
            note(f"{job['jobId']} {job['status']}: {job['excerpt'] or job.get('reason')}")
    failed = any(job["status"] != "completed" for job in jobs)
    # Whether to retry a failed job depends on why it failed: its result says.
    note(f"answers{', and what to do about the others' if failed else ''}: claude-jobs result {batch_id}")


def _have_keys(tasks: Sequence[Any]) -> bool:
    return any(isinstance(task, dict) and {"idempotencyKey", "idempotency_key"} & set(task) for task in tasks)


def _name_parent(engine: Client, asked: dict[str, Any]) -> None:
    if parent := asked.get("parentJobId"):
        asked["parentJobId"] = whole_id(engine, parent)


def _options(options: Mapping[str, Any], *, as_json: bool) -> dict[str, Any]:
    return {
        "outputFormat": "json" if as_json else "text",
        "idempotencyKey": uuid4().hex,
        **arguments_of(options),
    }
