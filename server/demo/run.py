"""Runs the demo: a separate engine, real `claude` processes, a scripted model, and the tree drawn live."""

import os
import shlex
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from rich.console import Console

from jobs.claude.binary import ClaudeFinder
from jobs.errors import JobsError
from jobs.util.text import strip_terminal_codes
from server.cli.console import write
from server.cli.follow import jobs_of, watch
from server.cli.web import open_in_browser, page_url
from server.cli.wording import for_a_person
from server.client.connect import control
from server.client.engine_socket import EngineEndpoint, lock
from server.client.tool_client import Client, ToolError, endpoint_of, open_client
from server.client.wire import ClientError, Hello
from server.demo.environment import isolated_environment
from server.demo.messages_api import ScriptedApi
from server.demo.picnic import ALLOWED_TOOLS, ASKED_TOOLS, invitation, root_tasks, story, write_files


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoEnvironment:
    """The demo's environment: everything in one directory, without the person's settings and account.

    Args:
        root: The directory.
        environ: The environment of the client, and so of every job.
    """

    root: Path
    environ: Mapping[str, str]

    @property
    def state(self) -> Path:
        """The demo's state directory."""
        return self.root / "state"

    @property
    def project(self) -> Path:
        """The directory that the jobs work in."""
        return self.root / "picnic"


SLOW_SECONDS: Final = 6.0
"""How much longer each answer of the model takes with `--slow`: the demo then lasts about a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """How the demo is shown.

    Args:
        keep: Do not remove the state directory.
        slow: Take about a minute, and at a terminal end only when the person says so: there is time to look around.
        web: Serve the page and open it in the browser. It is slow too, and one of its jobs asks for a permission.
    """

    keep: bool = False
    slow: bool = False
    web: bool = False


_AS_A_COMMAND: Final = Show()


def run_demo(console: Console, show: Show = _AS_A_COMMAND) -> bool:
    """Run the demo, draw it, and return whether every parent's answer is made of its children's.

    Where the person has cancelled jobs of it, that is not expected of the others.

    Args:
        console: Where to draw.
        show: How it is shown.
    """
    extra = SLOW_SECONDS if show.slow or show.web else 0.0
    try:
        cli = ClaudeFinder().find(os.environ.get("CLAUDE_JOBS_CLI"), os.environ.get("PATH")).path
    except JobsError as error:
        console.print(
            strip_terminal_codes(for_a_person(str(error))), style="red", markup=False, highlight=False, soft_wrap=True
        )
        return False
    _say(console, f"claude: {cli}\nThe model is a script on loopback: no account, no cost.")
    with (
        _ended_by_signals(),
        ScriptedApi(story().slowed(extra)) as api,
        _set_up(api.url, cli, show) as demo,
        _client(demo) as client,
    ):
        write_files(demo.project, 0.5 + extra)
        command = shlex.quote(str(_command_on(demo)))
        if not show.web:
            _say(console, _WATCH_IT.format(command=command))
        allowed = [tool for tool in ALLOWED_TOOLS if not (show.web and tool in ASKED_TOOLS)]
        asked = {"tasks": [*root_tasks(), invitation()], "outputFormat": "text", "allowedTools": allowed}
        spawned = client.call_json("claude_run_batch_async", asked)
        if show.web:
            _say(console, _how_to_watch(demo, command, spawned["batchId"]))
        jobs = watch(client, spawned["batchId"], f"tree {spawned['batchId']}", console, command)
        answers = {job["jobId"]: client.call("claude_result", {"jobId": job["jobId"]}) for job in _completed(jobs)}
        roll = client.call_json("claude_status", {"jobId": spawned["batchId"]})
        _report(console, jobs, answers, roll)
        if extra and sys.stdin.isatty() and console.is_terminal:
            removed = "stays" if show.keep else "is removed"
            console.input(f"Press Enter to end: the engine stops, and its state directory {removed}. ")
        _say(console, _look_again(demo, command, show))
        return _stopped(jobs) > 0 or made_of_children(jobs, answers)


_WATCH_IT: Final = "Watch it from another terminal, with `top`, `tree -f` or, in the browser, `web`:\n  {command} top\n"


def _say(console: Console, words: str) -> None:
    console.print(words, markup=False, highlight=False, soft_wrap=True)


def _how_to_watch(demo: DemoEnvironment, command: str, batch: str) -> str:
    """Open the page with the demo's tree, and return what to do there."""
    url = page_url(endpoint_of(demo.environ, demo.state), f"tree/{batch}")
    opened = (
        "It opens in your browser:" if open_in_browser(url) else "Open it in your browser, once, within 10 minutes:"
    )
    return (
        f"{opened}\n  {url}\nOne of its jobs asks you for a permission. Stop a part of the tree, if you like.\n"
        f"A new link to it: {command} web\n"
    )


def _look_again(demo: DemoEnvironment, command: str, show: Show) -> str:
    kept = f"State directory: {demo.state}\nLook at these jobs again: {command} web\n" if show.keep else ""
    called = _called()
    return f"{kept}The demo in the browser: {called} demo --web. Your own jobs: {called} web"


def _called() -> str:
    """Return how to call this `claude-jobs` from the person's directory: the first command leaves it off the PATH."""
    called = Path(sys.argv[0])
    # A module that was started by an interpreter is no command.
    is_command = called.name == "claude-jobs"
    return shlex.quote(str(called)) if is_command and shutil.which("claude-jobs") is None else "claude-jobs"


