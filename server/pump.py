"""The pump, which every MCP client starts: it carries lines between stdio and the engine, and decides nothing.

When the engine ends, the pump connects to the next one and repeats the open requests, so the client notices nothing.

It runs as `claude-jobs mcp`. Standard library only, and little of it, because a tree of fifty children starts it fifty
times: `tests/architecture/test_pump_imports.py` names what it must do without.
"""

from __future__ import annotations

# The functions below `signal`: importing that takes 2 ms, and 8 where nothing has imported `enum` yet (measured).
import _signal  # type: ignore[import-not-found]
import os
import sys

from server.client.client_env import client_environment, named_in, own_umask
from server.client.connect import connect_with_retry
from server.client.engine_socket import EngineEndpoint
from server.client.light_json import loads
from server.client.proxy import StdioProxy
from server.client.state_dir import absolute, prepare, state_dir
from server.client.wire import MAX_LINE, ClientError, Hello, Value, setting_variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

USAGE = """Usage: claude-jobs mcp [--home DIR] [--job DIR]

Serves MCP on stdin and stdout; starts the engine where none runs.

  --home DIR  State directory; default: CLAUDE_JOBS_HOME, else the platform's
              directory for user state.
  --job DIR   Directory of the job that calls; written by the engine, not by
              people.
  --help      This text.
"""


class UsageError(ClientError):
    """The command line cannot be used.

    Args:
        argument: What is wrong, as it was given.
    """

    def __init__(self, argument: str) -> None:
        self.argument = argument
        super().__init__(f"cannot use {argument!r} here. See `claude-jobs mcp --help`.")


class JobTokenError(ClientError):
    """A job's pump finds no token. It must not be taken for a person's client.

    Args:
        path: The file that should hold it.
        problem: What is wrong with it, in a few words.
    """

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"no token in {path} ({problem}), so the engine cannot know which job calls. It may be over.")


class Options(Value):
    """The command line.

    Args:
        home: State directory, or None for the default.
        job_dir: Directory of the job that calls, or None for a person or a program.
        help: Only the usage is asked for.
    """

    __slots__ = ("help", "home", "job_dir")

    def __init__(self, home: str | None = None, job_dir: str | None = None, *, help: bool = False) -> None:  # noqa: A002
        self.home = home
        self.job_dir = job_dir
        self.help = help


def main(arguments: Sequence[str]) -> int:
    """Run `claude-jobs mcp` and return its exit status.

    Args:
        arguments: What follows `mcp` on the command line.
    """
    try:
        options = parse(arguments)
        if options.help:
            sys.stdout.write(USAGE)
            return 0
        home = options.home or state_dir(os.environ)
    except UsageError as error:
        _say(str(error))
        return 2
    except ClientError as error:
        _say(str(error))
        return 1
    except FileNotFoundError:
        _say(
            "the working directory has been removed, and the state directory is relative to it. Give an absolute path."
        )
        return 1
    return run(home, options.job_dir)


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line by hand: importing an argument parser would cost every start of the pump.

    Raises:
        UsageError: An unknown argument, or one without its value.
    """
    values: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name, given, value = rest.pop(0).partition("=")
        if name in {"--help", "-h"}:
            return Options(help=True)
        if name not in {"--home", "--job"}:
            raise UsageError(name)
        text = value if given else rest.pop(0) if rest else ""
        if not text:
            raise UsageError(name)
        values[name] = absolute(text)
    return Options(home=values.get("--home"), job_dir=values.get("--job"))


def run(home: str, job_dir: str | None) -> int:
    """Carry MCP between stdin, stdout and the engine until the client disconnects; return the exit status.

    Args:
        home: The state directory.
        job_dir: Directory of the job that calls, or None for a person or a program.
    """
    _end_at_once_when_told()
    try:
        endpoint = EngineEndpoint(paths=prepare(home), environ=os.environ, note=_say, for_job=job_dir is not None)
        hello = introduce(os.environ, job_dir, home)
        connection = connect_with_retry(endpoint, hello)
    except (ClientError, OSError) as error:
        _say(str(error))
        return 1

    try:
        StdioProxy(0, 1, lambda: connect_with_retry(endpoint, hello)).run(connection)
    except OSError:
        # The client is gone, so no message can reach it.
        return 0
    return 0


def introduce(environ: Mapping[str, str], job_dir: str | None, home: str) -> Hello:
    """Return the `Hello` of this process; arguments as for `run`.

    Raises:
        JobTokenError: `job_dir` is given and holds no token.
        OSError: The working directory has been removed.
    """
    return Hello(
        token=read_token(f"{job_dir}/in") if job_dir else None,
        session=environ.get("CLAUDE_CODE_SESSION_ID"),
        client=environ.get("CLAUDE_CODE_ENTRYPOINT"),
        cwd=os.getcwd(),
        # A job's settings are its tree's: variables of its own environment are ignored.
        env=client_environment(environ, () if job_dir else named_in(environ, home)),
        settings=None if job_dir else setting_variables(environ),
        umask=own_umask(),
    )


def read_token(path: str) -> str:
    """Return the token in a job's stdin file: key "claude_jobs_token" of the JSON object on its first line.

    Raises:
        JobTokenError: No such file, or no token in it.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            frame = loads(file.readline(MAX_LINE))
    except (OSError, ValueError, RecursionError) as error:
        raise JobTokenError(path, type(error).__name__) from error
    token = frame.get("claude_jobs_token") if isinstance(frame, dict) else None
    if not isinstance(token, str) or not token:
        raise JobTokenError(path, "the key claude_jobs_token is missing")
    return token


def _end_at_once_when_told() -> None:
    # Nothing here needs tidying up, and a traceback on the client's stderr would only look like a fault.
    for number in (_signal.SIGTERM, _signal.SIGINT):
        _signal.signal(number, _signal.SIG_DFL)


def _say(line: str) -> None:
    sys.stderr.write(f"claude-jobs: {line}\n")
