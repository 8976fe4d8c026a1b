"""The doctor's selftest, in its shortest form, and a verdict that sees what it is there to see."""

import io
import json
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from server import doctor
from server.locate import Places
from server.selftest import campaign as module
from server.selftest.campaign import Campaign, Plan
from server.selftest.stub import Errand
from server.selftest.verdict import judge


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


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Places, Path]:
    """A state directory with two jobs of the stub that ended well, made by hand."""
    places = Places(tmp_path)
    (tmp_path / "ledger").mkdir()
    with closing(sqlite3.connect(places.database)) as database:
        database.executescript(
            "CREATE TABLE job (id, root_id, status, attempt, spec);"
            "CREATE TABLE attempt (job_id, number, result); CREATE TABLE event (job_id, attempt, offset);"
        )
        for name in ("a", "b"):
            errand = Errand(f"token{name}")
            frames = [{"type": "system", "subtype": "init"}, {"type": "result", "result": errand.token}]
            lines = [json.dumps(frame) + "\n" for frame in frames]
            out = places.trees / name / name / "1" / "out"
            out.parent.mkdir(parents=True)
            out.write_text("".join(lines))
            (tmp_path / "ledger" / errand.token).write_text("begin s\n")
            spec = json.dumps({"task": errand.task})
            database.execute("INSERT INTO job VALUES (?, ?, 'completed', 1, ?)", (name, name, spec))
            database.execute("INSERT INTO attempt VALUES (?, 1, ?)", (name, errand.token))
            database.executemany("INSERT INTO event VALUES (?, 1, ?)", [(name, 0), (name, len(lines[0]))])
        database.commit()
    return places, tmp_path / "ledger"


TOLD = {"a": Errand("tokena"), "b": Errand("tokenb")}


def test_kept_promises_are_a_good_verdict(kept: tuple[Places, Path]):
    assert judge(*kept, TOLD).good


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        ("DELETE FROM job WHERE id = 'a'", "lost"),
        ("UPDATE job SET status = 'running' WHERE id = 'a'", "lost"),
        ("UPDATE job SET status = 'failed' WHERE id = 'a'", "wrong"),
        ("UPDATE attempt SET result = 'other' WHERE job_id = 'a'", "wrong"),
        ("INSERT INTO job SELECT 'c', 'c', status, 0, spec FROM job WHERE id = 'a'", "twice"),
        ("DELETE FROM event WHERE job_id = 'a' AND offset = 0", "events"),
        ("INSERT INTO event VALUES ('a', 1, 0)", "events"),
    ],
)
def test_each_broken_promise_is_seen(kept: tuple[Places, Path], damage: str, kind: str):
    with closing(sqlite3.connect(kept[0].database)) as database:
        database.execute(damage)
        database.commit()
    verdict = judge(*kept, TOLD)
    assert not verdict.good
    assert len(getattr(verdict, kind)) == 1


def test_a_second_start_is_seen(kept: tuple[Places, Path]):
    (kept[1] / "tokenb").write_text("begin s\nbegin s\n")
    assert judge(*kept, TOLD).twice == ["tokenb: 2 starts"]


def test_a_cancelled_errand_may_have_ended_before_its_cancel():
    assert Errand("t", cancel=True).ends == {"completed", "cancelled"}
    assert Errand("t", code=3).ends == {"failed"}


def test_a_campaign_gives_up_on_an_engine_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    campaign = Campaign(tmp_path, Plan(kills=1, seconds=1, clients=0))
    with pytest.raises(TimeoutError, match="no engine answered"):
        campaign.run()
