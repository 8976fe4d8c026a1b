"""Hooks: the command, the URL and the desktop program to which a message for a person goes."""

import asyncio
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import anyio

from jobs.notice import ERROR_CHARS, NoticeEvent, shortened
from jobs.notices.posting import URL_SECONDS, post, took_longer
from jobs.processes.process_table import ProcessIdentity, process_table
from jobs.settings import is_url

COMMAND_SECONDS = 30.0
"""Seconds that a command may run."""

_GRACE_SECONDS = 1.0
"""Seconds between asking a command's process group to end and killing it."""

_END_SECONDS = 3 * _GRACE_SECONDS
"""Seconds that it takes at most to notice that a command is to end, and to end it."""

_LOOK_MILLISECONDS = 50
"""Between two looks whether a command has ended, for as long as one runs."""

_KEPT_BYTES = 4096
"""Bytes of a command's output that are kept, the last ones."""

_READ_BYTES = 65_536

_SYSTEM = "PATH HOME USER LOGNAME SHELL LANG TZ TMPDIR CLAUDE_JOBS_HOME"
_DESKTOP = "DISPLAY WAYLAND_DISPLAY XAUTHORITY DBUS_SESSION_BUS_ADDRESS XDG_RUNTIME_DIR"
PASSED_ON = frozenset(f"{_SYSTEM} {_DESKTOP}".split())
"""Variables of the engine that a command gets: no key of an account is among them."""

VARIABLES: Mapping[str, str] = {
    "CLAUDE_JOBS_EVENT": "event",
    "CLAUDE_JOBS_ID": "id",
    "CLAUDE_JOBS_STATUS": "status",
    "CLAUDE_JOBS_COST_USD": "costUsd",
}
"""Variables that a command gets besides, each with the key of the message whose value it has; empty without one."""


class Hooks:
    """Delivers messages. Each call returns None, or what went wrong, for a person.

    Args:
        environ: The engine's environment.
        umask: Mask of the modes of the files that a command makes: the person's, not the engine's.
        platform: As `sys.platform`.

    Attributes:
        running: The commands that run: they are the person's, although the engine is their parent.
    """

    def __init__(self, environ: Mapping[str, str], umask: int, platform: str = sys.platform) -> None:
        self._env = {name: value for name, value in environ.items() if name in PASSED_ON or name.startswith("LC_")}
        self._umask = umask
        self._platform = platform
        self.running: set[ProcessIdentity] = set()

    async def deliver(self, hook: str, message: Mapping[str, Any]) -> str | None:
        """Send a message to a hook.

        Args:
            hook: The command or the URL.
            message: A JSON object.
        """
        text = json.dumps(message, ensure_ascii=False).encode()
        if is_url(hook):
            # The thread itself ends a request that takes too long.
            return await _in_thread(lambda _: post(hook, text), URL_SECONDS + _END_SECONDS, 0.0)
        given = {name: str(message.get(key, "")) for name, key in VARIABLES.items()}
        # A whole line: a command such as `cat >>FILE` then writes one message a line.
        command, env = ["/bin/sh", "-c", hook], self._env | given
        return await _as_command(lambda stop: self._run(command, text + b"\n", env, stop))

    async def show(self, message: Mapping[str, Any]) -> str | None:
        """Show a message on the desktop; do nothing where the platform's program for that is not found."""
        title, words = desktop_words(message)
        # Directories of PATH may be on a slow disk.
        return await _as_command(lambda stop: self._show(title, words, stop))

    def _show(self, title: str, words: str, stop: threading.Event) -> str | None:
        program = desktop_program(self._env.get("PATH"), self._platform)
        if program is None:
            return None
        if self._platform == "darwin":
            # As arguments: nothing in them is taken for a script.
            script = ["on run argv", "display notification (item 2 of argv) with title (item 1 of argv)", "end run"]
            options = [part for line in script for part in ("-e", line)]
            return self._run([program, *options, title, words], b"", self._env, stop)
        # Servers take the body for markup.
        command = [program, "--app-name=claude-jobs", "--", title, escape(words, quote=False)]
        return self._run(command, b"", self._env, stop)

    def _run(self, command: Sequence[str], text: bytes, env: Mapping[str, str], stop: threading.Event) -> str | None:
        try:
            # Not a pipe: a command need not read its input, and what it leaves running may hold its output open.
            with TemporaryFile() as given:
                given.write(text)
                given.seek(0)
                process = subprocess.Popen(
                    command,
                    stdin=given,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=dict(env),
                    cwd=directory_of(env),
                    umask=self._umask,
                    # Its own group and the engine's session: who collects orphans knows it for no orphan by that.
                    process_group=0,
                )
        except (OSError, ValueError) as error:
            return f"it cannot be started: {error}"
        identity = process_table().identify(process.pid)
        if identity is not None:
            self.running.add(identity)
        try:
            return _followed(process, stop)
        finally:
            if identity is not None:
                self.running.discard(identity)


