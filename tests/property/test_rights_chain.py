"""However a chain of spawns asks, no job in it comes to have more than the job above it."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.permissions.rights import RANK, Rights, RightsError, RightsRequest, covers, narrow
from tests.support.long_form import LONG
from tests.support.rights import within

pytestmark = pytest.mark.timeout(900)

EXAMPLES = 5_000 if LONG else 150

TOOLS = ("Bash", "Read", "Edit", "WebFetch", "mcp__box", "mcp__box__open", "mcp__boxes__open", "mcp__box__*")
WORDS = ("git", "git status", "git log", "gitx", "ls", "a/../b", "x; y", "$(x)", "", "git *", "/src/a", "//etc/x")
ENDS = ("", "*", " *", ":*", "**")
PLACES = (".", "a", "a/b", "ab", "a/link", "a/link/c", "a/../ab", "a/b/../../a", "b", "x", "a/loop")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ordinary directories, one whose name begins like another's, and links that lead about."""
    root = tmp_path_factory.mktemp("ground")
    for name in ("a/b", "ab", "b/c", "x"):
        (root / name).mkdir(parents=True)
    (root / "a" / "link").symlink_to(root / "b")
    (root / "a" / "loop").symlink_to(root / "a")
    return root


rules = st.one_of(
    st.sampled_from(TOOLS),
    st.builds(
        lambda tool, word, end: f"{tool}({word}{end})",
        st.sampled_from(TOOLS),
        st.sampled_from(WORDS),
        st.sampled_from(ENDS),
    ),
)
modes = st.sampled_from(sorted(RANK))
servers = st.lists(st.sampled_from(["box", "boxes", "bag"]), max_size=2)


@st.composite
def chains(draw: st.DrawFn) -> tuple[Rights, list[RightsRequest]]:
    """Return a root's rights and what each further job asks for; places are relative and are joined later."""
    places = st.lists(st.sampled_from(PLACES), min_size=1, max_size=3)
    root = Rights(
        mode=draw(modes),
        allowed=tuple(draw(st.lists(rules, max_size=4))),
        disallowed=tuple(draw(st.lists(rules, max_size=2))),
        directories=tuple(draw(places)),
        servers=tuple(draw(servers)),
    )
    wishes = st.builds(
        RightsRequest,
        mode=st.none() | modes,
        allowed=st.none() | st.lists(rules, max_size=3),
        disallowed=st.lists(rules, max_size=2),
        directories=st.none() | places,
        servers=st.none() | servers,
    )
    return root, draw(st.lists(wishes, min_size=1, max_size=5))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chain=chains())
def test_every_job_of_a_chain_stays_within_the_one_above_it_and_within_the_root(
    ground: Path, chain: tuple[Rights, list[RightsRequest]]
):
    root, wishes = chain
    root = placed(ground, root)
    above = root
    for request in wishes:
        try:
            child = narrow(above, placed_wish(ground, request))
        except RightsError:
            continue
        assert within(above, child)
        assert within(root, child)
        assert really_inside(child.directories, root.directories)
        above = child


@settings(max_examples=EXAMPLES, deadline=None)
@given(first=rules, second=rules, third=rules)
def test_covering_is_transitive_and_never_goes_both_ways_between_different_rules(first: str, second: str, third: str):
    if covers(first, second) and covers(second, third):
        assert covers(first, third)
    if covers(first, second) and covers(second, first):
        assert same(first) == same(second)


def same(rule: str) -> str:
    # Two spellings of one set: "mcp__box" and "mcp__box__*", "Bash(x *)" and "Bash(x **)" are not told apart further.
    return rule.removesuffix("__*")


def placed(ground: Path, rights: Rights) -> Rights:
    return Rights(
        mode=rights.mode,
        allowed=rights.allowed,
        disallowed=rights.disallowed,
        directories=tuple(str(ground / one) for one in rights.directories),
        servers=rights.servers,
    )


def placed_wish(ground: Path, request: RightsRequest) -> RightsRequest:
    places = None if request.directories is None else [str(ground / one) for one in request.directories]
    return RightsRequest(
        mode=request.mode,
        allowed=request.allowed,
        disallowed=request.disallowed,
        directories=places,
        servers=request.servers,
    )


def really_inside(inner: tuple[str, ...], outer: tuple[str, ...]) -> bool:
    """Ask the file system by inode instead of by name: each directory, or one above it, is one of the outer ones."""
    allowed = {(status.st_dev, status.st_ino) for status in map(os.stat, outer)}
    return all(any((status.st_dev, status.st_ino) in allowed for status in map(os.stat, above(one))) for one in inner)


def above(path: str) -> list[Path]:
    real = Path(path).resolve()
    return [real, *real.parents]
