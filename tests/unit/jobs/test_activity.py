"""What a running attempt does, in one line: its call, its last words, or that it thinks."""

from typing import Any

import pytest

from jobs.activity import DOING_CHARS, ActivityTracker, described_call, names_another_model

CWD = "/home/me/project"


def call(name: str, call_id: str = "t1", above: str | None = None, **arguments: Any) -> dict[str, Any]:
    block = {"type": "tool_use", "id": call_id, "name": name, "input": arguments}
    return {"type": "assistant", "message": {"content": [block]}, "parent_tool_use_id": above}


def says(words: str) -> dict[str, Any]:
    return {"type": "assistant", "message": {"content": [{"type": "text", "text": words}]}}


def returned(call_id: str = "t1") -> dict[str, Any]:
    return {"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id": call_id}]}}


def doing(*frames: Any, secrets: tuple[str, ...] = ()) -> str:
    tracker = ActivityTracker(CWD)
    for frame in frames:
        tracker.take(frame)
    return tracker.doing(secrets)


@pytest.mark.parametrize(
    ("frame", "line"),
    [
        (call("Bash", command="pytest -x", description="Run the tests"), "Bash: pytest -x"),
        (call("Bash", command=f"cd {CWD} && make"), "Bash: make"),
        (call("Bash", command="# build first\n\nmake -j8 all\nmake check"), "Bash: make -j8 all"),
        (call("Bash", command="# only a remark"), "Bash: # only a remark"),
        (call("Bash", command=""), "Bash"),
        (call("Edit", file_path=f"{CWD}/src/a.py", old_string="x", new_string="y"), "Edit: src/a.py"),
        (call("Read", file_path="/etc/hosts"), "Read: /etc/hosts"),
        (call("Write", file_path=f"{CWD}-other/a.py", content="x" * 10**6), f"Write: {CWD}-other/a.py"),
        (call("NotebookEdit", notebook_path=f"{CWD}/n.ipynb"), "NotebookEdit: n.ipynb"),
        (call("Grep", pattern="def main", path=CWD), "Grep: def main"),
        (call("Glob", pattern="**/*.py"), "Glob: **/*.py"),
        (call("WebFetch", url="https://example.com/a", prompt="What?"), "WebFetch: https://example.com/a"),
        (call("WebSearch", query="asyncio timeout"), "WebSearch: asyncio timeout"),
        (call("Task", description="Review it", prompt="Please"), "Task: Review it"),
        (call("mcp__claude-jobs__claude_wait", batchId="b1"), "claude_wait"),
        (call("mcp__github__get_issue", repo="a/b"), "github get_issue: a/b"),
        (call("mcp__", x=1), "mcp__"),
        (call("Novel", number=7, long="x" * 1000, short="this"), "Novel: this"),
        (call("Novel"), "Novel"),
        (says("I looked at it.\n\nNow I run the tests.\n"), "Now I run the tests."),
    ],
)
def test_a_frame_is_shown_as_a_person_reads_it(frame: dict[str, Any], line: str):
    assert doing(frame) == line


def test_paths_are_shown_from_the_directory_as_the_process_sees_it_too():
    init = {"type": "system", "subtype": "init", "cwd": "/private/home/me/project"}
    assert doing(init, call("Edit", file_path="/private/home/me/project/a.py")) == "Edit: a.py"


def test_a_long_line_is_cut_and_terminal_codes_and_newlines_are_removed():
    line = doing(call("Bash", command="\x1b]0;title\x07echo \x1b[31mred\x1b[0m\tand " + "x" * 500))
    assert len(line) == DOING_CHARS
    assert line.startswith("Bash: echo red and xxx")
    assert line.endswith("…")
    assert "\n" not in doing(call("Grep", pattern="a\nb\r\nc"))


def test_a_secret_is_redacted_before_the_line_is_cut():
    key = "sk-ant-api03-" + "a1B2" * 10
    assert doing(call("Bash", command=f"curl -H 'x-api-key: {key}' https://example.com")) == (
        "Bash: curl -H 'x-api-key: [redacted]' https://example.com"
    )
    told = "x" * 60 + "verysecretvalue" * 10
    assert "verysecret" not in doing(call("Bash", command=told), secrets=("verysecretvalue" * 10,))


