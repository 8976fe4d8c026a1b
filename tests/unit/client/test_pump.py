"""The pump as clients start it: a process between two pipes."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server.client.connect import pump_command
from server.client.engine_socket import EngineEndpoint, ensure_engine, lock
from server.client.state_dir import StatePaths
from server.pump import JobTokenError as NoToken
from server.pump import Options, UsageError, introduce, parse, read_token
from tests.support.waiting import until_now
from tests.unit.client.conftest import MakeEndpoint, noted

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def engine(make_endpoint: MakeEndpoint) -> EngineEndpoint:
    """A stand-in engine that runs."""
    endpoint = make_endpoint()
    ensure_engine(endpoint).close()
    return endpoint


def pump(paths: StatePaths, *more: str) -> list[str]:
    program, arguments = pump_command(paths.home)
    return [program, *arguments, *more]


def run_pump(
    paths: StatePaths, *more: str, sent: bytes = b"", cwd: Path | None = None, **environ: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        pump(paths, *more), input=sent, capture_output=True, timeout=60, check=False, cwd=cwd, env=environ
    )


def notification(text: str) -> bytes:
    """A line that a client may send, which a stand-in echoes."""
    return b'{"jsonrpc":"2.0","method":"x","params":{"text":"%b"}}\n' % text.encode()


HI = notification("hi")


def test_five_megabytes_come_back_unchanged_and_the_way_down_outlives_the_way_up(engine: EngineEndpoint):
    words = random.Random(5)
    sent = b"".join(notification(words.randbytes(words.randrange(20_000)).hex()) for _ in range(250))

    done = run_pump(engine.paths, sent=sent)

    assert done.stdout == sent + b"end\n"
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_hello_says_who_is_calling_and_carries_only_what_jobs_need(engine: EngineEndpoint, tmp_path: Path):
    run_pump(
        engine.paths,
        cwd=tmp_path,
        CLAUDE_CODE_SESSION_ID="s-1",
        CLAUDE_CODE_ENTRYPOINT="cli",
        CLAUDECODE="1",
        ANTHROPIC_API_KEY="sk-fake-not-real",
        GITHUB_TOKEN="ghp",
    )
    hello = noted(engine.paths, "hellos")[0]

    assert hello["cwd"] == str(tmp_path)
    assert (hello["role"], hello["token"], hello["session"], hello["client"]) == ("mcp", None, "s-1", "cli")
    # The C locale's coercion adds LC_CTYPE by itself.
    assert hello["env"].keys() - {"LC_CTYPE"} == {"ANTHROPIC_API_KEY"}


def test_a_jobs_pump_presents_the_token_from_the_jobs_stdin_file(engine: EngineEndpoint, tmp_path: Path):
    (tmp_path / "in").write_text(json.dumps({"type": "control_request", "claude_jobs_token": "cj1_abc"}) + "\n{}\n")

    done = run_pump(engine.paths, "--job", str(tmp_path))

    assert done.returncode == 0
    assert noted(engine.paths, "hellos")[0]["token"] == "cj1_abc"


def test_a_jobs_pump_without_a_token_never_passes_for_a_person(engine: EngineEndpoint, tmp_path: Path):
    done = run_pump(engine.paths, "--job", str(tmp_path))

    assert done.returncode == 1
    assert b"no token" in done.stderr
    assert noted(engine.paths, "hellos") == []


@pytest.mark.parametrize(
    "first_line",
    [b"", b"\n", b"{}\n", b"[]\n", b'{"claude_jobs_token": ""}\n', b'{"claude_jobs_token": 1}\n', b"[" * 99999],
)
def test_a_stdin_file_without_a_token_is_an_error(tmp_path: Path, first_line: bytes):
    (tmp_path / "in").write_bytes(first_line)

    with pytest.raises(NoToken, match="no token"):
        read_token(str(tmp_path / "in"))


def test_a_stdin_file_that_is_a_link_is_not_read(tmp_path: Path):
    (tmp_path / "real").write_text('{"claude_jobs_token": "t"}\n')
    (tmp_path / "in").symlink_to(tmp_path / "real")

    with pytest.raises(NoToken):
        read_token(str(tmp_path / "in"))


def test_it_works_in_a_directory_that_has_packages_of_the_same_names(engine: EngineEndpoint, tmp_path: Path):
    for name in ("server", "orchestration", "jobs", "json", "socket"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('imported {name} from the working directory')")
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "__init__.py").write_text("raise SystemExit('imported the wrong server')")

    done = run_pump(engine.paths, sent=HI, cwd=tmp_path, PYTHONPATH=str(tmp_path))

    assert (done.stdout, done.stderr) == (HI + b"end\n", b"")


def test_a_refusal_is_one_line_on_stderr_and_nothing_on_the_wire(make_endpoint: MakeEndpoint, paths: StatePaths):
    ensure_engine(make_endpoint("--refuse", "The job is over. Do not start it again.")).close()

    done = run_pump(paths, sent=HI)

    assert done.returncode == 1
    assert done.stderr == b"claude-jobs: The job is over. Do not start it again.\n"
    assert done.stdout == b""


def test_bytes_that_come_right_behind_the_welcome_are_not_lost(make_endpoint: MakeEndpoint, paths: StatePaths):
    ensure_engine(make_endpoint("--eager", "first")).close()

    assert run_pump(paths, sent=HI).stdout == b"first\n" + HI + b"end\n"


def test_a_state_directory_that_others_can_write_to_is_one_line_on_stderr(paths: StatePaths):
    paths.home.chmod(0o777)

    done = run_pump(paths)

    assert done.returncode == 1
    assert b"chmod 700" in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_and_without_a_traceback(engine: EngineEndpoint, number: signal.Signals):
    with subprocess.Popen(
        pump(engine.paths), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={}
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(HI)
        process.stdin.flush()
        assert process.stdout.readline() == HI
        process.send_signal(number)

        assert process.wait(20) == -number
        assert process.stderr.read() == b""


def test_a_new_pump_starts_another_engine_where_the_first_one_ends_as_it_starts(paths: StatePaths):
    program = (
        "import sys; from server import pump; from server.client import spawn_engine as launch;"
        "from tests.unit.client import stand_in;"
        "launch.engine_command = lambda: stand_in.command('--die-first'); sys.exit(pump.main(sys.argv[1:]))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, "--home", str(paths.home)],
        input=HI,
        capture_output=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env={},
    )

    assert (done.returncode, done.stdout) == (0, HI + b"end\n"), done.stderr
    assert len(noted(paths, "starts")) == 2


def test_the_pump_outlives_its_engine_and_asks_the_next_one_only_when_the_client_wants_something(
    engine: EngineEndpoint,
):
    request = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'
    with subprocess.Popen(pump(engine.paths), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(HI)
        process.stdin.flush()
        assert process.stdout.readline() == HI
        os.kill(noted(engine.paths, "starts")[0]["pid"], signal.SIGKILL)
        until_now(lambda: engine_is_gone(engine))
        assert process.poll() is None
        ensure_engine(engine).close()
        assert len(noted(engine.paths, "hellos")) == 1
        process.stdin.write(request)
        process.stdin.flush()
        assert process.stdout.readline() == request
        assert len(noted(engine.paths, "hellos")) == 2
        process.stdin.close()

        assert process.wait(20) == 0


def engine_is_gone(endpoint: EngineEndpoint) -> bool:
    held = lock(endpoint.paths.engine_lock)
    if held is not None:
        os.close(held)
    return held is not None


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([], Options()),
        (["--home", "/s"], Options(home="/s")),
        (["--home=/s", "--job=/j"], Options(home="/s", job_dir="/j")),
        (["--help"], Options(help=True)),
        (["-h"], Options(help=True)),
    ],
)
def test_a_command_line_is_read(arguments: list[str], options: Options):
    assert parse(arguments) == options


@pytest.mark.parametrize(
    "arguments", [["--home"], ["--home="], ["--job"], ["serve"], ["--homer", "/s"], ["--home", ""]]
)
def test_a_command_line_that_cannot_be_used_is_an_error(arguments: list[str]):
    with pytest.raises(UsageError, match="--help"):
        parse(arguments)


def test_a_wrong_command_line_ends_with_status_2_and_one_line(paths: StatePaths):
    done = run_pump(paths, "--nonsense")

    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.count(b"\n") == 1


def test_a_working_directory_that_is_gone_is_an_error_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    with pytest.raises(FileNotFoundError):
        introduce({}, None, str(tmp_path))


def mcp(home: str, cwd: Path, *command: str) -> str:
    """Run `claude-jobs mcp` by a command that ends with status 1 and one line, and return that line."""
    done = subprocess.run(
        command,
        env={"CLAUDE_JOBS_HOME": home},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--home", "state"], "the working directory has been removed"), ([], "state: it is a relative path")],
)
def test_a_relative_state_directory_in_a_directory_that_is_gone_is_one_line(
    tmp_path: Path, arguments: list[str], words: str
):
    script = 'mkdir gone && cd gone && rmdir "$PWD" && exec "$@"'
    main = str(ROOT / "server" / "__main__.py")
    said = mcp("state", tmp_path, "/bin/sh", "-c", script, "sh", sys.executable, main, "mcp", *arguments)
    assert said.startswith(f"claude-jobs: {words}")


def test_a_state_directory_of_nobody_is_one_line_for_the_person():
    said = mcp("~nobody-of-this-name/state", ROOT, sys.executable, "-m", "server", "mcp")
    assert said.startswith("claude-jobs: ~nobody-of-this-name/state: there is no home directory")
