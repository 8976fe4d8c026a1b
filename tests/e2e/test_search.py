"""`claude-jobs search`: finds words of tasks, answers and transcripts of all trees, and says what it did not search."""

import json
import os
import shlex
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.engines import House, Pump, house

COMMAND = "grep -rn Quetzalcoatl src\nsk-ant-api03-" + "a" * 90


@pytest.fixture(scope="module")
def made() -> Iterator[House]:
    """A house with one job for each thing that is searched for."""
    with house() as made:
        (made.work / "sub").mkdir()
        frames = (
            _says({"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": COMMAND}}),
            _says({"type": "text", "text": "a Pterodactyl"}),
            {
                "type": "result",
                "subtype": "success",
                "is_error": False,
                "result": "a Pterodactyl",
                "num_turns": 1,
                "total_cost_usd": 0.0,
            },
        )
        (made.work / "frames").write_text("".join(f"{json.dumps(frame)}\n" for frame in frames))
        with made.pump() as pump:
            for task, more in (
                ("repair the flaky-test of module_x, cafe au lait", {}),
                ("only below", {"cwd": "sub"}),
                (f"stub:replay={made.work / 'frames'}", {}),
                ("fails with stub:exit=3 and platypus", {}),
                ("a NEAR( \"quoted phrase* OR '; drop \x1b[31mmarsupial\x1b[0m", {}),
            ):
                pump.settled(pump.json("claude_run_async", task=task, **more)["jobId"])
        yield made


def _says(block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "assistant", "message": {"id": "m1", "role": "assistant", "content": [block]}}


def found(made: House, *arguments: str) -> list[dict[str, Any]]:
    done = made.run("search", *arguments, "--json")
    hits: list[dict[str, Any]] = json.loads(done.stdout)["hits"]
    assert done.returncode == (0 if hits else 1)
    for hit in hits:
        assert all(start < end for start, end in hit["matches"])
    return hits


@pytest.mark.parametrize(
    ("text", "where", "shown"),
    [
        ("FLAKY", "task", "flaky"),
        ("flaky-test", "task", "flaky-test"),
        ("module_x café", "task", "cafe"),
        ("pterodactyl", "answer", "Pterodactyl"),
        ('near( "quoted', "task", "quoted"),
        ("phrase* OR", "task", "phrase"),
        ("marsupial", "task", "marsupial"),
    ],
)
def test_words_are_found_as_they_are_typed_and_nothing_is_an_operator(made: House, text: str, where: str, shown: str):
    [hit] = found(made, text)
    assert hit["where"] == where
    assert shown in [hit["excerpt"][start:end] for start, end in hit["matches"]]
    assert "\x1b" not in hit["excerpt"]


@pytest.mark.parametrize("text", ["flak", "quoted drop_table", "flaky NOT pterodactyl", "flaky AND NEAR"])
def test_a_part_of_a_word_or_a_word_that_is_missing_finds_nothing_and_says_so(made: House, text: str):
    done = made.run("search", text)
    assert (done.returncode, done.stdout) == (1, "")
    assert "No job has these words in its task or answer; --transcripts searches what they said." in done.stderr


def test_a_transcript_is_searched_where_that_is_asked_for_and_shows_no_key(made: House):
    assert found(made, "quetzalcoatl") == []
    [hit] = found(made, "quetzalcoatl", "--transcripts")
    assert hit["where"] == "transcript"
    assert "grep -rn Quetzalcoatl src [redacted]" in hit["excerpt"]
    assert "aaaa" not in hit["excerpt"]
    searched = json.loads(made.run("search", "quetzalcoatl", "--transcripts", "--json").stdout)["transcripts"]
    assert (searched["searched"], searched["notSearched"]) == (5, 0)


def test_status_directory_and_age_narrow_the_search(made: House):
    assert len(found(made, "platypus", "--status", "failed")) == 1
    assert found(made, "platypus", "--status", "completed") == []
    assert len(found(made, "below", "--directory", str(made.work / "sub"))) == 1
    assert len(found(made, "below", "--directory", ".")) == 1
    assert found(made, "flaky", "--directory", "sub") == []
    assert len(found(made, "flaky", "--since", "1h")) == 1
    assert found(made, "flaky", "--before", "1h") == []
    assert len(found(made, "stub", "--limit", "1")) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["flaky", "--since", "soon"], "'soon' is not an age; write a number and a unit, such as 30m, 2h, 3d or 1w"),
        (["flaky", "--before", "-3d"], "'-3d' is not an age"),
        (["flaky", "--status", "done"], "'done' is not one of"),
        (["?!*"], "it has no letters or digits. Give words to search for"),
        ([""], "it has no letters or digits"),
    ],
)
def test_what_cannot_be_searched_for_is_said(made: House, arguments: list[str], said: str):
    done = made.run("search", *arguments)
    assert done.returncode != 0
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_a_line_names_the_job_its_status_and_age(made: House):
    [line] = made.run("search", "pterodactyl").stdout.splitlines()
    job, status, age, ago, where, *excerpt = line.split()
    assert job.startswith("j")
    assert (status, ago, where, excerpt) == ("completed", "ago", "answer", ["a", "Pterodactyl"])
    assert age[-1] in "sm"


