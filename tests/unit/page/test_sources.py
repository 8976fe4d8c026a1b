"""Rules for the page's own files: nothing in them can make markup or code of a text."""

import re

import pytest

from tests.unit.page.played_engine import STATIC

SCRIPTS = sorted(path.name for path in STATIC.glob("*.js"))
MOST_LINES = 500

FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setTimeout\(\s*[\"'`]"
    r"|DOMParser|createContextualFragment|srcdoc|cssText|\.setAttribute\(\s*[\"'](?:on|style|href|src)"
)
"""What would take a text for markup, code, a style or an address."""


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_makes_no_markup_code_or_style_of_texts(name: str):
    text = (STATIC / name).read_text(encoding="utf-8")
    assert FORBIDDEN.findall(text) == []
    assert len(text.splitlines()) <= MOST_LINES
    assert text.startswith("// @ts-check\n")


def test_the_page_holds_no_script_and_no_style_of_its_own_and_loads_all_that_is_there():
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page) == []
    assert set(re.findall(r"/static/([a-z-]+\.css)", page)) == {path.name for path in STATIC.glob("*.css")}
    imported = {"main.js"}
    for script in SCRIPTS:
        imported |= set(re.findall(r"""(?:from|import\() ?["']\./([a-z-]+\.js)["']""", (STATIC / script).read_text()))
    assert set(SCRIPTS) == imported
