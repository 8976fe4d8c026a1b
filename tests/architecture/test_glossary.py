"""The names of the project: each module says what it holds in known words, and a name that was given up stays away."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sources import parsed, relative, sources

GLOSSARY = frozenset(
    re.findall(
        r"\S+",
        """
    account accounts admission answer answers api argument arguments attempt attempts backup batch batches
    binary budget budgets cancel cgroup checks claude client clients command commands connection connections
    conversation cost costs database decomposition demo dependencies depth directory disk elicitation engine
    environment errors event events executor executors failure failures file files fork graph graphs guard idle
    ids job jobs json kill langgraph limit limits lines lock locks log mcp memory messages metrics migration
    model models node nodes options outcome output parts pattern patterns permission permissions pipeline price
    prices process processes progress project prompt prompts proxy queue rate recovery replies reply request
    requests result results retention retry rights row rows runner scheduler script secrets send session
    sessions setting settings signal slot slots snapshot snapshots socket spec specs statements statistics
    status store stream subtask subtasks subtree task tasks terminal text times token tokens tool tools
    transaction transactions transcript transcripts tree trees usage values version wait waits
        """,
    )
)
"""Words of which the first line of a module's docstring has at least one."""

GIVEN_UP = {
    "Aftermath": "AttemptCleanup",
    "Alarm": "LookTimer",
    "Books": "LiveTrees",
    "Busy": "RateLimited",
    "Changing": "CountsChanges",
    "Cue": "NextTurn",
    "Division": "SubtaskRequest",
    "Door": "EngineEndpoint",
    "EngineLeavingError": "EngineStoppingError",
    "Family": "_AttemptProcesses",
    "Figures": "JobMetrics",
    "FollowUp": "SessionService",
    "Follower": "OutputTail",
    "Framer": "LineDecoder",
    "FrontDoorError": "ClientError",
    "InForce": "EffectiveClaudeEnv",
    "Intake": "SpecBuilder",
    "JobSignals": "JobEventBus",
    "LEAVE_SECONDS": "EXIT_SECONDS",
    "Launched": "LaunchManifest",
    "LiveAttempt": "RunningAttempt",
    "Lost": "UnreadableKind",
    "Meter": "UsageMeter",
    "Offender": "NestedClaude",
    "Origin": "ClientContext",
    "OriginFiles": "ClientContextStore",
    "OwnParts": "StandaloneParts",
    "POKE_SECONDS": "RESCHEDULE_SECONDS",
    "Passage": "_WaveProgress",
    "Patience": "WatchdogLimits",
    "Patrol": "NestedClaudeDetector",
    "Places": "StatePaths",
    "Preparation": "LaunchPlanner",
    "Presence": "ConnectionCounter",
    "RELOADED": "ENGINE_RELOADED",
    "RESTART": "ENGINE_START",
    "Reception": "ConnectionHandlers",
    "Relay": "StdioProxy",
    "Remains": "Salvage",
    "Rescue": "RecoveryReport",
    "Scope": "SettingScope or JobSelection",
    "Sdk": "LazyMcpServer",
    "SeatingGuard": "TrackingGuard",
    "Sequel": "RetryPolicy",
    "Settlement": "Settler",
    "Siblings": "DependencyWaiter",
    "Singly": "KeyedLock",
    "StartWay": "CliFeatures",
    "StrangerError": "PeerUidError",
    "Trace": "JobDirectory",
    "Unanswered": "PendingRequests",
    "UsedUp": "UsageLimitReached",
    "Wanted": "TaskRequest",
    "Wish": "RightsRequest",
    "account_in_line": "queued_account",
    "adopters": "orphan_parents",
    "batch_scope": "batch_selection",
    "books": "live_trees",
    "bury": "reap_zombies",
    "company": "wait_wrapper",
    "complaints": "errors_as_messages",
    "cue": "next_turn",
    "divisible": "can_decompose",
    "door": "endpoint",
    "door_of": "endpoint_of",
    "doubts": "needs_full_search",
    "ended_for": "stop_reason",
    "errand": "task",
    "fallen": "reparented",
    "first_words": "initial_briefing",
    "glance": "first_look",
    "goes_along": "is_passed_on",
    "greeting": "initialize_line",
    "has_line": "has_queue",
    "heed": "apply_rate_limit",
    "holders": "owners",
    "insist": "retry_while_unavailable",
    "is_deaf": "has_no_reader",
    "is_leaving": "is_stopping",
    "is_unborn": "is_not_yet_a_shim",
    "leave_lost_state": "stop_for_lost_state",
    "leave_when_idle": "stop_when_idle",
    "leave_within": "exit_within",
    "lost_with": "kind_of_unreadable",
    "marked_open": "crash_marker",
    "meet": "narrow",
    "native": "run_isolated",
    "next_words": "resume_message",
    "on_leaving": "on_stopping",
    "on_overdrawn": "on_budget_exhausted",
    "open_rescued": "open_with_recovery",
    "origin": "client_context",
    "overdrawn": "budget_exhausted",
    "owed": "pending",
    "passing": "transient",
    "patience": "limits or timeout",
    "patiently": "retrying",
    "patrol": "watch_for_nested_claudes",
    "places": "paths",
    "poke": "reschedule",
    "remains_of": "salvaged",
    "remove_leavings": "remove_stale_files",
    "rescue": "report",
    "scope_reader": "selection_reader",
    "second_ones": "nested_claudes",
    "sight": "visibility",
    "sign_of": "rate_limit_signal",
    "spare_the_collector": "freeze_imports_for_gc",
    "spell_what_cannot_be_written": "escape_unencodable",
    "still_lives": "is_alive",
    "subtree_scope": "subtree_selection",
    "take_leave": "stop_services",
    "teller": "pause_reporter",
    "tidy": "quick_pass",
    "traces_under": "launched_jobs_under",
    "trees_in_line": "queued_trees",
    "unmanaged": "nested_claude",
    "unstarted": "launch_failed",
    "way_of": "features_of",
    "while_it_goes_on": "interrupt_hint",
    "while_it_is_asked": "interrupt_hint_without_id",
    "wish": "request",
}
"""Name that nobody could guess to the one that replaced it. None of them is defined again, for whatever it would be."""

