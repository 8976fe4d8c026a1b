"""An engine whose disk fails at any write, once or for a while, loses no acknowledged job and no outcome."""

from pathlib import Path

import pytest

from tests.fault.injection import DISK_STEPS, STRACE, CrashForker, Point, crash_forker, survived
from tests.support.long_form import LONG

SHORT_POINTS = 12
SEAM_STATEMENTS = 56
"""Statements of one run, at least: the seam fails those where strace is missing."""

SEAM_START = 16
"""The first statement after those by which a start reads: an engine that cannot read does not start."""

FAULTS = ("error=ENOSPC", "error=EIO")

pytestmark = [pytest.mark.timeout(3600 if LONG else 240), pytest.mark.long]


def _points(engines: CrashForker, home: Path) -> list[Point]:
    if STRACE is None:
        return [Point("", number, "error=ENOSPC") for number in range(SEAM_START, SEAM_STATEMENTS, 1 if LONG else 4)]
    home.mkdir()
    most = engines.count(home)
    every = [
        Point(call, number, fault) for fault in FAULTS for call in DISK_STEPS for number in range(1, most[call] + 1)
    ]
    return every if LONG else every[3 :: len(every) // SHORT_POINTS]


def test_an_error_at_any_write_of_the_database_breaks_no_promise(tmp_path: Path) -> None:
    with crash_forker() as engines:
        points = _points(engines, tmp_path / "count")
        runs = [survived(engines, tmp_path / str(number), point) for number, point in enumerate(points)]
    failed = sum(came for came, _ in runs)
    broken = [problem for _, problems in runs for problem in problems]
    print(f"disk errors: {len(points)} points, {failed} errors injected, {len(broken)} violations")

    assert broken == []
    assert failed >= len(points) / 2


def test_the_seam_for_machines_without_strace_fails_too(tmp_path: Path) -> None:
    with crash_forker() as engines:
        points = [Point("", number, "error=ENOSPC") for number in (SEAM_START, 50)]
        runs = [survived(engines, tmp_path / str(number), point) for number, point in enumerate(points)]

    assert runs == [(True, [])] * 2
