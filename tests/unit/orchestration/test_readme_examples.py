"""The README's examples of the patterns, run as they stand there."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SECTION = "Use the patterns in your own project"


def examples(markdown: str, section: str) -> list[str]:
    """Return the Python blocks of one section, up to the next heading of the same or a higher level."""
    found = re.search(rf"^(#+) {re.escape(section)}$(.*)", markdown, re.MULTILINE | re.DOTALL)
    if found is None:
        return []
    level, rest = found.groups()
    text = re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(program: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an empty folder, with this checkout importable."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=folder, env={"PYTHONPATH": str(ROOT), **environ}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def expected_output(program: str) -> list[str]:
    """Return what the comments behind `print` calls promise."""
    return re.findall(r"print\(.*\)  # (.*)$", program, re.MULTILINE)


def readme_examples() -> list[str]:
    return examples((ROOT / "orchestration" / "README.md").read_text(), SECTION)


def test_the_readme_has_the_three_examples():
    assert len(readme_examples()) == 3


def test_the_example_of_jobs_runs_and_prints_an_answer_for_each_task(tmp_path: Path):
    [program] = examples((ROOT / "jobs" / "README.md").read_text(), "Jobs without an engine")
    # They are Claude's words, so the example does not promise any.
    done = run(program, tmp_path, HOME=str(tmp_path), CLAUDE_JOBS_CLI=str(ROOT / "tests" / "fakes" / "claude_stub.sh"))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(ast.literal_eval(done.stdout)) == 2


def test_each_example_of_the_readme_runs_and_prints_what_it_promises(tmp_path: Path):
    programs = readme_examples()
    assert all(expected_output(program) for program in programs)
    # Each with names of its own, in one process: LangGraph takes a second to load.
    done = run(f"for program in {programs!r}: exec(program, {{'__name__': '__main__'}})", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [line for program in programs for line in expected_output(program)]


def test_only_the_blocks_of_the_section_are_found():
    block = "```python\n{}\n```\n"
    lines = ["# A", block.format(1), "## S", block.format(2), "### Sub", block.format(3), "## T", block.format(4)]
    markdown = "\n".join([*lines, "```sh", "ls", "```"])
    assert examples(markdown, "S") == ["2\n", "3\n"]
    assert examples(markdown, "Missing") == []


def test_an_example_that_raises_is_seen(tmp_path: Path):
    assert "ZeroDivisionError" in run("1 / 0", tmp_path).stderr
