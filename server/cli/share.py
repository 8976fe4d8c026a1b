"""The commands `report` and `trace`: a tree as a file that can be sent to somebody."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from server.cli.completion import complete_id
from server.cli.console import client, errors_as_messages, fail, json_option, note, out
from server.cli.job_ids import whole_id
from server.client.connect import control
from server.client.state_dir import StatePaths, state_dir
from server.client.tool_client import endpoint_of
from server.client.wire import Hello

_OLDER: Final = (
    "The engine is of an older version without reports. `claude-jobs engine stop` ends it and no job; then try again."
)

Identity = Annotated[
    str, typer.Argument(help="Job or batch, with all below it.", metavar="ID", autocompletion=complete_id)
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FILE", help="The file to write; it must not exist. Without it: standard output."
    ),
]


def report(
    identity: Identity,
    *,
    no_answers: Annotated[
        bool,
        typer.Option(
            "--no-answers",
            help="Leave out answers, and of each task and error all but the beginning of its first line.",
        ),
    ] = False,
    output: Output = None,
    as_json: Annotated[bool, json_option("Print the record as JSON instead of the page; also a failure.")] = False,
) -> None:
    """Write a page about a tree to send to somebody: its jobs, times, costs and answers in one file of HTML.

    The page has no script and loads nothing. Secrets in the forms that are known are left out, and so are those of the
    tree's environment and of yours; read it before you send it, all the same.
    """
    if not as_json:
        _refuse_terminal(output, "a page of HTML", "tree.html")
    document = _document(identity, with_answers=not no_answers)
    if as_json:
        parts: Iterable[str] = (json.dumps(document, indent=2, ensure_ascii=False), "\n")
    else:
        # Imported here: no other command needs it.
        from server.report.html_page import html_page

        parts = html_page(document, home=os.environ.get("HOME", ""))
    _write(output, (part.encode("utf-8", "replace") for part in parts))


def trace(identity: Identity, *, output: Output = None) -> None:
    """Write the times of a tree as a trace for https://ui.perfetto.dev, which opens it in your browser.

    Each job is a track below that of the job that started it. The trace has names of jobs, times, costs and models, and
    no answers.
    """
    _refuse_terminal(output, "a binary file", "tree.perfetto-trace")
    document = _document(identity, with_answers=False)
    # Imported here: no other command needs it.
    from server.report.perfetto import perfetto_trace

    _write(output, perfetto_trace(document))


def _refuse_terminal(output: Path | None, what: str, name: str) -> None:
    if output is None and out.file.isatty():
        fail(f"This is {what}, which a terminal cannot show. Write it to a file: -o {name}, or > {name}")


def _document(identity: str, *, with_answers: bool) -> dict[str, Any]:
    with client() as engine:
        whole = whole_id(engine, identity)
    # Imported here: no other command needs it, and it imports pydantic.
    from jobs.client_context import ClientContextStore
    from jobs.util.text import secrets_in
    from server.report.document import document_of

    with errors_as_messages():
        pages = [*_pages(whole, with_answers=with_answers)]
        trees = StatePaths(state_dir(os.environ)).trees
        known = secrets_in(os.environ) | ClientContextStore(trees).secrets_of(pages[0]["tree"]["rootId"])
    return document_of(pages, known, with_answers=with_answers)


def _pages(whole: str, *, with_answers: bool) -> Iterator[dict[str, Any]]:
    endpoint, hello = endpoint_of(os.environ), Hello(cwd="/", client="claude-jobs report")
    request: dict[str, Any] = {"do": "report", "tree": whole, "answers": with_answers}
    while True:
        page = control(endpoint, request, hello)
        if page is None:
            fail("The engine stopped meanwhile. Try again.")
        if not page["ok"]:
            fail(_OLDER if page["error"].startswith("Unknown request") else page["error"])
        yield page
        if not page["more"]:
            return
        request["cursor"] = page["cursor"]


def _write(output: Path | None, parts: Iterable[bytes]) -> None:
    with errors_as_messages():
        if output is None:
            for part in parts:
                sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
            return
        target = output.expanduser().absolute()
        try:
            _write_new(target, parts)
        except FileExistsError:
            fail(f"{target} exists already. Give another name, or remove it first.")
        except FileNotFoundError:
            fail(f"There is no directory {target.parent}. Make it first, or name a file in another directory.")
        note(f"Wrote {target} ({target.stat().st_size:,} bytes).")


def _write_new(target: Path, parts: Iterable[bytes]) -> None:
    """Write a file that must not exist; it is there as a whole or not at all, with the modes of the person's files."""
    if os.path.lexists(target):
        raise FileExistsError(target)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(parts)
        _name(part, target)
    finally:
        part.unlink(missing_ok=True)


def _name(part: Path, target: Path) -> None:
    try:
        # A link, unlike a new name, replaces nothing.
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:
        # The file system has no links.
        if os.path.lexists(target):
            raise FileExistsError(target) from None
        part.rename(target)
