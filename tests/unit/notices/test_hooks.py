"""What hooks get, in which surroundings they run, and what is said of one that fails."""

import json
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from jobs.notice import ERROR_CHARS
from jobs.notices import hooks as module
from jobs.notices import posting
from jobs.notices.hooks import Hooks, desktop_program
from tests.support.receiver import receiving
from tests.support.waiting import until

PATH = os.environ["PATH"]
MASK = 0o027
MESSAGE = {"event": "tree_ended", "id": "j1", "status": "completed", "costUsd": 0.25, "task": "größer"}
SECRET = "sk-ant-api03-Zm9vYmFyYmF6cXV4MDEyMzQ1Njc4OTAxMjM0"
TEST = {"event": "test"}


@pytest.fixture
def hooks(tmp_path: Path) -> Hooks:
    return Hooks({"PATH": PATH, "HOME": str(tmp_path)}, MASK)


async def test_a_command_gets_the_message_as_one_line_in_the_surroundings_of_the_person(tmp_path: Path):
    environ = {"PATH": PATH, "HOME": str(tmp_path), "LC_TIME": "C", "DISPLAY": ":7", "ANTHROPIC_API_KEY": SECRET}
    told = Hooks(environ, MASK)
    assert await told.deliver("cat >told; pwd >where; umask >mask; env >given", MESSAGE) is None
    text = (tmp_path / "told").read_text()
    assert (text.count("\n"), json.loads(text)) == (1, MESSAGE)
    assert "größer" in text
    assert (tmp_path / "where").read_text().strip() == str(tmp_path)
    assert int((tmp_path / "mask").read_text(), 8) == MASK
    given = dict(line.split("=", 1) for line in (tmp_path / "given").read_text().splitlines())
    assert {name: value for name, value in given.items() if name.startswith("CLAUDE_JOBS_")} == {
        "CLAUDE_JOBS_EVENT": "tree_ended",
        "CLAUDE_JOBS_ID": "j1",
        "CLAUDE_JOBS_STATUS": "completed",
        "CLAUDE_JOBS_COST_USD": "0.25",
    }
    assert (given["LC_TIME"], given["DISPLAY"]) == ("C", ":7")
    assert "ANTHROPIC_API_KEY" not in given


async def test_a_variable_of_which_the_message_says_nothing_is_empty(hooks: Hooks):
    assert await hooks.deliver('test -z "$CLAUDE_JOBS_STATUS" && test "$CLAUDE_JOBS_EVENT" = test', TEST) is None


@pytest.mark.parametrize("environ", [{"PATH": PATH}, {"PATH": PATH, "HOME": "/no/such/home"}])
async def test_a_command_of_a_person_without_a_home_runs_in_the_root_directory(environ: dict[str, str]):
    assert await Hooks(environ, MASK).deliver("test $(pwd) = /", TEST) is None


async def test_a_command_need_not_read_its_input(hooks: Hooks):
    assert await hooks.deliver("true", {**TEST, "task": "x" * 200_000}) is None


async def test_a_command_that_fails_is_told_with_its_words_in_one_line_and_without_secrets(hooks: Hooks):
    said = await hooks.deliver(f"echo no route; echo 'key {SECRET}' >&2; exit 3", TEST)
    assert said == "it exited with 3: no route key [redacted]"
    assert await hooks.deliver("exit 4", TEST) == "it exited with 4"
    assert await hooks.deliver("kill -9 $$", TEST) == "it exited with -9"


async def test_of_a_command_that_says_much_the_last_words_are_kept(hooks: Hooks):
    story = "i=0; while [ $i -lt 20000 ]; do echo line $i of a long story; i=$((i+1)); done"
    said = await hooks.deliver(f"{story}; echo the disk is full; exit 1", TEST)
    assert said is not None
    assert said.startswith("it exited with 1: …")
    assert said.endswith(" line 19999 of a long story the disk is full")
    assert len(said.removeprefix("it exited with 1: ")) == ERROR_CHARS


async def test_a_command_that_cannot_be_started_is_told(hooks: Hooks):
    # Longer than an argument may be on Linux.
    said = await hooks.deliver(f": {'x' * 200_000}", TEST)
    assert said is not None
    assert said.startswith("it cannot be started: ")
    assert await hooks.deliver("true", {"event": "a\0b"}) == "it cannot be started: embedded null byte"


