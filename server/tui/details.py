"""The pane with the selected job: facts, then its transcript, which follows while the job runs."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.events import Resize
from textual.widgets import RichLog, Static

from server.cli.lines import wrapped
from server.tui.facts import Details, facts_of
from server.tui.model import Node
from server.tui.transcript_tail import MOST_LINES

_STYLES = {"▲": "yellow", "✗": "red", ">": "bold", "✻": "dim italic"}
"""Style of a transcript's line by its first character."""


class DetailsPane(Vertical):
    """Shows one node.

    Args:
        clock: Returns seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(id="details")
        self._clock = clock
        self._node: Node | None = None
        self._details: Details | None = None
        self._lines: deque[str] = deque(maxlen=MOST_LINES)
        self._width = 0

    def compose(self) -> ComposeResult:
        """Build the two parts."""
        yield Static(id="facts", markup=False)
        yield RichLog(id="transcript", max_lines=4 * MOST_LINES, highlight=False, markup=False, wrap=False, min_width=0)

    @property
    def transcript(self) -> RichLog:
        """The lower part."""
        return self.query_one("#transcript", RichLog)

    def show(self, node: Node | None, details: Details | None) -> None:
        """Show what is known of a node, or nothing."""
        self._node, self._details = node, details
        self.refresh_facts()

    def refresh_facts(self) -> None:
        """Draw the facts with the present time."""
        facts = self.query_one("#facts", Static)
        if self._node is None:
            facts.update("")
        elif self.size.width:
            facts.update(facts_of(self._node, self._details, max(1, facts.content_size.width), self._clock()))

    def clear_transcript(self) -> None:
        """Show an empty transcript, until lines of another job come."""
        self._lines.clear()
        self.transcript.clear()
        self.transcript.auto_scroll = True

    def add_lines(self, lines: Sequence[str]) -> None:
        """Add lines to the transcript; it follows unless somebody has scrolled up."""
        self._lines.extend(lines)
        self._write(lines)

    def _write(self, lines: Iterable[str]) -> None:
        log = self.transcript
        log.auto_scroll = log.is_vertical_scroll_end
        width = max(10, log.scrollable_content_region.width)
        for line in lines:
            first = line.lstrip()[:1]
            for part in wrapped(line.expandtabs(4), width):
                log.write(Text(part, _STYLES.get(first, "dim" if line.lstrip().startswith("⎿") else "")))

    def on_resize(self, event: Resize) -> None:
        """Wrap everything again, in the new width."""
        if event.size.width != self._width:
            self._width = event.size.width
            self.refresh_facts()
            self.transcript.clear()
            self.call_after_refresh(self._write, list(self._lines))
