"""Output of the commands: the answer on stdout, errors in one line on stderr."""

import codecs
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from io import TextIOWrapper
from threading import Timer
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

from jobs.util.text import redact, strip_terminal_codes
from server.cli.times import here
from server.cli.wording import for_a_person
from server.client.tool_client import Client, ToolError, endpoint_of, open_client
from server.client.wire import ClientError

# Without emoji: ":bug:" in a path or a task is plain text, and `markup=False` alone would draw an emoji.
out = Console(emoji=False)
err = Console(stderr=True, emoji=False)

QUIET_SECONDS = 1.5
"""Seconds that a command waits for the engine silently; on an idle machine one starts in less (0.9 s, `poe bench`)."""

_json_asked: ContextVar[bool] = ContextVar("json_asked", default=False)


_ASCII: Mapping[str, str] = {
    "─": "-",
    "│": "|",
    "├": "|",
    "└": "`",
    "○": "o",
    "◐": "@",
    "◌": "=",
    "●": "*",
    "✗": "x",
    "⧗": "%",
    "⊘": "/",
    "▲": "!",
    "✻": "*",
    "⎿": "`",
    "·": "-",
    "…": "~",
}
"""What a terminal without these characters of a drawing shows instead: as many columns, and a mark for each status."""


def escape_unencodable() -> None:
    """Write characters that the terminal's encoding lacks in ASCII, instead of failing.

    Characters of a drawing are replaced; all others, and all of JSON, are written as JSON escapes.
    """
    codecs.register_error("escaped", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="escaped")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    known: Mapping[str, str] = {} if asked_for_json() else _ASCII
    return "".join(known.get(each) or json.dumps(each)[1:-1] for each in lacking), error.end


def say(text: str) -> None:
    """Print a text of a job or a tool, without terminal control codes."""
    write(out, text)


def write(console: Console, text: str) -> None:
    """Print a text on a console as `say` does: every safe character, tabs included.

    Args:
        console: Where to print.
        text: The text, without its last newline.
    """
    # Without rich, which would replace each tab by blanks: an answer may be a Makefile that goes into a file.
    console.file.write(f"{strip_terminal_codes(text)}\n")
    console.file.flush()


def note(text: str) -> None:
    """Print a remark on stderr, apart from the answer: an id to come back to, for example."""
    err.print(strip_terminal_codes(text), style="dim", markup=False, highlight=False, soft_wrap=True)


def fail(error: object, *, style: str | None = "red") -> NoReturn:
    """Print an error without secrets, and end the command with status 1.

    With `--json` the error is on stdout, as an object with the one key `error`.
    """
    _say_error(str(error), style)
    raise typer.Exit(1)


def refused(error: OSError) -> int:
    """Print a system error, as `fail` does, and return the exit status."""
    _say_error(f"The system refused: {error}. `claude-jobs doctor` says what it finds on this machine.")
    return 1


def _say_error(error: str, style: str | None = "red") -> None:
    words = redact(strip_terminal_codes(error))
    try:
        out.file.flush()
        if asked_for_json():
            say_json({"error": words})
            return
    except OSError:
        # Python would write what is left in its buffer once more when it ends, and report the error.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, out.file.fileno())
        os.close(nowhere)
    err.print(words, style=style, markup=False, highlight=False, soft_wrap=True)


def asked_for_json() -> bool:
    """Tell whether the running command was given `--json`."""
    return _json_asked.get()


def _note_json(value: bool) -> bool:
    _json_asked.set(value)
    return value


def json_option(prints: str) -> Any:
    """Return the option `--json` of a command; a failure is an object with the one key `error`.

    Args:
        prints: Its help text.
    """
    return typer.Option("--json", callback=_note_json, help=prints)


class Commands(TyperGroup):
    """The group of commands; usage errors, too, are printed as JSON with `--json`."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the arguments name."""
        try:
            return super().invoke(ctx)
        except typer.TyperException as error:
            _hint_at_detach(error)
            if error.message.startswith("No such option") and any(re.match(r"-.*\s", one) for one in sys.argv):
                error.message += ". A text that begins with a hyphen goes after --, and options before that."
            # A parsing error is raised before the option is known.
            if not (asked_for_json() or "--json" in sys.argv):
                raise
            say_json({"error": redact(strip_terminal_codes(error.format_message()))})
            raise typer.Exit(error.exit_code) from error


_ASYNC: Final = re.compile(r"No such option: --(?:async|background|bg)")
"""What people try who know `claude_run_async`."""


def _hint_at_detach(error: typer.TyperException) -> None:
    """Name `--detach` in the refusal of an option like `--async`, where the command has it."""
    command = getattr(getattr(error, "ctx", None), "command", None)
    options = [name for parameter in getattr(command, "params", ()) for name in parameter.opts]
    if _ASYNC.fullmatch(error.message) and "--detach" in options:
        error.message += ". `--detach` prints the id and exits; the job goes on"
        # The options that are spelt alike mean something else.
        vars(error)["possibilities"] = None


AsJson = Annotated[bool, json_option("Print JSON, also on failure.")]


def say_json(value: Any) -> None:
    """Print a value as JSON: indented, without escapes for non-ASCII characters."""
    say(json.dumps(value, indent=2, ensure_ascii=False))


def exit_unless_completed(jobs: Iterable[Mapping[str, Any]]) -> None:
    """End the command with status 1 if one of these jobs did not complete."""
    if any(job["status"] != "completed" for job in jobs):
        raise typer.Exit(1)


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Turn an error of the client, a tool or the system into one line and status 1."""
    try:
        yield
    except ToolError as error:
        fail(here(for_a_person(str(error)), time.time()))
    except ClientError as error:
        fail(error)
    except BrokenPipeError:
        # The reader has closed the output: typer ends the command in silence.
        raise
    except OSError as error:
        raise typer.Exit(refused(error)) from error


@contextmanager
def client() -> Iterator[Client]:
    """Connect to the engine, starting it where none runs."""
    with errors_as_messages(), ExitStack() as stack:
        with _delay_told():
            connected = stack.enter_context(open_client(endpoint_of(os.environ, note=note), os.environ))
        yield connected


@contextmanager
def _delay_told() -> Iterator[None]:
    """Tell a person at a terminal that the engine is slow to start; on a busy machine its start takes seconds."""
    if not err.is_terminal:
        yield
        return
    timer = Timer(QUIET_SECONDS, note, ("Waiting for the engine: it is starting, or busy.",))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
