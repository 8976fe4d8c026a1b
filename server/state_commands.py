"""The commands about the state directory itself."""

import os
import sqlite3
import time
from pathlib import Path
from typing import Annotated

import typer

from server.front_door.locate import prepare, state_dir
from server.front_door.location import NAME, Location, read_location
from server.terminal.speech import AsJson, complaints, fail, say, say_json


def backup(
    file: Annotated[Path, typer.Argument(help="The file to write, for example jobs.tar.gz; it must not exist.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Write every job with its transcripts to one file; an engine may run meanwhile.

    The file is a gzipped tar archive of mode 0600. It holds the job database and what the jobs wrote, and no tokens, no
    environments and no settings.

    To restore it, unpack it and name its directory:

        tar -xzf FILE && CLAUDE_JOBS_HOME="$PWD/claude-jobs" claude-jobs list

    Or move that directory to where the state directory was, with no engine running. It is a copy: jobs that were not
    over are not started by themselves; `claude-jobs retry ID` runs one.
    """
    # Imported here: no other command needs it, and it imports pydantic.
    from jobs.upkeep.backup import back_up

    with complaints():
        places = prepare(state_dir(os.environ))
        target = file.expanduser().absolute()
        known = read_location(places.home)
        # Without device and inode it is a copy wherever it is unpacked, with the original gone too.
        location = Location(key=known.key if known else "", path=str(places.home), copied_at=time.time())
        try:
            attempts = back_up(places.database, places.trees, target, {NAME: location.encode()})
        except FileExistsError:
            fail(f"{target} exists already. Give another name, or remove it first.")
        except FileNotFoundError as error:
            if not target.parent.is_dir():
                fail(f"There is no directory {target.parent}. Make it first, or name a file in another.")
            fail(f"There is no {error.filename}: no job has been started here, so there is nothing to back up.")
        except sqlite3.Error as error:
            fail(f"{places.database} cannot be read: {error}. `claude-jobs doctor` says what is wrong with it.")
    size = target.stat().st_size
    if as_json:
        say_json({"file": str(target), "attempts": attempts, "bytes": size})
    else:
        say(f"{target}: {attempts} attempts of jobs, {size} bytes.")
