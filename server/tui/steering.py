"""What the keys do to jobs: asks where something would be lost or cost money, does it, and says how it went."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from jobs.model import LIVE
from server.cli.times import clock
from server.tui.actions import OPENED, Actions
from server.tui.cells import label_of
from server.tui.dialogs import TextDialog, kill_dialog, page_dialog, permission_dialog, retry_dialog
from server.tui.model import RETRIED, Node

_OVER = "It is over already."

Said = tuple[str, bool]
"""What to tell the person, and whether it went well."""


class Steering:
    """Steers one node at a time.

    Args:
        actions: What can be done.
        ask: Shows a dialog, and calls the function with what was chosen, or nothing.
        say: Tells the person something, and whether that is good.
        in_background: Runs work in a thread, and calls the function with its result.
    """

    def __init__(
        self,
        actions: Actions,
        ask: Callable[..., object],
        say: Callable[..., None],
        in_background: Callable[[Callable[[], Said], Callable[[Said], None]], object],
    ) -> None:
        self._actions = actions
        self._ask = ask
        self._say = say
        self._in_background = in_background

    def kill(self, node: Node) -> None:
        """Ask whether a node and all below it are to be killed."""
        if not node.live:
            self._say(_OVER, is_good=False)
            return
        is_live = node.row is not None and node.row["status"] in LIVE
        dialog = kill_dialog(_named(node), node.live - is_live, len(node.dependents()), is_batch=node.row is None)
        self._ask(dialog, lambda said: self._act(partial(self._actions.kill, node.id)) if said else None)

    def retry(self, node: Node) -> None:
        """Run a job again, or what failed below it; ask where that is more than one job."""
        has_failed = node.row is not None and node.row["status"] in RETRIED
        below = {**node.failures()}
        if has_failed and node.row is not None:
            below[node.row["status"]] -= 1
        retry = partial(self._actions.retry, node.id)
        if sum(below.values()) + has_failed < 2:
            # Where nothing is known to have failed the engine says so: it may know more.
            self._act(partial(retry, subtree=not has_failed))
            return
        dialog = retry_dialog(_named(node), below, has_failed=has_failed)
        self._ask(dialog, lambda said: self._act(partial(retry, subtree=said == "all")) if said else None)

    def pause(self, node: Node) -> None:
        """Pause a node, or let it go on."""
        if not node.live:
            self._say(_OVER, is_good=False)
            return
        self._act(partial(self._actions.pause, node.id, resume=node.is_paused))

    def send(self, node: Node) -> None:
        """Ask for a message to the session of a job."""
        if node.row is None:
            self._say("Select a job: a batch has no session.", is_good=False)
        elif node.row["status"] in LIVE:
            self._say("It is not over yet; a message can be sent to its session then.", is_good=False)
        else:
            dialog = TextDialog("Send a message", f"{_named(node)}\n\nIts session goes on with this, as a new job.")
            self._ask(dialog, lambda said: self._act(partial(self._actions.send, node.id, said)) if said else None)

    def answer(self, node: Node, requests: Sequence[Mapping[str, Any]], now: float) -> None:
        """Show the first permission request of a job.

        Args:
            node: The job.
            requests: Its open requests.
            now: Seconds since the epoch.
        """
        if not requests:
            self._say("It asks for nothing any more.")
            return
        answer = partial(self._actions.answer, requests[0]["requestId"])
        until = (node.row or {}).get("waitingUntil")
        when = "" if until is None else clock(until, now)
        dialog = permission_dialog(_named(node), requests[0], len(requests) - 1, when)
        self._ask(dialog, lambda said: self._act(partial(answer, allow=said == "allow")) if said else None)

    def open_page(self, node: Node | None, copy: Callable[[str], None]) -> None:
        """Open the page in the browser, at a node where one is selected.

        Args:
            node: The node, or None.
            copy: Called with the link where no browser opens and the person wants to copy it.
        """

        def told(done: Said) -> None:
            words, is_good = done
            if is_good and words != OPENED:
                self._ask(page_dialog(words), lambda said: copy(words) if said else None)
            else:
                self._say(words, is_good)

        self._say("…")
        self._in_background(partial(self._actions.open_page, _part(node)), told)

    def _act(self, work: Callable[[], Said]) -> None:
        self._say("…")
        self._in_background(work, lambda done: self._say(*done))


def _part(node: Node | None) -> str | None:
    if node is None:
        return None
    return f"tree/{node.id}" if node.row is None else f"tree/{node.row['rootId']}/{node.id}"


def _named(node: Node) -> str:
    return f"{label_of(node)} ({node.id})"
