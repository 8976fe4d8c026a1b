"""Job ids on the command line: a prefix is enough."""

from collections.abc import Iterable, Sequence

from server.cli.console import fail
from server.client.tool_client import Client

_SHOWN = 10


def whole_id(engine: Client, beginning: str) -> str:
    """Return the one id of a job or batch with this prefix; where there is none or more than one, end the command."""
    found = engine.ids_from(beginning) if beginning else []
    if len(found) != 1:
        fail(_problem(beginning, found))
    return found[0]


def _problem(beginning: str, found: Sequence[str]) -> str:
    if not found:
        return f"No job or batch has the id {beginning!r}, or one that begins so. `claude-jobs list` shows the jobs."
    shown = ", ".join(found[:_SHOWN])
    more = " and more" if len(found) > _SHOWN else ""
    return f"{beginning!r} is the beginning of more than one id: {shown}{more}. Give more characters."


def whole_ids(engine: Client, beginnings: Iterable[str]) -> list[str]:
    """Return the whole id of each prefix, as `whole_id` does, each once."""
    return list(dict.fromkeys(whole_id(engine, beginning) for beginning in beginnings))
