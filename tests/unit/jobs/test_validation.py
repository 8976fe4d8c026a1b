"""What a caller asks for becomes a complete spec, or an error that names the argument and the next step."""

import math
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import BadInputError
from jobs.settings import Settings
from jobs.spec import JobSpec, TaskRequest
from jobs.submissions import request_digest
from jobs.validation import SpecBuilder, TreeBounds
from tests.unit.jobs.support import job


def spec_builder(tmp_path: Path, **settings: Any) -> SpecBuilder:
    return SpecBuilder(Settings(home=tmp_path, **settings))


def spec(tmp_path: Path, *, task: str = "work", parent: JobSpec | None = None, home: str | None = None, **asked: Any):
    spawning = job("jparent", spec=parent) if parent else None
    return spec_builder(tmp_path).spec(TaskRequest(task=task, **asked), parent=spawning, cwd=str(tmp_path), home=home)


def refusal(tmp_path: Path, **asked: Any) -> BadInputError:
    with pytest.raises(BadInputError) as info:
        spec(tmp_path, **asked)
    error = info.value
    assert str(error).startswith(f"{error.field}: ")
    assert error.remedy.endswith(".")
    assert len(str(error)) < 600
    return error


@pytest.mark.parametrize("task", ["", " ", "\n\t\u2003\n"])
def test_an_empty_task_is_refused(tmp_path: Path, task: str):
    error = refusal(tmp_path, task=task)
    assert (error.field, error.problem) == ("task", "the task is empty")


def test_a_task_with_a_nul_is_refused(tmp_path: Path):
    assert "NUL" in refusal(tmp_path, task="a\x00b").problem


def test_a_task_is_refused_one_character_beyond_the_limit_and_told_of_files(tmp_path: Path):
    short = spec_builder(tmp_path, max_task_chars=5)
    assert short.spec(TaskRequest(task="12345"), parent=None, cwd="/").task == "12345"
    with pytest.raises(BadInputError, match=r"6 characters, the limit is 5\. Put the material into a file"):
        short.spec(TaskRequest(task="123456"), parent=None, cwd="/")


def test_a_task_of_a_megabyte_is_taken_and_a_character_more_is_not(tmp_path: Path):
    assert len(spec(tmp_path, task="x" * 1_000_000).task) == 1_000_000
    assert refusal(tmp_path, task="x" * 1_000_001).field == "task"


def test_an_error_names_the_task_as_the_caller_spelled_it(tmp_path: Path):
    with pytest.raises(BadInputError) as info:
        spec_builder(tmp_path).spec(TaskRequest(task=""), parent=None, cwd="/", field="tasks[3]")
    assert info.value.field == "tasks[3]"


def test_a_directory_is_the_clients_where_none_is_named(tmp_path: Path):
    assert spec(tmp_path).cwd == str(tmp_path)


def test_a_relative_directory_starts_at_the_clients(tmp_path: Path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert spec(tmp_path, cwd="a/../a/b").cwd == str(tmp_path / "a" / "b")


def test_a_relative_directory_of_a_child_starts_at_its_parents(tmp_path: Path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    parent = JobSpec(task="x", cwd=str(tmp_path / "a"))
    assert spec(tmp_path, parent=parent).cwd == str(tmp_path / "a")
    assert spec(tmp_path, parent=parent, cwd="b").cwd == str(tmp_path / "a" / "b")


@pytest.mark.parametrize(("asked", "below"), [("~", ""), ("~/", ""), ("~/a", "a")])
def test_a_tilde_is_the_clients_home_and_not_the_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, below: str
):
    monkeypatch.setenv("HOME", "/nonexistent")
    (tmp_path / "a").mkdir()
    assert spec(tmp_path, cwd=asked, home=str(tmp_path)).cwd == str(tmp_path / below)


@pytest.mark.parametrize(("asked", "home"), [("~", None), ("~nobody-of-this-name", "/"), ("~root/x", "/")])
def test_a_tilde_that_stands_for_nothing_is_refused(tmp_path: Path, asked: str, home: str | None):
    error = refusal(tmp_path, cwd=asked, home=home)
    assert (error.field, error.remedy) == ("cwd", "Give an absolute path.")


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ("missing", "does not exist"),
        ("/missing/altogether", "does not exist"),
        ("file", "is not a directory"),
        ("file/below", "does not exist"),
        ("nul\x00", "does not exist"),
        ("x" * 5000, "cannot be read"),
    ],
)
def test_a_directory_that_cannot_be_worked_in_is_refused(tmp_path: Path, asked: str, problem: str):
    (tmp_path / "file").touch()
    error = refusal(tmp_path, cwd=asked)
    assert error.field == "cwd"
    assert problem in error.problem


