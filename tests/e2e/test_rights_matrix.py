"""Every tool, asked by a job about every kind of id: what is not its own answers exactly as what does not exist."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from server.client.tool_client import ToolError
from tests.support.engines import House, Pump, house
from tests.support.tokens import attempt_directory, pump_of_job, running, thief, token_of
from tests.support.waiting import until_now

HOLD = "stub:wait=/nonexistent"
RANDOM_JOB, RANDOM_BATCH, RANDOM_REQUEST = "jzzzzzzzzzzzzzzzz", "bzzzzzzzzzzzzzzzz", "p999"
ASKING = {"CLAUDE_JOBS_PERMISSION_REQUESTS": "parent", "CLAUDE_JOBS_PERMISSION_SECONDS": "3600"}

Ask = Callable[[str, Mapping[str, Any]], str]
"""Call a tool and return its answer or its refusal as text."""

BY_JOB: Mapping[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "status": ("claude_status", lambda one: {"jobId": one}),
    "wait": ("claude_wait", lambda one: {"jobIds": [one], "timeoutSeconds": 0}),
    "wait for a subtree": ("claude_wait", lambda one: {"subtreeOf": one, "timeoutSeconds": 0}),
    "result": ("claude_result", lambda one: {"jobId": one}),
    "results": ("claude_result", lambda one: {"jobIds": [one, one]}),
    "list under": ("claude_list_jobs", lambda one: {"under": one}),
    "list before": ("claude_list_jobs", lambda one: {"before": one}),
    "send": ("claude_send", lambda one: {"jobId": one, "task": "x"}),
    "retry": ("claude_retry", lambda one: {"jobId": one}),
    "retry below": ("claude_retry", lambda one: {"jobId": one, "subtree": True}),
}
BY_JOB_THAT_ACTS: Mapping[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "kill": ("claude_kill_job", lambda one: {"jobId": one}),
    "pause": ("claude_pause", lambda one: {"jobId": one}),
    "resume": ("claude_pause", lambda one: {"jobId": one, "resume": True}),
    "run": ("claude_run", lambda one: {"task": "x", "parentJobId": one}),
    "run async": ("claude_run_async", lambda one: {"task": "x", "parentJobId": one}),
    "run batch": ("claude_run_batch", lambda one: {"tasks": ["x"], "parentJobId": one}),
    "run batch async": ("claude_run_batch_async", lambda one: {"tasks": ["x"], "parentJobId": one}),
}
"""These change something, so they are asked only about what the caller must not reach."""
ENDS_OR_PAUSES = ("claude_kill_job", "claude_pause")
"""They reach what is below the caller; a job cannot pause itself."""

BY_BATCH: Mapping[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "status": ("claude_status", lambda one: {"jobId": one}),
    "wait": ("claude_wait", lambda one: {"batchId": one, "timeoutSeconds": 0}),
    "wait for a tree": ("claude_wait", lambda one: {"subtreeOf": one, "timeoutSeconds": 0}),
    "list under": ("claude_list_jobs", lambda one: {"under": one}),
    "retry": ("claude_retry", lambda one: {"jobId": one}),
}
WITHOUT_ID = ("claude_list_jobs", "claude_dashboard", "claude_recursion_stats", "claude_approve")
BY_REQUEST = ("claude_approve",)
OF_THE_CLI = ("claude_permit",)
"""It takes no id: a job can only ask for itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    """Two trees whose jobs all run, and one job in the middle of the first that asks.

    Args:
        own: The caller's id and that of what it spawned, and the batch of the latter.
        foreign_jobs: By what they are to the caller.
        foreign_batches: By what they are to the caller.
        requests: Open requests for a permission, by what their jobs are to the caller, itself and its child included.
        still_open: Asks a person's connection which requests are open.
        token: The caller's.
        asks: How to ask with the token: as the job itself, and as a thief.
    """

    own: tuple[str, str, str]
    foreign_jobs: Mapping[str, str]
    foreign_batches: Mapping[str, str]
    requests: Mapping[str, str]
    still_open: Callable[[], set[str]]
    token: str
    asks: Mapping[str, Ask]


