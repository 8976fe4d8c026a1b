"""The engine's log does not grow without bound."""

import stat

from server.logging_setup import LOG_COPIES, MAX_LOG_BYTES
from tests.support.engines import House, house


def rounds(made: House, number: int) -> None:
    with made.paths.log.open("ab") as log:
        log.write(f"round {number}\n".encode() + b"x" * MAX_LOG_BYTES + b"\n")
    with made.pump() as pump:
        pump.text("claude_run", task="x")
    made.run("engine", "stop")
    made.wait_for_the_engine_to_go()


def test_a_long_log_is_emptied_and_two_older_ones_are_kept():
    with house() as made:
        made.endpoint.paths.log.touch(mode=0o600)
        for number in range(LOG_COPIES + 1):
            rounds(made, number)
            assert made.paths.log.stat().st_size < 1_000_000
            assert b"engine stopped" in made.paths.log.read_bytes()
        older = sorted(made.paths.home.glob("engine.log.*"))
        assert [path.name for path in older] == ["engine.log.1", "engine.log.2"]
        assert [stat.S_IMODE(path.stat().st_mode) for path in older] == [0o600, 0o600]
        assert b"round 2" in older[0].read_bytes()
        assert b"round 1" in older[1].read_bytes()


def test_an_engine_that_fails_while_its_log_is_rotated_still_says_why():
    with house() as made:
        with made.endpoint.paths.log.open("wb") as log:
            log.write(b"x" * (MAX_LOG_BYTES + 1))
        made.paths.database.mkdir()
        done = made.run("list")
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "Its last lines" in done.stderr
        made.paths.database.rmdir()
