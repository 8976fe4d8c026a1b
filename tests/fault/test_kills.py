"""The engine is killed at random moments, again and again, while clients submit, wait and cancel."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.selftest.kill_test import KillTest, Plan, Report
from tests.fault.engine_forker import engine_forker
from tests.support.long_form import LONG

KILLS = 1000 if LONG else 40
SECONDS = 3600 if LONG else 240
"""More than twice what it takes on two busy cores: a campaign that does not come to its kills has failed."""


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory with a short path: that of a test would decide by its length where the socket is."""
    made = Path(tempfile.mkdtemp(prefix="cj-")).resolve()
    yield made
    shutil.rmtree(made, ignore_errors=True)


def show(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print("", *report.lines(), sep="\n  ")


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 120)
def test_no_acknowledged_job_is_lost_or_run_twice_however_the_engine_dies(
    base: Path, capsys: pytest.CaptureFixture[str]
):
    plan = Plan(kills=KILLS, seconds=SECONDS, clients=4, longest_life=0.3, seed=6)
    campaign = KillTest(base, plan)
    with engine_forker(campaign.endpoint.paths, campaign.environ) as start:
        campaign.start_with(start)
        report = campaign.run()
    show(report, capsys)
    assert report.good, report.lines()
    assert report.kills == KILLS
    # On a busy machine an engine lives for little longer than it takes to start.
    assert report.verdict.acknowledged > report.kills / 10
    secrets = [path for name in ("in", "in.part", "origin.json") for path in campaign.endpoint.paths.trees.rglob(name)]
    assert not secrets, "tokens and environments of jobs that are over"


@pytest.mark.timeout(180)
def test_the_clients_pumps_start_the_next_engine_by_themselves(base: Path, capsys: pytest.CaptureFixture[str]):
    report = KillTest(base, Plan(kills=2, seconds=60, clients=2)).run()
    show(report, capsys)
    assert report.good, report.lines()
    assert report.kills >= 1