@pytest.fixture(scope="module")
def forest() -> Iterator[Forest]:
    with house(**ASKING) as made, made.pump() as person, ExitStack() as stack:

        def itself_of(job: Mapping[str, Any]) -> Pump:
            return stack.enter_context(pump_of_job(made, attempt_directory(made, dict(job))))

        parent = running(person, person.json("claude_run_async", task=HOLD)["jobId"])
        other = person.json("claude_run_batch_async", tasks=[HOLD])
        elsewhere = running(person, other["jobIds"][0])
        above = itself_of(parent)
        siblings = above.json("claude_run_batch_async", tasks=[HOLD, HOLD])
        caller, sibling = (running(person, one) for one in siblings["jobIds"])
        itself = itself_of(caller)
        below = itself.json("claude_run_batch_async", tasks=[HOLD])
        child = running(person, below["jobIds"][0])
        stolen = stack.enter_context(thief(made, token_of(attempt_directory(made, caller))))
        askers = {
            "parent": (parent, above),
            "sibling": (sibling, itself_of(sibling)),
            "other tree": (elsewhere, itself_of(elsewhere)),
            "itself": (caller, itself),
            "child": (child, itself_of(child)),
        }
        yield Forest(
            own=(caller["jobId"], child["jobId"], below["batchId"]),
            foreign_jobs={"parent": parent["jobId"], "sibling": sibling["jobId"], "other tree": elsewhere["jobId"]},
            foreign_batches={
                "its own siblings": siblings["batchId"],
                "other tree": other["batchId"],
                "its parent's": parent["batchId"],
            },
            requests={whose: asks_permission(made, person, *who) for whose, who in askers.items()},
            still_open=lambda: {one["requestId"] for one in person.json("claude_approve")},
            token=token_of(attempt_directory(made, caller)),
            asks={"real": asking(itself), "stolen": asking_thief(stolen)},
        )
        kill_all(made, person)


def asks_permission(made: House, person: Pump, job: Mapping[str, Any], pump: Pump) -> str:
    """Have a job ask for what every job here may do by itself, and return the id of its request."""
    reading = {"tool_name": "Read", "input": {"file_path": str(made.work / "x")}}
    pump.send("tools/call", name="claude_permit", arguments=reading)
    found: list[str] = []

    def is_open() -> bool:
        found[:] = [one["requestId"] for one in person.json("claude_approve") if one["jobId"] == job["jobId"]]
        return bool(found)

    until_now(is_open, 20.0, "the request")
    return found[0]


def asking(pump: Pump) -> Ask:
    def ask(tool: str, arguments: Mapping[str, Any]) -> str:
        result = pump.ask("tools/call", name=tool, arguments=dict(arguments))
        return f"{bool(result.get('isError'))} {result['content'][0]['text']}"

    return ask


def asking_thief(client: Any) -> Ask:
    def ask(tool: str, arguments: Mapping[str, Any]) -> str:
        try:
            return f"False {client.call(tool, arguments)}"
        except ToolError as refusal:
            return f"True {refusal}"

    return ask


def kill_all(made: House, person: Pump) -> None:
    for line in person.json("claude_list_jobs", limit=100):
        if line.get("parentJobId") is None:
            person.json("claude_kill_job", jobId=line["jobId"])


def without(answer: str, *ids: str) -> str:
    for one in ids:
        answer = answer.replace(one, "ID")
    return answer


@pytest.mark.parametrize("how", ["real", "stolen"])
@pytest.mark.parametrize("whose", ["parent", "sibling", "other tree"])
@pytest.mark.parametrize("question", [*BY_JOB, *BY_JOB_THAT_ACTS])
def test_a_foreign_job_answers_as_one_that_does_not_exist(forest: Forest, how: str, whose: str, question: str):
    tool, arguments = {**BY_JOB, **BY_JOB_THAT_ACTS}[question]
    ask, foreign = forest.asks[how], forest.foreign_jobs[whose]
    assert without(ask(tool, arguments(foreign)), foreign) == without(ask(tool, arguments(RANDOM_JOB)), RANDOM_JOB)


