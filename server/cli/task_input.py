"""Reads tasks: from the command line, from standard input, and from files."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import typer

from server.cli.console import note

STDIN: Final = "-"
"""The argument that means standard input."""

_JSON_ARRAY: Final = re.compile(r'\s*\[\s*["{]')
_JSON_OBJECT: Final = re.compile(r'\s*\{\s*["}]')
_ONE = "Type the task, then press Ctrl-D on an empty line."
_MANY = "Type one task in each line, then press Ctrl-D on an empty line."


def one_task(task: str | None, file: Path | None) -> str:
    """Return the task of a command that takes one.

    Args:
        task: What the command line says; "-" is standard input, whole.
        file: A file that holds the task, or None.

    Raises:
        BadParameter: None or both were given, or what was read is empty or no text.
    """
    if (task is None) == (file is None):
        raise typer.BadParameter("Give one task: its text, - for standard input, or --file.", param_hint="TASK")
    if task is not None and task != STDIN:
        if not task.strip():
            raise typer.BadParameter("The task is empty.", param_hint="TASK")
        return task
    text, where = _read(Path(STDIN) if file is None else file, _ONE)
    if not text.strip():
        raise typer.BadParameter(f"{where} is empty, so nothing was started.", param_hint="TASK")
    return text.rstrip("\r\n")


def several_tasks(tasks: Sequence[str], files: Sequence[Path]) -> list[Any]:
    """Return the tasks of a batch: texts, and objects with options.

    Args:
        tasks: What the command line says; "-" is standard input, with a task in each line or with JSON.
        files: Files that hold tasks in the same forms.

    Raises:
        BadParameter: There are none, or what was read is empty or cannot be read.
    """
    if [*tasks, *map(str, files)].count(STDIN) > 1:
        raise typer.BadParameter("Standard input can be read only once: name it once.", param_hint=STDIN)
    found: list[Any] = []
    for task in tasks:
        found += _tasks_in(*_read(Path(STDIN), _MANY), before=len(found)) if task == STDIN else [task]
    for file in files:
        found += _tasks_in(*_read(file, _MANY), before=len(found))
    if not found:
        raise typer.BadParameter("Give tasks: their texts, - for standard input, or --file.", param_hint="TASK")
    return found


def _read(file: Path, prompt: str) -> tuple[str, str]:
    """Return a text and the name of its source."""
    where = str(file)
    try:
        if where == STDIN:
            where = "Standard input"
            data = _standard_input(prompt)
        else:
            data = file.read_bytes()
        return data.decode("utf-8-sig"), where
    except OSError as error:
        raise typer.BadParameter(f"{where}: {error.strerror}.", param_hint="--file") from error
    except UnicodeDecodeError as error:
        hint = STDIN if str(file) == STDIN else "--file"
        raise typer.BadParameter(f"{where} is not UTF-8 text.", param_hint=hint) from error


def _standard_input(prompt: str) -> bytes:
    # Python has none where it was started with that descriptor closed.
    stdin: TextIO | None = sys.stdin
    if stdin is None:
        return b""
    if stdin.isatty():
        note(prompt)
    return stdin.buffer.read()


def _tasks_in(text: str, where: str, *, before: int) -> list[Any]:
    tasks = _json_tasks(text, where)
    if tasks is None:
        tasks = [line.strip() for line in _lines(text) if line.strip()]
    if not tasks:
        raise typer.BadParameter(f"{where} is empty, so nothing was started.", param_hint="TASK")
    if before and any(_names_a_position(task) for task in tasks):
        raise typer.BadParameter(
            f"{where}: numbers in dependsOn count all tasks of the batch, and {before} tasks come before these. Give "
            "the tasks keys, and use those in dependsOn."
        )
    return tasks


def _names_a_position(task: Any) -> bool:
    depends_on = task.get("dependsOn", task.get("depends_on")) if isinstance(task, dict) else None
    return isinstance(depends_on, list) and any(isinstance(one, int) for one in depends_on)


def _lines(text: str) -> list[str]:
    # Not splitlines(): it also splits at characters that are valid within a line of JSON.
    return text.split("\n")


def _json_tasks(text: str, where: str) -> list[Any] | None:
    """Return the tasks of a text that is JSON, or one JSON object a line; None where it is plain."""
    try:
        value = json.loads(text)
    except ValueError as error:
        if _JSON_ARRAY.match(text):
            raise typer.BadParameter(f"{where} begins as a JSON array but is not valid JSON: {error}.") from error
        return _checked(_objects(_lines(text), where), where) if _JSON_OBJECT.match(text) else None
    if isinstance(value, dict):
        return _checked([value], where)
    return _checked(value, where) if isinstance(value, list) else None


def _objects(lines: Iterable[str], where: str) -> list[Any]:
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(json.loads(line))
            except ValueError as error:
                raise typer.BadParameter(
                    f"{where}, line {number}: not a JSON object, as the first line is. Put each object in one line, or "
                    f"all of them in one array ({error})."
                ) from error
    return found


def _checked(tasks: Sequence[Any], where: str) -> list[Any]:
    for number, task in enumerate(tasks, 1):
        if not isinstance(task, str) and not (isinstance(task, dict) and "task" in task):
            raise typer.BadParameter(f"{where}: task {number} is neither a text nor an object with the key `task`.")
    return list(tasks)
