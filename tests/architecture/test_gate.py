"""The gate itself: what it counts as a failure, and on which Pythons it runs."""

import re
import tomllib
from pathlib import Path
from types import CodeType
from typing import Any

import anyio
import anyio.to_thread
import pytest
from blockbuster import BlockingError

from tests import conftest
from tests.matrix import ROOT, VERSIONS, interpreter
from tests.support.blocking import ALLOWED

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def skipped(reason: str) -> pytest.TestReport:
    """Return what becomes of the report of a test that was skipped for this reason."""
    hook = conftest.pytest_runtest_makereport()
    next(hook)
    report = pytest.TestReport(
        nodeid="x", location=("x.py", 1, "x"), keywords={}, outcome="skipped",
        longrepr=("x.py", 1, f"Skipped: {reason}"), when="setup",
    )  # fmt: skip
    with pytest.raises(StopIteration) as stopped:
        hook.send(report)
    result: pytest.TestReport = stopped.value.value
    return result


def test_a_skipped_test_has_failed_in_continuous_integration_and_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conftest, "IN_CI", True)
    report = skipped("no claude binary")
    assert report.outcome == "failed"
    assert "no claude binary" in str(report.longrepr)
    assert {skipped(f"{reason}x").outcome for reason in conftest.MAY_BE_SKIPPED_IN_CI} == {"skipped"}


def test_a_skipped_test_is_skipped_elsewhere(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conftest, "IN_CI", False)
    assert skipped("no claude binary").outcome == "skipped"


def code_of(file: str, function: str) -> CodeType:
    """Return code that counts as a file of this project and defines a coroutine that opens a file."""
    return compile(f"async def {function}(call):\n    return call()\n", str(ROOT / file), "exec")


@pytest.mark.anyio
async def test_a_file_that_is_opened_on_the_event_loop_is_found_out():
    ours: dict[str, Any] = {}
    exec(code_of("jobs/manager.py", "submit"), ours)
    with pytest.raises(BlockingError, match="open"):
        await ours["submit"](Path("/dev/null").read_bytes)
    with pytest.raises(BlockingError, match=r"os\.stat"):
        await ours["submit"](Path("/dev/null").stat)
    assert await anyio.to_thread.run_sync(Path("/dev/null").read_bytes) == b""


@pytest.mark.anyio
async def test_what_is_named_with_a_reason_may_open_a_file():
    ours: dict[str, Any] = {}
    file, functions = next(iter(ALLOWED.items()))
    name = next(iter(functions))
    exec(code_of(file, name), ours)
    assert await ours[name](Path("/dev/null").read_bytes) == b""


def test_each_exception_from_the_watch_is_of_a_function_that_is_there():
    missing = {
        f"{file}:{function}"
        for file, functions in ALLOWED.items()
        for function in functions
        if not re.search(rf"def {function}\(", (ROOT / file).read_text(encoding="utf-8"))
    }
    assert missing == set()


def test_the_project_claims_no_python_that_the_matrix_does_not_run():
    claimed = {each.rpartition(" ")[2] for each in PROJECT["project"]["classifiers"] if ":: Python :: 3." in each}
    assert claimed
    assert claimed <= set(VERSIONS)


def test_a_python_that_is_not_there_is_not_found():
    assert interpreter("3.99") is None
