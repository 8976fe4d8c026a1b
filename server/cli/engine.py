"""The commands on the engine and its state directory: run it, stop it, status, settings, backup."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.console import AsJson, asked_for_json, errors_as_messages, fail, note, out, say, say_json
from server.cli.lines import setting_lines, show, spending_lines, width_of
from server.cli.times import here
from server.client.connect import control
from server.client.engine_socket import EngineUnreachableError
from server.client.lock_file import holder_of
from server.client.spawn_engine import SETTINGS_REFUSED
from server.client.state_dir import StatePaths, state_dir
from server.client.tool_client import endpoint_of
from server.client.wire import Hello, setting_variables

if TYPE_CHECKING:
    import psutil

import sqlite3
from pathlib import Path

from server.client.location import NAME, Location, read_location
from server.client.state_dir import prepare

app = typer.Typer(help="Run the engine in the foreground, or look after the one that runs.")

STOP_SECONDS = 10.0
"""Seconds that `stop` waits for an engine's answer before it sends a signal."""

END_SECONDS = 12.0
"""Seconds that a process may take to end after a signal: a stopping engine is gone after 9 s at the latest."""


def ask(request: dict[str, Any]) -> dict[str, Any] | None:
    """Send a control request to the running engine and return its answer, or None where none runs.

    A refusal ends the command.
    """
    with errors_as_messages():
        answer = control(endpoint_of(os.environ), request, Hello(cwd="/", client="claude-jobs engine"))
    if answer is not None and not answer["ok"]:
        fail(answer["error"])
    return answer


_SCOPES = """
[location]: where everything else is kept.
[tree]: from the client that begins a tree, which keeps it.
[engine]: for everybody; a change of the file holds within a second.
[engine, read at its start]: for everybody; a change holds for the next engine."""
"""The scope of a setting, shown in brackets, and what it means."""


@app.callback(invoke_without_command=True)
def engine(
    ctx: typer.Context,
    *,
    detached: Annotated[bool, typer.Option("--detached", hidden=True)] = False,
) -> None:
    """Run the engine in the foreground."""
    if ctx.invoked_subcommand is not None:
        return
    # Imported here: no other command runs one.
    from server.cli.wording import in_words
    from server.engine.main import run

    if problem := run(in_words):
        fail(problem, style=None if detached else "red")


@app.command()
def stop(*, as_json: AsJson = False) -> None:
    """Stop the running engine; its jobs go on and the next engine takes them over.

    An engine that does not answer is ended by a signal. The next one retries jobs that wait for a usage limit.
    """
    with errors_as_messages():
        endpoint = endpoint_of(os.environ).replace(timeout=STOP_SECONDS)
        try:
            answer = control(endpoint, {"do": "stop"}, Hello(cwd="/", client="claude-jobs engine"))
        except EngineUnreachableError as error:
            _end_unreachable(error)
            error.paths.pauses.unlink(missing_ok=True)
            return
        if answer is None:
            endpoint.paths.pauses.unlink(missing_ok=True)
    if answer is None:
        _say_end(None, "No engine runs.")
        return
    if not answer["ok"]:
        fail(answer["error"])
    # An engine of an older version does not report its jobs.
    fate = f"; {jobs}" if (jobs := answer.get("jobs")) else ""
    _say_end(answer["pid"], f"The engine (pid {answer['pid']}) is stopping{fate}.")


def _say_end(pid: int | None, words: str) -> None:
    if asked_for_json():
        say_json({"pid": pid, "message": words})
    else:
        say(words)


def _end_unreachable(error: EngineUnreachableError) -> None:
    """End exactly the process that holds the engine's lock: by SIGTERM first, and by SIGKILL where it does not end."""
    # Imported here: no other command needs it.
    import psutil

    path = error.paths.engine_lock
    try:
        # From here on the process is identified by its start time too, so a later one with its id is not signalled.
        process = None if error.pid is None else psutil.Process(error.pid)
        if process is None or holder_of(path) != error.pid or process.uids().effective != os.geteuid():
            fail(
                f"The engine of {error.paths.home} cannot be reached, and the process that holds {path} could not "
                f"be identified. Find it with `fuser {path}` and end it yourself; its jobs go on."
            )
        process.terminate()
        # A suspended process handles no signal until it is continued.
        process.resume()
        if not _is_over(process):
            process.kill()
            if not _is_over(process):
                fail(f"The engine (pid {process.pid}) does not end on SIGKILL. Try again, or restart the machine.")
    except psutil.NoSuchProcess:
        # It has ended by itself.
        pass
    _say_end(error.pid, f"The engine (pid {error.pid}) did not answer and was ended by a signal; its jobs go on.")


def _is_over(process: "psutil.Process") -> bool:
    import psutil

    try:
        process.wait(END_SECONDS)
    except psutil.TimeoutExpired:
        return False
    return True


