"""A whole run of the real `claude`, searched again and again: where its tokens and its key stand while it runs."""

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from jobs.claude.command import MARKER
from server.demo.environment import isolated_environment
from server.demo.messages_api import ScriptedApi
from server.demo.picnic import ALLOWED_TOOLS, root_tasks, story, write_files
from tests.support.engines import SYSTEM_PATH, House, house
from tests.support.waiting import until_now

pytestmark = pytest.mark.timeout(240)

KEY = "sk-ant-api03-canary-of-the-whole-run"
TOKEN = re.compile(rb"cj1_[\w-]{8,}")
TREE_JOBS = 9


@dataclass
class Search:
    """Looks through every process of this user and every file of a house until it is told to stop.

    Args:
        house: Whose files are read.
        pump: The process id of the person's pump, whose environment is the person's.
        hits: What was found, by where: "argv", "environ", or the name of a file under "state", "home" or "work".
        tokens: Every token that stood in a stdin file.
        jobs: Process ids seen that bear a job's mark.
        rounds: How often everything was looked through.
    """

    house: House
    pump: int
    hits: Counter[str] = field(default_factory=Counter)
    tokens: set[bytes] = field(default_factory=set)
    jobs: set[int] = field(default_factory=set)
    rounds: int = 0

    def look(self) -> None:
        """Look through everything once."""
        for process in psutil.process_iter():
            self._look_at(process)
        for name in ("state", "home", "work"):
            for path in (self.house.base / name).rglob("*"):
                self._read(name, path)
        self.rounds += 1

    def _look_at(self, process: psutil.Process) -> None:
        try:
            argv = "\0".join(process.cmdline()).encode("utf-8", "surrogateescape")
            environ = process.environ()
        except (psutil.Error, OSError):
            return  # gone meanwhile, or another user's
        self._note("argv", argv)
        if MARKER in environ:
            self.jobs.add(process.pid)
        values = "\0".join(environ.values()).encode("utf-8", "surrogateescape")
        # The job's claude has to know the key, and what it starts inherits it; nobody has to know a token.
        at_home = MARKER in environ or process.pid == self.pump
        self._note("environ", values.replace(KEY.encode(), b"") if at_home else values)

    def _read(self, name: str, path: Path) -> None:
        try:
            content = path.read_bytes() if path.is_file() else b""
        except OSError:
            return  # gone meanwhile
        match path.name:
            case "in":
                self.tokens.update(TOKEN.findall(content))
                content = TOKEN.sub(b"", content)
            case "origin.json":
                content = content.replace(KEY.encode(), b"")
        self._note(f"{name}/{path.name}", content)

    def _note(self, where: str, text: bytes) -> None:
        if KEY.encode() in text or TOKEN.search(text):
            self.hits[where] += 1


@contextmanager
def on_and_on(look: Callable[[], None]) -> Iterator[None]:
    """Do it in a thread of its own for as long as the block lasts, and once more."""
    over, failures = threading.Event(), list[BaseException]()

    def go_on() -> None:
        try:
            while not over.is_set():
                look()
        except BaseException as failure:  # noqa: BLE001 - it is raised where the test sees it
            failures.append(failure)

    thread = threading.Thread(target=go_on, name="search")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)
    assert not failures, failures
    look()


def left_in(made: House) -> list[str]:
    return [path.name for path in made.paths.home.rglob("*") if path.name in {"in", "origin.json"}]


def test_in_a_whole_run_no_token_leaves_its_stdin_file_and_no_key_the_jobs_environment(claude_cli: Path):
    with ScriptedApi(story()) as api, house(CLAUDE_JOBS_CLI=str(claude_cli), CLAUDE_JOBS_LOG_LEVEL="DEBUG") as made:
        client = isolated_environment(made.base / "home", api.url, path=SYSTEM_PATH) | {"ANTHROPIC_API_KEY": KEY}
        with made.pump(environ=client) as pump:
            search = Search(house=made, pump=pump.process.pid)
            with on_and_on(search.look):
                write_files(made.work)
                asked = {"tasks": root_tasks(), "outputFormat": "text", "allowedTools": ALLOWED_TOOLS}
                batch = pump.json("claude_run_batch_async", **asked)["batchId"]
                while pump.json("claude_wait", batchId=batch)["pending"]:
                    pass
                counts = pump.json("claude_status", jobId=batch)["counts"]
        assert api.requests[-1].headers["x-api-key"] == KEY
        # The tree is cleared away right after its last job was heard of.
        until_now(lambda: not left_in(made), 20.0, "the end of the tree's environment")
    print(f"\n{search.rounds} rounds, {len(search.jobs)} processes of jobs, {len(search.tokens)} tokens seen")
    assert counts == {"completed": TREE_JOBS}
    assert (len(search.tokens), search.rounds > 3, len(search.jobs) > TREE_JOBS) == (TREE_JOBS, True, True)
    assert search.hits == Counter()