@pytest.fixture
def gate(tmp_path: Path) -> Iterator["Gate"]:
    made = Gate(tmp_path / "gate", tmp_path / "held")
    yield made
    made.close()


class Gate:
    """Two named pipes: commands wait at one until it is opened, and hold the other for as long as they run.

    Args:
        path: The one at which they wait.
        held: The one that they hold.
    """

    def __init__(self, path: Path, held: Path) -> None:
        self.path, self.held = path, held
        os.mkfifo(path)
        os.mkfifo(held)
        self._reader = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
        # Opened for both: a command that opens it to read does not wait there.
        self._writer = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    async def entered(self) -> None:
        """Wait until a command has said something on the pipe that it holds."""

        async def said() -> bool:
            with suppress(BlockingIOError):
                return bool(os.read(self._reader, 100))
            return False

        await until(said)

    async def deserted(self) -> None:
        """Wait until no process holds the pipe."""

        async def gone() -> bool:
            look = select.poll()
            look.register(self._reader, select.POLLIN)
            return any(what & select.POLLHUP for _, what in look.poll(0))

        await until(gone)

    def open(self) -> None:
        """Let a command go on."""
        os.write(self._writer, b"go\n")

    def close(self) -> None:
        """Remove the pipes' ends."""
        os.close(self._reader)
        os.close(self._writer)


async def test_a_command_is_known_as_the_persons_for_as_long_as_it_runs(hooks: Hooks, gate: Gate):
    said: list[str | None] = []

    # It says nothing any more, and fails only later.
    command = f"exec >&- 2>&- 9>{gate.held}; echo in >&9; read go <{gate.path}; exit 5"

    async def deliver() -> None:
        said.append(await hooks.deliver(command, TEST))

    async with anyio.create_task_group() as group:
        group.start_soon(deliver)
        await gate.entered()
        [identity] = hooks.running
        assert os.getpgid(identity.pid) == identity.pid
        assert os.getsid(identity.pid) == os.getsid(0)
        gate.open()
    assert said == ["it exited with 5"]
    assert hooks.running == set()


async def test_what_a_command_leaves_running_is_not_waited_for(hooks: Hooks, gate: Gate):
    with anyio.fail_after(10):
        assert await hooks.deliver(f"{{ echo in; read go; }} <{gate.path} >{gate.held} & exit 0", TEST) is None
    await gate.entered()
    gate.open()
    await gate.deserted()


async def test_a_command_that_runs_too_long_is_ended_with_all_that_it_started(
    hooks: Hooks, gate: Gate, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "COMMAND_SECONDS", 0.3)
    stubborn = f"echo began; exec 9>{gate.held}; trap '' TERM; sleep 1000 & sleep 1000; sleep 1000"
    assert await hooks.deliver(stubborn, TEST) == "it was ended after 0.3 s: began"
    await gate.deserted()


async def test_an_engine_that_stops_leaves_no_command(hooks: Hooks, gate: Gate):
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(hooks.deliver, f"exec 9>{gate.held}; echo in >&9; sleep 1000; sleep 1000", TEST)
            await gate.entered()
            group.cancel_scope.cancel()
        assert hooks.running == set()
        await gate.deserted()


async def test_a_url_gets_the_message_and_each_answer_that_is_no_success_is_told(hooks: Hooks):
    with receiving() as receiver:
        receiver.answers = [200, 500, 302]
        assert await hooks.deliver(receiver.url, MESSAGE) is None
        assert await hooks.deliver(receiver.url, MESSAGE) == "it answered 500"
        moved = "it answered 302, which is not followed: set the URL to which it leads"
        assert await hooks.deliver(receiver.url, MESSAGE) == moved
    assert [(command, body) for command, _, _, body in receiver.got] == [("POST", MESSAGE)] * 3
    assert {headers["Content-Type"] for _, _, headers, _ in receiver.got} == {"application/json"}


async def test_a_url_that_nobody_answers_is_told_without_its_path(hooks: Hooks):
    with receiving() as receiver:
        url = receiver.url
    said = await hooks.deliver(url, TEST)
    assert said is not None
    assert said.startswith("it cannot be reached: ")
    assert "refused" in said
    assert "a-secret-path" not in said


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does this with each connection; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        thread.join()


