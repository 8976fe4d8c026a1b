"""What a person does to jobs: calls of the tools, as the commands make them."""

import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from jobs.util.text import redact, strip_terminal_codes
from server.cli.times import here
from server.cli.web import open_in_browser, page_url
from server.cli.wording import for_a_person
from server.client.engine_socket import EngineEndpoint
from server.client.state_dir import StatePaths
from server.client.tool_client import Client, ToolError, open_client
from server.client.wire import ClientError
from server.web.action_words import Said, said_of_approve, said_of_kill, said_of_retry, said_of_send

OPENED: Final = "The page opens in your browser."


class Actions:
    """Calls tools for a person; each method waits, and returns what to tell the person and whether it went well.

    Args:
        endpoint: How to reach the engine.
        environ: The environment that jobs of this client run in.
        cwd: Directory that they run in.
    """

    def __init__(self, endpoint: EngineEndpoint, environ: Mapping[str, str], cwd: Path) -> None:
        self._endpoint = endpoint
        self._environ = environ
        self._cwd = cwd

    @property
    def paths(self) -> StatePaths:
        """The state directory."""
        return self._endpoint.paths

    def kill(self, identity: str) -> Said:
        """Cancel a job, or a batch, and everything below it."""
        return self._call(
            lambda client: said_of_kill(identity, client.call_json("claude_kill_job", {"jobId": identity}))
        )

    def retry(self, identity: str, *, subtree: bool) -> Said:
        """Run a job again, or with `subtree` all that failed at and below a job, or in a batch."""
        given = {"jobId": identity, "subtree": subtree}
        return self._call(lambda client: said_of_retry(client.call_json("claude_retry", given)))

    def pause(self, identity: str, *, resume: bool) -> Said:
        """Let nothing start in a job or batch, or let it go on; what runs goes on to its end."""

        def ask(client: Client) -> Said:
            answer = client.call_json("claude_pause", {"jobId": identity, "resume": resume})
            return _shown(here(for_a_person(answer["message"]), time.time())), bool(answer["success"])

        return self._call(ask)

    def send(self, job_id: str, message: str) -> Said:
        """Continue a job's session with a message."""
        # The key makes a repeated call, after the engine ended, the same submission.
        given = {"jobId": job_id, "task": message, "idempotencyKey": f"top-{secrets.token_hex(8)}"}
        return self._call(lambda client: said_of_send(client.call_json("claude_send", given)))

    def answer(self, request_id: str, *, allow: bool) -> Said:
        """Answer a permission request."""

        def ask(client: Client) -> Said:
            client.call_json("claude_approve", {"requestId": request_id, "allow": allow})
            return said_of_approve(allow=allow)

        return self._call(ask)

    def open_page(self, part: str | None) -> Said:
        """Open the page in the browser; where none can be opened, return a link to it.

        Args:
            part: What to show first, as `page_url` takes it.
        """
        try:
            url = page_url(self._endpoint, part)
        except (ClientError, OSError) as error:
            return _shown(str(error)), False
        return (OPENED if open_in_browser(url) else url), True

    def _call(self, ask: Callable[[Client], Said]) -> Said:
        try:
            with open_client(self._endpoint, self._environ, self._cwd) as client:
                return ask(client)
        except ToolError as error:
            return _shown(here(for_a_person(str(error)), time.time())), False
        except (ClientError, OSError) as error:
            return _shown(str(error)), False


def _shown(words: str) -> str:
    return " ".join(redact(strip_terminal_codes(words)).split())