@pytest.mark.parametrize("name", ["x-api-key", "apiToken", "Authorization", "password"])
def test_an_argument_whose_name_says_that_it_is_secret_is_not_shown(name: str):
    assert described_call("mcp__web__get", {name: "short-0ne", "key": "PROJ-1"}) == "web get: PROJ-1"
    assert described_call("mcp__web__get", {name: "short-0ne"}) == "web get"


def test_after_its_calls_have_returned_it_thinks_and_says_what_about():
    frames = [call("Bash", command="make")]
    assert doing(*frames) == "Bash: make"
    frames.append(returned())
    assert doing(*frames) == "thinking, after Bash: make"
    frames.append(says("It is built."))
    assert doing(*frames) == "It is built."


def test_of_parallel_calls_the_last_one_that_has_not_returned_is_shown():
    frames = [call("Read", "t1", file_path="a"), call("Read", "t2", file_path="b")]
    assert doing(*frames) == "Read: b"
    assert doing(*frames, returned("t2")) == "Read: a"
    assert doing(*frames, returned("t2"), returned("t1")) == "thinking, after Read: b"


def test_the_call_of_a_subagent_is_shown_until_the_subagent_is_over():
    frames = [call("Task", "t1", description="Review"), call("Grep", "t2", above="t1", pattern="TODO")]
    assert doing(*frames) == "Grep: TODO"
    assert doing(*frames, returned("t2")) == "Task: Review"
    # It was ended within its call.
    assert doing(*frames, returned("t1")) == "thinking, after Grep: TODO"


def test_before_its_first_frame_it_starts_and_before_its_first_words_it_thinks():
    assert doing() == "starting"
    assert doing({"type": "system", "subtype": "init"}) == "thinking"


def test_trouble_of_the_api_is_told_until_the_next_frame():
    retry = {"type": "system", "subtype": "api_retry", "attempt": 3, "max_retries": 10, "error": "overloaded"}
    frames = [call("Bash", command="make"), returned(), retry]
    assert doing(*frames) == "API trouble (overloaded), retry 3 of 10"
    assert doing(*frames, says("Done.")) == "Done."


def test_frames_of_any_shape_are_taken_and_open_calls_are_bounded():
    odd: list[Any] = [
        {},
        {"type": 7},
        {"type": "assistant", "message": None},
        {
            "type": "assistant",
            "message": {"content": [None, 7, {"type": "tool_use", "id": 3, "name": [], "input": "x"}]},
        },
        {"type": "user", "message": {"content": "text"}},
        {"type": "system", "subtype": "api_retry", "attempt": "x", "max_retries": 1e308},
        {"type": "system", "subtype": [], "cwd": 5},
    ]
    assert len(doing(*odd)) <= DOING_CHARS
    tracker = ActivityTracker(CWD)
    for number in range(1000):
        tracker.take(call("Read", f"t{number}", file_path=f"f{number}"))
    for number in range(999, 900, -1):
        tracker.take(returned(f"t{number}"))
    assert tracker.doing() == "thinking, after Read: f999"


@pytest.mark.parametrize(
    ("asked", "answers", "other"),
    [
        (None, "claude-opus-5-5", False),
        ("opus", None, False),
        ("opus", "claude-opus-5-5", False),
        ("Sonnet[1m]", "claude-sonnet-5-5", False),
        ("claude-opus-5-5", "claude-opus-5-5-20260101", False),
        ("us.anthropic.claude-opus-5-5-v1:0", "claude-opus-5-5", False),
        ("arn:aws:bedrock:us-east-1:1:application-inference-profile/x", "claude-opus-5-5", False),
        ("opusplan", "claude-sonnet-5-5", False),
        ("opus", "claude-sonnet-5-5", True),
        ("claude-opus-4-1", "claude-opus-5-5", True),
    ],
)
def test_another_model_than_the_one_asked_for_is_noticed(asked: str | None, answers: str | None, other: bool):
    assert names_another_model(asked, answers) is other
