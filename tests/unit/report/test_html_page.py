"""The page of a report, as text: its policy, that everything of a job is escaped, and that it is well formed."""

import base64
import hashlib
import re
from collections.abc import Callable
from datetime import UTC
from html.parser import HTMLParser
from typing import Any

import pytest

from server.report.document import document_of
from server.report.html_page import html_page
from tests.unit.report.sample import HOSTILE, ZERO, Sample, ended, hostile, large, review

VOID = {"meta", "rect", "path", "br"}


def page_of(sample: Sample, *, with_answers: bool = True, **tree: Any) -> str:
    document = document_of(sample.pages(**tree), (), with_answers=with_answers)
    return "".join(html_page(document, home="/home/ada", zone=UTC))


class Checker(HTMLParser):
    """Reads a page and notes what is on it, and each element that is closed where it is not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.deepest = 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {f"{tag} {name}" for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)
            self.deepest = max(self.deepest, len(self.open))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {f"{tag} {name}" for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.mark.parametrize("with_answers", [True, False])
@pytest.mark.parametrize("make", [review, hostile, lambda: large(300), Sample])
def test_a_page_is_well_formed_and_has_nothing_that_runs_or_loads(make: Callable[[], Sample], with_answers: bool):
    text = page_of(make(), with_answers=with_answers)
    found = Checker(text)
    assert (found.open, found.wrong) == ([], [])
    assert not found.tags & {"script", "img", "iframe", "object", "embed", "link", "form", "base", "a", "image"}
    names = {one.split()[1] for one in found.attributes}
    assert not {name for name in names if name.startswith("on")}
    assert "style" not in names
    assert "src" not in names
    assert {one for one in found.attributes if one.endswith(" href")} <= {"use href"}
    assert set(re.findall(r"url\(([^)]*)\)", text)) <= {"#wait"}
    assert set(re.findall(r'href="([^"]{1,2})', text)) <= {f"#{first}" for first in "arwpqcft"}


def test_the_policy_allows_its_own_styles_and_nothing_else():
    text = page_of(review())
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    [policy] = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert text.index("Content-Security-Policy") < text.index("<style>")
    assert "@import" not in style


def test_a_text_of_a_job_is_never_markup():
    text = page_of(hostile(), client=HOSTILE)
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_a_page_says_what_there_is_to_say_of_each_job():
    text = page_of(review(), maxBudgetUsd=5.0)
    for said in (
        "Review src/ for security problems",
        "One job for each directory.",
        "$1.98</b> of $5.00",
        "30 Nov 2026, 10:00:00, not over yet",
        "~/shop",
        "asks: Bash: git log -p -- auth/",
        "waits for web/upload.py, web/templates/",
        "Prompt is too long: 212,480 tokens",
        "Two problems in auth/tokens.py, both easy to mend:",
        "queued 6s; ran 40s, failed: overloaded; queued 14s; ran 2:06",
        "claude-opus-5",
    ):
        assert said in text, said


def test_without_answers_the_page_has_none():
    text = page_of(review(), with_answers=False)
    assert "Findings" not in text
    assert "<h2>Answer</h2>" not in text
    assert "auth/tokens.py" in text


def test_the_answer_of_the_job_at_the_top_comes_first_and_once():
    sample = Sample()
    root = sample.job("all", answer="The one answer.", **ended(0.1, 0, 1, 60))
    sample.job("part", root, answer="Another answer.", **ended(0.1, 0, 1, 60))
    text = page_of(sample)
    assert text.index("<h2>Answer</h2>") < text.index("Another answer.")
    assert (
        text.count('<div class="prose" dir="auto"><p>The one answer.</p>') + text.count("<p>The one answer.</p>") >= 1
    )
    assert len(re.findall(r"<p>The one answer\.</p>", text)) == 1


def test_an_answer_that_was_cut_says_how_to_read_all_of_it():
    sample = Sample()
    sample.job("all", answer="word " * 300, answerChars=1500, **ended(0.1, 0, 1, 60))
    document = document_of(sample.pages(answer_chars=500), (), with_answers=True)
    text = "".join(html_page(document))
    assert "1,001 characters more" in text or "1,000 characters more" in text
    assert "<code>claude-jobs result j0root</code>" in text


def test_a_tree_that_is_deeper_than_browsers_nest_is_drawn_flat_below_that():
    sample = Sample()
    above = sample.job("0", **ended(0.1, 0, 1, 2))
    for number in range(1, 600):
        above = sample.job(str(number), above, **ended(0.001, 0, 1, 2))
    found = Checker(page_of(sample))
    assert (found.open, found.wrong) == ([], [])
    assert found.deepest < 200


def test_each_job_has_a_bar_whose_parts_are_inside_the_line():
    text = page_of(review())
    rects = re.findall(r'x="([\d.]+)%" width="([\d.]+)%"', text)
    assert len(rects) > 30
    assert all(0 <= float(x) <= 100 and float(x) + float(width) <= 100.01 for x, width in rects)


def test_times_of_a_batch_begin_with_its_first_job():
    sample = Sample()
    sample.job("a", **ended(0.1, 30, 31, 60))
    text = page_of(sample, createdAt=ZERO + 30)
    assert re.search(r'<rect class="is-completed" x="3.33%"', text)
