"""Codes are good once and never on the disk; of a session the disk has a digest, and the next engine knows it."""

import json
import os
import stat
from pathlib import Path

import pytest

from jobs.client_context import ClientContext
from server.mcp.connection_state import Caller
from server.web.access import (
    CODE_SECONDS,
    MOST_CODES,
    MOST_SESSIONS,
    NOTE_SECONDS,
    SESSION_SECONDS,
    WRONG_CODES,
    WRONG_SECONDS,
    Codes,
    Sessions,
    TooManyCodesError,
    read_kept,
)
from tests.unit.jobs.support import Clock

pytestmark = pytest.mark.anyio

SECRET = "sk-fake-environment-of-the-person"
PERSON = Caller(client_context=ClientContext(cwd="/work", env={"ANTHROPIC_API_KEY": SECRET}))
PORT = 8470


def file_of(path: Path) -> Path:
    return path / "page.json"


async def begun(path: Path, clock: Clock) -> tuple[Sessions, str]:
    sessions = Sessions(file_of(path), clock)
    await sessions.serve_at(PORT)
    return sessions, await sessions.begin(PERSON)


def test_a_code_is_good_once_and_says_who_asked_for_it():
    codes = Codes(Clock())
    code = codes.make(PERSON)
    assert len(code) >= 43
    assert codes.take(code) is PERSON
    assert codes.take(code) is None


def test_a_code_is_good_for_ten_minutes():
    clock = Clock()
    codes = Codes(clock)
    young, old = codes.make(PERSON), codes.make(PERSON)
    clock.moved = CODE_SECONDS - 1
    assert codes.take(young) is PERSON
    clock.moved = CODE_SECONDS + 1
    assert codes.take(old) is None


def test_setting_the_time_of_day_makes_no_code_older_or_younger():
    clock = Clock()
    codes = Codes(clock)
    code = codes.make(PERSON)
    clock.set_by = -86_400.0
    assert codes.take(code) is PERSON


@pytest.mark.parametrize("wrong", ["", "x", "é", "\ud800", "a" * 100_000])
def test_what_is_no_code_lets_nobody_in(wrong: str):
    codes = Codes(Clock())
    codes.make(PERSON)
    assert codes.take(wrong) is None


def test_the_oldest_of_too_many_codes_is_dropped():
    codes = Codes(Clock())
    made = [codes.make(PERSON) for _ in range(MOST_CODES + 1)]
    assert codes.take(made[0]) is None
    assert codes.take(made[1]) is PERSON


def test_after_many_wrong_codes_none_is_looked_at_and_none_used_up_for_a_minute():
    clock = Clock()
    codes = Codes(clock)
    good = codes.make(PERSON)
    for _ in range(WRONG_CODES):
        assert codes.take("wrong") is None
    with pytest.raises(TooManyCodesError, match="claude-jobs web"):
        codes.take(good)
    clock.moved = WRONG_SECONDS + 1
    assert codes.take(good) is PERSON


def test_codes_that_are_cleared_let_nobody_in():
    codes = Codes(Clock())
    code = codes.make(PERSON)
    codes.clear()
    assert codes.take(code) is None


async def test_the_disk_has_the_digest_of_a_token_and_nothing_of_the_person(tmp_path: Path):
    _, token = await begun(tmp_path, Clock())
    file = file_of(tmp_path)
    text = file.read_text()
    assert token not in text
    assert SECRET not in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


async def test_the_next_engine_knows_port_and_session_and_not_the_persons_environment(tmp_path: Path):
    clock = Clock()
    first, token = await begun(tmp_path, clock)
    known = await first.find(token)
    assert known is not None
    assert first.caller_of(known) is PERSON
    second = Sessions(file_of(tmp_path), clock)
    assert await second.restore() == PORT
    found = await second.find(token)
    assert found == known
    assert second.caller_of(found) is None
    assert await second.find(f"{token}x") is None
    # What is written down is no token itself.
    assert await second.find(found.digest) is None


async def test_a_session_that_is_not_used_for_a_month_is_over(tmp_path: Path):
    clock = Clock()
    sessions, token = await begun(tmp_path, clock)
    clock.moved = SESSION_SECONDS - 1
    assert await sessions.find(token) is not None
    clock.moved += SESSION_SECONDS - 1
    assert await sessions.find(token) is not None
    clock.moved += SESSION_SECONDS + 1
    assert await sessions.find(token) is None


async def test_the_use_of_a_session_is_written_down_at_most_once_an_hour(tmp_path: Path):
    clock = Clock()
    sessions, token = await begun(tmp_path, clock)
    before = file_of(tmp_path).stat().st_ino
    for clock.moved in (1.0, 2.0, NOTE_SECONDS - 1):
        assert await sessions.find(token) is not None
    assert file_of(tmp_path).stat().st_ino == before
    clock.moved = NOTE_SECONDS + 1
    assert await sessions.find(token) is not None
    [used] = [one["used"] for one in json.loads(file_of(tmp_path).read_text())["sessions"]]
    assert used == pytest.approx(clock.now(), abs=60)


async def test_of_too_many_sessions_the_one_that_was_used_longest_ago_is_dropped(tmp_path: Path):
    clock = Clock()
    sessions, first = await begun(tmp_path, clock)
    clock.moved = 1.0
    second = await sessions.begin(PERSON)
    for clock.moved in range(2, MOST_SESSIONS + 1):
        await sessions.begin(PERSON)
    assert await sessions.find(first) is None
    assert await sessions.find(second) is not None
    assert len(json.loads(file_of(tmp_path).read_text())["sessions"]) == MOST_SESSIONS


async def test_the_end_of_all_sessions_leaves_nothing_for_the_next_engine(tmp_path: Path):
    clock = Clock()
    sessions, token = await begun(tmp_path, clock)
    await sessions.end_all()
    assert await sessions.find(token) is None
    assert not file_of(tmp_path).exists()
    assert await Sessions(file_of(tmp_path), clock).restore() is None


async def test_a_session_begins_though_the_disk_refuses_to_keep_it(tmp_path: Path):
    sessions, token = await begun(tmp_path / "gone", Clock())
    assert await sessions.find(token) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"port": 5000}',
        '{"port": "x", "sessions": []}',
        '{"port": 5000, "sessions": [1]}',
        "[" * 60_000,
        # Numbers of which an engine that takes them as they are would end each time it starts.
        '{"port": 65536, "sessions": []}',
        '{"port": -1, "sessions": []}',
        '{"port": 1e999, "sessions": []}',
        '{"port": 5000, "sessions": [{"digest": "a", "made": 1, "used": 1' + "0" * 400 + "}]}",
        # A session that would never be over.
        '{"port": 5000, "sessions": [{"digest": "a", "made": 1, "used": 1e999}]}',
        '{"port": 5000, "sessions": [{"digest": "a", "made": NaN, "used": 1}]}',
        # One that only the system's own servers use.
        '{"port": 80, "sessions": []}',
        '{"port": 0, "sessions": []}',
    ],
)
def test_a_file_that_makes_no_sense_is_none(tmp_path: Path, text: str):
    file_of(tmp_path).write_text(text)
    assert read_kept(file_of(tmp_path)) is None


def test_what_is_no_file_of_ours_is_not_read(tmp_path: Path):
    os.mkfifo(file_of(tmp_path))
    assert read_kept(file_of(tmp_path)) is None
    file_of(tmp_path).unlink()
    (tmp_path / "other").write_text('{"format": 1, "port": 1, "sessions": []}')
    file_of(tmp_path).symlink_to(tmp_path / "other")
    assert read_kept(file_of(tmp_path)) is None
