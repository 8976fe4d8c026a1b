"""The doctor's selftest, in its shortest form, and a verdict that sees what it is there to see."""

import io
import json
import sqlite3
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from rich.console import Console

from server import doctor
from server.client.engine_socket import EngineEndpoint
from server.client.state_dir import StatePaths
from server.client.wire import Hello
from server.selftest import kill_test as module
from server.selftest.check import PromiseCheck, check_promises
from server.selftest.kill_test import KillTest, Plan
from server.selftest.stub import REPORTED, StubTask

SECONDS = 20.0


@pytest.mark.timeout(170)
def test_the_selftest_says_what_it_did_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch):
    # A short path of its own: that of a test would decide by its length where the socket is.
    with tempfile.TemporaryDirectory(prefix="cj-") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        said = io.StringIO()
        assert doctor.kill_engines(Console(file=said, width=200), seconds=0), said.getvalue()
        assert "lost 0, run twice 0, wrong outcome 0" in said.getvalue()
        assert said.getvalue().endswith("Every promise was kept.\n")
        assert not list(Path(short).iterdir())


FRAMES = [
    json.dumps({"type": kind, **({"subtype": subtype} if subtype else {})}) + "\n"
    for kind, _, subtype in (shown.partition(".") for shown in REPORTED)
]


def _output(paths: StatePaths, name: str) -> Path:
    return paths.trees / name / name / "1" / "out"


@pytest.fixture
def kept(tmp_path: Path) -> tuple[StatePaths, Path]:
    """A state directory with two jobs of the stub that ended well, made by hand."""
    paths = StatePaths(tmp_path)
    (tmp_path / "ledger").mkdir()
    with closing(sqlite3.connect(paths.database)) as database:
        database.executescript(
            "CREATE TABLE job (id, root_id, status, attempt, spec);CREATE TABLE attempt (job_id, number, result);"
        )
        for name in ("a", "b"):
            errand = StubTask(f"token{name}")
            out = _output(paths, name)
            out.parent.mkdir(mode=0o700, parents=True)
            out.write_text("".join(FRAMES))
            (tmp_path / "ledger" / errand.token).write_text("begin s\n")
            spec = json.dumps({"task": errand.task})
            database.execute("INSERT INTO job VALUES (?, ?, 'completed', 1, ?)", (name, name, spec))
            database.execute("INSERT INTO attempt VALUES (?, 1, ?)", (name, errand.token))
        database.commit()
    return paths, tmp_path / "ledger"


TOLD = {"a": StubTask("tokena"), "b": StubTask("tokenb")}


def test_kept_promises_are_a_good_verdict(kept: tuple[StatePaths, Path]):
    assert check_promises(*kept, TOLD).good


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        ("DELETE FROM job WHERE id = 'a'", "lost"),
        ("UPDATE job SET status = 'running' WHERE id = 'a'", "lost"),
        ("UPDATE job SET status = 'failed' WHERE id = 'a'", "wrong"),
        ("UPDATE attempt SET result = 'other' WHERE job_id = 'a'", "wrong"),
        ("INSERT INTO job SELECT 'c', 'c', status, 0, spec FROM job WHERE id = 'a'", "twice"),
    ],
)
def test_each_broken_promise_is_seen(kept: tuple[StatePaths, Path], damage: str, kind: str):
    with closing(sqlite3.connect(kept[0].database)) as database:
        database.execute(damage)
        database.commit()
    verdict = check_promises(*kept, TOLD)
    assert not verdict.good
    assert len(getattr(verdict, kind)) == 1


@pytest.mark.parametrize("lines", [FRAMES[1:], FRAMES[:2], [*FRAMES[:2], *FRAMES[1:]], []])
def test_a_line_that_a_transcript_lacks_or_shows_twice_is_seen(kept: tuple[StatePaths, Path], lines: list[str]):
    _output(kept[0], "a").write_text("".join(lines))
    assert len(check_promises(*kept, TOLD).events) == 1


def test_a_second_start_is_seen(kept: tuple[StatePaths, Path]):
    (kept[1] / "tokenb").write_text("begin s\nbegin s\n")
    assert check_promises(*kept, TOLD).twice == ["tokenb: 2 starts"]


def test_a_cancelled_errand_may_have_ended_before_its_cancel():
    assert StubTask("t", cancel=True).ends == {"completed", "cancelled"}
    assert StubTask("t", code=3).ends == {"failed"}


