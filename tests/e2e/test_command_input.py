"""Tasks from standard input and files, from outside: what runs, and that nothing runs where there is no task."""

import json
from collections.abc import Iterator

import pytest

from tests.support.engines import House, house

PLAIN = "stub:say=one\n\n  stub:say=two\n"
ARRAY = '["stub:say=one", {"key": "k", "task": "stub:say=two"}]'
ODD = '{"task": "stub:say=one \u2028"}\r\n{"task": "stub:say=two"}\r\n'
LINES = '{"key": "k", "task": "stub:say=one"}\n\n{"task": "stub:say=got-{{results.k}}", "dependsOn": ["k"]}\n'


@pytest.fixture(scope="module")
def made() -> Iterator[House]:
    with house() as one:
        yield one


def known(made: House) -> int:
    return len(json.loads(made.run("list", "--json", "--limit", "5000").stdout)["jobs"])


def test_the_task_of_a_run_is_all_of_standard_input_or_of_a_file(made: House):
    made.start_engine()
    text = "stub:say=right\nand a second line ü\n"
    (made.work / "task.md").write_text(text, encoding="utf-8")
    for done in (made.fed(text, "run", "-"), made.fed("", "run", "--file", "task.md")):
        assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr
        told = json.loads(made.run("status", "--json", done.stderr.split()[1]).stdout)
        assert told["task"] == text.rstrip("\n")


@pytest.mark.parametrize(
    ("text", "answers"),
    [(PLAIN, ["one", "two"]), (ARRAY, ["one", "two"]), (LINES, ["one", "got-one"]), (ODD, ["one", "two"])],
)
def test_the_tasks_of_a_batch_are_lines_or_json_from_standard_input_and_from_files(
    made: House, text: str, answers: list[str]
):
    made.start_engine()
    (made.work / "tasks").write_text(text)
    (made.work / "more").write_text("stub:say=last\n")
    piped = json.loads(made.fed(text, "batch", "-", "--json").stdout)
    assert [job["excerpt"] for job in piped["jobs"]] == answers
    mixed = json.loads(made.run("batch", "--json", "--file", "tasks", "--file", "more").stdout)
    assert [job["excerpt"] for job in mixed["jobs"]] == [*answers, "last"]
    assert all(job["status"] == "completed" for job in mixed["jobs"])


def test_tasks_of_the_command_line_and_of_standard_input_keep_their_order(made: House):
    made.start_engine()
    batch = json.loads(made.fed(PLAIN, "batch", "stub:say=zero", "-", "stub:say=three", "--json").stdout)
    assert [job["excerpt"] for job in batch["jobs"]] == ["zero", "one", "two", "three"]


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        ("", ("run", "-"), "Standard input is empty"),
        (" \n", ("batch", "-"), "Standard input is empty"),
        ("[]", ("batch", "-"), "Standard input is empty"),
        ("", ("batch", "--file", "empty"), "empty is empty"),
        ("", ("run", "--file", "nowhere"), "nowhere: No such file"),
        (b"\xff\xfe\x80", ("run", "-"), "not UTF-8 text"),
        ('["a", ', ("batch", "-"), "begins as a JSON array"),
        ('{"task": "a"}\nb\n', ("batch", "-"), "line 2: not a JSON object"),
        ('[{"text": "a"}]', ("batch", "-"), "task 1 is neither a text nor an object with the key `task`"),
        ("", ("run",), "Give one task"),
        ("a", ("run", "b", "--file", "-"), "Give one task"),
        ("", ("batch",), "Give tasks"),
        ("", ("run", "  "), "task is empty"),
        ("", ("run", "x", "--timeout", "-4"), "--timeout"),
        ("", ("batch", "x", "--max-concurrent", "0"), "--max-concurrent"),
        ("", ("run", "x", "--schema", "nowhere"), "nowhere: No such file"),
        ("", ("run", "x", "--schema", "{"), "not JSON"),
    ],
)
def test_where_there_is_no_task_that_is_said_and_nothing_runs(
    made: House, text: str | bytes, arguments: tuple[str, ...], words: str
):
    made.start_engine()
    (made.work / "empty").touch()
    before = known(made)
    done = made.fed(text, *arguments)
    # In a box, whose frame breaks the words.
    said = " ".join(done.stderr.replace("│", " ").split())
    assert (done.returncode, done.stdout) == (2, ""), said
    assert words in said
    assert known(made) == before


def test_a_plain_task_may_begin_as_json_does(made: House):
    made.start_engine()
    batch = json.loads(made.fed("[ ] stub:say=one\n{x} stub:say=two\n", "batch", "-", "--json").stdout)
    assert [job["excerpt"] for job in batch["jobs"]] == ["one", "two"]


def test_a_schema_reaches_the_job_from_a_file_and_from_the_command_line(made: House):
    made.start_engine()
    schema = json.dumps({"type": "object", "required": ["a"]})
    (made.work / "schema.json").write_text(schema)
    for given in (schema, "schema.json"):
        done = made.run("run", "--schema", given, "--json", "stub:say=x")
        # The stub answers in text, so the answer is refused: the schema was there.
        assert done.returncode == 1, done
        assert "error" in json.loads(done.stdout)
