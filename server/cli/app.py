"""The `claude-jobs` command line: the tools as commands, and the commands for the engine."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal, get_args

import typer

from jobs.errors import JobsError
from server import __version__
from server.cli import engine, jobs, limits, pauses, search, share, submit
from server.cli.answers import answer_of, is_batch, jobs_in, say_answer, say_answers
from server.cli.columns import laid_out
from server.cli.completion import complete_id
from server.cli.console import (
    AsJson,
    Commands,
    client,
    err,
    errors_as_messages,
    escape_unencodable,
    exit_unless_completed,
    fail,
    json_option,
    note,
    out,
    refused,
    say,
    say_json,
)
from server.cli.doing import ids_apart
from server.cli.follow import (
    jobs_of,
    listed,
    pause_reporter,
    picture_of,
    requests_of,
    until_interrupted,
    waited,
    watch,
    watch_any,
)
from server.cli.interrupts import interrupt_hint
from server.cli.job_ids import whole_id, whole_ids
from server.cli.lines import show, spending_lines, width_of, wrapped
from server.cli.status_view import description, job_row
from server.cli.task_options import finite
from server.cli.times import here
from server.cli.top import top
from server.cli.transcript import Selection, followed, transcript_of
from server.cli.tree_view import draw
from server.cli.web import web
from server.cli.wording import for_a_person
from server.client.state_dir import StatePaths, state_dir
from server.client.tool_client import Client

app = typer.Typer(
    name="claude-jobs",
    cls=Commands,
    help="Run trees of headless Claude Code jobs, and see what they do.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 a job did not complete or the command was refused, 2 "
    "wrong usage, 3 not over yet or no engine runs, 130 interrupted. "
    "The beginning of an id is enough where it is the only one.",
)


_Status = Literal["queued", "running", "completed", "failed", "timeout", "cancelled"]

JobId = Annotated[str, typer.Argument(help="Id of a job.", metavar="ID", autocompletion=complete_id)]
AnyId = Annotated[str, typer.Argument(help="Id of a job, a batch or a tree.", metavar="ID", autocompletion=complete_id)]


@app.callback(invoke_without_command=True)
def version_option(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Run trees of headless Claude Code jobs, and see what they do."""
    if version:
        say(__version__)
        raise typer.Exit


def status(identity: AnyId, *, as_json: AsJson = False) -> None:
    """Print the status of a job, a batch or a tree."""
    with client() as engine:
        text = engine.call("claude_status", {"jobId": whole_id(engine, identity)})
    if as_json:
        say(text)
    else:
        show(out, description(json.loads(text), width=width_of(out)))


def tree(
    identity: Annotated[
        str | None,
        typer.Argument(
            help="Job, batch or tree; without it, the newest jobs.", metavar="ID", autocompletion=complete_id
        ),
    ] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Draw until every job is over.")] = False,
    as_json: AsJson = False,
) -> None:
    """Draw a tree of jobs."""
    with client() as engine, until_interrupted():
        if identity is not None:
            identity = whole_id(engine, identity)
        if not follow and not as_json:
            picture = picture_of(engine, identity, identity or "newest jobs")
            show(out, draw(picture, width=width_of(out)) if picture.jobs else ())
            if not picture.jobs:
                note("No jobs.")
        elif not as_json:
            if identity is None:
                watch_any(engine, out)
            else:
                watch(engine, identity, identity, out)
        else:
            if follow and identity is not None:
                waited(engine, {"subtreeOf": identity})
            jobs, _, paused = jobs_of(engine, identity)
            say_json({"jobs": jobs[::-1], **({"paused": paused} if paused else {})})


