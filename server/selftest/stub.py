"""A stub `claude` that runs for milliseconds and records its starts in a ledger, outside the job store."""

from pathlib import Path
from typing import NamedTuple

_SCRIPT = r"""#!/bin/sh
IFS= read -r initialize
IFS= read -r message
case $message in *selftest:*) ;; *) exit 9 ;; esac
rest=${message#*selftest:}
token=${rest%%:*}
rest=${rest#*:}
seconds=${rest%%:*}
rest=${rest#*:}
code=${rest%%:*}
session=00000000-0000-4000-8000-000000000000
for argument; do
    case $argument in --session-id=* | --resume=*) session=${argument#*=} ;; esac
done
echo "begin $session" >>"LEDGER/$token"
echo '{"type":"system","subtype":"init","session_id":"'"$session"'","model":"stub","tools":[],"mcp_servers":[]}'
[ "$seconds" = 0 ] || sleep "$seconds"
[ "$code" = 0 ] || exit "$code"
echo '{"type":"assistant","message":{"role":"assistant","content":[{"type":"text","text":"'"$token"'"}]}}'
answer='"subtype":"success","is_error":false,"num_turns":1,"total_cost_usd":0.001,"usage":{},"result_index":0'
echo '{"type":"result",'"$answer"',"terminal_reason":"completed","result":"'"$token"'"}'
"""

REPORTED = ("system.init", "assistant", "result.success")
"""The kinds of its transcript's lines, in order: all of them where it answers, else only the first ones."""


class StubTask(NamedTuple):
    """The task of one job of the kill test.

    Args:
        token: Unique word that the job answers with.
        seconds: How long it takes.
        code: Exit code; with any but 0 it gives no answer.
        cancel: The client cancels it.
    """

    token: str
    seconds: float = 0.0
    code: int = 0
    cancel: bool = False

    @property
    def task(self) -> str:
        """The task's text."""
        return f"selftest:{self.token}:{self.seconds:g}:{self.code}:"

    @property
    def ends(self) -> frozenset[str]:
        """The statuses that it may end with."""
        regular = "failed" if self.code else "completed"
        return frozenset({regular, "cancelled"} if self.cancel else {regular})


def write_stub(path: Path, ledger: Path) -> None:
    """Write the program to `path`; it appends a line to a file of the token's name in `ledger` at each start."""
    ledger.mkdir(exist_ok=True)
    path.write_text(_SCRIPT.replace("LEDGER", str(ledger)))
    path.chmod(0o700)


def starts(ledger: Path, token: str) -> int:
    """Return how often the task with this token was started."""
    path = ledger / token
    return path.read_text().count("begin") if path.exists() else 0
