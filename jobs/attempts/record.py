"""What an attempt's directory says of its job, so that a lost database can be made again from the directories."""

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from jobs.claude.directory import AttemptDirectory
from jobs.model import Attempt, Job, Tree

JOB = "job.json"
END = "end.json"

_MOST_BYTES = 32 * 1024 * 1024
"""Longest record that is read back: a task has at most a million characters, unless a person set more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """What is known when an attempt's process is about to be launched. It holds no environment and no token.

    Args:
        job: The job, running.
        attempt: The attempt; of its token it has the hash alone.
        tree: The tree, with a job that stands at its top.
    """

    job: Job
    attempt: Attempt
    tree: Tree | None = None


# Built once: building an adapter costs more than a thousand uses of it.
_LAUNCHED = TypeAdapter(Launched)
_JOB = TypeAdapter(Job)


def note_launch(directory: AttemptDirectory, launched: Launched) -> None:
    """Write down what an attempt is, before its process exists.

    Raises:
        OSError: The disk refused it.
    """
    directory.write_note(JOB, _LAUNCHED.dump_json(launched, exclude_defaults=True))


def note_end(directory: AttemptDirectory, job: Job) -> None:
    """Write down how an attempt was settled, after the store has it.

    Raises:
        OSError: The disk refused it.
    """
    directory.write_note(END, _JOB.dump_json(job, exclude_defaults=True))


def launched_in(directory: AttemptDirectory) -> Launched | None:
    """Return what was noted at the launch, or None where that is gone or damaged."""
    text = directory.read_note(JOB, _MOST_BYTES)
    try:
        return None if text is None else _LAUNCHED.validate_json(text)
    except ValidationError:
        return None


def end_in(directory: AttemptDirectory) -> Job | None:
    """Return the job as it was settled, or None where it was not or the note is damaged."""
    text = directory.read_note(END, _MOST_BYTES)
    try:
        return None if text is None else _JOB.validate_json(text)
    except ValidationError:
        return None
