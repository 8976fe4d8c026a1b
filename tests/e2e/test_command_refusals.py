"""What commands do with what they cannot use, from outside: refused in the reader's words, and nothing started."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engines import House, house


@pytest.fixture(scope="module")
def made() -> Iterator[House]:
    with house() as one:
        one.start_engine()
        yield one


def known(made: House) -> int:
    return len(json.loads(made.run("list", "--json", "--limit", "5000").stdout)["jobs"])


@pytest.mark.parametrize("command", [("run", "a"), ("batch", "a", "b")])
def test_a_key_starts_nothing_in_a_second_command(made: House, command: tuple[str, ...]):
    key = ("--detach", "--idempotency-key", f"k-{command[0]}")
    first = made.run(*command, *key)
    assert first.returncode == 0, first.stderr
    before = known(made)
    assert made.run(*command, *key).stdout == first.stdout
    other = made.run(command[0], "another task", *key)
    assert other.returncode == 1, other
    assert known(made) == before


def test_a_page_is_the_answer_alone_and_the_next_one_is_told_beside_it(made: House):
    job_id = made.run("run", "stub:say=abcdef").stderr.split()[1]
    page = made.run("result", job_id, "--offset", "1", "--limit", "2")
    assert page.stdout == "bc\n"
    advised = re.search(r"`claude-jobs ([^`]+)`", page.stderr)
    assert advised, page.stderr
    assert made.run(*advised[1].split()).stdout == "de\n"
    assert made.run("result", job_id, "--offset", "3").stdout == "def\n"
    answer = json.loads(made.run("result", job_id, "--limit", "2", "--json").stdout)["results"][0]
    assert answer["result"] == "ab"
    assert "claude_" not in answer["note"]


@pytest.mark.parametrize(
    ("option", "value"),
    [("--cwd", "/nonexistent"), ("--effort", "huge"), ("--model", "a b"), ("--directory", "/nonexistent")],
)
def test_a_refusal_names_the_option_as_it_was_typed(made: House, option: str, value: str):
    before = known(made)
    said = made.run("run", "x", "--detach", option, value)
    assert (said.returncode, said.stderr.partition(":")[0]) == (1, option)
    assert not re.search(r"\b(?<!-)(?:cwd|directories)\b", said.stderr), said.stderr
    assert known(made) == before


@pytest.mark.parametrize("command", ["run", "batch"])
def test_a_task_that_begins_with_a_hyphen_is_told_how_to_be_given_and_then_runs(made: House, command: str):
    before = known(made)
    said = made.run(command, "--detach", "- stub:say=item")
    assert (said.returncode, said.stdout) == (2, "")
    assert "a hyphen goes after --, and options before that" in " ".join(said.stderr.replace("│", " ").split())
    assert known(made) == before
    assert made.run(command, "--detach", "--", "- stub:say=item").returncode == 0
    assert "hyphen" not in made.run(command, "--nonsense", "x").stderr


def test_an_option_that_asks_for_a_job_in_the_background_is_refused_with_the_one_that_does_it(made: House):
    for command in (("run", "x"), ("batch", "x", "y"), ("send", "j1", "x")):
        said = made.run(*command, "--async", COLUMNS="300")
        assert said.returncode == 2
        assert "`--detach` prints the id and exits; the job goes on" in said.stderr
        assert "--json" not in said.stderr
    assert "--detach" not in made.run("wait", "--async", "j1", COLUMNS="300").stderr


@pytest.mark.parametrize("seconds", ["inf", "nan", "-1"])
def test_a_wait_takes_no_time_that_is_no_number(made: House, seconds: str):
    said = made.run("wait", "--timeout", seconds, "j0")
    assert (said.returncode, said.stdout) == (2, "")
    assert "'--timeout'" in said.stderr


@pytest.mark.parametrize("option", ["--parent", "--model", "--schema", "--idempotency-key", "--effort"])
def test_an_empty_value_of_an_option_starts_nothing(made: House, option: str):
    before = known(made)
    said = made.run("run", "x", "--detach", option, "")
    assert (said.returncode, said.stdout) == (2, "")
    assert option in said.stderr
    assert known(made) == before


@pytest.mark.parametrize("option", ["--before", "--under"])
def test_an_empty_id_of_a_list_is_no_id(made: House, option: str):
    said = made.run("list", option, "")
    assert (said.returncode, said.stdout) == (1, "")
    assert "''" in said.stderr


@pytest.mark.parametrize(
    "command",
    [("run",), ("batch", "-"), ("batch", "--file", "nowhere"), ("list", "--limit", "0"), ("status",), ("list", "--no")],
)
def test_wrong_usage_is_told_in_json_where_that_was_asked_for(made: House, command: tuple[str, ...]):
    done = made.run(*command, "--json")
    assert done.returncode == 2, done
    assert list(json.loads(done.stdout)) == ["error"]
    assert done.stderr == ""


def test_standard_input_named_twice_is_told_before_it_is_read(made: House):
    for arguments in (("-", "-"), ("-", "--file", "-")):
        done = made.fed("a\nb\n", "batch", "--detach", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "only once" in done.stderr


def test_positions_in_a_file_do_not_mean_the_tasks_before_it(made: House):
    tasks = '[{"task": "a"}, {"task": "b {{results.0}}", "dependsOn": [0]}]'
    before = known(made)
    done = made.fed(tasks, "batch", "--detach", "first", "-")
    assert (done.returncode, done.stdout) == (2, "")
    assert "keys" in done.stderr
    assert known(made) == before
    assert made.fed(tasks, "batch", "--detach", "-").returncode == 0


def test_a_refused_task_is_counted_from_one(made: House):
    assert made.run("batch", "--detach", "a", " ").stderr.startswith("task 2: ")
    unknown = made.fed('["a", {"task": "b", "modle": "x"}]', "batch", "--detach", "-")
    assert unknown.stderr.startswith("task 2, modle: "), unknown.stderr


def test_an_advised_follow_up_names_a_task(made: House):
    failed = made.run("run", "x", "--schema", '{"type": "object"}')
    advised = re.search(r'`claude-jobs (send \w+) ("[^"]+")`', failed.stderr)
    assert advised, failed.stderr


def test_a_retry_of_what_has_not_failed_advises_a_command_that_works(made: House):
    job_id = made.run("run", "stub:say=abc").stderr.split()[1]
    said = made.run("retry", job_id)
    advised = re.search(r"`claude-jobs ([^`]+)`", said.stderr)
    assert advised, said.stderr
    assert made.run(*advised[1].split()).stdout == "abc\n"


def test_a_drawing_has_ascii_characters_of_its_width_where_the_encoding_lacks_its_own(made: House):
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    job_id = made.run("run", "--detach", "stub:say=one └── ü", **ascii_only).stdout.strip()
    made.run("wait", job_id)
    drawn, full = (made.run("tree", job_id, **encoding).stdout for encoding in (ascii_only, {}))
    assert "\n`-- * j" in drawn
    assert [len(line) for line in drawn.splitlines()][:1] == [len(line) for line in full.splitlines()][:1]
    assert "\n● " in made.run("transcript", job_id).stdout
    assert "\n* " in made.run("transcript", job_id, **ascii_only).stdout
    # What a program reads is not rewritten.
    assert json.loads(made.run("status", "--json", job_id, **ascii_only).stdout)["task"] == "stub:say=one └── ü"


def test_characters_that_an_encoding_lacks_are_spelled(made: House):
    job_id = made.run("run", "stub:say=x €ä").stderr.split()[1]
    environ = {"PYTHONIOENCODING": "ascii"}
    for command in (("list",), ("tree",), ("transcript", job_id), ("status", job_id)):
        done = made.run(*command, **environ)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done
    told = made.run("status", job_id, "--json", **environ)
    assert json.loads(told.stdout)["task"] == "stub:say=x €ä"


def test_the_answer_of_a_job_that_a_model_started_is_printed_as_text(made: House):
    with made.pump() as pump:
        job_id = pump.json("claude_run", task="stub:say=plain")["jobId"]
    assert made.run("result", job_id).stdout == "plain\n"
    page = made.run("result", job_id, "--limit", "2")
    assert (page.stdout, page.stderr) == (
        "pl\n",
        f"note: characters 0 to 2 of 5; the next: `claude-jobs result {job_id} --offset 2 --limit 2`\n",
    )
    [told] = json.loads(made.run("result", job_id, "--json").stdout)["results"]
    assert told == {"jobId": job_id, "result": "plain"}


def test_a_run_that_fails_names_its_job_in_json(made: House):
    done = made.run("run", "--json", "stub:exit=3")
    told = json.loads(done.stdout)
    assert (done.returncode, set(told)) == (1, {"jobId", "error"})
    assert made.run("status", told["jobId"]).returncode == 0


def test_a_batch_with_a_failed_job_advises_what_the_reason_allows(made: House):
    said = made.run("batch", "stub:exit=3").stderr
    assert "try again" not in said
    assert "answers, and what to do about the others: claude-jobs result b" in said
    advised = said.rpartition("claude-jobs ")[2].split()
    assert "tries it again" in made.run(*advised).stderr


def test_too_many_tasks_are_told_in_words_of_a_batch(made: House):
    said = made.run("batch", *["stub:say=x"] * 101).stderr
    assert said == (
        "That is 101 jobs in one batch or below one job; 100 is the most. Start more batches or raise `max_children`.\n"
    )


def test_a_misspelt_key_of_a_task_in_a_file_names_those_that_there_are(made: House, tmp_path: Path):
    tasks = tmp_path / "tasks.json"
    tasks.write_text('[{"task": "a", "dependson": []}]')
    said = made.run("batch", "--file", str(tasks)).stderr
    assert said.startswith("task 1, dependson: there is no such argument.")
    assert " dependsOn," in said
    assert " timeoutSeconds," in said


def test_a_subtree_that_is_tried_again_can_be_followed_by_what_is_advised(made: House):
    job_id = made.run("run", "--detach", "stub:exit=3").stdout.strip()
    made.run("wait", job_id)
    said = made.run("retry", "--subtree", job_id).stderr
    assert said == f"follow: claude-jobs wait {job_id}\n"
    made.run("wait", job_id)


def test_an_engine_that_is_told_to_leave_says_what_becomes_of_its_jobs():
    with house() as own:
        job_id = own.run("run", "--detach", "stub:wait=/nonexistent").stdout.strip()
        assert own.run("engine", "stop").stdout.endswith(" is stopping; its jobs go on.\n")
        own.wait_for_the_engine_to_go()
        assert own.run("kill", job_id).returncode == 0
        own.run("wait", job_id)
        assert own.run("engine", "stop").stdout.endswith(") is stopping.\n")
        own.wait_for_the_engine_to_go()
