"""Rewrites a tool's text for a person: commands in place of tools, options in place of arguments."""

import re
import time
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

from server.cli.task_options import FLAGS
from server.cli.times import here

OPTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **{argument: flag for argument, flag in FLAGS.items() if not argument.islower()},
        "batchId": "ID",
        "jobId": "ID",
        "jobIds": "ID",
        "outputFormat": "--json",
        "requestId": "REQUEST",
        "subtreeOf": "--subtree",
    }
)
"""Command-line options by the tools' argument names, where those are no plain words; `dependsOn` is a key of a file."""

_WORDS: Final = "|".join(argument for argument in FLAGS if argument.islower())
"""Argument names that are plain words: they are names only where an error begins with them."""


def _of_task(index: int, argument: str | None) -> str:
    # A person counts tasks from one.
    return f"task {index + 1}, {argument}: " if argument else f"task {index + 1}: "


_TOOL: Final = r"(?<![\w/'\"-])claude_([a-z]+)"
"""The name of a tool up to the word that names its command; in quotes, or in a path, it is something else."""


@cache
def _commands() -> frozenset[str | None]:
    # Not at the top: the commands use this module.
    from server.cli.app import app

    return frozenset(command.name for command in app.registered_commands)


def _command(match: re.Match[str]) -> str:
    # What a job wrote has words that begin so as well: claude_helpers is no tool.
    return f"`claude-jobs {' '.join(match.groups())}`" if match[1] in _commands() else match[0]


_PATTERNS: Final = (
    # The older server's callers match on this prefix; a person needs only the rest.
    (re.compile(r"^(?:(?:Execution|Job) error: )+"), ""),
    # The command line spells the arguments differently, and `--help` lists them.
    (re.compile(r"^claude_\w+: (.*)\. It accepts: .* Correct the call and repeat it\.$", re.DOTALL), r"\1."),
    (re.compile(r"claude_wait with it (?:as batchId|in jobIds) if it is a (?:batch|job)'s, or "), ""),
    (re.compile(r"claude_\w+ \((`claude-jobs [^`]+`)\)"), r"\1"),
    (re.compile(r"\bgive fork: true\b"), "give `--fork`"),
    (
        re.compile(r"^Too many children for one parent: (\d+)/(\d+)\. .*", re.DOTALL),
        r"That is \1 jobs in one batch or below one job; \2 is the most. Start more batches or raise `max_children`.",
    ),
    (re.compile(r"\bclaude_pause with jobId 'all' and resume true"), "`claude-jobs resume`"),
    (re.compile(r"\bclaude_pause with jobId '(\w+)' and resume true"), r"`claude-jobs resume \1`"),
    (
        re.compile(rf"{_TOOL}\w* with (?:jobIds?|batchId|requestId) \[?'(\w+)'\]?"),
        r"`claude-jobs \1 \2`",
    ),
    (re.compile(r"\bclaude_list_jobs with (under|before) '(\w+)'"), r"`claude-jobs list --\1 \2`"),
    (re.compile(r"\bclaude_recursion_stats\b"), "`claude-jobs dashboard`"),
    (re.compile(r"\bclaude_run_batch(?:_async)?\b"), "`claude-jobs batch`"),
    (re.compile(rf"{_TOOL}(?:_(?:jobs|job|async))?(?![\w/-])"), _command),
    (re.compile(r"\bCall (?=`claude-jobs )"), "Run "),
    (re.compile(r"\bcall (?=`claude-jobs )"), "run "),
    (re.compile(r"^(Request \S+ not found\.) .*"), r"\1 `claude-jobs approve` lists those that are open."),
    (re.compile(r"so it cannot spawn\. Finish with what you have\."), "so nothing can run below it. Name a live one."),
    (re.compile(r"\bFinish with what you have, without spawning; a person can raise\b"), "Wait, or raise"),
    (re.compile(r"\bSpawn (?=fewer)"), "Give "),
    (
        re.compile(r"Read it with `claude-jobs result`, or go on with `claude-jobs send`\."),
        "`claude-jobs result ID` prints it.",
    ),
    (re.compile(r"\bthen call again\b"), "then try again"),
    (re.compile(r"(`claude-jobs send \w+)(?=` asks its session)"), r'\1 "Answer as the schema says."'),
    (re.compile(r"(`claude-jobs send \w+)(?=` can ask its session)"), r'\1 "Give the answer in parts."'),
    (re.compile(r"^(?:jobIds?|batchId): (\w)"), lambda match: match[1].upper()),
    (re.compile(r"\btasks[\[.](\d+)\]?(?:\.([\w.]+))?: "), lambda match: _of_task(int(match[1]), match[2])),
    (re.compile(rf"^({_WORDS}): "), lambda match: f"{FLAGS[match[1]]}: "),
    (re.compile(r"\bleave (?:cwd|directories) out\b"), "leave it out"),
    (re.compile(rf"\b(?:{'|'.join(OPTIONS)})\b"), lambda match: f"`{OPTIONS[match[0]]}`"),
    (re.compile(r"^`(--[\w-]+)`: "), r"\1: "),
)
"""Applied in this order."""


_KEYS: Final = re.compile(r" A task is (a text, or an object with: .*\.) (?=Correct the call and repeat it\.$)")
"""The keys of a task: a file spells them as a tool does."""


def for_a_person(said: str) -> str:
    """Return a tool's text with commands and options where it names tools and arguments."""
    keys = _KEYS.search(said)
    return f"{_translated(_KEYS.sub(' ', said))} In a file a task is {keys[1]}" if keys else _translated(said)


def in_words(said: str) -> str:
    """Return a tool's text as `for_a_person` does, with times in the time zone of this process and their age."""
    return here(for_a_person(said), time.time())


def _translated(said: str) -> str:
    for pattern, words in _PATTERNS:
        said = pattern.sub(words, said)
    return said
