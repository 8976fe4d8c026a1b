"""Notices for a person's client on how its settings differ from those in force, and the watch on the settings file."""

import logging
from collections.abc import Collection

import anyio.to_thread

from jobs.effective_settings import EffectiveSettings
from jobs.ports import Store
from jobs.settings_sources import misspelt
from jobs.util.retrying import retry_while_unavailable
from jobs.util.text import strip_terminal_codes
from server.client.wire import Hello, Role
from server.engine.supervised_tasks import beat

FILE_SECONDS = 1.0
"""Seconds between two checks of the settings file, which cost one `stat` each."""


_MOST_TOLD = 1000
"""Variable names that are remembered as reported; after that many, none is reported any more."""

_MOST_SAID = 1000
"""Most characters of the notice about them."""


class SettingsNotices:
    """Notices for clients whose settings differ from the engine's, and the watch on the settings file.

    Args:
        settings: The settings in force.
        store: Knows whether jobs are live.
    """

    def __init__(self, settings: EffectiveSettings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._told: set[str] = set()

    async def line_for(self, hello: Hello) -> str | None:
        """Return one line for a person whose settings are not those in force; None for a job's client.

        A variable that is no setting is reported once in an engine's life, and not on each command of a script.

        Args:
            hello: What the client said about itself.
        """
        if hello.role != Role.MCP or hello.token or hello.settings is None:
            return None
        said = [self._misspelt(hello.settings), self._settings.take_dropped()]
        if self._settings.notice(hello.settings, jobs_live=False) is not None:
            live = bool(await retry_while_unavailable(self._store.unfinished, "asking for live jobs"))
            said.append(self._settings.notice(hello.settings, jobs_live=live))
        return " ".join(filter(None, said)) or None

    def _misspelt(self, variables: Collection[str]) -> str | None:
        new = misspelt([name for name in variables if name not in self._told])
        if new is None or len(self._told) > _MOST_TOLD:
            return None
        self._told.update(variables)
        return f"{strip_terminal_codes(new)[:_MOST_SAID]} `claude-jobs settings` lists them."

    async def watch_file(self) -> None:
        """Read the settings file again whenever it changes, for as long as the engine runs."""
        while True:
            await beat(FILE_SECONDS)
            # Checked here and not in a thread: twice as many switches a second would be an idle engine's largest cost.
            if self._settings.outdated() and await anyio.to_thread.run_sync(self._settings.refresh):
                logging.getLogger().setLevel(self._settings.settings.log_level)
