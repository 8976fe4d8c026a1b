"""Who is connected to the engine, and since when nobody has been."""

from dataclasses import dataclass, field

from jobs.ports import Clock


@dataclass
class Presence:
    """Counts connections.

    Args:
        clock: Time.
    """

    clock: Clock
    connections: int = field(default=0, init=False)
    _last_seen: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        """Count the start as a visit."""
        self._last_seen = self.clock.monotonic()

    def come(self) -> None:
        """Count a connection in."""
        self.connections += 1

    def go(self) -> None:
        """Count a connection out."""
        self.connections -= 1
        self._last_seen = self.clock.monotonic()

    def idle_for(self) -> float:
        """Return for how many seconds nobody has been connected."""
        return 0.0 if self.connections else self.clock.monotonic() - self._last_seen
