"""Every test that a README names is there, by that name and in that file, and every link leads somewhere."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from tests.support.sources import PACKAGES, ROOT, parsed, sources

READMES = tuple(sorted((*ROOT.glob("README.md"), *ROOT.glob("*/README.md"), *ROOT.glob(".github/*.md"))))
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in READMES)
FROM_CLAUDE_CODE = ("claude", "✘ Failed to connect", "Job failed: auth: Not logged in")
"""Beginnings of what Claude Code says, not we."""

MOST_LINES = 200
MOST_COLUMNS = 200
MOST_BYTES_OF_A_PICTURE = 200_000
REFERENCE = re.compile(r"\btests/[\w/]+\.py(?:::\w+)*")


def links() -> list[tuple[str, str]]:
    """Return each link from a README to a place in the project: the README and the target."""
    found = []
    for readme in READMES:
        text = readme.read_text(encoding="utf-8")
        targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'\bsrc(?:set)?="([^"]+)"', text)
        found += [(str(readme.relative_to(ROOT)), target) for target in targets if "://" not in target]
    return found


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("readme", "target"), links())
def test_a_link_of_a_readme_leads_to_a_heading_that_is_there(readme: str, target: str):
    path, _, anchor = target.partition("#")
    file = (ROOT / readme).parent / path if path else ROOT / readme
    assert file.is_file()
    assert not anchor or anchor in anchors(file)


def test_each_picture_is_small_and_shown_by_a_readme():
    pictures = {path.name: path.stat().st_size for path in (ROOT / ".github").glob("*.*g")}
    assert pictures.keys() == {target.rpartition("/")[2] for _, target in links() if re.search(r"\.(png|svg)$", target)}
    assert [name for name, size in pictures.items() if size > MOST_BYTES_OF_A_PICTURE] == []


def references(text: str) -> list[str]:
    """Return each test or file of tests that a text names, in order, each once."""
    return list(dict.fromkeys(REFERENCE.findall(text)))


@cache
def names_in(path: Path) -> frozenset[str]:
    """Return what a test can be collected as: functions, classes and names that are given to one, methods as C::m."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(name for node in tree.body for name in _names_of(node))


def _names_of(node: ast.stmt) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return [name]
        case ast.ClassDef(name=name, body=body):
            return [name, *(f"{name}::{inner}" for each in body for inner in _names_of(each))]
        case ast.Assign(targets=[ast.Name(id=name)]):
            return [name]
        case _:
            return []


def is_there(reference: str) -> bool:
    """Tell whether a file, or the test in it, exists."""
    file, _, name = reference.partition("::")
    path = ROOT / file
    return path.is_file() and (not name or name in names_in(path))


@pytest.mark.parametrize("reference", references(TEXT))
def test_a_test_that_a_readme_names_exists(reference: str):
    assert is_there(reference)


def test_the_first_readme_is_short_and_no_line_of_it_is_wide():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MOST_LINES
    assert [line for line in lines if len(line) > MOST_COLUMNS] == []


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:server|jobs|orchestration|tests)/[\w/.]*)`", TEXT))))
def test_a_part_that_a_readme_names_exists(path: str):
    assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).exists()


@pytest.mark.parametrize("package", PACKAGES)
def test_the_readme_of_a_package_names_each_part_of_it(package: str):
    text = (ROOT / package / "README.md").read_text(encoding="utf-8").partition("## The parts of the package")[2]
    modules = {f"{package}/{path.name}" for path in (ROOT / package).glob("*.py") if path.name != "__init__.py"}
    folders = {f"{package}/{path.parent.name}/" for path in (ROOT / package).glob("*/__init__.py")}
    assert modules | folders <= set(re.findall(r"`([\w/.]+)`", text))


def messages() -> list[str]:
    """Return the fixed parts of each message of ours that the table of troubleshooting names."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Troubleshooting")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (.+?) \|", section, re.MULTILINE)
    said = [words for cell in cells for words in re.findall(r"`([^`]+)`", cell)]
    parts = {part.strip() for words in said for part in re.split(r"…|\d+", words)}
    return sorted(part for part in parts if len(part) >= 10 and not part.startswith(FROM_CLAUDE_CODE))


@cache
def texts_of_the_code() -> str:
    nodes = (node for path in sources() for node in ast.walk(parsed(path)))
    return "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


@pytest.mark.parametrize("message", messages())
def test_a_message_that_the_troubleshooting_names_is_one_of_the_code(message: str):
    assert message in texts_of_the_code()


def test_every_task_of_poe_that_a_readme_or_the_workflow_names_exists():
    tasks = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["poe"]["tasks"]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    named = re.findall(r"\bpoe ([a-z0-9]+)", "\n".join(re.findall(r"`[^`]*`", TEXT)) + workflow)
    assert set(named) <= set(tasks)
    assert "test" in named
    assert "bash .ci/run\n" in workflow


def test_the_readmes_name_tests():
    assert len(references(TEXT)) > 30


@pytest.mark.parametrize(
    "missing",
    [
        "tests/architecture/test_readme_references.py::test_of_nothing",
        "tests/architecture/test_nothing.py",
        "tests/architecture/test_nothing.py::test_a_test_that_a_readme_names_exists",
        "tests/property/test_budgets.py::TestBudgets::test_of_nothing",
    ],
)
def test_a_name_that_leads_nowhere_is_found_out(missing: str):
    assert references(f"| x | `{missing}` |") == [missing]
    assert not is_there(missing)
