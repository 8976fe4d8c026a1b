"""What reaches a spec: a root's wishes as far as the settings go, a child's as far as its parent's rights go."""

from pathlib import Path
from typing import Any

import pytest

from jobs.errors import BadInputError
from jobs.permissions.rights import RANK, RightsError, rights_of, verify_directories_unchanged
from jobs.settings import McpServerSettings, Settings
from jobs.spec import JobSpec, TaskRequest
from jobs.validation import SpecBuilder
from tests.support.rights import within
from tests.unit.jobs.support import job

BOX = {"box": McpServerSettings(command="box-server", env={"BOX_KEY": "k"})}


def spec(home: Path, *, parent: JobSpec | None = None, settings: dict[str, Any] | None = None, **asked: Any) -> JobSpec:
    spec_builder = SpecBuilder(Settings(home=home, **(settings or {})))
    spawning = job("jparent", spec=parent) if parent else None
    return spec_builder.spec(TaskRequest(task="x", **asked), parent=spawning, cwd=str(home))


@pytest.fixture
def parent(tmp_path: Path) -> JobSpec:
    for name in ("work/sub", "more", "out"):
        (tmp_path / name).mkdir(parents=True)
    return JobSpec(
        task="x",
        cwd=str(tmp_path / "work"),
        permission_mode="default",
        allowed_tools=("Bash(git *)",),
        disallowed_tools=("WebFetch",),
        directories=(str(tmp_path / "more"),),
        mcp_servers=("box",),
    )


def test_a_child_that_asks_for_nothing_has_what_its_parent_has(tmp_path: Path, parent: JobSpec):
    child = spec(tmp_path, parent=parent, settings={"mcp_servers": BOX})
    assert rights_of(child) == rights_of(parent)


def test_a_child_in_a_directory_of_its_own_keeps_the_further_ones_and_loses_the_parents(
    tmp_path: Path, parent: JobSpec
):
    child = spec(tmp_path, parent=parent, cwd="sub")
    assert (child.cwd, child.directories) == (str(tmp_path / "work" / "sub"), parent.directories)
    assert within(rights_of(parent), rights_of(child))


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"permission_mode": "acceptEdits"}, "permissionMode"),
        ({"allowed_tools": ["Bash"]}, "allowedTools"),
        ({"cwd": "../out"}, "cwd"),
        ({"cwd": "/"}, "cwd"),
        ({"directories": ["../out"]}, "cwd"),
        ({"mcp_servers": ["box", "safe"]}, "mcpServers"),
    ],
)
def test_a_child_that_asks_for_more_is_refused(tmp_path: Path, parent: JobSpec, asked: dict[str, Any], field: str):
    servers = BOX | {"safe": McpServerSettings(command="safe")}
    with pytest.raises(RightsError) as info:
        spec(tmp_path, parent=parent, settings={"mcp_servers": servers}, **asked)
    assert info.value.field == field


def test_bypassing_permissions_is_a_roots_and_its_childrens_only_where_a_person_allows_it(tmp_path: Path):
    allowed = {"allow_bypass_permissions": True}
    root = spec(tmp_path, settings=allowed, permission_mode="bypassPermissions")
    assert spec(tmp_path, parent=root, settings=allowed).permission_mode == "bypassPermissions"
    with pytest.raises(RightsError):
        spec(
            tmp_path,
            parent=JobSpec(task="x", cwd=str(tmp_path)),
            settings=allowed,
            permission_mode="bypassPermissions",
        )
    with pytest.raises(BadInputError, match="switched off"):
        spec(tmp_path, parent=root)


def test_a_root_gets_only_servers_that_stand_in_the_settings(tmp_path: Path):
    assert spec(tmp_path, settings={"mcp_servers": BOX}, mcp_servers=["box"]).mcp_servers == ("box",)
    with pytest.raises(BadInputError, match="'bag' is not in the settings"):
        spec(tmp_path, settings={"mcp_servers": BOX}, mcp_servers=["bag"])


@pytest.mark.parametrize("name", ["claude-jobs", "a__b", "", "-a", "a b", "x" * 65, "ä"])
def test_a_servers_name_that_could_pass_for_another_is_refused(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match="mcp_servers"):
        Settings(home=tmp_path, mcp_servers={name: McpServerSettings(command="x")})


def test_the_secrets_of_a_server_do_not_show_in_the_settings(tmp_path: Path):
    assert "BOX_KEY" not in repr(Settings(home=tmp_path, mcp_servers=BOX))


def test_a_directory_that_was_turned_into_a_link_after_the_spawn_is_not_launched_in(tmp_path: Path, parent: JobSpec):
    child = spec(tmp_path, parent=parent, cwd="sub")
    verify_directories_unchanged([child.cwd, *child.directories])
    (tmp_path / "work" / "sub").rmdir()
    (tmp_path / "work" / "sub").symlink_to(tmp_path / "out")
    with pytest.raises(RightsError, match="out is more than"):
        verify_directories_unchanged([child.cwd, *child.directories])


@pytest.mark.parametrize("mode", RANK)
def test_every_mode_that_has_a_rank_can_be_asked_for_and_set_as_the_default(tmp_path: Path, mode: str):
    allowing = {"allow_bypass_permissions": True}
    assert spec(tmp_path, settings=allowing, permission_mode=mode).permission_mode == mode
    assert spec(tmp_path, settings={**allowing, "permission_mode": mode}).permission_mode == mode


def test_a_mode_that_is_none_is_refused_with_all_that_there_are(tmp_path: Path):
    with pytest.raises(BadInputError) as refused:
        spec(tmp_path, permission_mode="yolo")
    assert all(mode in refused.value.remedy for mode in RANK)
