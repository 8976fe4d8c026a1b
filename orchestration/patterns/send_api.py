"""Building blocks for fan-out by `Send` over a state that is a plain dictionary."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Final, TypeVar

from langgraph.types import Send

T = TypeVar("T")

RESULTS: Final = "results"
"""The one key of a state whose values are united; every other key is replaced."""

MAX_SENDS: Final = 200
"""Most Sends in one superstep. Measured: LangGraph's cost per Send is flat up to some hundreds and grows with the
square of their number from about 2,000 in one superstep (10,000 cost 2.4 times as much each as 100)."""


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return `old` with `new` laid over it, where "results" is united and any other key replaced.

    Neither argument is changed: LangGraph applies writes to a copy of its channel that shares the dictionary.
    """
    merged = {**old, **new}
    if RESULTS in old and RESULTS in new:
        merged[RESULTS] = {**old[RESULTS], **new[RESULTS]}
    return merged


DictState: Any = Annotated[dict[str, Any], merge]
"""The state of every graph here. A bare `dict` cannot take the writes of parallel Sends."""


def create_sends(target_node: str, payloads: Iterable[Any]) -> list[Send]:
    """Return one Send per payload, in their order."""
    return [Send(target_node, payload) for payload in payloads]


def chunks(items: Sequence[T], size: int = MAX_SENDS) -> Iterator[tuple[int, Sequence[T]]]:
    """Cut a sequence into pieces of at most `size`, each with the index of its first item.

    Raises:
        ValueError: `size` is less than one.
    """
    if size < 1:
        raise ValueError(f"A chunk holds at least one item, not {size}.")
    for start in range(0, len(items), size):
        yield start, items[start : start + size]


def chunk_size(count: int, most: int = MAX_SENDS) -> int:
    """Return how many items a chunk takes so that `count` of them make at most `most` chunks of at least `most`."""
    return max(most, -(-count // most))
