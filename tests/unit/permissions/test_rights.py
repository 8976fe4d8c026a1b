"""A child may do what its parent may, at most; where in doubt it may not."""

from pathlib import Path

import pytest

from jobs.permissions.rights import RANK, Rights, RightsError, RightsRequest, covers, narrow, permits, permits_call
from tests.support.rights import within

PARENT = Rights(mode="acceptEdits", allowed=("Bash(git *)", "WebFetch(domain:a.org)"), directories=("/srv/a",))


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ("Bash", "Bash"),
        ("Bash", "Bash(git status)"),
        ("Bash(git *)", "Bash(git status)"),
        ("Bash(git *)", "Bash(git log *)"),
        ("Bash(git:*)", "Bash(git)"),
        ("Bash(git:*)", "Bash(git status)"),
        ("Bash(git:*)", "Bash(git status:*)"),
        ("Bash(*)", "Bash(ls -l)"),
        ("Read", "Read(//etc/**)"),
        ("mcp__box", "mcp__box__open"),
        ("mcp__box__*", "mcp__box__open"),
        ("mcp__box", "mcp__box__*"),
    ],
)
def test_a_rule_covers_a_narrower_one(wide: str, narrow: str):
    assert covers(wide, narrow)
    assert covers(narrow, wide) is (wide == narrow)


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ("Bash(git *)", "Bash"),
        ("Bash(git *)", "Bash(gitx)"),
        ("Bash(git *)", "Bash(git status; rm -rf /)"),
        ("Bash(git *)", "Bash(git $(rm x))"),
        ("Bash(git *)", "Bash(git a && b)"),
        ("Bash(git *)", "Bash(git a\nb)"),
        ("Bash(git *)", "Bash(git * x*)"),
        ("Bash(git *)", "Bash(gi*)"),
        ("Bash(git:*)", "Bash(gitx)"),
        ("Bash(git:*)", "Bash(git*)"),
        ("Bash(git:*)", "Bash(gitx:*)"),
        ("Bash(cat a/*)", "Bash(cat a/../b)"),
        ("Bash(a * b)", "Bash(a x b)"),
        ("Edit(/src/*)", "Edit(/src/../x)"),
        ("Edit(/src/*)", "Edit(/src/**)"),
        ("Edit(*)", "Edit(//etc/passwd)"),
        ("Edit(/*)", "Edit(//etc/*)"),
        ("WebFetch(domain:*)", "WebFetch(domain:a.org)"),
        ("mcp__box", "mcp__boxes__open"),
        ("mcp__box__open", "mcp__box"),
        ("mcp", "mcp__box__open"),
        ("Read", "Readx"),
    ],
)
def test_a_rule_that_is_wider_or_not_understood_is_not_covered(wide: str, narrow: str):
    assert not covers(wide, narrow)


@pytest.mark.parametrize(
    ("requested", "field", "asked"),
    [
        (RightsRequest(mode="auto"), "permissionMode", "auto"),
        (RightsRequest(mode="bypassPermissions"), "permissionMode", "bypassPermissions"),
        (RightsRequest(allowed=["Bash"]), "allowedTools", "Bash"),
        (RightsRequest(allowed=["Bash(git *)", "Bash(rm *)"]), "allowedTools", "Bash(rm *)"),
        (RightsRequest(allowed=["Read"]), "allowedTools", "Read"),
        (RightsRequest(allowed=["Edit"]), "allowedTools", "Edit"),
        (RightsRequest(directories=["/srv"]), "cwd", "/srv"),
        (RightsRequest(directories=["/srv/ab"]), "cwd", "/srv/ab"),
        (RightsRequest(directories=["/srv/a/../b"]), "cwd", "/srv/a/../b"),
        (RightsRequest(servers=["box"]), "mcpServers", "box"),
    ],
)
def test_asking_for_more_is_refused_and_the_refusal_names_it(requested: RightsRequest, field: str, asked: str):
    with pytest.raises(RightsError) as info:
        narrow(PARENT, requested)
    assert (info.value.field, info.value.asked) == (field, asked)
    assert f"leave {field} out" in str(info.value)


def test_nothing_asked_is_what_the_parent_has():
    assert narrow(PARENT, RightsRequest()) == PARENT


def test_what_is_asked_within_the_parents_rights_is_given_unchanged():
    requested = RightsRequest(
        mode="plan", allowed=["Bash(git log)"], disallowed=["WebFetch"], directories=["/srv/a/b"], servers=[]
    )
    given = narrow(PARENT, requested)
    assert given == Rights(
        mode="plan", allowed=("Bash(git log)",), disallowed=("WebFetch",), directories=("/srv/a/b",), servers=()
    )
    assert within(PARENT, given)
    assert not within(given, PARENT)


def test_what_is_off_for_the_parent_stays_off():
    parent = Rights(mode="default", disallowed=("Bash",), directories=("/",))
    assert narrow(parent, RightsRequest(disallowed=["Write"])).disallowed == ("Bash", "Write")


def test_a_link_that_leads_out_is_no_part_of_a_directory(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "out")
    parent = Rights(mode="plan", directories=(str(tmp_path / "a"),))
    with pytest.raises(RightsError):
        narrow(parent, RightsRequest(directories=[str(tmp_path / "a" / "link")]))


def test_a_mode_permits_no_tool_outside_the_directories():
    widest_but_one = Rights(mode="auto", directories=("/srv",))
    assert not any(permits(widest_but_one, tool) for tool in ("Read", "Edit", "Write", "Bash", "mcp__box"))
    assert permits(widest_but_one, "mcp__claude-jobs__claude_wait")
    assert permits(Rights(mode="bypassPermissions"), "Bash")


def test_a_server_of_the_parents_brings_its_tools():
    parent = Rights(mode="plan", servers=("box",))
    assert permits(parent, "mcp__box__open")
    assert not permits(parent, "mcp__other__open")


def test_the_modes_stand_in_one_order():
    assert list(RANK) == sorted(RANK, key=lambda mode: RANK[mode])
    assert RANK["manual"] == RANK["default"]
    assert RANK["dontAsk"] < RANK["default"] < RANK["acceptEdits"] < RANK["bypassPermissions"]


@pytest.mark.parametrize(
    ("tool", "arguments", "may"),
    [
        ("Bash", {"command": "git status"}, True),
        ("Bash", {"command": "git status; rm x"}, False),
        ("Bash", {"command": "rm x"}, False),
        ("Bash", {}, False),
        ("Write", {"file_path": "/srv/a/x"}, True),
        ("Write", {"file_path": "/srv/a/../x"}, False),
        ("Write", {"file_path": 7}, False),
        ("Read", {"file_path": "/srv/a/x"}, True),
        ("Read", {"file_path": "/etc/passwd"}, False),
        ("WebSearch", {"query": "x"}, False),
    ],
)
def test_a_job_may_permit_only_what_it_may_do_itself(tool: str, arguments: dict[str, object], may: bool):
    assert permits_call(PARENT, tool, arguments) is may


def test_a_tool_that_is_off_for_a_job_is_none_that_it_may_permit():
    off = Rights(mode="bypassPermissions", disallowed=("Bash(rm *)",), directories=("/",))
    assert not permits_call(off, "Bash", {"command": "ls"})
    assert permits_call(off, "WebSearch", {})