@pytest.mark.parametrize("how", ["real", "stolen"])
@pytest.mark.parametrize(
    ("question", "whose"),
    [
        (question, whose)
        for question, (tool, _) in BY_BATCH.items()
        for whose in ("its own siblings", "other tree", "its parent's")
        # Of the batch that it belongs to, a job is told that it may not wait for itself.
        if (tool, whose) != ("claude_wait", "its own siblings")
    ],
)
def test_a_foreign_batch_answers_as_one_that_does_not_exist(forest: Forest, how: str, whose: str, question: str):
    tool, arguments = BY_BATCH[question]
    ask, foreign = forest.asks[how], forest.foreign_batches[whose]
    assert without(ask(tool, arguments(foreign)), foreign) == without(ask(tool, arguments(RANDOM_BATCH)), RANDOM_BATCH)


@pytest.mark.parametrize("how", ["real", "stolen"])
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("claude_wait", {"jobIds": ["OWN"]}),
        ("claude_wait", {"jobIds": ["CHILD", "OWN"], "mode": "any"}),
        ("claude_wait", {"batchId": "BATCH"}),
        ("claude_wait", {"subtreeOf": "BATCH"}),
        ("claude_result", {"jobId": "OWN"}),
        ("claude_result", {"jobIds": ["CHILD", "OWN"]}),
        ("claude_send", {"jobId": "OWN", "task": "x"}),
    ],
)
def test_what_only_its_own_end_could_answer_is_refused_a_job_at_once(
    forest: Forest, how: str, tool: str, arguments: Mapping[str, Any]
):
    own, child, _ = forest.own
    text = json.dumps(arguments).replace("OWN", own).replace("CHILD", child)
    answer = forest.asks[how](tool, json.loads(text.replace("BATCH", forest.foreign_batches["its own siblings"])))
    assert answer.startswith(f"True Job {own} is the job that makes this call")
    assert forest.asks[how]("claude_wait", {"subtreeOf": own, "timeoutSeconds": 0}).startswith("False")


@pytest.mark.parametrize("how", ["real", "stolen"])
@pytest.mark.parametrize("question", BY_JOB)
def test_a_jobs_own_subtree_does_answer(forest: Forest, how: str, question: str):
    tool, arguments = BY_JOB[question]
    for own in forest.own[:2]:
        assert "not found" not in forest.asks[how](tool, arguments(own))


@pytest.mark.parametrize("how", ["real", "stolen"])
@pytest.mark.parametrize("tool", WITHOUT_ID)
def test_a_tool_without_an_id_names_nothing_foreign(forest: Forest, how: str, tool: str):
    answer = forest.asks[how](tool, {})
    foreign = {*forest.foreign_jobs.values(), *forest.foreign_batches.values()}
    named = set(re.findall(r"\b[jb][0-9a-z]{16}\b", answer))
    # A job knows who spawned it and with whom: its own row says so, and that opens nothing.
    above = {forest.foreign_jobs["parent"], forest.foreign_batches["its own siblings"]}
    assert not named & (foreign - above)


@pytest.mark.parametrize("how", ["real", "stolen"])
@pytest.mark.parametrize("whose", ["itself", "parent", "sibling", "other tree"])
@pytest.mark.parametrize("allow", [True, False])
def test_a_request_that_is_not_from_below_answers_as_one_that_does_not_exist(
    forest: Forest, how: str, whose: str, *, allow: bool
):
    ask, foreign = forest.asks[how], forest.requests[whose]
    answers = [ask("claude_approve", {"requestId": one, "allow": allow}) for one in (foreign, RANDOM_REQUEST)]
    assert without(answers[0], foreign) == without(answers[1], RANDOM_REQUEST)
    assert foreign in forest.still_open()


@pytest.mark.parametrize("how", ["real", "stolen"])
def test_of_requests_a_job_is_shown_those_from_below_alone(forest: Forest, how: str):
    shown = json.loads(forest.asks[how]("claude_approve", {}).removeprefix("False "))
    assert [one["requestId"] for one in shown] == [forest.requests["child"]]


