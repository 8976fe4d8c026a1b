"""Where times are on the line of a tree: the bars of its jobs, and the marks above them, as SVG in percent."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from server.report.job_times import Part
from server.report.wording import duration, told

_STEPS: Final = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400),
    *(2 * 86_400, 5 * 86_400, 10 * 86_400, 30 * 86_400, 90 * 86_400, 365 * 86_400),
)
_MOST_MARKS: Final = 6
_LEAST_PERCENT: Final = 0.35
"""Width of the shortest bar: two pixels of 600."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeAxis:
    """The time of a tree.

    Args:
        zero: Seconds since the epoch at which it begins.
        end: Seconds since the epoch at which it ends.
        step: Seconds between two marks.
        is_open: Whether the tree goes on at its end.
    """

    zero: float
    end: float
    step: float
    is_open: bool

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "TimeAxis":
        """Return that of a document."""
        tree, jobs = document["tree"], document["jobs"]
        zero = min([tree["createdAt"], *(row["createdAt"] for row in jobs if "createdAt" in row)])
        end = max(tree.get("endedAt", tree["now"]), zero + 1)
        step = next((one for one in _STEPS if (end - zero) / one <= _MOST_MARKS), _STEPS[-1])
        return cls(zero=zero, end=end, step=step, is_open="endedAt" not in tree)

    @property
    def step_percent(self) -> float:
        """Percent of the line between two marks."""
        return 100 * self.step / (self.end - self.zero)

    def marks(self) -> Iterator[str]:
        """Yield the marks above the bars."""
        count = int(90 / self.step_percent)
        for number in range(count + 1):
            yield f'<text x="{number * self.step_percent:.2f}%" y="12">{duration(number * self.step)}</text>'

    def bar(self, parts: Sequence[Part]) -> str:
        """Return the bar of a job; those who do not see it are told."""
        said = escape(told(list(parts)))
        drawn = "".join(self._rect(part) for part in parts)
        return f'<svg class="bar" role="img" aria-label="{said}"><title>{said}</title>{drawn}</svg>'

    def _rect(self, part: Part) -> str:
        begin, end = self._percent(part.since), self._percent(part.until)
        width = max(_LEAST_PERCENT, end - begin)
        begin = min(begin, 100 - width)
        return _rect(kind_of(part), f'x="{begin:.2f}%" width="{width:.2f}%"')

    def _percent(self, at: float) -> float:
        return min(100.0, max(0.0, 100 * (at - self.zero) / (self.end - self.zero)))


def kind_of(part: Part) -> str:
    """Return the kind of bar of a part: what became of its attempt, or why it did no work."""
    return {"working": part.how, "children": "wait", "permission": "wait"}.get(part.what, part.what)


def sample_bar(kind: str) -> str:
    """Return a short bar of a kind, for what explains them."""
    drawn = _rect(kind, 'width="100%"')
    return f'<svg class="bar" aria-hidden="true">{drawn}</svg>'


def _rect(kind: str, place: str) -> str:
    if kind in ("queued", "paused"):
        return f'<rect class="is-{kind}" {place} y="7" height="2"/>'
    if kind == "wait":
        return f'<rect class="is-wait" {place} y="4.5" height="7" rx="2" fill="url(#wait)"/>'
    return f'<rect class="is-{kind}" {place} y="4" height="8" rx="2"/>'
