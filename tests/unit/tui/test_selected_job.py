"""What the view reads of the selected job, what it asks a person for, and what it does as engines come and go."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.processes.attempt_dir import AttemptDirectory
from server.cli import transcript
from server.client.state_dir import StatePaths, prepare
from server.tui.engine_link import STOPPED
from tests.unit.tui.stand_in import NOW, REVIEW, StandInLink, page, row, view

pytestmark = pytest.mark.anyio

REQUEST = {"requestId": "r1", "tool": "Bash", "input": json.dumps({"command": "git log -p"})}


def asking(*requests: Mapping[str, Any], job_id: str = "j4") -> dict[str, Any]:
    given = [{"inputChars": len(one["input"]), **one} for one in requests]
    return {"ok": True, "jobId": job_id, "task": "whole task", "requests": given}


@pytest.fixture
def paths(home: Path, monkeypatch: pytest.MonkeyPatch) -> StatePaths:
    monkeypatch.setattr(transcript, "LOOK_AGAIN", 0.01)
    return prepare(home / "state")


def write(paths: StatePaths, job_id: str, text: str, attempt: int = 1) -> None:
    directory = AttemptDirectory.create(paths.trees / "j0" / job_id / str(attempt))
    frame = {"type": "assistant", "message": {"content": [{"type": "text", "text": text}]}}
    with (directory.path / "out").open("a") as file:
        file.write(f"{json.dumps(frame)}\n")


async def test_a_job_that_stays_selected_is_read_whole_with_its_transcript(paths: StatePaths):
    link = StandInLink(j3={"ok": True, "jobId": "j3", "task": "the whole task", "cwd": "/srv/project"})
    write(paths, "j3", "I look")
    async with view(size=(120, 40), link=link, paths=paths) as shown:
        assert link.is_open
        await shown.press("down", "down", "down")
        await shown.shows("/srv/project", "> ", "● I look")
        write(paths, "j3", "I have looked")
        await shown.shows("● I have looked")
    assert not link.is_open


async def test_jobs_that_are_only_passed_are_not_read(paths: StatePaths, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("server.tui.app.SETTLE_SECONDS", 3600.0)
    link = StandInLink()
    async with view(link=link, paths=paths) as shown:
        await shown.press("down", "down", "down")
        await shown.has_read()
        assert link.asked == []


async def test_the_transcript_of_another_job_takes_the_place_of_the_one_before(paths: StatePaths):
    write(paths, "j2", "of the second")
    write(paths, "j3", "of the third")
    async with view(size=(120, 40), link=StandInLink(), paths=paths) as shown:
        await shown.press("down", "down")
        await shown.shows("● of the second")
        await shown.press("down")
        await shown.shows("● of the third")
        assert "of the second" not in shown.text


async def test_a_job_that_ends_or_is_tried_again_is_read_again(paths: StatePaths):
    link = StandInLink(j0={"ok": True, "jobId": "j0", "task": "t", "cwd": "/before"})
    write(paths, "j0", "first try")
    async with view([row(0)], size=(120, 40), link=link, paths=paths) as shown:
        await shown.shows("/before", "● first try")
        await shown.take(row(0, activity="Read: a"))
        assert len(link.asked) == 1
        link.known["j0"] = {**link.known["j0"], "cwd": "/after"}
        await shown.take(row(0, "failed", error="broken"))
        await shown.shows("/after", "broken")
        write(paths, "j0", "second try", attempt=2)
        await shown.take(row(0, attempt=2))
        await shown.shows("● second try")


async def test_details_that_could_not_be_had_are_read_once_the_engine_is_back(paths: StatePaths):
    link = StandInLink()
    async with view([row(0)], size=(120, 40), link=link, paths=paths) as shown:
        shown.app.state_changed(STOPPED)
        await shown.shows("Press e to start it again")
        while not link.asked:
            await shown.pilot.pause(0.01)
        link.known = {"j0": {"ok": True, "jobId": "j0", "task": "t", "cwd": "/srv/project"}}
        await shown.press("e")
        await shown.shows("Starting the engine")
        assert link.starts == 1
        shown.app.state_changed("")
        shown.app.page_arrived(page(row(0), reset=True))
        await shown.shows("/srv/project")
        assert "Starting" not in shown.text


async def test_while_an_engine_runs_none_is_started(paths: StatePaths):
    link = StandInLink()
    async with view(link=link, paths=paths) as shown:
        await shown.press("e")
        assert link.starts == 0


async def test_details_that_come_late_are_not_shown_with_another_job(paths: StatePaths):
    # An answer about another job than the one that was asked for stands for one that was overtaken.
    link = StandInLink(j0={"ok": True, "jobId": "j3", "task": "t", "cwd": "/of/another"})
    async with view(size=(120, 40), link=link, paths=paths) as shown:
        while not link.asked:
            await shown.pilot.pause(0.01)
        await shown.has_read()
        assert "/of/another" not in shown.text


@pytest.mark.parametrize(("key", "allowed"), [("y", True), ("n", False)])
async def test_a_request_is_shown_whole_and_answered_with_one_key(paths: StatePaths, key: str, allowed: bool):
    link = StandInLink(j4=asking(REQUEST, {**REQUEST, "requestId": "r2"}))
    async with view(link=link, paths=paths) as shown:
        await shown.press("a")
        await shown.shows("auth/session.py (j4) asks to call Bash", "command: git log -p", "It asks for 1 more.")
        assert shown.selected == "j4"
        await shown.press(key)
        await shown.shows("did answer")
        assert shown.done == [("answer", "r1", allowed)]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"input": '{"command": "ls', "inputChars": 1000},
            ('{"command": "ls', "… 985 characters more: the transcript"),
        ),
        ({"input": "[secret] is no JSON"}, ("[secret] is no JSON", "y allow once")),
        ({"input": '{"limit": 3, "path": "a"}'}, ("limit: 3", "path: a")),
    ],
)
async def test_a_request_that_was_cut_or_redacted_is_shown_as_it_is(
    paths: StatePaths, given: dict[str, Any], told: tuple[str, str]
):
    async with view(link=StandInLink(j4=asking({**REQUEST, **given})), paths=paths) as shown:
        await shown.press("a")
        await shown.shows(*told)


async def test_a_request_says_when_it_is_denied_without_an_answer(paths: StatePaths):
    rows = [{**one, "waitingUntil": NOW + 60} if one["jobId"] == "j4" else one for one in REVIEW]
    async with view(rows, link=StandInLink(j4=asking(REQUEST)), paths=paths) as shown:
        await shown.press("a")
        await shown.shows("Without an answer it is denied at")


async def test_a_request_that_is_left_for_later_is_not_answered(paths: StatePaths):
    async with view(link=StandInLink(j4=asking(REQUEST)), paths=paths) as shown:
        await shown.press("a")
        await shown.shows("asks to call Bash")
        await shown.press("escape")
        assert "asks to call" not in shown.text
        assert shown.done == []


async def test_a_request_is_one_question_however_often_the_key_is_pressed(paths: StatePaths):
    link = StandInLink(j4=asking(REQUEST))
    link.answers.clear()
    async with view(link=link, paths=paths) as shown:
        await shown.press("a", "a")
        link.answers.set()
        await shown.has_read()
        await shown.press("y")
        await shown.shows("did answer")
        assert "asks to call" not in shown.text
        assert shown.done == [("answer", "r1", True)]


@pytest.mark.parametrize(("opened", "typed"), [("slash", "y"), ("k", "n")])
async def test_a_request_that_comes_late_takes_no_key_that_is_meant_for_something_else(
    paths: StatePaths, opened: str, typed: str
):
    link = StandInLink(j4=asking(REQUEST))
    link.answers.clear()
    async with view(link=link, paths=paths) as shown:
        await shown.press("a", opened)
        link.answers.set()
        await shown.has_read()
        assert "asks to call" not in shown.text
        await shown.press(typed)
        assert shown.done == []


async def test_a_request_that_was_answered_elsewhere_is_said_to_be_gone(paths: StatePaths):
    async with view(link=StandInLink(j4=asking()), paths=paths) as shown:
        await shown.press("a")
        await shown.shows("It asks for nothing any more.")


async def test_where_no_job_asks_that_is_said():
    async with view([row(0)]) as shown:
        await shown.press("a")
        assert "No job asks for a permission." in shown.text


async def test_the_id_and_the_command_that_opens_the_session_are_copied(paths: StatePaths):
    link = StandInLink(j0={"ok": True, "jobId": "j0", "task": "t", "cwd": "/srv", "sessionId": "s-1"})
    async with view([row(0)], size=(120, 40), link=link, paths=paths) as shown:
        await shown.shows("s-1")
        await shown.press("y", "i")
        assert shown.app.clipboard == "j0"
        await shown.press("y")
        assert "cd /srv && claude --resume s-1" in shown.text
        await shown.press("r")
        assert shown.app.clipboard == "cd /srv && claude --resume s-1"
        assert "Sent to the clipboard: cd /srv" in shown.text


async def test_of_a_job_without_a_session_only_the_id_is_copied():
    async with view([row(0)]) as shown:
        await shown.press("y", "r", "escape")
        assert shown.app.clipboard == ""
        await shown.press("y", "i")
        assert shown.app.clipboard == "j0"


async def test_without_jobs_the_keys_do_nothing():
    async with view([]) as shown:
        await shown.press(*"krspy", "enter", "left", "right", "space")
        await shown.pilot.pause()
        assert shown.done == []
        assert shown.app.clipboard == ""


async def test_a_batch_has_no_session_and_what_is_over_is_not_paused():
    async with view([row(1, "completed", rootId="b0")]) as shown:
        assert shown.selected == "b0"
        await shown.press("s")
        assert "a batch has no session" in shown.text
        await shown.press("p")
        assert "It is over already." in shown.text
        assert shown.done == []


async def test_what_was_said_goes_away_after_a_while(monkeypatch: pytest.MonkeyPatch):
    async with view([row(0)]) as shown:
        await shown.press("a")
        assert "No job asks" in shown.text
        monkeypatch.setattr("server.tui.app.NOTICE_SECONDS", 0.0)
        shown.app.state_changed("")
        await shown.pilot.pause()
        assert "No job asks" not in shown.text


async def test_q_ends_the_view_and_what_arrives_afterwards_is_dropped():
    async with view(REVIEW) as shown:
        await shown.press("q")
        assert not shown.app.is_running
        app = shown.app
    app.state_changed("late")
    assert app.return_code == 0
