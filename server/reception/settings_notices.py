"""Tells a person's client how its settings differ from those in force, and reads the settings file when it changes."""

import logging

import anyio.to_thread

from jobs.effective_settings import EffectiveSettings
from jobs.patience import insist
from jobs.ports import Store
from server.clock import beat
from server.front_door.hello import Hello, Role

FILE_SECONDS = 1.0
"""Seconds between two looks at the settings file, which cost one `stat` each."""


class SettingsNotices:
    """What an engine does about its settings while it runs.

    Args:
        settings: The settings in force.
        store: Knows whether jobs are live.
    """

    def __init__(self, settings: EffectiveSettings, store: Store) -> None:
        self._settings = settings
        self._store = store

    async def line_for(self, hello: Hello) -> str | None:
        """Return one line for a person whose settings are not those in force; None for a job's client.

        Args:
            hello: What the client said of itself.
        """
        if hello.role != Role.MCP or hello.token or hello.settings is None:
            return None
        dropped = self._settings.take_dropped()
        if self._settings.notice(hello.settings, jobs_live=False) is None:
            return dropped
        live = bool(await insist(self._store.unfinished, "asking for live jobs"))
        said = self._settings.notice(hello.settings, jobs_live=live)
        return " ".join(filter(None, (dropped, said)))

    async def watch_file(self) -> None:
        """Read the settings file again whenever it changes, for as long as the engine runs."""
        while True:
            await beat(FILE_SECONDS)
            # Asked here and not in a thread: twice as many switches a second would be an idle engine's largest cost.
            if self._settings.outdated() and await anyio.to_thread.run_sync(self._settings.refresh):
                logging.getLogger().setLevel(self._settings.settings.log_level)