class Talker:
    """A client of a campaign that waits in its first call until somebody disconnects."""

    def __init__(self) -> None:
        self.repeated = 0
        self.asked, self.ended = threading.Event(), threading.Event()

    def call(self, *_: object, **__: object) -> NoReturn:
        self.asked.set()
        self.ended.wait(SECONDS)
        raise EOFError("the pump has ended")

    def hang_up(self) -> None:
        self.ended.set()


@pytest.fixture
def talker(monkeypatch: pytest.MonkeyPatch) -> Talker:
    """The one client of every campaign."""
    made = Talker()

    @contextmanager
    def caller(*_: object) -> Iterator[Talker]:
        yield made

    monkeypatch.setattr(module, "caller", caller)
    return made


def test_a_client_that_dies_is_a_broken_promise(tmp_path: Path, talker: Talker, monkeypatch: pytest.MonkeyPatch):
    def answer(*_: object) -> dict[str, int]:
        # Otherwise the kill test may be over before its client has called anything.
        assert talker.asked.wait(SECONDS)
        talker.hang_up()
        return {"pid": 1}

    monkeypatch.setattr(module, "control", answer)
    monkeypatch.setattr(module, "check_promises", lambda *_: PromiseCheck(acknowledged=0, jobs=0))
    report = KillTest(tmp_path, Plan(kills=0, seconds=1, clients=1)).run()
    assert not report.good
    assert "clients lost 1" in "\n".join(report.lines())
    assert report.lines()[-1] == "  client 0: the pump has ended"


def test_a_client_that_waits_for_ever_is_hung_up_on(tmp_path: Path, talker: Talker, monkeypatch: pytest.MonkeyPatch):
    def answer(*_: object) -> dict[str, int]:
        assert talker.asked.wait(SECONDS)
        # Too short for a client that waits.
        monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.05)
        return {"pid": 1}

    monkeypatch.setattr(module, "control", answer)
    monkeypatch.setattr(module, "check_promises", lambda *_: PromiseCheck(acknowledged=0, jobs=0))
    campaign = KillTest(tmp_path, Plan(kills=0, seconds=1, clients=1))

    def hang_up() -> None:
        # From here on it has the time that it needs to say so.
        monkeypatch.setattr(module, "TIMEOUT_SECONDS", SECONDS)
        Talker.hang_up(talker)

    monkeypatch.setattr(talker, "hang_up", hang_up)
    assert campaign.run().died == ["client 0: the pump has ended"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_a_campaign_that_cannot_go_on_leaves_no_client_and_no_engine(
    tmp_path: Path, talker: Talker, monkeypatch: pytest.MonkeyPatch, error: BaseException
):
    stopped: list[bool] = []

    def answer(_: EngineEndpoint, request: Mapping[str, str], __: Hello) -> None:
        if request["do"] == "stop":
            stopped.append(talker.ended.is_set())
            return
        assert talker.asked.wait(SECONDS)
        raise error

    monkeypatch.setattr(module, "control", answer)
    before = set(threading.enumerate())
    with pytest.raises(type(error)):
        KillTest(tmp_path, Plan(kills=1, seconds=1, clients=1)).run()
    # In this order: a client that still asks would start another engine.
    assert stopped == [True]
    assert set(threading.enumerate()) <= before


def test_an_interrupted_selftest_leaves_no_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def interrupted(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(KillTest, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        doctor.kill_engines(Console(file=io.StringIO()))
    assert list(tmp_path.iterdir()) == []


def test_clients_that_find_no_engine_are_named_where_a_campaign_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    campaign = KillTest(tmp_path, Plan(kills=1, seconds=1, clients=1), {"CLAUDE_JOBS_MAX_DEPTH": "none"})
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", SECONDS)
    with pytest.raises(EOFError, match="client 0: the pump has ended"):
        campaign.run()


def test_an_engine_that_answers_without_its_store_is_waited_for_no_longer_than_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(module, "control", lambda *_: {"ok": False, "error": "disk I/O error"})
    with pytest.raises(TimeoutError, match="no engine answered"):
        KillTest(tmp_path, Plan(kills=1, seconds=1, clients=0)).run()


def test_a_campaign_gives_up_on_an_engine_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.05)
    campaign = KillTest(tmp_path, Plan(kills=1, seconds=1, clients=0))
    with pytest.raises(TimeoutError, match="no engine answered"):
        campaign.run()