def _stopped(jobs: Sequence[Mapping[str, Any]]) -> int:
    """Return how many jobs were cancelled; those that waited for one of them did not start, which is not the same."""
    return sum(job["status"] == "cancelled" and job.get("reason") != "dependency_failed" for job in jobs)


_OF_THE_TERMINAL: Final = ("TERM", "COLORTERM", "NO_COLOR", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
"""What another terminal's `claude-jobs` still takes from there."""


def _command_on(demo: DemoEnvironment) -> Path:
    """Write a command that calls this `claude-jobs` on the demo's state directory, and return it.

    A retry or a message runs with the environment of the one who asks. So this command has the demo's: with the
    person's own, such a job would use their account.
    """
    called = Path(sys.argv[0]).absolute()
    # A module that was started by an interpreter is no command.
    words = [sys.executable, str(called)] if called.suffix == ".py" else [str(called)]
    kept = " ".join(f'${{{name}+{name}="${name}"}}' for name in _OF_THE_TERMINAL)
    variables = {name: value for name, value in demo.environ.items() if name not in _OF_THE_TERMINAL}
    given = shlex.join(f"{name}={value}" for name, value in {**variables, "CLAUDE_JOBS_HOME": str(demo.state)}.items())
    command = demo.root / "claude-jobs"
    command.write_text(f'#!/bin/sh\nexec env -i {kept} {given} {shlex.join(words)} "$@"\n')
    command.chmod(0o700)
    return command


def made_of_children(jobs: Sequence[Mapping[str, Any]], answers: Mapping[str, str]) -> bool:
    """Tell whether every job answered, and each parent's answer holds the answers of all its children.

    Args:
        jobs: Lines of `claude_list_jobs`.
        answers: Job id to its answer.
    """
    parents = {job.get("parentJobId") for job in jobs} & answers.keys()
    return (
        bool(parents)
        and all(job["jobId"] in answers for job in jobs)
        and all(
            answers[job["jobId"]] in answers[job["parentJobId"]] for job in jobs if job.get("parentJobId") in parents
        )
    )


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Have the end of the terminal, and SIGTERM, end the demo as an exit does: its engine, jobs and directory too."""
    if threading.current_thread() is not threading.main_thread():
        # Python handles signals only in the main thread.
        yield
        return

    def end(number: int, _: object) -> NoReturn:
        # Another one is not to interrupt what is cleaned up now.
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        raise SystemExit(128 + number)

    # What is ignored stays so: nohup means it.
    numbers = [one for one in (signal.SIGHUP, signal.SIGTERM) if signal.getsignal(one) is not signal.SIG_IGN]
    before = {one: signal.signal(one, end) for one in numbers}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def _set_up(api_url: str, cli: Path, show: Show) -> Iterator[DemoEnvironment]:
    root = Path(tempfile.mkdtemp(prefix="claude-jobs-demo-"))
    try:
        home = root / "home"
        demo = DemoEnvironment(
            root=root,
            environ={
                **isolated_environment(home, api_url, path=os.environ.get("PATH", os.defpath)),
                "CLAUDE_JOBS_CLI": str(cli),
                "CLAUDE_JOBS_PERMISSION_MODE": "default",
                **({"CLAUDE_JOBS_PERMISSION_REQUESTS": "person"} if show.web else {}),
            },
        )
        for directory in (home, demo.project):
            directory.mkdir()
        yield demo
    finally:
        if not show.keep:
            shutil.rmtree(root, ignore_errors=True)


@contextmanager
def _client(demo: DemoEnvironment) -> Iterator[Client]:
    endpoint = endpoint_of(demo.environ, demo.state)
    try:
        with open_client(endpoint, demo.environ, demo.project) as client:
            try:
                yield client
            except BaseException:
                # After Ctrl-C too: jobs outlive their engine, and the directory of these is removed.
                _cancel_all(endpoint, demo)
                raise
    finally:
        control(endpoint, {"do": "stop"}, Hello(cwd="/", client="demo"))
        _wait_for_end(endpoint)


def _cancel_all(endpoint: EngineEndpoint, demo: DemoEnvironment) -> None:
    # A new connection: the other may be broken, or in the middle of an answer.
    with suppress(ClientError, ToolError), open_client(endpoint, demo.environ, demo.project) as created:
        for job in jobs_of(created, None).jobs:
            created.call("claude_kill_job", {"jobId": job["jobId"]})


def _wait_for_end(endpoint: EngineEndpoint) -> None:
    """Wait until the engine is gone: until then it writes into the directory that is about to be removed."""
    held = lock(endpoint.paths.engine_lock, endpoint.timeout)
    if held is not None:
        os.close(held)


def _completed(jobs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [job for job in jobs if job["status"] == "completed"]


def _report(
    console: Console, jobs: Sequence[Mapping[str, Any]], answers: Mapping[str, str], roll: Mapping[str, Any]
) -> None:
    console.print()
    for job in jobs:
        if job["recursionDepth"] == 1:
            console.print(f"{job['jobId']} answers:", style="bold", markup=False)
            write(console, answers.get(job["jobId"], f"nothing: {job['error']}"))
    counted = ", ".join(f"{number} {status}" for status, number in roll["counts"].items())
    if stopped := _stopped(jobs):
        named = f"{stopped} job{'' if stopped == 1 else 's'}"
        _say(console, f"Stopped by you: {named}. What waited for them did not start, or answered without them.")
    console.print(f"\n{roll['total']} jobs: {counted}, ${roll['costUsd']:.4f} at list price, $0 paid.", markup=False)
