"""Records where a state directory is when an engine starts, and ends the unfinished jobs of a copy."""

import hashlib
import logging
import os
import time
from functools import partial
from pathlib import Path

import anyio.to_thread

from jobs.maintenance.copied_state import end_copied_jobs, processes_live
from jobs.ports import Store
from server.client.location import Location, Relation, read_location, relation_of, write_location
from server.client.state_dir import StatePaths

logger = logging.getLogger(__name__)


async def bind(paths: StatePaths, store: Store) -> Location:
    """Write and return the present location of a state directory; in a copy, unfinished jobs are ended first.

    Args:
        paths: A state directory whose lock the caller holds.
        store: Its open store.

    Raises:
        StoreError: The end of a copy's jobs cannot be written now.
        OSError: The location of a copy cannot be written.
    """
    known = read_location(paths.home)
    relation = await anyio.to_thread.run_sync(_relation, paths.home, known)
    if relation is Relation.COPIED and known is not None:
        location = await _bind_copy(paths, store, known)
    elif known is None:
        # The key of versions without a location file, so that their processes are still recognised.
        location = Location(key=hashlib.sha256(str(paths.trees).encode()).hexdigest()[:8], path="")
    else:
        location = known
    status = paths.home.stat()
    bound = location._replace(path=str(paths.home), device=status.st_dev, inode=status.st_ino)
    if bound != known:
        try:
            await anyio.to_thread.run_sync(write_location, paths.home, bound)
        except OSError:
            if relation is Relation.COPIED:
                raise
            # A full disk must not keep the engine from starting: it can still end jobs. The next one writes it.
            logger.exception("the location of %s could not be written", paths.home)
    return bound


async def _bind_copy(paths: StatePaths, store: Store, known: Location) -> Location:
    # The original's page, with the browsers that it let in: it would be served at the same port.
    await anyio.to_thread.run_sync(partial(paths.page.unlink, missing_ok=True))
    ended = await end_copied_jobs(
        store,
        lambda job, attempt: paths.trees / job.root_id / job.id / str(attempt),
        original=known.path,
        at=time.time(),
    )
    location = Location(
        key=os.urandom(4).hex(), path="", copied_from=known.path, copied_at=time.time(), not_started=ended
    )
    logger.warning("%s", location.says())
    return location


def _relation(home: Path, known: Location | None) -> Relation:
    relation = relation_of(home, known)
    if relation is Relation.MOVED and known is not None and processes_live(known.key):
        return Relation.COPIED
    return relation
