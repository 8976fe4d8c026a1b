"""The `claude-jobs` command: the human twin of the tools, and what a person needs to run the engine."""

import json
import os
from typing import Annotated, Any

import typer

from jobs.errors import JobsError
from server import __version__, engine_commands, state_commands, submit_commands
from server.front_door.places import Places, state_dir
from server.terminal.answers import say_answer
from server.terminal.drawing import description, draw, job_line
from server.terminal.speech import AsJson, client, complaints, exit_unless_completed, fail, json_option, note, out, say
from server.terminal.transcripts import transcript_of
from server.terminal.watching import jobs_of, listed, wait_for, watch

app = typer.Typer(
    name="claude-jobs",
    help="Trees of headless Claude Code jobs: durable, bounded, and visible.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (submit_commands.run, submit_commands.batch, submit_commands.send, state_commands.backup):
    app.command()(command)
app.add_typer(engine_commands.app, name="engine")
app.command()(engine_commands.settings)

JobId = Annotated[str, typer.Argument(help="Id of a job.")]
AnyId = Annotated[str, typer.Argument(help="Id of a job, a batch or a tree.")]


@app.callback(invoke_without_command=True)
def version_option(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Trees of headless Claude Code jobs: durable, bounded, and visible."""
    if version:
        say(__version__)
        raise typer.Exit


@app.command()
def status(identity: AnyId, *, as_json: AsJson = False) -> None:
    """Print where a job, a batch or a tree is."""
    with client() as engine:
        text = engine.call("claude_status", {"jobId": identity})
    if as_json:
        say(text)
    else:
        out.print(description(json.loads(text)), soft_wrap=True)


@app.command()
def tree(
    identity: Annotated[str | None, typer.Argument(help="Job, batch or tree; without it, the newest jobs.")] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Draw until every job is over.")] = False,
) -> None:
    """Draw a tree of jobs."""
    with client() as engine:
        title = identity or "newest jobs"
        if follow:
            watch(engine, identity, title, out)
        else:
            jobs, _, paused = jobs_of(engine, identity)
            out.print(draw(title, jobs, paused))


@app.command()
def wait(
    identities: Annotated[list[str], typer.Argument(help="Jobs, or one batch.")],
    *,
    mode: Annotated[str, typer.Option(help="all, any or first_success.")] = "all",
) -> None:
    """Wait for jobs or a batch, and print who ended; status 1 if what was waited for did not complete."""
    with client() as engine:
        lines = wait_for(engine, _scope(identities), mode)
    for line in lines:
        say(f"{line['jobId']}  {line['status']}  {line['excerpt']}")
        if said := line.get("note"):
            note(f"note: {said}")
    if not any(line["status"] == "completed" for line in lines) or mode == "all":
        exit_unless_completed(lines)


@app.command()
def result(job_id: JobId, *, offset: int | None = None, limit: int | None = None) -> None:
    """Print a job's answer, or a page of it where an offset or a limit is given."""
    with client() as engine:
        if offset is None and limit is None:
            say_answer(engine, job_id)
        else:
            say(engine.call("claude_result", {"jobId": job_id, "offset": offset, "limit": limit}))


@app.command()
def transcript(
    job_id: JobId,
    *,
    attempt: Annotated[int | None, typer.Option(help="Number of an attempt; without it, the last one.")] = None,
    as_json: Annotated[bool, json_option("Print the lines as Claude wrote them.")] = False,
) -> None:
    """Print what a job said and did, a line for each thing."""
    with client() as engine:
        status = engine.call_json("claude_status", {"jobId": job_id})
    try:
        for line in transcript_of(Places(state_dir(os.environ)), status, attempt, raw=as_json):
            say(line)
    except JobsError as error:
        fail(error)


@app.command("list")
def list_jobs(
    *,
    limit: int = 30,
    before: Annotated[str | None, typer.Option(help="Only jobs that are older than this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the newest jobs, one line each."""
    with client() as engine:
        jobs, more, paused = listed(engine, limit=limit, before=before)
    if as_json:
        rest = [{"more": f"Call claude_list_jobs with before {jobs[-1]['jobId']!r}."}] if more and jobs else []
        rest += [{"paused": paused}] if paused else []
        say(json.dumps([*jobs, *rest], indent=2, ensure_ascii=False))
        return
    for job in jobs:
        out.print(job_line(job), soft_wrap=True)
    if paused:
        note(paused)
    if not jobs:
        note("No jobs." if before is None else "No older jobs.")
    if more and jobs:
        note(f"more: claude-jobs list --before {jobs[-1]['jobId']}")


@app.command()
def kill(job_id: JobId) -> None:
    """Cancel a job and everything below it; status 1 if there was nothing to cancel."""
    with client() as engine:
        answer = engine.call_json("claude_kill_job", {"jobId": job_id})
    if not answer["success"]:
        fail(answer["message"])
    say(answer["message"])


@app.command()
def prune(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget trees that are over and too old, or too much: their rows and their directories."""
    # Only the engine opens the database; this starts one where none runs.
    with client():
        answer = engine_commands.ask({"do": "prune", "dry_run": dry_run})
    if answer is None:
        fail("The engine left. Try again.")
    if as_json:
        say(json.dumps(answer, indent=2))
        return
    for tree_id in answer["trees"]:
        say(tree_id)
    verb = "Would forget" if dry_run else "Forgot"
    trees, kept = len(answer["trees"]), answer["keptBytes"] / 2**20
    say(f"{verb} {trees} trees, {answer['jobs']} jobs, {answer['bytes'] / 2**20:.1f} MiB; {kept:.1f} MiB stay.")


@app.command()
def approve(
    request_id: Annotated[str | None, typer.Argument(help="Request; without it, those that are open.")] = None,
    *,
    deny: Annotated[bool, typer.Option("--deny", help="Say no.")] = False,
) -> None:
    """Answer a job that waits for a permission, or list what jobs wait for."""
    with client() as engine:
        answer = engine.call("claude_approve", {"requestId": request_id, "allow": not deny})
    say(answer)
    if request_id is None and not json.loads(answer):
        note("No job waits for a permission.")


@app.command()
def retry(
    identity: AnyId,
    *,
    subtree: Annotated[bool, typer.Option(help="Everything below the job that failed, too.")] = False,
) -> None:
    """Run a job again that failed, timed out or was cancelled; of a batch, each such job."""
    with client() as engine:
        answer = engine.call_json("claude_retry", {"jobId": identity, "subtree": subtree})
        for job_id in answer["jobIds"]:
            say(f"{job_id}  queued again")
        for job_id in answer.get("live", ()):
            say(f"{job_id}  not over yet")


@app.command()
def dashboard(*, as_json: AsJson = False) -> None:
    """Print how many jobs there are, how long they take, and what the engine holds."""
    with client() as engine:
        text = engine.call("claude_dashboard", {})
        if as_json:
            say(text)
            return
        figures = json.loads(text)
        # An engine of an older version that still has work tells of no cancelled ones.
        cancelled = figures.get("cancelledJobs", 0)
        failed = figures["failedJobs"] - cancelled
        over = f"{figures['completedJobs']} completed, {failed} failed, {cancelled} cancelled"
        say(f"{figures['activeJobs']} live, {over}")
        say(f"{figures['averageDuration']} s a job, {figures['parallelEfficiency']} at once while any worked")
        say(f"deepest live level {figures['nestedDepth']}, engine {figures['systemLoad']} MB")
        if paused := figures["recursionStats"].get("paused"):
            say(paused)


@app.command()
def mcp() -> None:
    """Serve MCP on standard input and output; this is what Claude Code starts."""
    # The command is answered in `server.__main__`, before this module is imported; it stands here for `--help`.
    from server.pump import run as pump

    raise typer.Exit(pump(state_dir(os.environ), None))


@app.command()
def doctor(
    *,
    selftest: Annotated[bool, typer.Option(help="Also kill engines of its own for two minutes and count.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is found, what keeps jobs from running, and what to do about it; status 1 if they cannot run."""
    from server.doctor import examine, kill_engines

    good = examine(os.environ, out, as_json=as_json)
    if selftest:
        good = kill_engines(out) and good
    raise typer.Exit(0 if good else 1)


@app.command()
def demo(
    *,
    keep: Annotated[bool, typer.Option(help="Leave the state directory there and print its path.")] = False,
) -> None:
    """Play a recursive tree of real Claude processes against a scripted model; needs no account and costs nothing."""
    from server.demo.play import play

    with complaints():
        good = play(out, keep=keep)
    raise typer.Exit(0 if good else 1)


def _scope(identities: list[str]) -> dict[str, Any]:
    if len(identities) == 1 and identities[0].startswith("b"):
        return {"batchId": identities[0]}
    return {"jobIds": identities}
