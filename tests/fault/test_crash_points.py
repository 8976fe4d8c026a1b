"""An engine that is killed at any step towards the disk loses nothing, starts nothing twice, and tears nothing."""

from pathlib import Path

import pytest

from tests.fault.injection import STEPS, STRACE, CrashForker, Point, crash_forker, survived
from tests.support.long_form import LONG

SHORT_POINTS = 30
SEAM_POINTS = 160
"""Steps of our own code in one run, at least: the seam counts those where strace is missing."""

pytestmark = [pytest.mark.timeout(3600 if LONG else 240), pytest.mark.long]


def _points(engines: CrashForker, home: Path) -> list[Point]:
    if STRACE is None:
        every = [Point("", number) for number in range(1, SEAM_POINTS)]
    else:
        home.mkdir()
        most = engines.count(home)
        every = [Point(call, number) for call in STEPS for number in range(1, most.get(call, 0) + 1)]
    if LONG:
        return every
    # Evenly, and of each call the first: those are the rare ones, such as the launch.
    first = [point for point in every if point.number == 1]
    step = max(1, len(every) // (SHORT_POINTS - len(first)))
    return list(dict.fromkeys(first + every[step // 2 :: step]))


def test_a_kill_at_any_step_towards_the_disk_breaks_no_promise(tmp_path: Path) -> None:
    with crash_forker() as engines:
        points = _points(engines, tmp_path / "count")
        runs = [survived(engines, tmp_path / str(number), point) for number, point in enumerate(points)]
    killed = sum(came for came, _ in runs)
    broken = [problem for _, problems in runs for problem in problems]
    print(f"crash points: {len(points)} tested, {killed} kills, {len(broken)} violations")

    assert broken == []
    # A run has fewer steps now and then, so a few points come to nothing.
    assert killed > len(points) / 2


def test_the_seam_for_machines_without_strace_kills_too(tmp_path: Path) -> None:
    with crash_forker() as engines:
        runs = [survived(engines, tmp_path / str(number), Point("", number)) for number in (5, 40, 80)]

    assert runs == [(True, [])] * 3
