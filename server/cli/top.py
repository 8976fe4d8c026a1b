"""The command `top`: a full-screen view of jobs."""

import os
import sys
from typing import Annotated

import typer

from server.cli.completion import complete_id
from server.cli.console import client, errors_as_messages, fail, note, out
from server.cli.job_ids import whole_id
from server.cli.lines import is_screen
from server.client.tool_client import endpoint_of

_INSTALL = "python -m pip install 'textual>=8,<9'"


def top(
    identity: Annotated[
        str | None,
        typer.Argument(help="Job or batch; without it, every tree.", metavar="ID", autocompletion=complete_id),
    ] = None,
) -> None:
    """Show what every job does and steer them, in a view that fills the terminal."""
    # Textual writes to stderr, so that a view can be shown while the output goes elsewhere.
    if not (is_screen(out) and sys.stdin.isatty() and sys.stderr.isatty()):
        note(
            "`claude-jobs top` needs a terminal. `claude-jobs tree` prints the jobs, `claude-jobs list --json` as JSON."
        )
        raise typer.Exit(2)
    try:
        # Imported here: no other command needs Textual, and its import takes 0.3 s.
        from server.tui.run import run_view
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        fail(f"`claude-jobs top` needs the package textual. Install it where claude-jobs is: {_INSTALL}")
    # An engine is started, and an id that is unknown is refused, while there is still a plain terminal to say so.
    with client() as engine:
        under = None if identity is None else whole_id(engine, identity)
    with errors_as_messages():
        run_view(endpoint_of(os.environ), os.environ, under)
