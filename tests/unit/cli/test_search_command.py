"""`claude-jobs search`: what goes to the engine, the lines of the hits, and the remarks beside them."""

import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jobs.util.text import strip_terminal_codes
from server.cli import search
from tests.support.engines import House
from tests.unit.conftest import Invoke


class Terminal(io.StringIO):
    """What a console writes to, as a terminal is."""

    def isatty(self) -> bool:
        return True


class Engine:
    """A fake engine: gives answers in their order, and keeps what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Mapping[str, Any] | None) -> None:
        self.asked: list[Any] = []
        self._answers = list(answers)
        monkeypatch.setattr(search, "ask", self._answer)

    def _answer(self, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
        assert request["do"] == "search"
        self.asked.append(request["search"])
        return self._answers.pop(0)


def hit(excerpt: str = "an ibex", *matches: Sequence[int], **more: Any) -> dict[str, Any]:
    job = {"jobId": "j1", "rootId": "j1", "status": "completed", "submittedAt": time.time() - 7200, "where": "task"}
    return {**job, "excerpt": excerpt, "matches": matches, **more}


def hits(*found: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"ok": True, "hits": found, **more}


def test_words_alone_search_the_newest_twenty_of_all_jobs(invoke: Invoke, monkeypatch: pytest.MonkeyPatch):
    engine = Engine(monkeypatch, hits(hit()))
    assert invoke("search", "an", "ibex").exit_code == 0
    jobs = {"status": None, "directory": None}
    assert engine.asked == [{"text": "an ibex", "jobs": jobs, "limit": 20, "transcripts": False}]


def test_each_option_narrows_the_search(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, quarters: House, tmp_path: Path
):
    engine = Engine(monkeypatch, hits(hit()), hits(hit()))
    before = time.time()
    invoke("search", "x", "--status", "failed", "--since", "2h", "--before", "30m", "--limit", "3", "--transcripts")
    [asked] = engine.asked
    assert (asked["limit"], asked["transcripts"], asked["jobs"]["status"]) == (3, True, "failed")
    assert before - 7200 <= asked["jobs"]["since"] <= time.time() - 7200
    assert before - 1800 <= asked["jobs"]["before"] <= time.time() - 1800

    (quarters.work / "sub").mkdir()
    invoke("search", "x", "--directory", "sub/../sub")
    assert engine.asked[1]["jobs"]["directory"] == str(quarters.work / "sub")


@pytest.mark.parametrize("option", ["--since", "--before"])
def test_what_is_no_age_is_refused_before_anything_is_asked(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, option: str
):
    engine = Engine(monkeypatch)
    result = invoke("search", "x", option, "yesterday")
    assert result.exit_code == 2
    assert "'yesterday' is not an age" in result.stderr
    assert engine.asked == []


def test_in_a_file_a_hit_is_one_whole_line(invoke: Invoke, monkeypatch: pytest.MonkeyPatch):
    long = f"{'word ' * 60}ibex{' more' * 60}"
    Engine(monkeypatch, hits(hit(long, [300, 304]), hit("two", status="failed", where="transcript")))
    lines = invoke("search", "ibex").stdout.splitlines()
    assert lines[0] == f"j1  completed  2h ago    task        {long}"
    assert lines[1] == "j1  failed     2h ago    transcript  two"


def test_at_a_terminal_a_hit_fits_its_width_and_its_matches_stand_out(invoke: Invoke, monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    monkeypatch.setattr(search, "out", Console(file=terminal, width=80, force_terminal=True, color_system="standard"))
    found = (hit(f"{'word ' * 60}ibex{' more' * 60}", [300, 304]), hit("an ibex, ibex", [3, 7], [9, 13]))
    Engine(monkeypatch, hits(*found))
    assert invoke("search", "ibex").exit_code == 0
    cut, short = terminal.getvalue().splitlines()
    plain = strip_terminal_codes(cut)
    assert len(plain) <= 80
    assert "  …" in plain
    assert plain.endswith("…")
    assert "\x1b[1mibex\x1b[0m" in cut
    assert short.endswith("an \x1b[1mibex\x1b[0m, \x1b[1mibex\x1b[0m")


def test_no_hit_is_status_1_and_says_where_was_looked(invoke: Invoke, monkeypatch: pytest.MonkeyPatch):
    Engine(monkeypatch, hits(), hits(transcripts={"searched": 2, "bytes": 10, "notSearched": 0}), hits())
    result = invoke("search", "x")
    assert (result.exit_code, result.stdout) == (1, "")
    said = "No job has these words in its task or answer; --transcripts searches what they said.\n"
    assert result.stderr == said
    result = invoke("search", "x", "--transcripts")
    assert (result.exit_code, result.stderr) == (1, "No job has these words in its task, answer or transcript.\n")
    result = invoke("search", "x", "--json")
    assert (result.exit_code, result.stderr, json.loads(result.stdout)) == (1, "", {"hits": []})


def test_as_many_hits_as_were_asked_for_may_not_be_all(invoke: Invoke, monkeypatch: pytest.MonkeyPatch):
    Engine(monkeypatch, hits(hit(), hit()), hits(hit(), hit()))
    assert "There may be more than 2: --limit shows more" in invoke("search", "x", "--limit", "2").stderr
    assert invoke("search", "x", "--limit", "3").stderr == ""


def test_transcripts_that_were_not_read_are_told(invoke: Invoke, monkeypatch: pytest.MonkeyPatch):
    Engine(monkeypatch, hits(hit(), transcripts={"searched": 12, "bytes": 3 * 2**20, "notSearched": 7}))
    told = invoke("search", "x", "--transcripts").stderr
    assert told.startswith("Transcripts: the newest 12 were searched (3 MiB), 7 older ones were not. --since")


def test_the_search_waits_for_the_index_and_says_so_once(invoke: Invoke, monkeypatch: pytest.MonkeyPatch):
    engine = Engine(
        monkeypatch, {"ok": True, "catchingUp": 900}, {"ok": True, "catchingUp": 400}, hits(hit(), transcripts=None)
    )
    result = invoke("search", "ibex")
    assert result.stderr == "900 jobs are new since the last search: they are taken into the index first.\n"
    assert len(result.stdout.splitlines()) == 1
    assert len(engine.asked) == 3


def test_an_engine_that_stops_meanwhile_is_said(invoke: Invoke, monkeypatch: pytest.MonkeyPatch):
    Engine(monkeypatch, {"ok": True, "catchingUp": 900}, None)
    result = invoke("search", "x")
    assert result.exit_code == 1
    assert result.stderr.endswith("The engine stopped meanwhile. Try again.\n")


def test_a_job_is_found_by_its_task_and_by_its_answer(invoke: Invoke):
    job_id = invoke("run", "--detach", "a marsupial stub:say=walrus").stdout.strip()
    invoke("wait", job_id)
    [found] = json.loads(invoke("search", "MARSUPIAL", "--json").stdout)["hits"]
    assert (found["jobId"], found["where"], found["status"]) == (job_id, "task", "completed")
    assert invoke("search", "walrus", "--status", "completed", "--since", "1h").stdout.startswith(job_id)
    assert invoke("search", "walrus", "--status", "failed").exit_code == 1
    assert "TEXT: it has no letters or digits" in invoke("search", "***").stderr
