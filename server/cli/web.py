"""The command `web`: the page of the jobs in the browser."""

import os
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from server.cli.answers import is_batch
from server.cli.completion import complete_id
from server.cli.console import AsJson, client, errors_as_messages, note, say, say_json
from server.cli.job_ids import whole_id
from server.client.connect import RefusedError, control
from server.client.engine_socket import EngineEndpoint
from server.client.tool_client import endpoint_of, hello_of
from server.client.wire import ClientError

_OLDER: Final = (
    "The engine is of an older version without a page. `claude-jobs engine stop` ends it and no job; then try again."
)
_ONCE: Final = "The link lets one browser in, once, within ten minutes."

_OPEN: Final = "import sys, webbrowser; webbrowser.open(sys.stdin.read())"
"""Reads the link from its input: an argument can be read by every user."""


class NoEngineError(ClientError):
    """No engine runs that could serve the page."""

    transient = True

    def __init__(self) -> None:
        super().__init__("No engine runs. `claude-jobs web` starts one.")


def web(
    identity: Annotated[
        str | None,
        typer.Argument(help="Job or batch to show; without it, every tree.", metavar="ID", autocompletion=complete_id),
    ] = None,
    *,
    port: Annotated[
        int | None,
        typer.Option(help="Port on 127.0.0.1; without it, `http_port` or a free one.", min=1024, max=65_535),
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Only print the link.")] = False,
    off: Annotated[bool, typer.Option("--off", help="End the page, and let in no browser any more.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what every job does and steer them, in the browser."""
    if off:
        _end(as_json=as_json, is_alone=identity is None and port is None)
        return
    with client() as engine:
        whole = None if identity is None else whole_id(engine, identity)
    with errors_as_messages():
        endpoint = endpoint_of(os.environ)
        answer = _asked(endpoint, {"do": "web", **({} if port is None else {"port": port})})
        url = _with_part(answer["url"], None if whole is None else _part_of(endpoint, whole))
    if as_json:
        say_json({"url": url, "port": answer["port"]})
    else:
        say(url)
        if "note" in answer:
            note(answer["note"])
    if no_open or not open_in_browser(url):
        if not as_json:
            note(_ONCE)
            if "SSH_CONNECTION" in os.environ:
                note(f"To open it on your own machine: ssh -L {answer['port']}:127.0.0.1:{answer['port']} HOST")
    elif not as_json:
        note(f"Opened in your browser. {_ONCE}")


def page_url(endpoint: EngineEndpoint, part: str | None = None) -> str:
    """Return a link that lets one browser in, once; the running engine serves the page from now on.

    Args:
        endpoint: How to reach the engine. Jobs that are started in the page run in the endpoint's environment, where
            their tree is over.
        part: What to show first, such as "tree/ROOT/JOB" or "costs"; None for all trees.

    Raises:
        ClientError: No engine runs, or it refuses; the text says why.
    """
    return _with_part(_asked(endpoint, {"do": "web"})["url"], part)


def open_in_browser(url: str) -> bool:
    """Open a page in the person's browser without waiting for it, and tell whether there is one on this screen."""
    if not _has_screen(os.environ):
        return False
    try:
        webbrowser.get()
        started = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _OPEN],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A browser that is started by this outlives the terminal.
            start_new_session=True,
        )
    except (webbrowser.Error, OSError):
        return False
    assert started.stdin is not None
    with started.stdin as given:
        given.write(url.encode())
    # Nobody waits for it; its end is taken note of all the same.
    threading.Thread(target=started.wait, name="browser", daemon=True).start()
    return True


def _has_screen(environ: Mapping[str, str]) -> bool:
    if sys.platform == "darwin":
        return "SSH_CONNECTION" not in environ
    # Editors that work on another machine set BROWSER to what opens a page on the person's own one. Without a screen
    # there are browsers for the terminal, which could not show it. Elsewhere the link would be an argument that every
    # user can read, and nobody there tells who uses it.
    return sys.platform == "linux" and any(environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))


def _asked(endpoint: EngineEndpoint, request: Mapping[str, Any]) -> dict[str, Any]:
    answer = control(endpoint, request, hello_of(endpoint, endpoint.environ))
    if answer is None:
        raise NoEngineError
    if not answer["ok"]:
        raise RefusedError(_OLDER if answer["error"].startswith("Unknown request") else answer["error"])
    return answer


def _with_part(url: str, part: str | None) -> str:
    # Not behind a #: the browser would lose that on its way to the page.
    return url if part is None else f"{url}&to={part}"


def _part_of(endpoint: EngineEndpoint, identity: str) -> str:
    root = _asked(endpoint, {"do": "job", "job": identity})["rootId"]
    is_tree = root == identity or is_batch(identity)
    return f"tree/{root}" if is_tree else f"tree/{root}/{identity}"


def _end(*, as_json: bool, is_alone: bool) -> None:
    if not is_alone:
        raise typer.BadParameter("It ends the whole page.", param_hint="--off")
    with errors_as_messages():
        endpoint = endpoint_of(os.environ)
        answer = control(endpoint, {"do": "web", "off": True}, hello_of(endpoint, os.environ))
        if answer is None:
            # The next engine would serve it again.
            endpoint.paths.page.unlink(missing_ok=True)
        elif not answer["ok"]:
            raise RefusedError(answer["error"])
    if as_json:
        say_json({"off": True})
    else:
        say("The page has ended; no browser is let in any more.")
