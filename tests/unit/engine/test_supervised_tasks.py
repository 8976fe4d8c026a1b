"""Whatever goes wrong in one background task or one connection, the engine and everybody else go on."""

import inspect
from pathlib import Path
from typing import Any

import anyio
import pytest

from jobs.event_bus import JobEventBus
from jobs.maintenance.pruning import Retention
from jobs.maintenance.snapshots import Snapshots
from jobs.scheduler import Scheduler
from server.client.wire import Hello
from server.engine import state_watch, supervised_tasks
from server.engine.mcp_connection import McpConnection
from server.engine.state_watch import StateWatch
from server.engine.supervised_tasks import SupervisedTasks
from server.mcp.subscriptions import Subscriptions
from tests.support.waiting import until
from tests.unit.engine.test_connection import assert_serves, caller, running_engine, wire
from tests.unit.jobs.support import job

pytestmark = pytest.mark.anyio


class Broken:
    """A task that fails so often and then does what it should."""

    def __init__(self, failures: int) -> None:
        self.runs = 0
        self.done = anyio.Event()
        self._failures = failures

    async def run(self) -> None:
        self.runs += 1
        if self.runs <= self._failures:
            raise RuntimeError("unforeseen")
        self.done.set()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised_tasks, "FIRST_PAUSE", 0.001)


async def test_a_task_that_fails_is_logged_and_ends_alone(caplog: pytest.LogCaptureFixture):
    broken, sound = Broken(1), Broken(0)
    async with anyio.create_task_group() as group:
        tasks = SupervisedTasks(group)
        tasks.start(broken.run)
        tasks.start(sound.run)
    assert (broken.runs, sound.done.is_set()) == (1, True)
    [entry] = caplog.records
    assert "Broken.run" in entry.getMessage()
    assert entry.exc_info is not None


async def test_a_service_that_fails_is_started_again_until_it_returns(quick: None, caplog: pytest.LogCaptureFixture):
    broken = Broken(7)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            SupervisedTasks(group).keep(broken.run)
    assert (broken.runs, broken.done.is_set()) == (8, True)
    assert len(caplog.records) == 7


async def test_a_cancelled_task_is_no_failure(caplog: pytest.LogCaptureFixture):
    async with anyio.create_task_group() as group:
        tasks = SupervisedTasks(group)
        tasks.start(anyio.sleep_forever)
        tasks.keep(anyio.sleep_forever)
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert caplog.records == []


def test_an_observer_that_fails_keeps_a_change_from_nobody(caplog: pytest.LogCaptureFixture):
    event_bus, heard = JobEventBus(), list[Any]()

    def fails(_: object) -> None:
        raise RuntimeError("unforeseen")

    event_bus.observe(fails)
    event_bus.observe(heard.append)
    event_bus.publish(job("j1"))
    assert [one.id for one in heard] == ["j1"]
    assert "unforeseen" in caplog.text


class Once:
    """Puts an unforeseen error into the first call of a method, and passes the others on."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.failed = anyio.Event()
        original = getattr(owner, name)
        bound = isinstance(vars(owner)[name], classmethod)

        def call(*args: Any, **kwargs: Any) -> Any:
            if not self.failed.is_set():
                self.failed.set()
                raise RuntimeError(f"unforeseen in {name}")
            return original(*args, **kwargs)

        async def later(*args: Any, **kwargs: Any) -> Any:
            return await call(*args, **kwargs)

        put = later if inspect.iscoroutinefunction(original) else call
        patch.setattr(owner, name, staticmethod(put) if bound else put)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Scheduler, "refused"),
        (Retention, "recover"),
        (Snapshots, "keep"),
        (Subscriptions, "_deliver"),
        (StateWatch, "_repair"),
    ],
)
async def test_an_engine_whose_service_fails_goes_on_serving(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, owner: type, name: str
):
    fault = Once(monkeypatch, owner, name)
    async with running_engine(home) as paths:
        async with caller(paths) as client:
            answer = await client.ask("tools/call", name="claude_run_async", arguments={"task": "x"})
            job_id = answer["result"]["content"][0]["text"].partition('"jobId": "')[2].partition('"')[0]
            await client.ask("resources/subscribe", uri=f"job://{job_id}")
            with anyio.fail_after(60):
                await fault.failed.wait()
            done = await client.ask("tools/call", name="claude_wait", arguments={"jobIds": [job_id]})
            assert '"pending":0' in done["result"]["content"][0]["text"]
        await assert_serves(paths)
    assert f"unforeseen in {name}" in caplog.text


async def test_a_listener_that_fails_is_bound_again(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    Once(monkeypatch, state_watch, "accept_all")
    async with running_engine(home) as paths:

        async def serves() -> bool:
            try:
                await assert_serves(paths)
            except OSError:
                return False
            return True

        await until(serves, 30.0)
    assert "unforeseen in accept_all" in caplog.text


@pytest.mark.parametrize("name", ["_read", "_hand_over", "_write", "_sort"])
async def test_an_unforeseen_error_in_a_connection_ends_that_connection_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
):
    async with running_engine(home) as paths, caller(paths) as other:
        # An engine greets its first clients before it has loaded what serves them.
        assert "result" in await other.ask("tools/list")
        fault = Once(monkeypatch, McpConnection, name)
        async with wire(paths) as client:
            assert (await client.greet())["ok"] is True
            await client.send(b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}')
            assert await client.ended()
        assert fault.failed.is_set()
        assert "result" in await other.ask("tools/list")
        await assert_serves(paths)
    assert f"unforeseen in {name}" in caplog.text


async def test_a_hello_that_breaks_the_engines_own_code_ends_its_connection_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    async with running_engine(home) as paths:
        with monkeypatch.context() as patch:
            Once(patch, Hello, "decode")
            async with wire(paths) as client:
                await client.send(b"{}")
                assert await client.ended()
        await assert_serves(paths)
