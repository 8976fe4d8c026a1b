"""The dialogs: a question, a text, a permission request, what can be copied, help."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from jobs.util.text import strip_terminal_codes
from server.cli.tree_view import counted

HELP: Final = """\
up down   or ctrl-p ctrl-n; pgup pgdn, home end or g G
left      or h: fold, then the job above; right or l: unfold
space     fold or unfold; enter unfolds a folded batch
enter     details; esc goes back, tab changes sides
/         filter: words, status:waiting, cost>0.5; esc clears it
k         kill a job and all below it; asks first
r         retry what failed in a job and below it, or in a batch
s         send a message to the session of a finished job
a         allow or deny what a job asks for
p         pause a job and all below it, or let it go on
y         copy an id, or the command that opens a session
w         open the page in the browser, at the selected job
e         start the engine again after it stopped
q         quit; jobs go on

{marks}"""

_KILL_KEYS: Final = {"y": ("yes", "kill"), "n": ("", "keep")}
_MARKS: Final = "○ queued  ◐ running  ◌ waiting  ? asks you\n● completed  ✗ failed  ⧗ timed out  ⊘ cancelled"


class Dialog(ModalScreen[str]):
    """A box with a title and a text; a key that has a meaning closes it with that meaning, escape with nothing.

    Args:
        title: One line.
        body: The text.
        keys: Key to meaning and words.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "close", show=False)]

    def __init__(self, title: str, body: str | Text, keys: Mapping[str, tuple[str, str]]) -> None:
        super().__init__()
        self._title = title
        self._body = body if isinstance(body, Text) else Text(strip_terminal_codes(body))
        self._keys = keys
        self._takes_keys = True

    def compose(self) -> ComposeResult:
        """Build the box."""
        with Vertical(classes="box"):
            yield Static(Text(strip_terminal_codes(self._title), "bold"), classes="title")
            with VerticalScroll(classes="body"):
                yield Static(self._body)
            yield from self.more()
            yield Static(key_line([(key, words) for key, (_, words) in self._keys.items()]), classes="keys")

    def more(self) -> ComposeResult:
        """Build what is between the text and the keys."""
        yield from ()

    def on_key(self, event: Any) -> None:
        """Close with the meaning of a key."""
        if self._takes_keys and event.key in self._keys:
            event.stop()
            self.dismiss(self._keys[event.key][0])

    def action_close(self) -> None:
        """Close with nothing."""
        self.dismiss("")


class TextDialog(Dialog):
    """Asks for one line of text.

    Args:
        title: One line.
        body: The text above the line.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", show=False, priority=True)]

    def __init__(self, title: str, body: str) -> None:
        super().__init__(title, body, {"enter": ("", "send"), "escape": ("", "leave it")})
        # They are typed into the line.
        self._takes_keys = False

    def more(self) -> ComposeResult:
        """Build the line."""
        yield Input(placeholder="message", compact=True)

    def on_mount(self) -> None:
        """Type into the line at once."""
        self.query_one(Input).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Close with what was typed."""
        self.dismiss(event.value.strip())


def key_line(keys: Sequence[tuple[str, str]]) -> Text:
    """Return keys and what they do in one line."""
    parts = [Text.assemble((key.replace("escape", "esc"), "bold"), f" {words}") for key, words in keys]
    return Text("   ").join(parts)


def kill_dialog(name: str, below: int, dependents: int, *, is_batch: bool) -> Dialog:
    """Return the question whether a job or a batch is to be killed.

    Args:
        name: For a person.
        below: Number of live jobs below it.
        dependents: Number of live jobs beside it that depend on it.
        is_batch: It is a batch.
    """
    if is_batch:
        return Dialog(
            "Kill this batch?", f"{name}\n\nThis ends {below} job{'' if below == 1 else 's'} now.", _KILL_KEYS
        )
    also = f" and {below} job{'' if below == 1 else 's'} below it that {'is' if below == 1 else 'are'} not over"
    body = f"{name}\n\nThis ends it now{also if below else ''}."
    if dependents:
        body += f"\n{dependents} job{' that depends' if dependents == 1 else 's that depend'} on it will not run."
    return Dialog("Kill this job?", body, _KILL_KEYS)


def retry_dialog(name: str, below: Mapping[str, int], *, has_failed: bool) -> Dialog:
    """Return the question which jobs are to run again.

    Args:
        name: A job or a batch, for a person.
        below: How many jobs below it failed, timed out or were cancelled.
        has_failed: So did the job itself: it can run again alone.
    """
    total = sum(below.values()) + has_failed
    few = {"o": ("one", "this job alone")} if has_failed else {}
    also = "It failed. " if has_failed else ""
    body = f"{name}\n\n{also}Below it: {counted(below)}. Jobs that run again may cost money."
    return Dialog("Run again what failed?", body, {"y": ("all", f"all {total}"), **few, "n": ("", "leave them")})


def permission_dialog(name: str, request: Mapping[str, Any], left: int, until: str) -> Dialog:
    """Return a permission request, whole, with the keys that answer it.

    Args:
        name: The job.
        request: The request.
        left: How many more the job has made.
        until: When it is denied unless somebody answers, or an empty text.
    """
    others = f"\n\nIt asks for {left} more." if left else ""
    ends = f"\n\nWithout an answer it is denied at {until}." if until else ""
    body = f"{name} asks to call {request['tool']}\n\n{_arguments(request)}{others}{ends}"
    keys = {"y": ("allow", "allow once"), "n": ("deny", "deny"), "escape": ("", "later")}
    return Dialog("Permission", body, keys)


def _arguments(request: Mapping[str, Any]) -> str:
    """Return the arguments of a call, each in a paragraph; as they are where they were cut."""
    cut = request["inputChars"] - len(request["input"])
    if cut > 0:
        return f"{request['input']}\n… {cut} characters more: the transcript has them"
    try:
        arguments = json.loads(request["input"])
    except ValueError:
        # What was redacted may have been a part of its form.
        return str(request["input"])
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in arguments.items()}
    return "\n".join(f"{name}: {value}" for name, value in texts.items())


def copy_dialog(identity: str, line: str | None) -> Dialog:
    """Return what of a job can be copied."""
    body = f"i  {identity}" + (f"\n\nr  {line}" if line else "")
    keys = {"i": ("id", "copy the id")} | ({"r": ("resume", "copy the command")} if line else {})
    return Dialog("Copy", body, {**keys, "escape": ("", "close")})


def page_dialog(url: str) -> Dialog:
    """Return a link to the page, where no browser opens by itself."""
    body = f"Open it in your browser, once, within 10 minutes:\n\n{url}"
    return Dialog("The page", body, {"c": ("copy", "copy it"), "escape": ("", "close")})


def help_dialog() -> Dialog:
    """Return the list of keys."""
    return Dialog("Keys", HELP.format(marks=_MARKS), {"escape": ("", "close")})
