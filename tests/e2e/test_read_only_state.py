"""A state directory on a file system that is mounted read-only."""

import subprocess
import sys

import pytest

from tests.support.engines import MAIN, SECONDS, House, house

MOUNT = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


def run_read_only(made: House, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command where the state directory, and nothing else, is read-only."""
    inner = ["unshare", "-m", "sh", "-c", MOUNT, str(made.paths.home)]
    probe = subprocess.run([*inner, "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("this user may not mount")
    return subprocess.run(
        [*inner, sys.executable, str(MAIN), *arguments],
        env=dict(made.environ),
        cwd=made.work,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="mounts of its own for one process are Linux's")
@pytest.mark.parametrize("arguments", [("list",), ("mcp",), ("engine",), ("engine", "status")])
def test_a_read_only_state_directory_is_said_in_words(arguments: tuple[str, ...]):
    with house() as made:
        made.endpoint.paths.engine_lock.touch(mode=0o600)
        done = run_read_only(made, *arguments)
        assert done.returncode == 1
        assert "cannot be written (Read-only file system)" in done.stderr
        assert "CLAUDE_JOBS_HOME" in done.stderr
        assert "Traceback" not in done.stderr
