"""`claude-jobs report` and `trace` of a whole engine: of a tree that runs, one that is over, and parts of both."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.engines import MAIN, PYTHON_STUB, House, house
from tests.support.review_scene import (
    API,
    AUTH,
    BROKEN,
    OAUTH,
    PASSWORD,
    ROOT,
    SESSION,
    SUMMARY,
    TOKENS,
    Scene,
    review_scene,
)
from tests.support.seat import seated
from tests.support.shells import SHELL_CLI, job_shell
from tests.support.waiting import until_now
from tests.unit.report.wire import decoded

pytestmark = pytest.mark.timeout(300)

SECRET = "correct-horse-battery-staple-42"


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with review_scene() as made:
        yield made


@pytest.fixture(scope="module")
def made() -> Iterator[House]:
    with house(CLAUDE_JOBS_CLI=str(PYTHON_STUB), ANTHROPIC_AUTH_TOKEN=SECRET) as built:
        yield built


def record(made: House, identity: str, *options: str) -> Any:
    done = made.run("report", "--json", identity, *options)
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def ended(made: House, *tasks: str) -> str:
    """Run a batch to its end, and return its id."""
    batch = made.run("batch", "--detach", *tasks).stdout.split()[-1]
    made.run("wait", batch)
    return batch


def trace_of(made: House, identity: str) -> bytes:
    """Return what the command writes to standard output."""
    command = [sys.executable, str(MAIN), "trace", identity]
    done = subprocess.run(command, env=dict(made.environ), cwd=made.work, capture_output=True, timeout=60, check=True)
    return done.stdout


def test_a_report_of_a_tree_that_runs_tells_of_every_job(scene: Scene):
    found = record(scene.made, scene.ids[ROOT])
    jobs = {row["task"]: row for row in found["jobs"]}
    assert set(jobs) == set(scene.ids)
    assert [row["task"] for row in found["jobs"]][:6] == [ROOT, AUTH, TOKENS, PASSWORD, OAUTH, SESSION]
    assert jobs[TOKENS]["parentJobId"] == scene.ids[AUTH]
    assert jobs[AUTH]["children"] == 4
    assert jobs[API]["answer"] == "4 findings in 2 files"
    assert jobs[BROKEN]["error"] == "Prompt is too long"
    assert jobs[OAUTH]["activity"] == "Grep: redirect_uri"
    assert jobs[SESSION]["waitingFor"] == "permission"
    assert [what for what, *_ in jobs[AUTH]["attempts"][0]["waits"]] == ["children"]
    assert "to" not in jobs[AUTH]["attempts"][0]
    assert jobs[API]["attempts"][0]["costUsd"] == pytest.approx(0.66)
    assert found["tree"]["counts"] == {"running": 5, "completed": 3, "failed": 1, "queued": 2}
    assert found["tree"]["asking"] == 1
    assert "endedAt" not in found["tree"]
    assert [row["depth"] for row in found["depths"]] == [0, 1, 2]
    assert [row["model"] for row in found["models"]] == ["claude-sonnet-5"]


def test_a_part_of_a_tree_is_reported_as_that(scene: Scene):
    part = record(scene.made, scene.ids[AUTH])
    assert [row["task"] for row in part["jobs"]] == [AUTH, TOKENS, PASSWORD, OAUTH, SESSION]
    assert (part["tree"]["isPart"], part["tree"]["rootId"]) == (True, scene.ids[ROOT])
    batch = next(row["batchId"] for row in part["jobs"] if row["task"] == OAUTH)
    inner = record(scene.made, batch)
    assert [row["task"] for row in inner["jobs"]] == [TOKENS, PASSWORD, OAUTH, SESSION]
    # The beginning of an id is enough.
    assert record(scene.made, scene.ids[OAUTH][:12])["tree"]["id"] == scene.ids[OAUTH]


def test_the_page_and_the_trace_of_a_tree_that_runs_are_written_to_standard_output(scene: Scene):
    page = scene.made.run("report", scene.ids[ROOT])
    assert (page.returncode, page.stderr) == (0, "")
    assert page.stdout.startswith("<!doctype html>")
    assert page.stdout.endswith("</html>\n")
    assert all(task in page.stdout for task in scene.ids)
    assert "not over yet" in page.stdout


def test_a_trace_has_a_track_for_each_job_below_that_of_its_parent(scene: Scene):
    path = scene.made.base / "tree.perfetto-trace"
    assert scene.made.run("trace", scene.ids[ROOT], "-o", str(path)).returncode == 0
    packets = decoded(path.read_bytes())["packet"]
    tracks = {
        one["track_descriptor"].get("name"): one["track_descriptor"] for one in packets if "track_descriptor" in one
    }
    assert set(scene.ids) < set(tracks)
    assert tracks[TOKENS]["parent_uuid"] == tracks[AUTH]["uuid"]
    assert tracks[AUTH]["parent_uuid"] == tracks[ROOT]["uuid"]
    # It begins with the tree, and its times are those of the day.
    created = record(scene.made, scene.ids[ROOT])["tree"]["createdAt"]
    times = [one["timestamp"] for one in packets if "timestamp" in one]
    assert abs(min(times) / 1e9 - created) < 0.001
    on_auth = [
        one["track_event"] for one in packets if one.get("track_event", {}).get("track_uuid") == tracks[AUTH]["uuid"]
    ]
    names = [event["name"] for event in on_auth if event["type"] == 1]
    assert names[-2:] == ["attempt 1: running", "waits for its jobs"]
    assert f"starts {TOKENS}" in [event.get("name") for event in on_auth]
    assert f"{PASSWORD}: completed" in [event.get("name") for event in on_auth]


def test_a_tree_that_is_over_is_reported_whole_with_its_end():
    with review_scene() as scene:
        scene.end_all()
        until_now(lambda: scene.status(SUMMARY)["status"] == "completed", 60)
        scene.made.run("wait", scene.ids[ROOT])
        found = record(scene.made, scene.ids[ROOT])
        assert found["tree"]["counts"] == {"completed": 10, "failed": 1}
        assert found["tree"]["endedAt"] - found["tree"]["createdAt"] == pytest.approx(
            found["tree"]["elapsedSeconds"], abs=0.01
        )
        assert found["tree"]["costUsd"] == pytest.approx(sum(row["costUsd"] for row in found["jobs"]))
        auth = next(row for row in found["jobs"] if row["task"] == AUTH)
        # The waits of an attempt that is over are kept.
        assert [what for what, *_ in auth["attempts"][0]["waits"]] == ["children"]
        assert "<h2>Answer</h2>" in scene.made.run("report", scene.ids[ROOT]).stdout


def test_no_secret_of_the_tree_or_of_the_person_is_in_what_is_shared(made: House):
    batch = ended(made, f"stub:say={SECRET}", f"use {SECRET}")
    for options in ((), ("--json",), ("--no-answers",)):
        text = made.run("report", batch, *options).stdout
        assert SECRET not in text
        assert "[redacted]" in text
    assert SECRET.encode() not in trace_of(made, batch)


def test_without_answers_there_are_none(made: House):
    batch = ended(made, "first line of it\nsecond line stub:say=answered")
    for options in ((), ("--json",)):
        text = made.run("report", batch, "--no-answers", *options).stdout
        assert "first line of it" in text
        assert "second line" not in text
        assert "answered" not in text
    assert "answered" in made.run("report", batch).stdout


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_file_has_the_mode_of_the_persons_own_files(made: House, mask: int, mode: int):
    batch = ended(made, "stub:say=x")
    path = made.work / f"tree-{mask:o}.html"
    before = os.umask(mask)
    try:
        done = made.run("report", batch, "-o", path.name)
    finally:
        os.umask(before)
    assert done.stdout == ""
    assert f"Wrote {path}" in done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_text().startswith("<!doctype html>")
    assert [found.name for found in made.work.glob(".*part")] == []


def test_a_file_that_is_there_is_left_as_it_is(made: House):
    batch = ended(made, "stub:say=x")
    there = made.work / "there.html"
    there.write_text("mine")
    link = made.work / "link.html"
    link.symlink_to(made.work / "nowhere")
    for command in ("report", "trace"):
        for path in (there, link):
            done = made.run(command, batch, "-o", str(path))
            assert done.returncode == 1
            assert f"{path} exists already. Give another name" in done.stderr
    assert there.read_text() == "mine"
    missing = made.run("report", batch, "-o", str(made.work / "none" / "tree.html"))
    assert (missing.returncode, "Make it first" in missing.stderr) == (1, True)
    assert not (made.work / "nowhere").exists()


def test_a_trace_on_standard_output_is_that_of_a_file(made: House):
    batch = ended(made, "stub:say=x")
    path = made.work / "tree.perfetto-trace"
    assert made.run("trace", batch, "-o", str(path)).returncode == 0
    tracks = [
        [one for one in decoded(data)["packet"] if "track_descriptor" in one]
        for data in (path.read_bytes(), trace_of(made, batch))
    ]
    assert tracks[0] == tracks[1]


@pytest.mark.parametrize(("command", "name"), [("report", "tree.html"), ("trace", "tree.perfetto-trace")])
def test_a_terminal_is_refused_with_the_name_of_a_file_and_nothing_is_asked(made: House, command: str, name: str):
    with seated(made, command, "j404") as seat:
        assert seat.process.wait(60) == 1
        until_now(lambda: f"-o {name}, or > {name}" in " ".join(seat.written.split()))
        assert "<!doctype" not in seat.written


def test_what_is_not_there_is_said(made: House):
    for command in ("report", "trace"):
        done = made.run(command, "j404")
        assert (done.returncode, done.stdout) == (1, "")
        assert "'j404'" in done.stderr


def test_the_json_of_a_report_can_be_written_to_a_file(made: House):
    batch = ended(made, "stub:say=x")
    path = made.work / "tree.json"
    assert made.run("report", "--json", batch, "-o", str(path)).returncode == 0
    assert json.loads(path.read_text())["jobs"][0]["answer"] == "x"


def test_a_job_gets_no_report_of_its_tree():
    with house(CLAUDE_JOBS_CLI=SHELL_CLI) as built, built.pump() as person, job_shell(built, person) as shell:
        said = shell.run(*shell.with_home, *shell.cli("report", shell.job["jobId"]))
        assert "runs inside a job" in said
        assert "<!doctype" not in said


def test_a_hostile_answer_is_text_in_every_form(made: House):
    batch = ended(made, "stub:say=<script>alert(1)</script>", "stub:do=garbage")
    page = made.run("report", batch).stdout
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    for text in (page, made.run("report", "--json", batch).stdout):
        assert not {"\x1b", "\x07", "\x9b", "\x00"} & set(text)