def test_the_matrix_has_every_tool_that_a_job_is_shown():
    asked = {tool for questions in (BY_JOB, BY_JOB_THAT_ACTS, BY_BATCH) for tool, _ in questions.values()}
    with house(**ASKING) as made, made.pump() as person:
        caller = running(person, person.json("claude_run_async", task=HOLD)["jobId"])
        with pump_of_job(made, attempt_directory(made, caller)) as itself:
            shown = {tool["name"] for tool in itself.ask("tools/list")["tools"]}
        kill_all(made, person)
    assert shown == asked | {*WITHOUT_ID, *BY_REQUEST, *OF_THE_CLI}


def test_what_acts_reaches_the_caller_and_what_is_below_it_and_takes_no_other_job_for_its_parent():
    with house() as made, made.pump() as person:
        caller = running(person, person.json("claude_run_async", task=HOLD)["jobId"])
        with pump_of_job(made, attempt_directory(made, caller)) as itself:
            for tool, arguments in BY_JOB_THAT_ACTS.values():
                if tool not in ENDS_OR_PAUSES:
                    itself.text(tool, **arguments(caller["jobId"]))
            child = itself.json("claude_run_async", task=HOLD, parentJobId=caller["jobId"])["jobId"]
            assert itself.json("claude_status", jobId=child)["parentJobId"] == caller["jobId"]
            for tool, arguments in BY_JOB_THAT_ACTS.values():
                if tool not in ENDS_OR_PAUSES:
                    refused = without(itself.refusal(tool, **arguments(child)), child)
                    assert refused == without(itself.refusal(tool, **arguments(RANDOM_JOB)), RANDOM_JOB)
            assert "itself" in itself.refusal("claude_pause", jobId=caller["jobId"])
            for resume in (False, True):
                assert itself.json("claude_pause", jobId=child, resume=resume)["success"]
            for own in (child, caller["jobId"]):
                assert itself.json("claude_kill_job", jobId=own)["success"]
        assert person.settled(child)["status"] == "cancelled"
        assert person.settled(caller["jobId"])["status"] == "cancelled"


@pytest.mark.parametrize("how", ["real", "stolen"])
def test_a_mixed_list_of_ids_is_refused_for_the_foreign_one(forest: Forest, how: str):
    ask, foreign = forest.asks[how], forest.foreign_jobs["sibling"]
    for tool in ("claude_result", "claude_wait"):
        answer = ask(tool, {"jobIds": [forest.own[1], foreign]})
        assert answer == ask(tool, {"jobIds": [forest.own[1], RANDOM_JOB]}).replace(RANDOM_JOB, foreign)


def test_a_foreign_resource_answers_as_one_that_does_not_exist(forest: Forest):
    with house() as made, made.pump() as person:
        caller = running(person, person.json("claude_run_async", task=HOLD)["jobId"])
        other = running(person, person.json("claude_run_async", task=HOLD)["jobId"])["jobId"]
        with pump_of_job(made, attempt_directory(made, caller)) as itself:
            for form in ("job://{}", "job://{}/transcript", "tree://{}"):
                foreign = itself.ask("resources/read", uri=form.format(other))
                missing = itself.ask("resources/read", uri=form.format(RANDOM_JOB))
                assert without(str(foreign["error"]), other) == without(str(missing["error"]), RANDOM_JOB)
                assert "contents" in itself.ask("resources/read", uri=form.format(caller["jobId"]))
            assert other not in str(itself.ask("resources/list"))
        kill_all(made, person)


def test_a_token_is_worth_nothing_once_its_job_is_over(forest: Forest):
    with house() as made, made.pump() as person:
        caller = running(person, person.json("claude_run_async", task=HOLD)["jobId"])
        with thief(made, token_of(attempt_directory(made, caller))) as stolen:
            person.json("claude_kill_job", jobId=caller["jobId"])
            person.settled(caller["jobId"])
            with pytest.raises(ToolError, match="the job is over"):
                stolen.call("claude_list_jobs", {})
