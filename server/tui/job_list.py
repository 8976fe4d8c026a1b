"""The list of jobs: a widget that draws the lines that are seen and nothing else."""

from collections.abc import Callable
from typing import Final

from rich.segment import Segment
from rich.style import Style
from textual.events import Click, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from server.tui.cells import Columns, heading, row_segments
from server.tui.model import JobTable, Node

KEYS: Final = (
    ("up,ctrl+p", "move", -1),
    ("down,ctrl+n", "move", 1),
    ("pageup,ctrl+b", "page", -1),
    ("pagedown,ctrl+f", "page", 1),
    ("home,g", "first", 0),
    ("end,G", "last", 0),
    ("left,h", "out", 0),
    ("right,l", "into", 0),
    ("space", "fold_or_unfold", 0),
    ("enter", "open", 0),
)
"""Keys of the list, what they do, and how far. The program binds them: there they keep their order among its own."""


class JobList(ScrollView, can_focus=True):
    """Shows the visible nodes of a table, one of which is selected.

    Args:
        table: The jobs.
        clock: Returns seconds since the epoch.

    Attributes:
        selected_id: Id of the selected node, or None where nothing is visible.
    """

    class Selected(Message):
        """Another node is selected, or none."""

    class Opened(Message):
        """The details of the selected node are wanted."""

    def __init__(self, table: JobTable, clock: Callable[[], float]) -> None:
        super().__init__()
        self.selected_id: str | None = None
        self._table = table
        self._clock = clock
        self._line = 0

    @property
    def selected(self) -> Node | None:
        """The selected node."""
        return None if self.selected_id is None else self._table.node(self.selected_id)

    @property
    def _rows_seen(self) -> int:
        return max(1, self.size.height - 1)

    def render_line(self, y: int) -> Strip:
        """Draw one line that is seen: the first one names the columns."""
        width = self.size.width
        columns = Columns.within(width)
        if y == 0:
            return Strip([Segment(heading(columns), Style(bold=True))]).adjust_cell_length(width)
        index = self.scroll_offset.y + y - 1
        if index >= len(self._table.visible):
            return Strip.blank(width)
        node = self._table.visible[index]
        segments = row_segments(node, columns, self._clock(), is_selected=node.id == self.selected_id)
        return Strip(segments).adjust_cell_length(width)

    def update(self) -> None:
        """Show what the table holds now; the selected node stays selected, and where it is on the screen."""
        line = None if self.selected_id is None else self._table.line_of(self.selected_id)
        offset = self._line - self.scroll_offset.y
        self._resize_lines()
        if line is None:
            line = min(self._line, len(self._table.visible) - 1)
        if self._table.visible:
            self._line = max(0, line)
            self.scroll_to(y=self._line - offset, animate=False, immediate=True)
            self._select(self._table.visible[self._line].id)
        else:
            self._line = 0
            self._select(None)
        self.refresh()

    def _select(self, identity: str | None) -> None:
        if identity != self.selected_id:
            self.selected_id = identity
            self.post_message(self.Selected())

    def _resize_lines(self) -> None:
        # One line more: the heading takes one of those that are seen.
        self.virtual_size = Size(self.size.width, len(self._table.visible) + 1)

    def on_resize(self, event: Resize) -> None:
        """Draw in the new width."""
        del event
        self._resize_lines()
        self._show_line()

    def select_line(self, line: int) -> None:
        """Select the node of a line, the nearest one where there is none, and scroll to it."""
        if not self._table.visible:
            return
        self._line = max(0, min(line, len(self._table.visible) - 1))
        self._show_line()
        self._select(self._table.visible[self._line].id)
        self.refresh()

    def _show_line(self) -> None:
        region = Region(0, self._line, 1, 1)
        top = self.scroll_offset.y
        if region.y < top:
            self.scroll_to(y=region.y, animate=False, immediate=True)
        elif region.y >= top + self._rows_seen:
            self.scroll_to(y=region.y - self._rows_seen + 1, animate=False, immediate=True)

    def select(self, identity: str) -> None:
        """Select a node, and unfold what hides it."""
        node = self._table.node(identity)
        above = None if node is None else node.parent
        while above is not None:
            self._table.fold(above, folded=False)
            above = above.parent
        self._resize_lines()
        line = self._table.line_of(identity)
        if line is not None:
            self.select_line(line)

    def act(self, name: str, distance: int) -> None:
        """Do what a key means.

        Args:
            name: As `KEYS` names it.
            distance: How far, where that matters.
        """
        match name:
            case "move":
                self.select_line(self._line + distance)
            case "page":
                self.select_line(self._line + distance * self._rows_seen)
            case "first":
                self.select_line(0)
            case "last":
                self.select_line(len(self._table.visible) - 1)
            case _:
                {"out": self.fold, "into": self.unfold, "fold_or_unfold": self.toggle_fold, "open": self.open}[name]()

    def fold(self) -> None:
        """Fold the selected node, or select the one above it."""
        node = self.selected
        if node is None:
            return
        if node.children and not node.is_folded:
            self._fold(node, folded=True)
        elif node.parent is not None and (line := self._table.line_of(node.parent.id)) is not None:
            self.select_line(line)

    def unfold(self) -> None:
        """Unfold the selected node, or select the first one below it."""
        node = self.selected
        if node is None or not node.children:
            return
        if node.is_folded:
            self._fold(node, folded=False)
        else:
            self.select_line(self._line + 1)

    def toggle_fold(self) -> None:
        """Fold or unfold the selected node."""
        node = self.selected
        if node is not None and node.children:
            self._fold(node, folded=not node.is_folded)

    def open(self) -> None:
        """Show what is below a folded batch; of any other node show the details."""
        node = self.selected
        if node is not None and node.row is None and node.is_folded:
            self._fold(node, folded=False)
        else:
            self.post_message(self.Opened())

    def _fold(self, node: Node, *, folded: bool) -> None:
        self._table.fold(node, folded)
        self.update()

    def on_click(self, event: Click) -> None:
        """Select the line; a click on the mark of a fold folds, a double click opens."""
        index = self.scroll_offset.y + event.y - 1
        if event.y == 0 or index >= len(self._table.visible):
            return
        self.select_line(index)
        node = self._table.visible[index]
        if node.children and event.x // 2 == node.depth:
            self.toggle_fold()
        elif event.chain == 2:
            self.open()
