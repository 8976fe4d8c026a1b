"""What a person does to jobs: calls of the tools, as the commands make them."""

import secrets
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jobs.util.text import redact, strip_terminal_codes
from server.cli.times import here
from server.cli.wording import for_a_person
from server.client.engine_socket import EngineEndpoint
from server.client.state_dir import StatePaths
from server.client.tool_client import Client, ToolError, open_client
from server.client.wire import ClientError


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

    def kill(self, identity: str) -> tuple[str, bool]:
        """Cancel a job, or a batch, and everything below it."""

        def ask(client: Client) -> tuple[str, bool]:
            answer = client.call_json("claude_kill_job", {"jobId": identity})
            return (answer["message"], True) if answer["success"] else (f"{identity} is over already.", False)

        return self._call(ask)

    def retry(self, identity: str, *, subtree: bool) -> tuple[str, bool]:
        """Run a job again, or with `subtree` all that failed at and below a job, or in a batch."""

        def ask(client: Client) -> tuple[str, bool]:
            answer = client.call_json("claude_retry", {"jobId": identity, "subtree": subtree})
            if count := answer["count"]:
                return f"Queued again: {count} job{'' if count == 1 else 's'}.", True
            busy = [one["heldBy"] for one in answer.get("busy", ())]
            return (f"Its session is in use by {busy[0]}." if busy else "Nothing there has failed."), False

        return self._call(ask)

    def pause(self, identity: str, *, resume: bool) -> tuple[str, bool]:
        """Let nothing start in a job or batch, or let it go on; what runs goes on to its end."""

        def ask(client: Client) -> tuple[str, bool]:
            answer = client.call_json("claude_pause", {"jobId": identity, "resume": resume})
            return _shown(here(for_a_person(answer["message"]), time.time())), bool(answer["success"])

        return self._call(ask)

    def send(self, job_id: str, message: str) -> tuple[str, bool]:
        """Continue a job's session with a message."""
        # The key makes a repeated call, after the engine ended, the same submission.
        given = {"jobId": job_id, "task": message, "idempotencyKey": f"top-{secrets.token_hex(8)}"}
        return self._call(lambda client: (f"Sent. It runs as {client.call_json('claude_send', given)['jobId']}.", True))

    def answer(self, request_id: str, *, allow: bool) -> tuple[str, bool]:
        """Answer a permission request."""

        def ask(client: Client) -> tuple[str, bool]:
            client.call_json("claude_approve", {"requestId": request_id, "allow": allow})
            return ("Allowed." if allow else "Denied; the job goes on without that call."), True

        return self._call(ask)

    def _call(self, ask: Callable[[Client], tuple[str, bool]]) -> tuple[str, bool]:
        try:
            with open_client(self._endpoint, self._environ, self._cwd) as client:
                return ask(client)
        except ToolError as error:
            return _shown(here(for_a_person(str(error)), time.time())), False
        except (ClientError, OSError) as error:
            return _shown(str(error)), False


def _shown(words: str) -> str:
    return " ".join(redact(strip_terminal_codes(words)).split())


def resume_line(details: Mapping[str, Any]) -> str | None:
    """Return the command that opens a job's session in Claude Code, or None where it has none."""
    session = details.get("sessionId")
    if not session:
        return None
    return f"cd {shlex.quote(str(details.get('cwd', '')))} && claude --resume {shlex.quote(str(session))}"
