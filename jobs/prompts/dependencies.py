"""Jobs of a batch that wait for siblings: whom each one means, that nobody waits in a circle, and what they said."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from jobs.errors import BadInputError

_PLACEHOLDER = re.compile(r"\{\{\s*results\.([^{}\s]+)\s*\}\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One task of a batch, as far as its siblings are concerned.

    Args:
        key: Its name among them, or None.
        depends_on: Whom it waits for: names, or positions counted from 0.
        task: Its text, which may hold `{{results.KEY}}`.
    """

    key: str | None
    depends_on: Sequence[str | int]
    task: str


def resolve(tasks: Sequence[Wanted], ids: Sequence[str]) -> list[tuple[str, ...]]:
    """Return for each task the ids of the siblings that it waits for.

    Args:
        tasks: The batch.
        ids: The id of each task's job, in the same order.

    Raises:
        BadInputError: A name twice, a dependency that is none of them, a circle, or a placeholder for a sibling that
            the task does not wait for; nothing has been started.
    """
    names = _names(tasks)
    positions = [_positions(index, task, names, len(tasks)) for index, task in enumerate(tasks)]
    _refuse_circles(tasks, positions)
    for index, task in enumerate(tasks):
        _check_placeholders(index, task, names, positions[index])
    return [tuple(ids[position] for position in waits) for waits in positions]


def fill(task: str, results: Mapping[str, str]) -> str:
    """Put the results of siblings into a task's text.

    Args:
        task: The text, which may hold `{{results.KEY}}`.
        results: Key, or position as text, to result. They are put in as they are: a placeholder in one stays text.
    """
    return _PLACEHOLDER.sub(lambda match: results.get(match[1], match[0]), task)


def _mentioned(task: str) -> list[str]:
    return _PLACEHOLDER.findall(task)


def _names(tasks: Sequence[Wanted]) -> dict[str, int]:
    names: dict[str, int] = {str(index): index for index in range(len(tasks))}
    for index, task in enumerate(tasks):
        if task.key is None:
            continue
        if names.get(task.key, index) != index:
            raise BadInputError(
                f"tasks[{index}].key", f"{task.key!r} names another task too", "Give each task a name of its own."
            )
        names[task.key] = index
    return names


def _positions(index: int, task: Wanted, names: Mapping[str, int], count: int) -> tuple[int, ...]:
    found: list[int] = []
    for other in task.depends_on:
        position = names.get(str(other))
        if position is None or position == index:
            raise BadInputError(
                f"tasks[{index}].dependsOn",
                f"{other!r} is no other task of this batch",
                f"Name a sibling's key or its position from 0 to {count - 1}.",
            )
        found.append(position)
    return tuple(dict.fromkeys(found))


def _refuse_circles(tasks: Sequence[Wanted], positions: Sequence[Sequence[int]]) -> None:
    try:
        TopologicalSorter(dict(enumerate(positions))).prepare()
    except CycleError as error:
        circle = " → ".join(tasks[index].key or str(index) for index in error.args[1])
        raise BadInputError(
            "tasks", f"they wait for each other in a circle ({circle})", "Leave one dependsOn of the circle out."
        ) from error


def _check_placeholders(index: int, task: Wanted, names: Mapping[str, int], waits: Sequence[int]) -> None:
    for name in _mentioned(task.task):
        position = names.get(name)
        # What names no other task is text of the task's own: a template that it is about, for example.
        if position not in {None, index, *waits}:
            raise BadInputError(
                f"tasks[{index}].task",
                f"{{{{results.{name[:64]}}}}} stands for a task that it does not wait for",
                "Name that task in dependsOn as well.",
            )
