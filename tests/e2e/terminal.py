"""The real `claude` in a terminal: what a person would see and type, in an environment built from nothing."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from server.demo.environment import DUMMY_KEY, isolated_environment
from server.demo.messages_api import ScriptedApi
from tests.e2e.support import SYSTEM_PATH
from tests.support.waiting import until_now

LINES, COLUMNS = 50, 160
SECONDS = 60.0
"""Bound of each wait; the prompt stands there after about one second on an idle core, measured."""

_PROMPT = "❯"  # noqa: RUF001 - the very character that it shows


class Terminal:
    """A running session.

    Args:
        master: Descriptor of the terminal's other side.
    """

    def __init__(self, master: int) -> None:
        self._master = master
        self._seen = bytearray()
        self._reader = threading.Thread(target=self._read, name="terminal", daemon=True)
        self._reader.start()

    def submit(self, words: str) -> None:
        """Type words and, once they stand on the screen, the enter key."""
        until_now(lambda: self.shows(_PROMPT), SECONDS, "the prompt")
        os.write(self._master, words.encode())
        # A word at a time: between two of them the program may move the cursor instead of writing a blank.
        until_now(lambda: self.shows(words.rsplit(maxsplit=1)[-1]), SECONDS, f"{words!r} on the screen")
        os.write(self._master, b"\r")

    def shows(self, text: str) -> bool:
        """Whether a text without blanks has been on the screen."""
        return text.encode() in self._seen

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._master, 65536)
            except OSError:  # Linux answers so once nobody has the terminal open any more
                return
            if not chunk:
                return
            self._seen += chunk


@contextmanager
def terminal(
    cli: Path, directory: Path, *, api: ScriptedApi, mcp_config: Mapping[str, Any], args: Sequence[str] = ()
) -> Iterator[Terminal]:
    """Start an interactive session; at the end it is terminated.

    Args:
        cli: The binary.
        directory: An empty directory for this run: home, working directory and configuration.
        api: A scripted API that is being served.
        mcp_config: MCP servers by name.
        args: Further arguments.
    """
    home, work = directory / "home", directory / "work"
    home.mkdir(parents=True)
    work.mkdir()
    (home / ".claude.json").write_text(json.dumps(_nothing_to_ask(work)), encoding="utf-8")
    servers = directory / "mcp.json"
    servers.write_text(json.dumps({"mcpServers": mcp_config}), encoding="utf-8")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    process = subprocess.Popen(
        [cli, "--mcp-config", servers, "--strict-mcp-config", "--setting-sources", "user", *args],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=work,
        env={**isolated_environment(home, api.url, path=SYSTEM_PATH), "TERM": "xterm-256color"},
        start_new_session=True,
    )
    os.close(slave)
    with process:
        session = Terminal(master)
        try:
            yield session
        finally:
            process.terminate()
            try:
                process.wait(SECONDS)
            finally:
                process.kill()
                os.close(master)


def _nothing_to_ask(work: Path) -> dict[str, Any]:
    """Return what `claude` would otherwise ask for at its first start: a theme, the key, trust in the directory."""
    return {
        "hasCompletedOnboarding": True,
        "lastOnboardingVersion": "2.1.330",
        "theme": "dark",
        "numStartups": 5,
        "customApiKeyResponses": {"approved": [DUMMY_KEY[-20:]], "rejected": []},
        "projects": {
            str(work): {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True, "allowedTools": []}
        },
    }
