"""What holds for every test: markers, skips, what may not be called on the event loop."""

import os
import signal
import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.blocking import watch_the_event_loop
from tests.support.long_form import LONG

TESTS = Path(__file__).parent

IN_CI = bool(os.environ.get("CI") or os.environ.get("CLAUDE_JOBS_CI")) and sys.platform == "linux"
"""Continuous integration, where a test that is skipped has failed. `.ci/run` sets the second variable. What needs Linux
is skipped elsewhere."""

MAY_BE_SKIPPED_IN_CI = {
    "only root ": "A hosted runner runs the tests as another user.",
    "no control group can be made here": "Likewise.",
    "this user may not mount": "Likewise.",
    "no mount namespaces here": "Likewise.",
    "this machine grants no namespaces": "Likewise.",
    "no user namespaces here": "Likewise.",
    "there is no unified hierarchy of control groups here": "The kernel is the runner's.",
    "this machine copies": "Likewise.",
    "no npm": "`.ci/run` installs Node where it may.",
    "the system lets no process have so many sockets": "The limit is the runner's.",
}
"""How the reason of a skip begins, and why it cannot be helped in continuous integration."""

# How long it takes to draw an example says how busy the machine is.
settings.register_profile("long", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("short", settings.get_profile("long"), max_examples=40)
settings.load_profile("long" if LONG else "short")

# A shell that starts the tests in the background has them ignore these, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return three workers for two cores, or four where whole engines are tested: tests wait for part of their time."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return cores + (cores if any("e2e" in argument for argument in config.args) else (cores + 1) // 2)


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Give each test the marker of its directory; every property can be tried longer."""
    for item in items:
        directory = item.path.relative_to(TESTS).parts[0]
        item.add_marker(directory)
        if directory == "property":
            item.add_marker("long")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a failure of each test that is skipped in continuous integration."""
    report = yield
    if IN_CI and report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(tuple(MAY_BE_SKIPPED_IN_CI)):
            report.outcome = "failed"
            report.longrepr = f"Nothing is skipped in continuous integration, and this was: {reason}"
    return report


@pytest.fixture
def anyio_backend() -> str:
    """LangGraph needs asyncio, so every asynchronous test runs on it."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def nothing_slow_on_the_loop() -> Iterator[None]:
    """Fail a test in which our code blocks the event loop."""
    with watch_the_event_loop():
        yield


@pytest.fixture(autouse=True)
def own_umask() -> Iterator[None]:
    """Keep the mask of new files from test to test: an engine that runs in this process narrows it for good."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)
