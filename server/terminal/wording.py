"""Says to a person what a tool says to a model: commands in place of tools, options in place of arguments."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

OPTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "allowedTools": "--allowed-tools",
        "appendSystemPrompt": "--append-system-prompt",
        "batchId": "ID",
        "disallowedTools": "--disallowed-tools",
        "idempotencyKey": "--idempotency-key",
        "jobId": "ID",
        "jobIds": "ID",
        "jsonSchema": "--schema",
        "maxBudgetUsd": "--max-budget-usd",
        "maxConcurrent": "--max-concurrent",
        "maxJobs": "--max-jobs",
        "mcpServers": "--mcp-server",
        "outputFormat": "--json",
        "parentJobId": "--parent",
        "permissionMode": "--permission-mode",
        "requestId": "REQUEST",
        "subtreeOf": "--subtree",
        "subtreeSeconds": "--subtree-timeout",
        "timeoutSeconds": "--timeout",
        "treeBudgetUsd": "--tree-budget-usd",
        "treeTimeoutSeconds": "--tree-timeout",
    }
)
"""What a command calls the arguments of tools whose names are no words of their own; `dependsOn` is a key of a file."""

_COMMANDS: Final = "result|status|wait|send|retry|approve|list|kill|run|dashboard"

_PATTERNS: Final = (
    # The older server's callers match on these words; a person reads what follows.
    (re.compile(r"^(?:(?:Execution|Job) error: )+"), ""),
    # What a tool accepts is spelled otherwise on the command line, and `--help` tells it.
    (re.compile(r"^claude_\w+: (.*)\. It accepts: .* Correct the call and repeat it\.$", re.DOTALL), r"\1."),
    (re.compile(r"claude_wait with it (?:as batchId|in jobIds) if it is a (?:batch|job)'s, or "), ""),
    (re.compile(r"claude_\w+ \((`claude-jobs [^`]+`)\)"), r"\1"),
    (re.compile(r"\bgive fork: true\b"), "give `--fork`"),
    (
        re.compile(rf"\bclaude_({_COMMANDS})\w* with (?:jobIds?|batchId|requestId) \[?'(\w+)'\]?"),
        r"`claude-jobs \1 \2`",
    ),
    (re.compile(r"\bclaude_list_jobs with (under|before) '(\w+)'"), r"`claude-jobs list --\1 \2`"),
    (re.compile(r"\bclaude_recursion_stats\b"), "`claude-jobs dashboard`"),
    (re.compile(r"\bclaude_run_batch(?:_async)?\b"), "`claude-jobs batch`"),
    (re.compile(rf"\bclaude_({_COMMANDS})(?:_(?:jobs|job|async))?\b"), r"`claude-jobs \1`"),
    (re.compile(r"\bCall (?=`claude-jobs )"), "Run "),
    (re.compile(r"\bcall (?=`claude-jobs )"), "run "),
    (re.compile(r"^(?:jobIds?|batchId): (\w)"), lambda match: match[1].upper()),
    (re.compile(rf"\b(?:{'|'.join(OPTIONS)})\b"), lambda match: f"`{OPTIONS[match[0]]}`"),
    (re.compile(r"^`(--[\w-]+)`: "), r"\1: "),
)
"""Applied in this order."""


def for_a_person(said: str) -> str:
    """Return what a tool said, with commands and options where it names tools and arguments."""
    for pattern, words in _PATTERNS:
        said = pattern.sub(words, said)
    return said