def wait(
    identities: Annotated[
        list[str] | None,
        typer.Argument(help="Jobs or batches.", metavar="ID", autocompletion=complete_id),
    ] = None,
    *,
    mode: Annotated[
        Literal["all", "any", "first_success"],
        typer.Option(help="Which must be over: all, any one, or one that completed."),
    ] = "all",
    subtree: Annotated[
        str | None,
        typer.Option(
            "--subtree", metavar="ID", help="Wait for a job and all below it instead.", autocompletion=complete_id
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", help="Longest wait.", callback=finite, show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Wait for jobs or a batch, and print a line for each that ended.

    Status 1 if what was waited for did not complete, 3 if the time of --timeout was over before.
    """
    with client() as engine:
        scope = _scope(engine, identities or [], subtree)
        [identity] = scope.values()
        first = identity if isinstance(identity, str) else identity[0]
        with interrupt_hint(first, own=False):
            lines, pending = waited(engine, scope, mode, seconds=timeout)
    if as_json:
        say_json({"done": lines, "pending": pending})
    else:
        _say_waited(lines, pending, in_time=timeout is None)
    if mode != "all" and any(line["status"] == "completed" for line in lines):
        return
    exit_unless_completed(lines)
    if pending:
        raise typer.Exit(3)


def _say_waited(lines: Sequence[Mapping[str, Any]], pending: int, *, in_time: bool) -> None:
    for line in lines:
        say(f"{line['jobId']}  {line['status']}  {line['excerpt']}")
        if said := line.get("note"):
            note(f"note: {for_a_person(said)}")
    if pending and not in_time:
        note(f"Not over yet: {pending}.")


def _scope(engine: Client, identities: Sequence[str], subtree: str | None) -> dict[str, Any]:
    if bool(identities) == bool(subtree):
        raise typer.BadParameter("Name jobs or one batch, or use --subtree.", param_hint="ID")
    if subtree:
        return {"subtreeOf": whole_id(engine, subtree)}
    found = whole_ids(engine, identities)
    if len(found) == 1 and is_batch(found[0]):
        return {"batchId": found[0]}
    return {"jobIds": [job_id for one in found for job_id in jobs_in(engine, one)]}


def result(
    identities: Annotated[
        list[str],
        typer.Argument(
            help="Jobs, or batches for the answers of their jobs.", metavar="ID", autocompletion=complete_id
        ),
    ],
    *,
    offset: Annotated[
        int | None, typer.Option(help="First character of a page.", min=0, metavar="N", show_default=False)
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Most characters of a page.", min=1, metavar="N", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a job's answer, or a page of it where an offset or a limit is given; of several, each below its id."""
    with client() as engine:
        found = whole_ids(engine, identities)
        if len(found) == 1 and not is_batch(found[0]) and not as_json:
            say_answer(engine, found[0], offset, limit)
            return
        answers = [answer_of(engine, job_id, offset, limit) for one in found for job_id in jobs_in(engine, one)]
    if as_json:
        say_json({"results": answers})
    else:
        say_answers(answers)
    if any("error" in answer for answer in answers):
        raise typer.Exit(1)


def transcript(
    job_id: JobId,
    *,
    attempt: Annotated[
        int | None, typer.Option(help="Number of an attempt; without it, the last one.", min=1, metavar="N")
    ] = None,
    whole: Annotated[bool, typer.Option("--all", help="Every attempt; results and arguments whole.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print until the job is over.")] = False,
    as_json: Annotated[bool, json_option("Print the lines as Claude wrote them.")] = False,
) -> None:
    """Print what a job said and did, as Claude Code shows it."""
    wanted = Selection(attempt=attempt, whole=whole, raw=as_json)
    with client() as engine, until_interrupted():
        look = partial(engine.call_json, "claude_status", {"jobId": whole_id(engine, job_id)})
        paths = StatePaths(state_dir(os.environ))
        lines = followed(paths, look, wanted, pause_reporter()) if follow else transcript_of(paths, look(), wanted)
        try:
            for line in lines:
                for part in [line] if as_json else wrapped(line, width_of(out)):
                    say(part)
        except JobsError as error:
            fail(error)


def list_jobs(
    *,
    limit: Annotated[int, typer.Option(help="Most jobs.", min=1, metavar="N")] = 30,
    before: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Only jobs that are older than this one.", autocompletion=complete_id),
    ] = None,
    status: Annotated[
        _Status | None, typer.Option(metavar="STATUS", help=f"{', '.join(get_args(_Status))}.", show_default=False)
    ] = None,
    under: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Only a job and all below it, or a batch.", autocompletion=complete_id),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the newest jobs, one line each."""
    with client() as engine:
        above, than = (None if one is None else whole_id(engine, one) for one in (under, before))
        jobs, more, paused = listed(engine, limit=limit, before=than, under=above, status=status)
        asked = requests_of(engine, jobs)
    older = f"claude-jobs list --before {jobs[-1]['jobId']}" if more and jobs else ""
    if as_json:
        say_json({"jobs": jobs, **({"more": older} if older else {}), **({"paused": paused} if paused else {})})
        return
    width = width_of(out)
    brief = ids_apart(job["jobId"] for job in jobs)
    rows = [job_row(job, width=width, brief=brief) for job in jobs]
    show(out, laid_out(rows, width))
    if paused:
        note(here(paused, time.time()))
    if asked:
        note(f"asks for a permission: {', '.join(asked)} · answer: claude-jobs approve")
    if not jobs:
        note("No such jobs." if before or status or under else "No jobs.")
    if older:
        note(f"more: {older}")


def dashboard(*, as_json: AsJson = False) -> None:
    """Print how many jobs there are, how long they take, and what the engine holds."""
    with client() as engine:
        text = engine.call("claude_dashboard", {})
        if as_json:
            say(text)
            return
        figures = json.loads(text)
        # An engine of an older version that still has work does not count cancelled ones.
        cancelled = figures.get("cancelledJobs", 0)
        failed = figures["failedJobs"] - cancelled
        over = f"{figures['completedJobs']} completed, {failed} failed, {cancelled} cancelled"
        say(f"{figures['activeJobs']} live, {over}")
        say(f"a job took {figures['averageDuration']} s on average; {figures['parallelEfficiency']} ran at once")
        say(f"deepest live job at depth {figures['nestedDepth']}; the engine uses {figures['systemLoad']} MB")
        for line in spending_lines(figures.get("spending", ()), {}):
            say(line)
        if paused := figures["recursionStats"].get("paused"):
            say(here(paused, time.time()))


def mcp() -> None:
    """Serve MCP on standard input and output; this is what Claude Code starts."""
    # The command is answered in `server.__main__`, before this module is imported; it is here for `--help`.
    from server.pump import run as pump

    raise typer.Exit(pump(state_dir(os.environ), None))


def doctor(
    *,
    selftest: Annotated[
        bool,
        typer.Option(
            "--selftest", help="Also kill engines in a directory of its own, for two minutes, and count what is lost."
        ),
    ] = False,
    hooks: Annotated[
        bool, typer.Option("--hooks", help="Also send a test message to on_end, on_attention and the desktop.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check what jobs need to run, and print what to do where it is missing; status 1 if they cannot run.

    With --hooks also where a hook takes no test message.
    """
    from server.doctor import examine, kill_engines

    good, found = examine(os.environ, None if as_json else out, try_hooks=hooks)
    if selftest:
        # The figures are for a person; JSON has the result alone.
        kept = kill_engines(err if as_json else out)
        good, found = good and kept, {**found, "promisesKept": kept}
    if as_json:
        say_json(found)
    raise typer.Exit(0 if good else 1)


def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the state directory there and print its path.")] = False,
    slow: Annotated[
        bool, typer.Option("--slow", help="Take about a minute: time to watch it from another terminal.")
    ] = False,
    web: Annotated[
        bool, typer.Option("--web", help="Take about a minute, and watch it in the browser; one job asks you there.")
    ] = False,
) -> None:
    """Play a recursive tree of real Claude processes against a scripted model; needs no account and costs nothing."""
    from server.demo.run import Show, run_demo

    with errors_as_messages():
        good = run_demo(out, Show(keep=keep, slow=slow, web=web))
    raise typer.Exit(0 if good else 1)


_START, _LOOK, _ACT, _ENGINE = "Start jobs", "See what they do", "Act on them", "The engine and this installation"

_COMMANDS: Sequence[tuple[str, str, Callable[..., None], Sequence[str]]] = (
    (
        _START,
        "run",
        submit.run,
        (
            'claude-jobs run "Say what this project does" --cwd ~/project',
            'git diff | claude-jobs run - --append-system-prompt "Review this change."',
            'claude-jobs run --file task.md --allowed-tools "Read,Bash(git log:*)"',
        ),
    ),
    (
        _START,
        "batch",
        submit.batch,
        (
            'claude-jobs batch "Review a.py" "Review b.py" --max-concurrent 2',
            "ls src/*.py | sed 's/^/Review /' | claude-jobs batch -",
            "claude-jobs batch --file tasks.json --tree-budget-usd 5",
            'claude-jobs wait "$(claude-jobs batch --detach --file tasks.txt)"',
        ),
    ),
    (_START, "send", submit.send, ('claude-jobs send jyq4k "Now write the tests."',)),
    (_START, "retry", jobs.retry, ("claude-jobs retry jyq4k", "claude-jobs retry --subtree bts67")),
    (_LOOK, "top", top, ("claude-jobs top", "claude-jobs top bts67")),
    (_LOOK, "web", web, ("claude-jobs web", "claude-jobs web bts67 --no-open", "claude-jobs web --off")),
    (_LOOK, "tree", tree, ("claude-jobs tree", "claude-jobs tree -f bts67")),
    (_LOOK, "list", list_jobs, ("claude-jobs list --status failed", "claude-jobs list --under bts67 --json")),
    (_LOOK, "status", status, ("claude-jobs status jyq4k",)),
    (
        _LOOK,
        "wait",
        wait,
        ("claude-jobs wait bts67", "claude-jobs wait jyq4k jrnwf --mode any --timeout 60"),
    ),
    (_LOOK, "result", result, ("claude-jobs result jyq4k >answer.md", "claude-jobs result bts67")),
    (_LOOK, "transcript", transcript, ("claude-jobs transcript jyq4k",)),
    (
        _LOOK,
        "search",
        search.search,
        ("claude-jobs search flaky test", "claude-jobs search --transcripts --since 2d ImportError"),
    ),
    (
        _LOOK,
        "report",
        share.report,
        ("claude-jobs report bts67 -o tree.html", "claude-jobs report bts67 --no-answers > tree.html"),
    ),
    (_LOOK, "trace", share.trace, ("claude-jobs trace bts67 -o tree.perfetto-trace",)),
    (_LOOK, "dashboard", dashboard, ()),
    (_ACT, "kill", jobs.kill, ("claude-jobs kill bts67", "claude-jobs kill jyq4k jrnwf")),
    (_ACT, "pause", pauses.pause, ("claude-jobs pause bts67", "claude-jobs pause jyq4k --now", "claude-jobs pause")),
    (_ACT, "resume", pauses.resume, ("claude-jobs resume bts67", "claude-jobs resume")),
    (_ACT, "approve", jobs.approve, ("claude-jobs approve", "claude-jobs approve p3 --deny")),
    (
        _ACT,
        "limits",
        limits.limits,
        ("claude-jobs limits bts67", "claude-jobs limits bts67 --budget-usd 10 --max-concurrent 4"),
    ),
    (_ACT, "prune", jobs.prune, ("claude-jobs prune --dry-run", "claude-jobs prune bts67")),
    (_ENGINE, "doctor", doctor, ()),
    (_ENGINE, "settings", engine.settings, ()),
    (_ENGINE, "backup", engine.backup, ()),
    (_ENGINE, "demo", demo, ()),
    (_ENGINE, "mcp", mcp, ()),
)
"""Panel, name, function and examples of each command, in the order of the help."""

for panel, name, command, examples in _COMMANDS:
    shown = "\n\n".join(("Examples:", *examples)) if examples else None
    app.command(name, rich_help_panel=panel, epilog=shown)(command)
app.add_typer(engine.app, name="engine", rich_help_panel=_ENGINE)


def main() -> None:
    """Run the command line in `sys.argv` and end the process.

    Raises:
        SystemExit: Always, with the exit status.
    """
    escape_unencodable()
    try:
        app(prog_name="claude-jobs")
    except OSError as error:
        # An error of the output itself, a full disk for example: all others are reported within the command.
        raise SystemExit(refused(error)) from None
