"""The fork server: what it starts, what it refuses, and what becomes of both when it dies."""

import errno
import io
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
import pytest

from jobs.claude.command import MARKER
from jobs.processes import fork_server
from jobs.processes.attempt_dir import AttemptDirectory
from jobs.processes.fork_server import FORK
from jobs.processes.orphans import end_orphans, orphans
from jobs.processes.process import LaunchError, Process, launch, refused_for_now
from jobs.processes.process_table import process_table
from jobs.processes.spawning import ForkServer, Order, SpawnerDiedError, Started
from tests.support.signal_masks import STANDARD_SIGNALS
from tests.support.waiting import until_now
from tests.unit.claude.support import command, start

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform != "linux", reason="there is none elsewhere")]

SHELL = "/bin/sh"


@pytest.fixture
def server() -> Iterator[ForkServer]:
    built = ForkServer()
    try:
        yield built
    finally:
        built.close()


def pid_of(server: ForkServer) -> int:
    (pid,) = server.orphan_parents() - {os.getpid()}
    return pid


def written(path: Path) -> str:
    until_now(path.exists)
    return path.read_text()


async def start_program(server: ForkServer, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Started:
    with tempfile.TemporaryDirectory() as directory:
        return await server.start(Order(directory=f"{directory}/1", argv=argv, env=env or {}))


async def run(server: ForkServer, script: str, *arguments: str, env: dict[str, str] | None = None) -> int:
    """Start a script and return its process id."""
    started = await start_program(server, [SHELL, "-c", script, "name", *arguments], env)
    for descriptor in (*started.written, started.watch):
        if descriptor is not None:
            os.close(descriptor)
    return started.identity.pid


async def test_one_who_waits_for_a_process_as_another_wait_for_it_ends_hears_of_the_end(
    server: ForkServer, tmp_path: Path
):
    process = await start(tmp_path, f"stub:wait={tmp_path}/go", spawner=server)

    async def wait_twice() -> None:
        await process.wait()
        await process.wait()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for wait in (process.wait, wait_twice):
                group.start_soon(wait)
                # The kernel wakes the one that came last first.
                await anyio.wait_all_tasks_blocked()
            (tmp_path / "go").touch()
    process.close()


DESCRIBE = """
for each in /proc/$$/fd/*; do echo "${each##*/}"; done >"$1.part"
echo "$2|$VALUE|$PWD" >>"$1.part"
mv "$1.part" "$1"
while :; do sleep 0.05; done
"""


async def test_a_program_leads_its_session_with_its_arguments_its_environment_and_nothing_open(
    server: ForkServer, tmp_path: Path
):
    out = tmp_path / "out"
    pid = await run(server, DESCRIBE, str(out), "a 'b' \udcff", env={"VALUE": "x=y", "PATH": "/bin:/usr/bin"})
    until_now(out.exists)
    try:
        *descriptors, said = out.read_bytes().splitlines()
        assert said == b"a 'b' \xff|x=y|/"
        # One is the lock. It reads the directory, and at 10 it keeps the output that it had before.
        assert set(descriptors) <= {b"0", b"1", b"2", b"3", b"4", b"10"}
        entry = process_table().entry(pid)
        assert entry is not None
        assert (entry.session, entry.group, entry.parent) == (pid, pid, pid_of(server))
    finally:
        os.killpg(pid, signal.SIGKILL)


async def test_an_orphan_becomes_a_child_of_the_program_whatever_it_did_to_hide(server: ForkServer, tmp_path: Path):
    noted = tmp_path / "pid"
    hidden = (
        f"env -i setsid sh -c 'setsid sh -c \"echo \\$\\$ >{noted}.part; mv {noted}.part {noted}; exec sleep 60\" & '"
    )
    pid = await run(server, f"{hidden}; while :; do sleep 0.05; done", env={"PATH": "/bin:/usr/bin"})
    orphan = int(written(noted))
    try:
        until_now(lambda: (entry := process_table().entry(orphan)) is not None and entry.parent == pid)
    finally:
        os.kill(orphan, signal.SIGKILL)
        os.killpg(pid, signal.SIGKILL)


async def test_ended_programs_are_collected(server: ForkServer):
    pids = [await run(server, "exit 3") for _ in range(20)]
    until_now(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


async def test_a_program_has_the_signals_of_a_fresh_process(server: ForkServer, tmp_path: Path):
    out = tmp_path / "out"
    await run(
        server, 'grep SigIgn /proc/$$/status >"$1.part"; mv "$1.part" "$1"', str(out), env={"PATH": "/bin:/usr/bin"}
    )
    assert int(written(out).split()[1], 16) & STANDARD_SIGNALS == 0


@pytest.mark.parametrize(
    ("argv", "number"),
    [
        (["/nonexistent"], errno.ENOENT),
        (["/etc/passwd"], errno.EACCES),
        ([SHELL, "x" * 10_000_000], errno.E2BIG),
        ([SHELL, "a\0b"], errno.EINVAL),
    ],
)
async def test_a_refusal_has_the_number_of_the_system_and_the_next_launch_works(
    server: ForkServer, argv: list[str], number: int
):
    with pytest.raises(OSError, match=re.escape(os.strerror(number)) if number != errno.EINVAL else "NUL") as raised:
        await start_program(server, argv)
    assert raised.value.errno == number
    assert await run(server, "exec sleep 0.1", env={"PATH": "/bin:/usr/bin"}) > 0


async def test_too_many_open_files_is_a_refusal_that_passes(server: ForkServer):
    await run(server, "exit 0")
    resource.prlimit(pid_of(server), resource.RLIMIT_NOFILE, (4, 4))
    with pytest.raises(OSError, match=re.escape(os.strerror(errno.EMFILE))) as raised:
        await run(server, "exit 0")
    assert refused_for_now(raised.value)


def test_it_ends_with_its_engine_and_the_programs_go_on(tmp_path: Path):
    program = (
        "import os, signal, sys\n"
        "sys.path.append(sys.argv[1])\n"
        "import anyio\n"
        "from jobs.processes.spawning import ForkServer, Order\n"
        "server = ForkServer()\n"
        "order = Order(directory=sys.argv[2], argv=['/bin/sleep', '60'], env={})\n"
        "pid = anyio.run(server.start, order).identity.pid\n"
        "print(pid, *(server.orphan_parents() - {os.getpid()}), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parents[3]), str(tmp_path / "1")],
        capture_output=True,
        timeout=60,
        check=False,
    )
    started, server = map(int, done.stdout.split())
    try:
        until_now(lambda: process_table().entry(server) is None)
        assert process_table().entry(started) is not None
    finally:
        os.kill(started, signal.SIGKILL)


async def test_it_holds_nothing_of_the_engine_open(server: ForkServer, tmp_path: Path):
    with (tmp_path / "inherited").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        await run(server, "exit 0")
        process = psutil.Process(pid_of(server))
        # It closes what it handed over right after its answer.
        until_now(lambda: process.num_fds() == 4)
        assert process.open_files() == []
        assert process.num_threads() == 1


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
async def test_a_signal_that_a_terminal_sends_does_not_end_it(server: ForkServer, number: signal.Signals):
    await run(server, "exit 0")
    before = pid_of(server)
    os.kill(before, number)
    await run(server, "exit 0")
    assert pid_of(server) == before


async def test_a_launch_that_meets_a_dead_server_starts_another_one(server: ForkServer, tmp_path: Path):
    await run(server, "exit 0")
    before = pid_of(server)
    os.kill(before, signal.SIGKILL)
    process = await start(tmp_path, "x", spawner=server)
    with anyio.fail_after(60):
        assert await process.wait() == 0
    assert pid_of(server) != before


class DyingServer(ForkServer):
    """Dies as often as it is told to: before it hears of a launch, or after it has obeyed and before it says so.

    Args:
        times: How often.
        obeys: Whether it starts the program first.
    """

    def __init__(self, times: int, *, obeys: bool) -> None:
        super().__init__()
        self.left, self._obeys = times, obeys

    async def start(self, order: Order) -> Started:
        if not self.left:
            return await super().start(order)
        self.left -= 1
        if self._obeys:
            await super().start(order)
        raise SpawnerDiedError


@pytest.mark.parametrize("obeys", [True, False])
async def test_a_server_that_dies_before_its_answer_starts_a_job_once(tmp_path: Path, obeys: bool):
    server = DyingServer(1, obeys=obeys)
    try:
        process = await start(tmp_path, f"stub:ledger={tmp_path}/ledger", spawner=server)
        with anyio.fail_after(60):
            assert await process.wait() == 0
    finally:
        server.close()
    assert (tmp_path / "ledger").read_text().split()[1::2] == ["begin", "end"]


async def test_servers_that_die_one_after_the_other_are_a_refusal_that_passes(tmp_path: Path):
    server = DyingServer(99, obeys=False)
    directory = AttemptDirectory.create(tmp_path / "attempt")
    with pytest.raises(LaunchError) as raised:
        await launch(directory, command("x"), "/", server)
    assert raised.value.transient
    assert not directory.lock_held()


async def test_a_launch_that_comes_after_the_end_starts_no_other_server():
    server = ForkServer()
    server.close()
    with pytest.raises(BlockingIOError):
        await start_program(server, ["/bin/true"])
    assert server.orphan_parents() == {os.getpid()}


async def test_a_server_that_follows_a_dead_one_is_told_to_fork(server: ForkServer):
    await run(server, "exit 0")
    assert FORK.encode() not in Path(f"/proc/{pid_of(server)}/cmdline").read_bytes().split(b"\0")
    os.kill(pid_of(server), signal.SIGKILL)
    with anyio.fail_after(60):
        while True:
            try:
                pid = await run(server, "exec sleep 60", env={"PATH": "/bin:/usr/bin"})
            except SpawnerDiedError:
                continue
            break
    os.kill(pid, signal.SIGKILL)
    assert FORK.encode() in Path(f"/proc/{pid_of(server)}/cmdline").read_bytes().split(b"\0")


@pytest.mark.parametrize("machine", [resource.RLIM_INFINITY, 1000, 0])
def test_a_jobs_process_is_known_by_a_limit_that_the_machine_gives_nobody(tmp_path: Path, machine: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(Path(__file__).parents[3]), str(machine), str(tmp_path / "1")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Below 0 no limit can be set: such a machine gives no mark, and takes no person for a job's.
    assert done.stdout.split() == ["False", str(machine != 0)]


async def test_launches_that_are_asked_for_together_are_answered_each_and_in_one_go(server: ForkServer, tmp_path: Path):
    processes: list[Process] = []

    async def one(number: int) -> None:
        # Longer than what the socket takes at once.
        asked = command(f"stub:say={number} {'x' * 300_000}")
        processes.append(await launch(AttemptDirectory(tmp_path / str(number)), asked, "/", server))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(one, number)
        assert [await process.wait() for process in processes] == [0] * 20
    for process in processes:
        assert f'"{process.directory.path.name}"' in process.directory.read_output(0, 2**20).decode()


async def test_a_look_waits_for_launches_that_are_under_way_and_no_other_begins_meanwhile(server: ForkServer):
    await run(server, "exit 0")
    os.kill(pid_of(server), signal.SIGSTOP)
    seen: list[str] = []
    looking, go = threading.Event(), threading.Event()

    def look() -> None:
        seen.append("look")
        looking.set()
        go.wait(20)
        seen.append("looked")

    async def one(name: str) -> None:
        await run(server, "exit 0")
        seen.append(name)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(one, "before")
            await anyio.wait_all_tasks_blocked()
            group.start_soon(anyio.to_thread.run_sync, server.between_launches, look)
            await anyio.wait_all_tasks_blocked()
            os.kill(pid_of(server), signal.SIGCONT)
            await anyio.to_thread.run_sync(looking.wait, 20)
            group.start_soon(one, "after")
            await anyio.wait_all_tasks_blocked()
            go.set()
    assert sorted(seen[:2]) == ["before", "look"]
    assert seen[2:] == ["looked", "after"]


async def test_launches_under_way_when_the_server_is_killed_are_made_by_the_next_one_once_each(
    server: ForkServer, tmp_path: Path
):
    await run(server, "exit 0")
    before = pid_of(server)
    os.kill(before, signal.SIGSTOP)
    codes: list[int | None] = []

    async def one(number: int) -> None:
        task = f"stub:ledger={tmp_path}/ledger {'x' * 300_000}"
        process = await launch(AttemptDirectory(tmp_path / str(number)), command(task), "/", server)
        codes.append(await process.wait())

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(one, number)
            await anyio.wait_all_tasks_blocked()
            os.kill(before, signal.SIGKILL)
    assert codes == [0] * 5
    assert (tmp_path / "ledger").read_text().count("begin") == 5


@pytest.mark.parametrize("way", ["vfork", FORK])
async def test_no_look_for_orphans_ends_a_program_that_was_just_started(server: ForkServer, way: str):
    """A fork returns a moment before the program has its environment, by which it is known as a job's."""
    await run(server, "exit 0")
    if way == FORK:
        os.kill(pid_of(server), signal.SIGKILL)
        with pytest.raises(SpawnerDiedError):
            await run(server, "exit 0")
    table, pids = process_table(), []
    try:
        for _ in range(200):
            pids.append(await run(server, "sleep 60; :", env={MARKER: "k:j:1"}))
            end_orphans(table, lambda: orphans(table, {pid_of(server)}, [], {"k:j:1"}))
        assert [pid for pid in pids if table.entry(pid) is None] == []
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def test_a_program_that_is_over_is_not_waited_for_where_the_kernel_shows_its_environment_as_empty(
    monkeypatch: pytest.MonkeyPatch,
):
    pauses: list[float] = []
    monkeypatch.setattr(fork_server, "open", lambda *_, **__: io.BytesIO(), raising=False)
    monkeypatch.setattr(time, "sleep", pauses.append)
    pid = os.posix_spawn(SHELL, [SHELL, "-c", "exit 0"], {"A": "b"})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    fork_server.await_environment(pid, [b"A=b"])
    assert pauses == []
    os.waitpid(pid, 0)


LIMITED = """
import os, resource, sys
sys.path.append(sys.argv[1])
from jobs.processes.fork_server import RLIMIT_LOCKS
from jobs.processes.process_table import process_table
import anyio
from jobs.processes.spawning import ForkServer, Order
machine = int(sys.argv[2])
resource.setrlimit(RLIMIT_LOCKS, (machine, machine))
server = ForkServer()
pid = anyio.run(server.start, Order(directory=sys.argv[3], argv=["/bin/sleep", "60"], env={})).identity.pid
print(process_table().limited(os.getpid()), process_table().limited(pid))
os.kill(pid, 9)
server.close()
"""
