"""Manifest in an attempt's directory: describes its job, so that a lost database can be rebuilt from directories."""

from contextlib import suppress
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from jobs.model import Attempt, Job, Tree
from jobs.processes.attempt_dir import AttemptDirectory
from jobs.processes.fork_server import RECORD
from jobs.store.rows import with_current_names

JOB = RECORD
"""Its first line tells of the launch, the last one of the end."""
END = "end.json"
"""Where earlier engines wrote down the end."""

_MOST_BYTES = 32 * 1024 * 1024
"""Longest record that is read back: a task has at most a million characters, unless a person set more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchManifest:
    """Manifest of a launch, written before the process starts. It holds no environment and no token.

    Args:
        job: The job, running.
        attempt: The attempt; of its token it has the hash alone.
        tree: The tree, where the job is its root.
    """

    job: Job
    attempt: Attempt
    tree: Tree | None = None


# Built once: building an adapter costs more than a thousand uses of it.
_LAUNCHED = TypeAdapter(LaunchManifest)
_JOB = TypeAdapter(Job)


def launch_line(launched: LaunchManifest) -> bytes:
    """Return the line of a launch manifest."""
    return _LAUNCHED.dump_json(launched, exclude_defaults=True) + b"\n"


def write_launch_manifest(directory: AttemptDirectory, launched: LaunchManifest) -> None:
    """Write the launch manifest of an attempt, before its process exists.

    Raises:
        OSError: The disk refused it.
    """
    directory.write_note(JOB, launch_line(launched))


def write_end_manifest(directory: AttemptDirectory, job: Job) -> None:
    """Write the end manifest: how an attempt was settled, after the store has it.

    Raises:
        OSError: The disk refused it, or the job removed the file.
    """
    directory.add_line(JOB, _JOB.dump_json(job, exclude_defaults=True))


def read_launch_manifest(directory: AttemptDirectory) -> LaunchManifest | None:
    """Return the launch manifest, or None where it is gone or damaged."""
    launch, *_ = _lines(directory)
    try:
        return _LAUNCHED.validate_json(launch)
    except ValidationError:
        return None


def read_end_manifest(directory: AttemptDirectory) -> Job | None:
    """Return the job as it was settled, or None where it was not or the note is damaged."""
    _, *ends = _lines(directory)
    for text in (*reversed(ends), (directory.read_note(END, _MOST_BYTES) or b"").decode("utf-8", "replace")):
        # A line that a full disk cut off is not valid JSON.
        with suppress(ValidationError):
            return _JOB.validate_json(text)
    return None


def _lines(directory: AttemptDirectory) -> list[str]:
    text = (directory.read_note(JOB, _MOST_BYTES) or b"").decode("utf-8", "replace")
    return with_current_names(text).split("\n")
