"""The record of an attempt: its launch and its end, also as an earlier engine left them."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from jobs.model import Attempt, Job, JobStatus
from jobs.processes.attempt_dir import AttemptDirectory
from jobs.runner.manifest import (
    END,
    JOB,
    LaunchManifest,
    read_end_manifest,
    read_launch_manifest,
    write_end_manifest,
    write_launch_manifest,
)
from jobs.spec import JobSpec

LAUNCHED = LaunchManifest(
    job=Job(
        seq=1,
        id="j1",
        parent_id=None,
        depth=0,
        created_at=0.5,
        root_id="b1",
        batch_id="b1",
        path="b1/j1",
        spec=JobSpec(task="two\nlines", cwd="/"),
        status=JobStatus.RUNNING,
        attempt=1,
    ),
    attempt=Attempt(job_id="j1", number=1, session_id="s", token_hash="t", started_at=1.0),
)
ENDED = replace(LAUNCHED.job, status=JobStatus.COMPLETED, ended_at=2.0)
CANCELLED = replace(LAUNCHED.job, status=JobStatus.CANCELLED, ended_at=2.0)


@pytest.fixture
def directory(tmp_path: Path) -> AttemptDirectory:
    return AttemptDirectory.create(tmp_path / "1")


def test_launch_and_end_are_two_lines_of_one_file(directory: AttemptDirectory):
    write_launch_manifest(directory, LAUNCHED)
    assert (read_launch_manifest(directory), read_end_manifest(directory)) == (LAUNCHED, None)
    write_end_manifest(directory, ENDED)
    assert (read_launch_manifest(directory), read_end_manifest(directory)) == (LAUNCHED, ENDED)
    assert [path.name for path in directory.path.iterdir()] == [JOB]


def test_an_end_that_was_cut_off_counts_as_none_and_can_be_noted_again(directory: AttemptDirectory):
    write_launch_manifest(directory, LAUNCHED)
    with (directory.path / JOB).open("ab") as file:
        file.write(TypeAdapter(Job).dump_json(ENDED)[:-9])
    assert (read_launch_manifest(directory), read_end_manifest(directory)) == (LAUNCHED, None)
    write_end_manifest(directory, ENDED)
    assert (read_launch_manifest(directory), read_end_manifest(directory)) == (LAUNCHED, ENDED)


def test_a_job_that_removed_its_record_gets_none(directory: AttemptDirectory):
    with pytest.raises(FileNotFoundError):
        write_end_manifest(directory, ENDED)
    assert (read_launch_manifest(directory), read_end_manifest(directory)) == (None, None)


def test_the_two_files_of_an_earlier_engine_are_read(directory: AttemptDirectory):
    (directory.path / JOB).write_bytes(TypeAdapter(LaunchManifest).dump_json(LAUNCHED))
    (directory.path / END).write_bytes(TypeAdapter(Job).dump_json(ENDED))
    assert (read_launch_manifest(directory), read_end_manifest(directory)) == (LAUNCHED, ENDED)


def test_an_attempt_that_an_earlier_engine_launched_gets_its_end_from_this_one(directory: AttemptDirectory):
    (directory.path / JOB).write_bytes(TypeAdapter(LaunchManifest).dump_json(LAUNCHED))
    write_end_manifest(directory, CANCELLED)
    assert (read_launch_manifest(directory), read_end_manifest(directory)) == (LAUNCHED, CANCELLED)


def test_an_option_is_read_under_the_name_that_an_earlier_version_wrote(directory: AttemptDirectory):
    text = 'a task that quotes "divisible":true'
    spec = replace(LAUNCHED.job.spec, task=text, can_decompose=True)
    dividing = replace(LAUNCHED, job=replace(LAUNCHED.job, spec=spec))
    write_launch_manifest(directory, dividing)
    write_end_manifest(directory, replace(ENDED, spec=spec))
    record = directory.path / JOB
    kept = record.read_bytes()
    record.write_bytes(kept.replace(b'"can_decompose":', b'"divisible":'))
    assert record.read_bytes() != kept
    assert read_launch_manifest(directory) == dividing
    assert read_end_manifest(directory) == replace(ENDED, spec=spec)
