"""Keeps the settings variables of the client that started the engine, for the engines after it."""

import json
import logging
from pathlib import Path

from jobs.settings_sources import PREFIX, ClientVariables, known_variables
from jobs.util.state_file import read_file, replace_file

logger = logging.getLogger(__name__)

FILE = "engine-settings.json"
"""Name of the file in the state directory."""

_FORMAT = 1
_MOST_BYTES = 1024 * 1024


def write(home: Path, variables: ClientVariables) -> None:
    """Keep a client's variables for the engines that come after this one.

    The file has mode 0600, since a variable may hold credentials of an MCP server. It is replaced as a whole: a crash
    leaves the old one or the new one.

    Args:
        home: The state directory.
        variables: Variables of a person's client; those that name no setting are left out.

    Raises:
        OSError: The disk refused it; what was kept before stays.
    """
    known = known_variables().keys() - {f"{PREFIX}HOME"}
    values = {name: value for name, value in sorted(variables.values.items()) if name in known}
    text = json.dumps({"format": _FORMAT, "client": variables.client, "variables": values}, indent=2)
    replace_file(home / FILE, text + "\n")


def read(home: Path) -> ClientVariables | None:
    """Return the variables that an earlier engine kept, or None where there are none that can be read.

    Args:
        home: The state directory.
    """
    try:
        text = read_file(home / FILE, _MOST_BYTES)
        if text is None:
            logger.warning("the settings that an earlier engine kept in %s are no file of settings", home / FILE)
            return None
        found = json.loads(text)
        values = {str(name): str(value) for name, value in found["variables"].items()}
        return ClientVariables(values=values, client=str(found.get("client") or ""), kept=True)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        # Its settings are lost; an engine that does not start would lose the jobs as well.
        logger.warning("the settings that an earlier engine kept in %s cannot be read", home / FILE, exc_info=True)
        return None
