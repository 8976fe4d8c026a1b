"""How a `claude` is started: what came with a later version has another way in an earlier one."""

import re
from dataclasses import dataclass
from typing import Final

OLDEST_VERSION: Final = "2.1.197"
"""Oldest Claude Code that runs jobs: what npm installs under Node 20. Measured with 2.1.197, 240, 260, 261, 325 and 326
of npm and the bundled 2.1.332 (`tests/e2e/test_claude_cli.py` with `CLAUDE_JOBS_CLI`)."""

_AWAITS_SINCE: Final = "2.1.261"
_TAKES_SERVERS_SINCE: Final = "2.1.326"
_VERSION: Final = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}\b", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWay:
    """What a version understands.

    Args:
        awaits: It has `--await-initialize`. From then on it also reads its stdin from a file to the end (2.1.197 ends
            at once without an answer) and has `client_composed` (2.1.240 takes a task that begins with "/" for a
            command).
        takes_servers: It takes MCP servers from the `initialize` request.
    """

    awaits: bool = True
    takes_servers: bool = True


NEWEST: Final = StartWay()


def way_of(version: str | None) -> StartWay:
    """Return how a version is started; one that is not known counts as new."""
    known = _VERSION.match(version or "")
    if known is None:
        return NEWEST
    numbers = numbers_of(known.group())
    return StartWay(
        awaits=numbers >= numbers_of(_AWAITS_SINCE), takes_servers=numbers >= numbers_of(_TAKES_SERVERS_SINCE)
    )


def was_taken_for_newer(version: str | None, taken_for: str | None) -> bool:
    """Tell whether a `claude` lacks what it was started with; from `--await-initialize` on it does not say so itself.

    Args:
        version: What its first frame said, or None where there was none.
        taken_for: The version that it was started as.
    """
    real, way = way_of(version), way_of(taken_for)
    return real.awaits < way.awaits or real.takes_servers < way.takes_servers


def is_too_old(version: str | None) -> bool:
    """Tell whether a version runs no jobs; one that is not known may: a wrapper may not pass the option on."""
    return version is not None and numbers_of(version) < numbers_of(OLDEST_VERSION)


def numbers_of(version: str) -> tuple[int, ...]:
    """Return the numbers of a version such as "2.1.332"."""
    return tuple(map(int, version.split(".")))