@pytest.mark.parametrize(
    ("argument", "field", "value"),
    [
        ("permission_mode", "permissionMode", "god"),
        ("output_format", "outputFormat", "yaml"),
        ("model", "model", "--settings={}"),
        ("effort", "effort", "heroic"),
        ("allowed_tools", "allowedTools", ["Read", "a b"]),
        ("disallowed_tools", "disallowedTools", ["--help"]),
        ("json_schema", "jsonSchema", "[1]"),
        ("json_schema", "jsonSchema", "{"),
        ("append_system_prompt", "appendSystemPrompt", "a\x00b"),
        ("append_system_prompt", "appendSystemPrompt", "x" * 200_000),
    ],
)
def test_what_the_launch_would_refuse_is_refused_while_the_caller_listens(
    tmp_path: Path, argument: str, field: str, value: Any
):
    assert refusal(tmp_path, **{argument: value}).field == field


@pytest.mark.parametrize(
    ("argument", "field"), [("max_budget_usd", "maxBudgetUsd"), ("timeout_seconds", "timeoutSeconds")]
)
@pytest.mark.parametrize("value", [0, -1, -0.0, math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_above_0_or_not_finite_is_refused(tmp_path: Path, argument: str, field: str, value: float):
    assert refusal(tmp_path, **{argument: value}).field == field


def test_bypassing_permissions_wants_a_person_to_have_switched_it_on(tmp_path: Path):
    error = refusal(tmp_path, permission_mode="bypassPermissions")
    assert "CLAUDE_ALLOW_BYPASS_PERMISSIONS" in error.remedy
    allowed = spec_builder(tmp_path, allow_bypass_permissions=True)
    request = TaskRequest(task="x", permission_mode="bypassPermissions")
    assert allowed.spec(request, parent=None, cwd="/").permission_mode == "bypassPermissions"


def test_a_bypass_that_was_switched_off_is_not_inherited(tmp_path: Path):
    parent = JobSpec(task="x", cwd="/", permission_mode="bypassPermissions")
    assert refusal(tmp_path, parent=parent).field == "permissionMode"


def test_a_child_takes_its_parents_mode_and_a_root_the_settings(tmp_path: Path):
    assert spec(tmp_path, parent=JobSpec(task="x", cwd="/", permission_mode="plan")).permission_mode == "plan"
    assert spec(tmp_path).permission_mode == "acceptEdits"


def test_a_request_without_wishes_gets_the_defaults(tmp_path: Path):
    assert spec(tmp_path) == JobSpec(task="work", cwd=str(tmp_path))


def test_every_wish_reaches_the_spec(tmp_path: Path):
    wishes: dict[str, Any] = {
        "model": "sonnet",
        "permission_mode": "plan",
        "output_format": "text",
        "verbose": True,
        "effort": "low",
        "max_budget_usd": 0.5,
        "timeout_seconds": 9.0,
        "allowed_tools": ["Read", "Bash(git *)"],
        "disallowed_tools": ["Write"],
        "append_system_prompt": "be brief",
        "json_schema": '{"type": "object"}',
    }
    tools = {name: tuple(wishes[name]) for name in ("allowed_tools", "disallowed_tools")}
    assert spec(tmp_path, **wishes) == JobSpec(task="work", cwd=str(tmp_path), **(wishes | tools))


def test_a_subtrees_jobs_and_its_time_reach_the_spec(tmp_path: Path):
    request = TaskRequest(task="x", max_jobs=0, subtree_seconds=30.0)
    made = spec_builder(tmp_path).spec(request, parent=None, cwd=str(tmp_path), at=1000.0)
    assert (made.max_jobs, made.deadline) == (0, 1030.0)


@pytest.mark.parametrize(
    ("argument", "field", "value"),
    [
        ("max_jobs", "maxJobs", -1),
        ("subtree_seconds", "subtreeSeconds", 0.0),
        ("subtree_seconds", "subtreeSeconds", math.nan),
    ],
)
def test_a_subtrees_bound_that_is_none_is_refused(tmp_path: Path, argument: str, field: str, value: float):
    assert refusal(tmp_path, **{argument: value}).field == field


def test_a_time_out_of_more_than_a_day_is_refused_and_the_limit_named(tmp_path: Path):
    assert spec(tmp_path, timeout_seconds=86_400).timeout_seconds == 86_400
    error = refusal(tmp_path, timeout_seconds=86_401)
    assert error.field == "timeoutSeconds"
    assert "86401" in error.problem
    assert "86400" in error.problem


def test_a_time_out_up_to_a_persons_longer_default_is_taken(tmp_path: Path):
    patient = spec_builder(tmp_path, timeout_seconds=100_000)
    assert patient.spec(TaskRequest(task="x"), parent=None, cwd="/").timeout_seconds == 100_000
    asked = patient.spec(TaskRequest(task="x", timeout_seconds=90_000), parent=None, cwd="/")
    assert asked.timeout_seconds == 90_000


@pytest.mark.parametrize("option", ["output_format", "verbose"])
def test_none_is_refused_where_it_does_not_mean_the_default(tmp_path: Path, option: str):
    assert refusal(tmp_path, **{option: None}).problem == "None is no value for it"


def test_an_empty_schema_asks_for_none(tmp_path: Path):
    assert spec(tmp_path, json_schema="").json_schema == ""


@pytest.mark.parametrize("slots", [0, -1])
def test_a_batch_without_a_slot_is_refused_for_its_jobs_would_wait_for_ever(tmp_path: Path, slots: int):
    error = refusal(tmp_path, batch_slots=slots)
    assert (error.field, error.problem) == ("maxConcurrent", f"{slots} is less than 1")


def test_a_time_out_is_by_default_that_of_the_depth(tmp_path: Path):
    growing = spec_builder(tmp_path, timeout_multiplier=2)
    request = TaskRequest(task="x")
    assert [growing.spec(request, parent=None, cwd="/", depth=depth).timeout_seconds for depth in (0, 1, 5)] == [
        300,
        600,
        1800,
    ]


def test_requests_that_are_alike_in_part_have_the_specs_that_each_has_alone(tmp_path: Path):
    requests = [
        TaskRequest(task="a", model="opus"),
        TaskRequest(task="b", model="opus", key="k"),
        TaskRequest(task="c", model="opus", timeout_seconds=3),
        TaskRequest(task="d"),
        TaskRequest(task="d", allowed_tools=["Read"]),
        TaskRequest(task="e", allowed_tools=["Read"]),
    ]
    situation: dict[str, Any] = {"parent": None, "cwd": str(tmp_path), "at": 7.0}
    checked = spec_builder(tmp_path)
    fields = [f"tasks[{number}]" for number in range(len(requests))]
    assert checked.build(requests, fields, **situation) == [checked.spec(one, **situation) for one in requests]


@pytest.mark.parametrize(("second", "field"), [({"task": ""}, "tasks[1]"), ({"task": "b", "key": "no key"}, "key")])
def test_what_a_request_does_not_share_with_the_one_before_it_is_checked(
    tmp_path: Path, second: dict[str, Any], field: str
):
    requests = [TaskRequest(task="a"), TaskRequest(**second)]
    with pytest.raises(BadInputError) as info:
        spec_builder(tmp_path).build(requests, ["tasks[0]", "tasks[1]"], parent=None, cwd=str(tmp_path), at=7.0)
    assert info.value.field == field


def test_an_idempotency_key_of_an_earlier_version_still_names_its_request():
    """The digest that the version wrote which called the option `divisible`."""
    asked = TaskRequest(task="x", can_decompose=True)
    digest = request_digest([asked], TreeBounds(), as_root=True, cwd="/")
    assert digest == "292181ac83da639ee7117b9519027097c917bbd7b7a2dbffdf4cd004c7338ef8"
