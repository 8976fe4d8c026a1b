"""Progress events of a running tree: one plain dictionary per event, on LangGraph's "custom" stream."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final

from langgraph.config import get_config, get_stream_writer

_WRITER: Final = "orchestration_progress"
"""Where a nested run finds the outermost run's writer: LangGraph hands none to a run with a thread id of its own."""


class Progress(StrEnum):
    """Event of a branch."""

    STARTED = "started"
    """Its work is about to be called."""
    SPAWNED = "spawned"
    """It asked for subtasks, "count" of them, and now waits for them."""
    RESUMED = "resumed"
    """Its subtasks are over, and `resume` is about to be called."""
    FINISHED = "finished"
    """It has a value, under "value"."""
    FAILED = "failed"
    """It has an error, under "error", as `Failure.record()`."""
    REFUSED = "refused"
    """It was not admitted, and so never ran; "error" has the reason."""


def emit(event: Progress, node: Mapping[str, Any], **more: Any) -> None:
    """Write an event to the reader of the tree's stream; does nothing where there is none."""
    place = {key: node[key] for key in ("id", "parent_id", "depth", "root_id", "index")}
    _writer()({"event": str(event), **place, **more})


def inherited() -> dict[str, Any]:
    """Return what goes into the `configurable` of a run inside a node, so that its events reach the node's reader."""
    return {_WRITER: _writer()} if _inside_a_node() else {}


def own() -> dict[str, Any]:
    """Return what goes into the `configurable` of a run that is streamed itself, inside a node or not."""
    return {_WRITER: None}


def _writer() -> Callable[[Any], None]:
    writer: Callable[[Any], None] | None = get_config().get("configurable", {}).get(_WRITER)
    return writer or get_stream_writer()


def _inside_a_node() -> bool:
    try:
        get_config()
    except RuntimeError:  # LangGraph's answer where no node is running
        return False
    return True