GIVEN_UP_FILES = frozenset(
    re.findall(
        r"\S+",
        """
    aftermath attempts(?=/) company cue exempt figures follow_up follower framer front_door hello intake
    leavings limit_signs locate nursery origin patience places preparation presence proctable protocol(?=/)
    raw_door reaper reception relay repair rescue rights(?=/) safe_text sequel settlement shapes siblings
    signals singly speech survivors tale traces unanswered unmanaged upkeep zygote
        """,
    )
)
"""Names of files and directories that are not used again."""


def summary_of(path: Path) -> str:
    said = ast.get_docstring(parsed(path)) or ""
    return said.partition("\n")[0]


def speaks_known_words(summary: str) -> bool:
    return not GLOSSARY.isdisjoint(re.findall(r"[a-z]+", summary.lower()))


def defined_in(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def given_up(tree: ast.Module) -> set[str]:
    return {name for name in defined_in(tree) if name.lstrip("_") in GIVEN_UP}


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_a_modules_first_line_says_what_it_holds_in_words_of_the_glossary(path: Path):
    assert speaks_known_words(summary_of(path)), f"{relative(path)}: {summary_of(path)!r}"


def test_a_line_that_could_be_of_anything_is_found():
    assert not speaks_known_words("How much is borne.")
    assert not speaks_known_words("")


def test_a_name_that_was_given_up_is_not_defined_again():
    found = {relative(path): given_up(parsed(path)) for path in sources()}
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "source", ["class Sequel: ...", "async def insist(): ...", "def f(wish): ...", "self._origin = 1", "heed: int = 1"]
)
def test_the_rule_sees_every_way_to_define_a_name(source: str):
    assert given_up(ast.parse(source))


def test_no_file_has_a_name_that_was_given_up():
    given = re.compile(rf"(?:^|/)(?:{'|'.join(sorted(GIVEN_UP_FILES))})(?:/|\.py$)")
    assert [relative(path) for path in sources() if given.search(relative(path))] == []