async def test_what_is_no_web_server_is_told(hooks: Hooks):
    def in_another_language(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"220 mail.example.com ESMTP\r\n")

    with answering(in_another_language) as url:
        assert await hooks.deliver(url, TEST) == "it cannot be reached: 220 mail.example.com ESMTP"


TLS_BEGINS = bytes([22, 3, 3, 64, 0])
"""The head of a record of a TLS handshake with 16 KiB to come."""


@pytest.mark.parametrize(
    ("scheme", "begins"),
    [("http", b"HTTP/1.1 200 OK\r\nX-Long: "), ("http", b""), ("https", TLS_BEGINS)],
    ids=["in a header", "in the first line", "while TLS is agreed on"],
)
async def test_a_url_that_answers_by_the_drop_without_end_is_given_up_and_keeps_no_thread(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch, scheme: str, begins: bytes
):
    monkeypatch.setattr(posting, "URL_SECONDS", 0.5)
    over = threading.Event()

    def by_the_drop(connection: socket.socket) -> None:
        with suppress(OSError):
            connection.sendall(begins)
            while not over.wait(0.05):
                connection.sendall(b"x")

    async def no_thread_is_left() -> bool:
        return not any(thread.name.startswith("hook") for thread in threading.enumerate())

    with answering(by_the_drop) as url:
        try:
            assert await hooks.deliver(url.replace("http", scheme), TEST) == "it took longer than 0.5 s"
            await until(no_thread_is_left, 20.0)
        finally:
            over.set()


@pytest.fixture
def desktop(tmp_path: Path) -> Callable[[str], list[str]]:
    """Programs of desktops, each of which keeps its arguments; returns those of one."""
    for name in ("notify-send", "osascript"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" >{tmp_path}/{name}.got\n')
        program.chmod(0o755)
    return lambda name: (tmp_path / f"{name}.got").read_text().split("\0")[:-1]


SHOWN: Mapping[str, Any] = {**MESSAGE, "task": "<b>bold</b> & more", "next": "claude-jobs result j1"}


async def test_linux_shows_a_message_as_text_and_not_as_markup(tmp_path: Path, desktop: Callable[[str], list[str]]):
    assert await Hooks({"PATH": str(tmp_path)}, MASK, "linux").show(SHOWN) is None
    assert desktop("notify-send") == [
        "--app-name=claude-jobs",
        "--",
        "claude-jobs: Jobs completed",
        "&lt;b&gt;bold&lt;/b&gt; &amp; more\n$0.25\nclaude-jobs result j1",
    ]


async def test_macos_shows_a_message_as_arguments_of_a_script(tmp_path: Path, desktop: Callable[[str], list[str]]):
    assert await Hooks({"PATH": str(tmp_path)}, MASK, "darwin").show(SHOWN) is None
    *script, title, words = desktop("osascript")
    assert (title, words) == ("claude-jobs: Jobs completed", "<b>bold</b> & more\n$0.25\nclaude-jobs result j1")
    assert [script[0], script[1], script[-1]] == ["-e", "on run argv", "end run"]
    assert "bold" not in " ".join(script)


async def test_a_desktop_whose_program_fails_is_told_and_one_without_it_is_none(tmp_path: Path):
    assert desktop_program(str(tmp_path)) is None
    assert await Hooks({"PATH": str(tmp_path)}, MASK, "linux").show(SHOWN) is None
    program = tmp_path / "notify-send"
    program.write_text("#!/bin/sh\necho no display\nexit 1\n")
    program.chmod(0o755)
    assert await Hooks({"PATH": str(tmp_path)}, MASK, "linux").show(SHOWN) == "it exited with 1: no display"


async def test_a_message_of_a_later_version_is_shown_by_its_name(tmp_path: Path, desktop: Callable[[str], list[str]]):
    assert await Hooks({"PATH": str(tmp_path)}, MASK, "linux").show({"event": "moon_rose", "task": "x"}) is None
    assert desktop("notify-send")[-2:] == ["claude-jobs: Notice: moon_rose", "x"]
