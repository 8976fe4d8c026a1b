"""The way of each flow through the code gets no longer: `poe trace` shows it."""

import json
import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.architecture.trace_flows import ROOT, RUNS

MOST = {
    "batch_call": {"files": 63, "functions": 310},
    "childs_end": {"files": 66, "functions": 280},
    "cancel": {"files": 60, "functions": 216},
    "restart": {"files": 131, "functions": 756},
    "decompose": {"files": 76, "functions": 485},
}
"""What `python -m tests.architecture.trace_flows` printed last, rounded up a little: timers may add some. On a busy
machine the clean-up after an attempt, 0.1 s later, falls into the flows in which attempts end.
Lower them with each change that shortens a way."""


@pytest.mark.timeout(300)
def test_no_flow_passes_through_more_files_and_functions_than_were_measured():
    # Once is enough mostly; what a timer added goes away with further runs.
    exceeded = _exceeded(_counts(1, *MOST))
    if exceeded:
        exceeded = _exceeded(_counts(2 * RUNS, *exceeded))
    assert exceeded == {}


def _exceeded(counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    over = {flow: {what: has for what, has in of.items() if has > MOST[flow][what]} for flow, of in counts.items()}
    return {flow: of for flow, of in over.items() if of}


def _counts(runs: int, *flows: str) -> dict[str, dict[str, int]]:
    # In a process of its own: what the tests before it left in this one would count too.
    command = [sys.executable, "-m", "tests.architecture.trace_flows", "--json", "--runs", str(runs), *flows]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=140, check=True)
    counts: dict[str, dict[str, int]] = json.loads(done.stdout)
    return counts