def test_the_index_is_private_and_survives_its_own_loss_and_that_of_the_database(made: House):
    assert len(found(made, "flaky")) == 1
    index = made.paths.search_index
    assert stat.S_IMODE(index.stat().st_mode) == 0o600
    index.write_bytes(b"no database" * 1000)
    assert len(found(made, "flaky")) == 1

    made.kill_engine()
    made.wait_for_the_engine_to_go()
    for path in made.paths.home.glob("jobs.db-*"):
        path.unlink()
    made.paths.database.write_bytes(b"not a database at all" * 1000)
    # From the directories of the jobs.
    assert len(found(made, "flaky")) == 1
    assert len(found(made, "pterodactyl")) == 1


NEWER = "ALTER TABLE known ADD COLUMN size INTEGER NOT NULL DEFAULT 0; PRAGMA user_version = 99"
OTHER = "DROP TABLE doc; CREATE TABLE doc (body TEXT); UPDATE known SET attempt = 1"
EMPTIED = "DELETE FROM doc_data; DELETE FROM doc_content"
FOREIGN = "CREATE TABLE photos (path TEXT) STRICT"


def changed(statements: str) -> Callable[[Path], object]:
    """Return what changes an index by SQL."""

    def change(index: Path) -> None:
        with closing(sqlite3.connect(index)) as connection:
            connection.executescript(statements)

    return change


def foreign(index: Path) -> None:
    index.unlink()
    changed(FOREIGN)(index)


def pipe(index: Path) -> None:
    index.unlink()
    os.mkfifo(index)


def link_to_nothing(index: Path) -> None:
    index.unlink()
    index.symlink_to(index.parent / "gone" / "search.db")


@pytest.mark.parametrize(
    "harm",
    [
        changed(NEWER),
        changed(OTHER),
        changed(EMPTIED),
        changed("PRAGMA user_version = 0"),
        foreign,
        pipe,
        link_to_nothing,
        lambda index: index.chmod(0o400),
        lambda index: index.chmod(0),
        lambda index: os.truncate(index, index.stat().st_size // 2),
        lambda index: index.write_bytes(b""),
    ],
    ids=["newer", "other", "emptied", "older", "foreign", "pipe", "link", "read-only", "unreadable", "half", "empty"],
)
def test_an_index_that_cannot_be_used_is_made_again_by_the_search_that_meets_it(
    made: House, harm: Callable[[Path], object]
):
    assert len(found(made, "flaky")) == 1
    harm(made.paths.search_index)
    done = made.run("search", "flaky")
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)
    assert stat.S_ISREG(made.paths.search_index.lstat().st_mode)
    assert stat.S_IMODE(made.paths.search_index.stat().st_mode) == 0o600
    assert len(found(made, "pterodactyl")) == 1


@pytest.mark.parametrize("name", ["search.db", "search.db-journal"])
def test_a_directory_in_the_place_of_the_index_is_left_alone_and_doctor_says_what_to_do(made: House, name: str):
    assert len(found(made, "flaky")) == 1
    taken = made.paths.home / name
    made.paths.search_index.write_bytes(b"no database" * 1000)
    taken.unlink(missing_ok=True)
    (taken / "mine").mkdir(parents=True)

    refused = made.run("search", "flaky")
    assert refused.returncode == 1
    assert f"{taken} is a directory" in " ".join(refused.stderr.split())
    assert "`claude-jobs doctor`" in refused.stderr

    findings = json.loads(made.run("doctor", "--json").stdout)["findings"]
    [finding] = [one for one in findings if one["name"] == "Search index"]
    assert (finding["status"], str(taken) in finding["detail"]) == ("note", True)
    command = finding["remedy"].split("`")[1]
    subprocess.run(shlex.split(command), check=True, timeout=60)
    assert (taken.with_name(f"{name}.aside") / "mine").is_dir()
    assert len(found(made, "flaky")) == 1
    shutil.rmtree(taken.with_name(f"{name}.aside"))


def test_a_job_that_is_retried_is_found_by_its_new_answer_and_a_pruned_one_by_nothing():
    with house(CLAUDE_JOBS_KEEP_DAYS="30") as made:
        stream = made.base / "stream"
        stream.write_text("")
        with made.pump() as pump:
            job = pump.json("claude_run_async", task=f"first aardvark stub:replay={stream}")["jobId"]
            pump.settled(job)
            assert found(made, "wombat") == []
            retry_with(pump, job)
            assert [hit["jobId"] for hit in found(made, "aardvark")] == [job]
        made.run("prune", job)
        with closing(sqlite3.connect(made.paths.search_index)) as index:
            assert index.execute("SELECT count(*) FROM doc").fetchone() == (0,)
        assert found(made, "aardvark") == []


def retry_with(pump: Pump, job: str) -> None:
    pump.json("claude_retry", jobId=job)
    pump.settled(job)


def test_a_backup_has_no_index_and_is_searched_all_the_same(made: House):
    archive = made.base / "jobs.tar.gz"
    assert made.run("backup", str(archive)).returncode == 0
    unpacked = made.base / "copy"
    shutil.unpack_archive(archive, unpacked, filter="data")
    assert not list(unpacked.rglob("search.db*"))
    done = made.run("search", "flaky", "--json", CLAUDE_JOBS_HOME=str(unpacked / "claude-jobs"))
    try:
        assert len(json.loads(done.stdout)["hits"]) == 1
    finally:
        made.run("engine", "stop", CLAUDE_JOBS_HOME=str(unpacked / "claude-jobs"))
