"""The transcript of a job, as the page of a whole engine asks for it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.engines import PYTHON_STUB, SHELL_STUB, House, house
from tests.support.page_client import PageClient, signed_in
from tests.support.waiting import until_now

SECRET = "correct-horse-battery-staple-42"


@pytest.fixture(scope="module")
def made() -> Iterator[House]:
    with house(CLAUDE_JOBS_CLI=str(PYTHON_STUB), ANTHROPIC_AUTH_TOKEN=SECRET) as built:
        built.start_engine()
        yield built


@pytest.fixture(scope="module")
def inside(made: House) -> PageClient:
    return signed_in(made)


def ended(made: House, task: str) -> str:
    job_id = made.run("run", "--detach", task).stdout.strip()
    made.run("wait", job_id)
    return job_id


def page_of(inside: PageClient, job_id: str, query: str = "") -> Any:
    answer = inside.get(f"/api/jobs/{job_id}/transcript{query}")
    assert answer.status == 200, answer
    return answer.json


def test_the_transcript_of_a_job_that_is_over_is_its_task_and_what_it_said(made: House, inside: PageClient):
    job_id = ended(made, "plant stub:say=grown")
    for query in ("", "?attempt=1", "?before=end", "?after=0"):
        page = page_of(inside, job_id, query)
        said = [(entry["kind"], entry["text"]) for entry in page["entries"]]
        assert said == [("task", "plant stub:say=grown"), ("text", "grown")]
        assert (page["live"], page["more"], page["from"], page["attempts"]) == (False, False, 0, 1)
    assert page_of(inside, job_id, f"?after={page['next']}")["entries"] == []


def test_a_failed_attempt_says_at_its_end_what_it_wrote_to_stderr(made: House, inside: PageClient):
    job_id = ended(made, "stub:do=exit stub:arg=3")
    assert page_of(inside, job_id)["entries"][-1] == {"kind": "stderr", "text": "the stub was told to fail"}


def test_a_transcript_of_garbage_is_shown_without_what_a_browser_or_terminal_acts_on(made: House, inside: PageClient):
    job_id = ended(made, "stub:do=garbage")
    page = page_of(inside, job_id)
    texts = [entry["text"] for entry in page["entries"]]
    assert "Welcome to the banner" in texts
    assert "{broken json" in texts
    assert "red ?" in texts
    assert not {"\x1b", "\x07", "\x00"} & set("".join(texts))


def test_a_transcript_grows_while_its_job_runs(made: House, inside: PageClient):
    gate = made.work / "gate"
    asked = f"stub:wait={gate} stub:say=through"
    job_id = made.run("run", "--detach", asked, CLAUDE_JOBS_CLI=str(SHELL_STUB)).stdout.strip()
    until_now(lambda: page_of(inside, job_id)["next"])
    page = page_of(inside, job_id, "?before=end")
    assert (page["live"], [entry["kind"] for entry in page["entries"]]) == (True, ["task"])
    gate.touch()
    until_now(lambda: "through" in json.dumps(page_of(inside, job_id, f"?after={page['next']}")["entries"]))


def test_the_secrets_of_a_tree_are_hidden_while_it_runs_and_when_it_is_over(made: House, inside: PageClient):
    job_id = ended(made, f"stub:say={SECRET}")
    page = page_of(inside, job_id)
    assert page["entries"][-1] == {"kind": "text", "text": "[redacted]"}
    assert SECRET not in json.dumps(page)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("j404/transcript", 404, "Job j404 not found"),
        ("JOB/transcript?attempt=7", 404, "no attempt 7; its last one is 1"),
        ("JOB/transcript?attempt=x", 400, "attempt: give a number."),
        ("JOB/transcript?after=-1", 400, "after: give a number."),
        (f"JOB/transcript?before={'9' * 400}", 400, "before: give a number."),
    ],
)
def test_what_cannot_be_answered_says_why(made: House, inside: PageClient, path: str, status: int, words: str):
    job_id = ended(made, "stub:say=x")
    answer = inside.get(f"/api/jobs/{path.replace('JOB', job_id)}")
    assert (answer.status, words in answer.json["error"]) == (status, True), answer
