"""The demo's story, told without a process: tool replies are made up as the tools write them."""

from pathlib import Path
from typing import Any

import pytest

from server.demo.conversation import read
from server.demo.next_turn import NextTurn, find_next_turn
from server.demo.picnic import expected_answer, invitation, root_tasks, story, write_files
from tests.unit.demo.dialogue import messages


def cue_after(task: str, *results: dict[str, Any]) -> NextTurn:
    return find_next_turn(story(), read(messages(task, *([result] for result in results))))


def role_in(task: str) -> str:
    return story().role_of(f"Before it: this.\n\n{task}")


def answer_of(task: str) -> NextTurn:
    """What a child says after it has looked something up."""
    [(name, _)] = cue_after(task).tool_calls()
    assert name in {"Read", "Grep", "Bash"}
    return cue_after(task, {"found": 1})


def spawned_tasks(task: str) -> list[str]:
    [(name, arguments)] = cue_after(task).tool_calls()
    assert name == "mcp__claude-jobs__claude_run_batch_async"
    return list(arguments["tasks"])


SPAWNED: dict[str, Any] = {
    "jobIds": ["j1", "j2"],
    "batchId": "b1",
    "count": 2,
    "status": "all_spawned_parallel",
    "parentJobId": "j0",
}


def test_the_last_job_of_the_root_batch_waits_for_the_others_and_has_a_role_of_its_own():
    last = invitation()
    assert last["dependsOn"] == list(range(len(root_tasks())))
    opening = "\n".join((*root_tasks(), last["task"]))
    assert find_next_turn(story(), read(messages(opening))).text() == expected_answer("host")


def test_the_files_that_its_jobs_look_at_are_there(tmp_path: Path):
    write_files(tmp_path, 0)
    named = [call.input for turns in story().roles.values() for turn in turns for call in turn.tool_calls]
    files = {str(given.get("file_path") or given.get("path")) for given in named} - {"None"}
    scripts = {str(given["command"]).split()[0].removeprefix("./") for given in named if "command" in given}
    assert files | scripts == {path.name for path in tmp_path.iterdir()}


def test_the_root_batch_has_three_jobs_and_each_spawns_two_of_its_own():
    assert len({role_in(task) for task in root_tasks()}) == 3
    children = [child for task in root_tasks() for child in spawned_tasks(task)]
    assert len({role_in(child) for child in children}) == 6


@pytest.mark.parametrize("task", root_tasks())
def test_a_parent_waits_for_its_batch_and_again_with_the_cursor_while_some_are_pending(task: str):
    [(name, first)] = cue_after(task, SPAWNED).tool_calls()
    [(_, second)] = cue_after(task, SPAWNED, {"done": [], "pending": 1, "cursor": "c1"}).tool_calls()
    assert name == "mcp__claude-jobs__claude_wait"
    assert first == {"batchId": "b1", "mode": "all"}
    assert second == {"batchId": "b1", "mode": "all", "cursor": "c1"}


@pytest.mark.parametrize("task", root_tasks())
def test_a_parents_answer_is_made_of_its_childrens_answers_in_the_order_of_the_spawn(task: str):
    answers = [answer_of(child).text() for child in spawned_tasks(task)]
    done = [
        {"jobId": job, "status": "completed", "excerpt": answer}
        for job, answer in zip(SPAWNED["jobIds"], answers, strict=True)
    ]
    waits = (
        {"done": [done[1]], "pending": 1, "cursor": "c1"},
        {"done": [done[0]], "pending": 0, "cursor": "c2"},
    )
    text = cue_after(task, SPAWNED, *waits).text()
    assert text == expected_answer(role_in(task))
    assert all(answer in text for answer in answers)


def test_every_child_answers_with_a_distinct_sentence_after_a_short_while():
    cues = [answer_of(child) for task in root_tasks() for child in spawned_tasks(task)]
    assert len({cue.text() for cue in cues}) == 6
    assert [cue.text() for cue in cues] == [expected_answer(cue.role) for cue in cues]
    assert all(0.2 <= cue.turn.delay <= 1.5 for cue in cues)
    # An excerpt of a short answer is the whole; a parent has no other look at it.
    assert max(len(cue.text()) for cue in cues) <= 100


def test_a_refused_spawn_is_told_with_the_reason_of_the_refusal():
    task = root_tasks()[0]
    conversation = read(messages(task, ["Recursion depth limit exceeded: 6/5."]))
    with pytest.raises(Exception, match="Recursion depth limit exceeded"):
        find_next_turn(story(), conversation).tool_calls()