@app.command("status")
def status(*, as_json: AsJson = False) -> None:
    """Print whether an engine runs, which one, how many jobs it knows, and the settings in force."""
    answer = ask({"do": "status", "variables": setting_variables(os.environ)})
    if as_json:
        say_json({"running": answer is not None, **(answer or {})})
    elif answer is None:
        say("No engine runs; the next command that needs one starts it.")
    else:
        _say_status(answer)
    if answer is None:
        raise typer.Exit(3)


def _say_status(answer: Mapping[str, Any]) -> None:
    jobs = ", ".join(f"{count} {status}" for status, count in answer["jobs"].items()) or "none"
    say(f"Engine {answer['version']}, pid {answer['pid']}, socket {answer['socket']}\nJobs: {jobs}")
    for line in _remarks(answer):
        say(line)
    say_settings(answer.get("settings", ()), answer.get("note"))


def _remarks(answer: Mapping[str, Any]) -> Iterator[str]:
    # Imported here: no other command needs it.
    from server.checks import to_go_on_at_once

    # An engine of an older version that still has work reports less.
    if answer.get("damage"):
        yield answer["damage"]
    if answer["rescue"]:
        yield answer["rescue"]["says"]
    if answer.get("copy"):
        yield answer["copy"]
    if answer.get("pagePort"):
        yield f"The page is at http://127.0.0.1:{answer['pagePort']}; `claude-jobs web` opens it."
    yield from spending_lines(answer.get("spending", ()), answer.get("accountNames", {}))
    if answer.get("paused"):
        yield f"{here(answer['paused'], time.time())}. {to_go_on_at_once(answer['paused'])}"
    yield from answer.get("pausedByRequest", ())
    for line in answer.get("hooks", ()):
        yield f"{line}. `claude-jobs doctor --hooks` tries the hooks."


def settings(*, as_json: AsJson = False) -> None:
    """Print each setting, its value in force, and where that came from."""
    variables = setting_variables(os.environ)
    answer = ask({"do": "settings", "variables": variables})
    if answer is None:
        answer = {"settings": _of_next_engine(), "note": None}
        running = False
    else:
        running = True
    if as_json:
        say_json({"running": running, "settings": answer["settings"], "note": answer["note"]})
        return
    say("In force:" if running else "No engine runs. If you start one now and no job is live, it has:")
    say_settings(answer["settings"], answer["note"])


def say_settings(rows: Sequence[Mapping[str, Any]], remark: str | None) -> None:
    """Print settings as a table of name, value, source and scope, and the remark below it."""
    show(out, setting_lines(rows, width_of(out)))
    if rows:
        say(_SCOPES)
    if remark:
        note(remark)


def _of_next_engine() -> list[dict[str, Any]]:
    # Imported here: no other command needs pydantic, and its import takes 0.2 s.
    from jobs.effective_settings import rows
    from jobs.errors import JobsError
    from jobs.settings_sources import load_here

    try:
        return rows(load_here(StatePaths(state_dir(os.environ)).home, os.environ))
    except JobsError as error:
        fail(f"{SETTINGS_REFUSED}{error}")


def backup(
    file: Annotated[
        Path,
        typer.Argument(
            help="The file to write, for example jobs.tar.gz; it must not exist.", metavar="FILE", show_default=False
        ),
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Write every job with its transcripts to one file; an engine may run meanwhile.

    The file is a gzipped tar archive of mode 0600. It holds the job database and what the jobs wrote, and no tokens, no
    environments and no settings.

    To restore it, unpack it and name its directory:

        tar -xzf FILE && CLAUDE_JOBS_HOME="$PWD/claude-jobs" claude-jobs list

    Or move that directory to where the state directory was, with no engine running. It is a copy: jobs that were not
    over are not started by themselves; `claude-jobs retry ID` runs one.
    """
    # Imported here: no other command needs it, and it imports pydantic.
    from jobs.maintenance.backup import back_up

    with errors_as_messages():
        paths = prepare(state_dir(os.environ))
        target = file.expanduser().absolute()
        known = read_location(paths.home)
        # Without device and inode it is a copy in any place, even where the original is gone.
        location = Location(key=known.key if known else "", path=str(paths.home), copied_at=time.time())
        try:
            attempts = back_up(paths.database, paths.trees, target, {NAME: location.encode()})
        except FileExistsError:
            fail(f"{target} exists already. Give another name, or remove it first.")
        except FileNotFoundError as error:
            if not target.parent.is_dir():
                fail(f"There is no directory {target.parent}. Make it first, or name a file in another directory.")
            fail(f"There is no {error.filename}: no job has been started here, so there is nothing to back up.")
        except sqlite3.Error as error:
            fail(f"{paths.database} cannot be read: {error}. `claude-jobs doctor` says what is wrong with it.")
    size = target.stat().st_size
    if as_json:
        say_json({"file": str(target), "attempts": attempts, "bytes": size})
    else:
        say(f"{target}: {attempts} attempts of jobs, {size} bytes.")
