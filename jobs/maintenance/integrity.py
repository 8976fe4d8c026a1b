"""Checks a large database as a whole after a crash, while it is in use: the start checks only a part."""

import logging
import sqlite3
import threading
from pathlib import Path

import anyio
import anyio.to_thread

from jobs.store.corruption import check_tables, is_unchecked, note_checked, note_damage

logger = logging.getLogger(__name__)

DELAY_SECONDS = 20.0
"""Seconds after the start: the first clients and the resumed jobs have the disk to themselves until then."""


async def check_after_crash(database: Path, *, delay: float = DELAY_SECONDS) -> None:
    """Check a database that was closed by a crash and not checked as a whole since; note what is damaged.

    Args:
        database: The database, in use.
        delay: Seconds to wait before.
    """
    await anyio.sleep(delay)
    if not await anyio.to_thread.run_sync(is_unchecked, database):
        return
    stop = threading.Event()
    try:
        # Abandoned when the engine exits: it must not wait for a check of a minute.
        damage = await anyio.to_thread.run_sync(check_tables, database, stop.is_set, abandon_on_cancel=True)
    except sqlite3.Error as error:
        logger.warning("the database could not be checked after a crash: %s", error)
        return
    finally:
        stop.set()
    if damage is None:
        await anyio.to_thread.run_sync(note_checked, database)
        return
    logger.error("the job database is damaged: %s", damage)
    await anyio.to_thread.run_sync(note_damage, database, damage)
