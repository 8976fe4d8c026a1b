"""Starts the terminal view."""

from collections.abc import Mapping
from pathlib import Path

from server.client.engine_socket import EngineEndpoint
from server.client.wire import Hello, setting_variables
from server.tui.actions import Actions
from server.tui.app import TopApp
from server.tui.engine_link import EngineLink
from server.tui.marks import filters_for
from server.tui.model import JobTable


def run_view(endpoint: EngineEndpoint, environ: Mapping[str, str], under: str | None) -> None:
    """Show jobs until the person quits.

    Args:
        endpoint: How to reach the engine.
        environ: The environment of the terminal.
        under: Id of the job or batch whose subtree alone is shown, or None.

    Raises:
        ClientError: The job to show cannot be read.
    """
    cwd = Path.cwd()
    hello = Hello(cwd=str(cwd), client="claude-jobs top", settings=setting_variables(environ))
    app = TopApp(JobTable(under), Actions(endpoint, environ, cwd), filters_for(environ))
    link = EngineLink(endpoint, hello, app.page_arrived, app.state_changed)
    if under is not None:
        link.tree = str(link.details(under)["rootId"])
    app.link = link
    app.run(mouse=True)
