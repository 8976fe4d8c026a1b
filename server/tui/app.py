"""The terminal view itself: its layout, its keys, and how pages, details and transcripts reach the screen."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.events import Resize
from textual.filter import LineFilter
from textual.timer import Timer
from textual.widgets import Input, Static

from jobs.model import LIVE
from server.client.wire import ClientError
from server.feed.job_details import resume_line
from server.tui.actions import Actions
from server.tui.background import Handover, hand_over, in_background
from server.tui.details import DetailsPane
from server.tui.dialogs import copy_dialog, help_dialog
from server.tui.engine_link import EngineLink
from server.tui.filters import parsed
from server.tui.heading import EMPTY, LOADING, alert_line, head_line, key_bar
from server.tui.job_list import KEYS, JobList
from server.tui.model import JobTable, Node, Row
from server.tui.steering import Steering
from server.tui.transcript_tail import TranscriptTail

WIDE: Final = 110
"""Columns from which on the details are next to the list."""

SETTLE_SECONDS: Final = 0.15
"""Seconds for which a job must stay selected before its details are read: keys that repeat read nothing."""

NOTICE_SECONDS: Final = 10.0

_PARTS: Final = ("JobList", "#head", "#alert", "#filter", "#notice", "#facts", "#transcript")
"""What is drawn again and again."""

_ACTIONS: Final = frozenset(
    ("filter", "kill", "retry", "send", "answer", "pause", "copy", "page", "start_engine", "help", "leave_program")
)
"""What keys of the list do."""


class TopApp(App[None]):
    """Shows jobs and lets a person steer them.

    Args:
        table: The jobs.
        actions: What can be done to them.
        filters: Replace characters that the terminal lacks.
        clock: Returns seconds since the epoch.
    """

    CSS_PATH = "top.tcss"
    ENABLE_COMMAND_PALETTE = False
    TITLE = "claude-jobs"

    # With priority: a key is dealt with before the next one is given to whatever has the focus by then.
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(key, action, show=False, priority=True)
            for key, action in (
                ("slash", "filter"),
                ("k", "kill"),
                ("r", "retry"),
                ("s", "send"),
                ("a", "answer"),
                ("p", "pause"),
                ("y", "copy"),
                ("w", "page"),
                ("e", "start_engine"),
                ("question_mark,f1", "help"),
                ("q", "leave_program"),
            )
        ),
        *(Binding(key, f"on_list('{name}', {distance})", show=False, priority=True) for key, name, distance in KEYS),
        Binding("enter", "keep_filter", show=False, priority=True),
        Binding("escape", "leave", show=False),
        Binding("ctrl+c", "quit", show=False, priority=True),
    ]

    def __init__(
        self,
        table: JobTable,
        actions: Actions,
        filters: Sequence[LineFilter] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"
        self.table = table
        self.link: EngineLink | None = None
        self._actions = actions
        self._steering = Steering(actions, self.push_screen, self.say, partial(in_background, self))
        self._clock = clock
        self._filters_for_terminal = tuple(filters)
        self._tail: TranscriptTail | None = None
        self._details: Mapping[str, Any] | None = None
        self._shown_row: Row | None = None
        self._settling: Timer | None = None
        self._connection_state = ""
        self._notice: tuple[str, bool, float] = ("", True, 0.0)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Return what every line goes through before it is written."""
        return [*super().get_line_filters(), *self._filters_for_terminal]

    def compose(self) -> ComposeResult:
        """Build the layout."""
        yield Static(id="head", markup=False)
        yield Static(id="alert", markup=False)
        with Horizontal(id="body"):
            yield Static(LOADING, id="empty", markup=False)
            yield JobList(self.table, self._clock)
            yield DetailsPane(self._clock)
        yield Input(id="filter", placeholder="words, status:failed, cost>0.5", compact=True)
        yield Static(id="notice", markup=False)
        yield Static(id="keys")

    @property
    def jobs(self) -> JobList:
        """The list."""
        return self.screen_stack[0].query_one(JobList)

    @property
    def pane(self) -> DetailsPane:
        """The details."""
        return self.screen_stack[0].query_one(DetailsPane)

    @property
    def _is_shown(self) -> bool:
        """Whether every widget is there: a timer may come while the view is being built or closed, part by part."""
        return bool(self.screen_stack) and all(self.screen_stack[0].query(name) for name in _PARTS)

    @property
    def _filter_line(self) -> Input:
        return self.screen_stack[0].query_one("#filter", Input)

    def _static(self, name: str) -> Static:
        return self.screen_stack[0].query_one(f"#{name}", Static)

    def on_mount(self) -> None:
        """Begin to follow the engine."""
        self.screen_stack[0].set_focus(self.jobs)
        self.set_interval(1.0, self._tick)
        self._fit(self.size.width)
        self._show_heads()
        if self.link is not None:
            self.link.open()

    def on_unmount(self) -> None:
        """Let the threads end."""
        if self._settling is not None:
            self._settling.stop()
        if self.link is not None:
            self.link.close()
        if self._tail is not None:
            self._tail.stop()

    def on_handover(self, message: Handover) -> None:
        """Do what a thread asks for, unless the view is being closed."""
        if self._is_shown:
            message.then()

    def on_resize(self, event: Resize) -> None:
        """Put the details next to the list where there is room."""
        self._fit(event.size.width)

    def _fit(self, width: int) -> None:
        screen = self.screen_stack[0]
        screen.set_class(width < WIDE, "narrow")
        self._show_keys(width)

    def _show_keys(self, width: int) -> None:
        screen = self.screen_stack[0]
        opened = screen.has_class("narrow") and screen.has_class("opened")
        self._static("keys").update(key_bar(width, opened=opened))

    # What the threads bring.

    def page_arrived(self, page: Mapping[str, Any]) -> None:
        """Show a page of the feed; called in the link's thread."""
        hand_over(self, partial(self.take, page))

    def state_changed(self, state: str) -> None:
        """Show what is wrong with the connection; called in the link's thread."""
        hand_over(self, partial(self._take_state, state))

    def take(self, page: Mapping[str, Any]) -> None:
        """Show a page of the feed."""
        self.table.apply(page)
        if page["more"] or not (page["jobs"] or page["gone"] or page["reset"]):
            self._show_heads()
            return
        self.table.arrange()
        self._show_list()
        node = self.jobs.selected
        if node is not None and _has_moved_on(self._shown_row, node.row):
            self._read_details()

    def _show_list(self) -> None:
        has_lines = bool(self.table.visible)
        self._static("empty").update(EMPTY if self.table.is_complete else LOADING)
        self.screen_stack[0].set_class(not has_lines, "nothing")
        self.jobs.update()
        self._show_heads()
        self.pane.show(self.jobs.selected, self._details)

    def _take_state(self, state: str) -> None:
        self._connection_state = state
        self._show_notice()
        if not state and self._details is None:
            # They could not be had without an engine.
            self._read_details()

    def _tick(self) -> None:
        if not self._is_shown:
            return
        self.jobs.refresh()
        self.pane.refresh_facts()
        self._show_heads()
        self._show_notice()

    # The lines above and below.

    def _show_heads(self) -> None:
        filtered = self._filter_line.value.strip()
        self._static("head").update(head_line(self.table.tops(), filtered, self.size.width))
        alert = alert_line(
            self.table.asking(), self.table.pauses, all_paused=self.table.is_all_paused, now=self._clock()
        )
        self._static("alert").update(alert or "")
        self._static("alert").display = alert is not None

    def say(self, words: str, is_good: bool = True) -> None:
        """Tell the person something, for some seconds, above the keys."""
        self._notice = (words, is_good, time.monotonic())
        self._show_notice()

    def _show_notice(self) -> None:
        words, is_good, since = self._notice
        if self._connection_state:
            self._static("notice").update(Text(self._connection_state, "bold red"))
        elif time.monotonic() - since < NOTICE_SECONDS:
            self._static("notice").update(Text(words, "green" if is_good else "bold red"))
        else:
            self._static("notice").update("")

    # The selected node.

    def on_job_list_selected(self) -> None:
        """Show the newly selected node, and read its details once it stays selected."""
        self._details = None
        self._shown_row = None
        self._stop_tail()
        self.pane.clear_transcript()
        self.pane.show(self.jobs.selected, None)
        if self._settling is not None:
            self._settling.stop()
        self._settling = self.set_timer(SETTLE_SECONDS, self._read_details)

    def on_job_list_opened(self) -> None:
        """Go to the details."""
        self._set_opened(True)
        self.screen_stack[0].set_focus(self.pane.transcript)

    def _set_opened(self, opened: bool) -> None:
        self.screen_stack[0].set_class(opened, "opened")
        self._show_keys(self.size.width)

    def _read_details(self) -> None:
        node = self.jobs.selected if self._is_shown else None
        if node is None or self.link is None:
            return
        self._shown_row = node.row
        in_background(self, partial(self._details_of, node.id), self._take_details)
        if node.row is not None and (self._tail is None or (self._tail.is_over and node.row["status"] in LIVE)):
            self._stop_tail()
            self.pane.clear_transcript()
            self._tail = TranscriptTail(self._actions.paths, partial(self._status_of, node.id), self._lines_arrived)
            self._tail.start()

    def _details_of(self, identity: str) -> Mapping[str, Any] | None:
        assert self.link is not None
        try:
            return self.link.details(identity)
        except (ClientError, OSError):
            # The line of the connection says what is wrong; they are read once there is one again.
            return None

    def _take_details(self, details: Mapping[str, Any] | None) -> None:
        node = self.jobs.selected
        if details is not None and node is not None and details.get("jobId", details.get("batchId")) == node.id:
            self._details = details
            self.pane.show(node, details)

    def _status_of(self, identity: str) -> Row | None:
        """Return a job's row with its whole task; called in the thread of a transcript."""
        node, details = self.table.node(identity), self._details
        if node is None or node.row is None:
            return None
        is_same = details is not None and details.get("jobId") == identity
        return {**node.row, "task": details["task"]} if is_same and details is not None else node.row

    def _lines_arrived(self, tail: TranscriptTail, lines: Sequence[str]) -> None:
        hand_over(self, lambda: self.pane.add_lines(lines) if tail is self._tail else None)

    def _stop_tail(self) -> None:
        if self._tail is not None:
            self._tail.stop()
            self._tail = None

    # Keys.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Tell whether a key means an action: letters are text where somebody types, and dialogs have their own."""
        if action in _ACTIONS:
            return len(self.screen_stack) == 1 and not isinstance(self.focused, Input)
        if action in ("on_list", "keep_filter"):
            wanted = self.jobs if action == "on_list" else self._filter_line
            return len(self.screen_stack) == 1 and self.focused is wanted
        return super().check_action(action, parameters)

    def action_on_list(self, name: str, distance: int) -> None:
        """Do what a key of the list means."""
        self.jobs.act(name, distance)

    def action_open(self) -> None:
        """Open the selected job."""
        self.jobs.open()

    def action_leave_program(self) -> None:
        """Quit; jobs go on."""
        self.exit()

    def action_leave(self) -> None:
        """Leave the filter, the details or the filtered list, in this order."""
        line = self._filter_line
        if self.screen_stack[0].has_class("opened"):
            self._set_opened(False)
        elif line.display or line.value:
            line.value = ""
            line.display = False
        self.screen_stack[0].set_focus(self.jobs)

    def action_filter(self) -> None:
        """Open the line of the filter."""
        self._set_opened(False)
        line = self._filter_line
        line.display = True
        # At once: the next key may have been read already.
        self.screen_stack[0].set_focus(line)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while somebody types."""
        if event.input.id == "filter":
            self.table.filter(parsed(event.value))
            self._show_list()
            if (line := self.table.first_match()) is not None:
                self.jobs.select_line(line)

    def action_keep_filter(self) -> None:
        """Keep the filter, and go back to the list."""
        self._filter_line.display = False
        self.screen_stack[0].set_focus(self.jobs)

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(help_dialog())

    def action_start_engine(self) -> None:
        """Start an engine where none runs."""
        if self._connection_state and self.link is not None:
            self._take_state("Starting the engine …")
            self.link.start_engine()

    def action_kill(self) -> None:
        """Ask whether the selected node is to be killed."""
        self._with_selected(self._steering.kill)

    def action_retry(self) -> None:
        """Run the selected job again, or what failed below it."""
        self._with_selected(self._steering.retry)

    def action_pause(self) -> None:
        """Pause the selected node, or let it go on."""
        self._with_selected(self._steering.pause)

    def action_send(self) -> None:
        """Ask for a message to the session of the selected job."""
        self._with_selected(self._steering.send)

    def _with_selected(self, steer: Callable[[Node], None]) -> None:
        if self.jobs.selected is not None:
            steer(self.jobs.selected)

    def action_answer(self) -> None:
        """Show what the selected job asks for; where it asks for nothing, go to the first one that does."""
        node = self.jobs.selected
        if node is None or node.row is None or node.row.get("waitingFor") != "permission":
            node = self.table.asking()
        if node is None:
            self.say("No job asks for a permission.")
            return
        self.jobs.select(node.id)
        in_background(self, partial(self._details_of, node.id), partial(self._ask_for, node))

    def _ask_for(self, node: Node, details: Mapping[str, Any] | None) -> None:
        # Unless a dialog or a line has been opened since: the next keys are for that.
        if self.check_action("answer", ()):
            self._steering.answer(node, (details or {}).get("requests", ()), self._clock())

    def action_copy(self) -> None:
        """Show what of the selected node can be copied."""
        node = self.jobs.selected
        if node is None:
            return
        line = resume_line(self._details or {})
        texts = {"id": node.id, "resume": line or ""}
        self.push_screen(copy_dialog(node.id, line), lambda said: self._copy(texts[said]) if said else None)

    def action_page(self) -> None:
        """Open the page in the browser."""
        self._steering.open_page(self.jobs.selected, self._copy)

    def _copy(self, text: str) -> None:
        self.copy_to_clipboard(text)
        # A terminal may ignore it, and does not say so.
        self.say(f"Sent to the clipboard: {text}")


def _has_moved_on(before: Row | None, now: Row | None) -> bool:
    """Tell whether there may be news in the details of a job whose row has changed."""
    if before is None or now is None:
        return False
    return any(before.get(name) != now.get(name) for name in ("status", "attempt", "waitingFor", "sessionId"))