def directory_of(env: Mapping[str, str]) -> str:
    """Return the directory in which a command runs, from its environment: the person's home where there is one."""
    home = env.get("HOME", "/")
    return home if Path(home).is_dir() else "/"


def desktop_program(path: str | None, platform: str = sys.platform) -> str | None:
    """Return the program that shows a notice on the desktop, or None where there is none.

    Args:
        path: PATH.
        platform: As `sys.platform`.
    """
    return shutil.which("osascript" if platform == "darwin" else "notify-send", path=path)


def desktop_words(message: Mapping[str, Any]) -> tuple[str, str]:
    """Return title and text of a message on the desktop."""
    task = message.get("task", "")
    match message["event"]:
        case NoticeEvent.TREE_ENDED:
            title, words = f"Jobs {message['status']}", f"{task}\n${message['costUsd']:.2f}"
        case NoticeEvent.PERMISSION_WANTED:
            title, words = "A job waits for a permission", f"{message['tool']}: {message['input']}"
        case NoticeEvent.BUDGET_USED_UP:
            title, words = "A budget is used up", message.get("because", task)
        case NoticeEvent.PAUSE_BEGAN:
            until = f" until {message['until']}" if "until" in message else ""
            title, words = f"Jobs are paused{until}", message.get("because", "")
        case NoticeEvent.PAUSE_ENDED:
            title, words = "Jobs go on", message.get("because", "")
        case NoticeEvent.SEVERAL:
            title, words = f"{message['count']} notices", ", ".join(f"{n} {of}" for of, n in message["events"].items())
        case other:
            title, words = f"Notice: {other}", task
    return f"claude-jobs: {title}", f"{words}\n{message.get('next', '')}".strip()


async def _as_command(work: Callable[[threading.Event], str | None]) -> str | None:
    # The thread itself ends a command that takes too long.
    return await _in_thread(work, COMMAND_SECONDS + _END_SECONDS, _END_SECONDS)


async def _in_thread(work: Callable[[threading.Event], str | None], seconds: float, last_seconds: float) -> str | None:
    """Return what the work returns, in a thread that keeps neither the event loop nor the end of the process waiting.

    Args:
        work: Gets an event that is set once nobody waits for it any more.
        seconds: Longest time.
        last_seconds: How much longer the work is waited for once nobody needs what it returns.
    """
    loop = asyncio.get_running_loop()
    over, stop = anyio.Event(), threading.Event()
    found: list[str | None] = []

    def run() -> None:
        found.append(work(stop))
        # The loop may have ended meanwhile.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(over.set)

    threading.Thread(target=run, name="hook", daemon=True).start()
    try:
        with anyio.move_on_after(seconds):
            await over.wait()
    finally:
        stop.set()
        # An engine that stops leaves no command.
        with anyio.move_on_after(last_seconds, shield=True):
            await over.wait()
    return found[0] if found else took_longer(seconds)


def _followed(process: "subprocess.Popen[bytes]", stop: threading.Event) -> str | None:
    """Read what a command says until it ends, end it when it takes too long, and return what went wrong."""
    assert process.stdout is not None
    until = time.monotonic() + COMMAND_SECONDS
    with process.stdout as output:
        said = b""
        while process.poll() is None:
            if stop.is_set() or time.monotonic() > until:
                _end_group(process)
                return f"it was ended after {COMMAND_SECONDS:g} s{_last_words(said)}"
            said = (said + _read(output.fileno(), _LOOK_MILLISECONDS))[-_KEPT_BYTES:]
        # What it left running may hold the pipe open: only what is there already is read.
        said = (said + _read(output.fileno(), 0))[-_KEPT_BYTES:]
    return f"it exited with {process.returncode}{_last_words(said)}" if process.returncode else None


def _read(descriptor: int, milliseconds: int) -> bytes:
    look = select.poll()
    look.register(descriptor, select.POLLIN)
    [(_, what)] = look.poll(milliseconds) or [(0, 0)]
    said = os.read(descriptor, _READ_BYTES) if what & select.POLLIN else b""
    if what and not said:
        # Nobody can write any more; the command may still run.
        time.sleep(milliseconds / 1000)
    return said


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)


def _last_words(said: bytes) -> str:
    words = shortened(said.decode(errors="replace"), most=_KEPT_BYTES)
    # What a command says last is most likely why it failed.
    last = words if len(words) <= ERROR_CHARS else f"…{words[1 - ERROR_CHARS :]}"
    return f": {last}" if last else ""
