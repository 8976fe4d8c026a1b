"""The tasks that `claude-jobs run` and `batch` read from files, whatever form these have."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from server.cli.task_input import one_task, several_tasks


def file_with(directory: Path, content: bytes | str) -> Path:
    path = directory / "tasks"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "tasks"),
    [
        ("one\n\n  two \r\n", ["one", "two"]),
        ('["one", {"task": "two"}]', ["one", {"task": "two"}]),
        ('{"task": "one", "key": "k"}\n\n{"task": "two"}\n', [{"task": "one", "key": "k"}, {"task": "two"}]),
        ('{"task": "one"}', [{"task": "one"}]),
        ("[ ] one\n{x} two\n", ["[ ] one", "{x} two"]),
        ("7\n", ["7"]),
        (b"\xef\xbb\xbfone", ["one"]),
    ],
)
def test_a_file_of_tasks_is_lines_or_json(tmp_path: Path, content: str | bytes, tasks: list[Any]):
    path = file_with(tmp_path, content)
    assert several_tasks([], [path]) == tasks
    assert several_tasks(["first"], [path]) == ["first", *tasks]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("\n", "is empty, so nothing was started"),
        ('["a", ', "begins as a JSON array but is not valid JSON"),
        ('{"task": "a"}\nb\n', "line 2: not a JSON object"),
        ('[{"text": "a"}]', "task 1 is neither a text nor an object"),
        (b"\xff", "is not UTF-8 text"),
    ],
)
def test_a_file_that_holds_no_tasks_is_refused_by_its_name(tmp_path: Path, content: str | bytes, words: str):
    path = file_with(tmp_path, content)
    with pytest.raises(typer.BadParameter, match=re.escape(str(path))) as refused:
        several_tasks([], [path])
    assert words in refused.value.message


def test_numbers_that_would_count_tasks_before_the_file_are_refused(tmp_path: Path):
    path = file_with(tmp_path, '[{"task": "a"}, {"task": "b", "dependsOn": [0]}]')
    assert len(several_tasks([], [path])) == 2
    with pytest.raises(typer.BadParameter, match="1 tasks come before these"):
        several_tasks(["first"], [path])


@pytest.mark.parametrize(
    ("tasks", "files", "words"),
    [([], [], "Give tasks"), (["-"], ["-"], "only once"), ([], ["nowhere"], "nowhere: No such file")],
)
def test_a_batch_without_tasks_says_how_to_give_them(tasks: list[str], files: list[str], words: str):
    with pytest.raises(typer.BadParameter, match=words):
        several_tasks(tasks, [Path(file) for file in files])


def test_the_task_of_a_run_is_the_whole_file_without_its_last_line_end(tmp_path: Path):
    assert one_task(None, file_with(tmp_path, "one\ntwo\r\n")) == "one\ntwo"
    with pytest.raises(typer.BadParameter, match="is empty"):
        one_task(None, file_with(tmp_path, " \n"))
    with pytest.raises(typer.BadParameter, match="The task is empty"):
        one_task("  ", None)
