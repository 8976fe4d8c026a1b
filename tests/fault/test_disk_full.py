"""On a full disk nothing new is begun, what runs goes on to its recorded end, and all it takes to go on is space."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def _can_mount() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return tried.returncode == 0


def _play(kind: str, base: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.fault.full_disk", kind, str(base)]
    if kind == "tmpfs":
        command = ["unshare", "-m", *command]
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


# Where no file system can be mounted, the seam is played in its place as well.
@pytest.mark.parametrize("kind", ["tmpfs" if _can_mount() else "seam", "seam"])
def test_a_full_disk_stops_admission_alone_until_there_is_space(tmp_path: Path, kind: str) -> None:
    seen = _play(kind, tmp_path)
    print(f"full disk ({kind}): {len(seen['refused'])} refused, {len(seen['ended'])} ends written")

    assert len(seen["refused"]) == seen["asked"]
    assert "full" in seen["refused"][0]
    assert seen["nothingAdmitted"]
    assert seen["ended"] == ["completed"] * 3
    assert seen["excerpts"] == ["after"] * 3
    assert seen["reserveSpent"]
    assert (seen["again"], seen["reserveBack"]) == (["completed"], True)
    assert (seen["integrity"], seen["stored"]) == ("ok", 5)
