"""The official suites: conformance over loopback HTTP, and the inspector through the pump.

The production app is asked what any server can answer; with the suite's fixtures beside it, it is asked everything.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.mcp.tools import DEFINITIONS
from tests.e2e.node import Suites, install
from tests.support.engines import MAIN, ROOT, house

pytestmark = pytest.mark.timeout(400)

NEW = "@modelcontextprotocol/conformance/dist/index.js"
OLD = "conformance-0.1/dist/index.js"
INSPECTOR = "@modelcontextprotocol/inspector/clients/launcher/build/index.js"

WITHOUT_FIXTURES = (
    "server-initialize", "ping", "completion-complete", "tools-list", "tools-call-error", "server-sse-multiple-streams",
    "resources-list", "resources-subscribe", "resources-unsubscribe", "prompts-list", "dns-rebinding-protection",
)  # fmt: skip
NEW_WITHOUT_FIXTURES = (
    *WITHOUT_FIXTURES, "server-session-lifecycle", "sep-2164-resource-not-found", "caching", "http-header-validation",
    "input-required-result-missing-input-response", "input-required-result-unsupported-methods",
    "input-required-result-ignore-extra-params", "input-required-result-validate-input",
)  # fmt: skip


@pytest.fixture(scope="module")
def suites(request: pytest.FixtureRequest) -> Suites:
    """Return the suites; without npm the tests are skipped."""
    assert request.config.cache is not None
    found = install(request.config.cache)
    if found is None:
        pytest.skip("no npm: install Node to run the conformance suites")
    return found


WHOLE = {OLD: (32, 44), NEW: (65, 232)}
"""Scenarios of each suite, and the checks that pass in them together."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the production app."""
    with served(tmp_path_factory.mktemp("http")) as address:
        yield address


@pytest.fixture(scope="module")
def url_with_fixtures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the production app with the suite's fixtures beside it."""
    with served(tmp_path_factory.mktemp("http"), "fixtures") as address:
        yield address


@contextmanager
def served(home: Path, *more: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.http_server", str(home / "state"), str(port), *more],
            cwd=ROOT,
            env={"PATH": os.defpath, "HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            _wait_for(port)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.terminate()
            process.wait(20)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


def results_of(suites: Suites, script: str, url: str, out: Path) -> dict[str, tuple[int, int]]:
    """Run every scenario and return the number of passed and failed checks by scenario."""
    # The exit code counts the scenarios that need fixtures, too.
    done = suites.run(script, "server", "--url", url, "--suite", "all", "-o", str(out), seconds=300)
    lines = re.findall(r"^[✓✗] (\S+): (\d+) passed, (\d+) failed", done.stdout, re.MULTILINE)
    assert lines, done.stdout + done.stderr
    return {name: (int(passed), int(failed)) for name, passed, failed in lines}


@pytest.mark.parametrize(
    ("script", "names"), [(OLD, WITHOUT_FIXTURES), (NEW, NEW_WITHOUT_FIXTURES)], ids=["0.1", "0.2"]
)
def test_every_scenario_that_needs_no_fixture_passes_on_the_production_app(
    suites: Suites, url: str, tmp_path: Path, script: str, names: tuple[str, ...]
):
    results = results_of(suites, script, url, tmp_path)
    assert {name: results.get(name) for name in names if name not in results or results[name][1]} == {}
    assert sum(results[name][0] for name in names) >= len(names)
    if script == NEW:
        # Two checks ask a fixture tool for a log and for an elicitation.
        assert results["server-stateless"] == (26, 2)


@pytest.mark.parametrize("script", [OLD, NEW], ids=["0.1", "0.2"])
def test_the_whole_suite_passes_where_its_fixtures_are_served_too(
    suites: Suites, url_with_fixtures: str, tmp_path: Path, script: str
):
    results = results_of(suites, script, url_with_fixtures, tmp_path)
    assert {name: counts for name, counts in results.items() if counts[1]} == {}
    assert (len(results), sum(passed for passed, _ in results.values())) == WHOLE[script]
    if script == NEW:
        # Those of them that run something run jobs of ours, through our own extension.
        tasks = {name: passed for name, (passed, _) in results.items() if name.startswith("tasks-")}
        assert len(tasks) == 10
        # The suite itself skips the one about notifications.
        assert {name for name, passed in tasks.items() if not passed} == {"tasks-status-notifications"}


def test_the_inspector_finds_nothing_to_criticise_and_can_call_every_tool(suites: Suites):
    with house() as made:
        settings = [f"{name}={value}" for name, value in made.environ.items()]
        server = ["--cli", *[part for one in settings for part in ("-e", one)], sys.executable, str(MAIN), "mcp"]
        listed = suites.run(INSPECTOR, *server, "--method", "tools/list", "--strict", "--format", "json", seconds=60)
        assert listed.returncode == 0, listed.stdout + listed.stderr
        with made.pump() as pump:
            done, failed = pump.json("claude_run_batch_async", tasks=["stub:say=x", "stub:exit=1"])["jobIds"]
            pump.text("claude_wait", jobIds=[done, failed])
        for definition in DEFINITIONS:
            job_id = failed if definition.name == "claude_retry" else done
            asked = {"task": "stub:say=x", "tasks": ["stub:say=y"], "jobId": job_id, "jobIds": [job_id], "resume": True}
            fields = {field.alias or name for name, field in definition.arguments.model_fields.items()}
            arguments = json.dumps({name: value for name, value in asked.items() if name in fields})
            called = suites.run(
                INSPECTOR, *server, "--method", "tools/call", "--tool-name", definition.name,
                "--tool-args-json", arguments, "--format", "json", seconds=60,
            )  # fmt: skip
            assert called.returncode == 0, (definition.name, called.stdout, called.stderr)
            assert '"content"' in called.stdout, (definition.name, called.stdout, called.stderr)
