"""A process that has imported the engine once and forks a fresh one at each line of its stdin.

Importing takes three seconds of CPU, which a campaign of a hundred kills cannot pay each time. Everything else of a
start is as ever: a session of its own, the engine's environment, its log, and no parent.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
if not __package__:
    sys.path.append(str(ROOT))

from server.client.engine_socket import lock  # noqa: E402 - the path comes first where this is run as a script
from server.client.state_dir import StatePaths  # noqa: E402 - likewise


@contextmanager
def engine_forker(paths: StatePaths, environ: Mapping[str, str]) -> Iterator[Callable[[], None]]:
    """Give a function that starts an engine in milliseconds; pumps start none meanwhile.

    Args:
        paths: A prepared state directory.
        environ: The engine's environment.
    """
    # Whoever holds this lock is starting an engine: the pumps wait for that one.
    held = lock(paths.start_lock, 5.0)
    assert held is not None
    with subprocess.Popen(
        [sys.executable, "-I", __file__], env=dict(environ), cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()

        def start() -> None:
            assert process.stdin
            process.stdin.write(b"\n")
            process.stdin.flush()

        try:
            yield start
        finally:
            process.stdin.close()
            os.close(held)


def main() -> None:
    import anyio

    # What an engine loads after it can be reached: without it none of those that live so shortly would start a job.
    import orchestration.patterns  # noqa: F401 - loaded, not used
    from jobs.settings_sources import ClientVariables
    from server.client.wire import setting_variables
    from server.engine.app import serve

    paths = StatePaths(Path(os.environ["CLAUDE_JOBS_HOME"]))
    log = os.open(paths.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.write(1, b"ready\n")
    for _ in sys.stdin.buffer:
        if child := os.fork():
            os.waitpid(child, 0)
            continue
        os.setsid()
        if os.fork():
            os._exit(0)
        for number in (0, 1, 2):
            os.dup2(log, number)
        anyio.run(partial(serve, paths.home, ClientVariables(values=setting_variables(os.environ))))
        os._exit(0)


if __name__ == "__main__":
    main()
