"""What the modules of the page say: amounts, times, states, filters, parts of a job's time."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.unit.page.played_engine import shown


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    with shown(browser, where="#/") as (page, _):
        yield page


def call(page: Page, module: str, script: str, *arguments: Any) -> Any:
    """Return what an expression over the names of a module says, given `args`."""
    body = f"async args => {{ const m = await import('/static/{module}.js'); return {script}; }}"
    return page.evaluate(body, list(arguments))


@pytest.mark.parametrize(
    ("usd", "shown_as"),
    [(0, ""), (None, ""), (0.004212, "$0.0042"), (0.1, "$0.10"), (1.844, "$1.84"), (1234.4, "$1,234")],
)
def test_an_amount_of_money_is_as_long_as_it_tells(page: Page, usd: float | None, shown_as: str):
    assert call(page, "format", "m.money(args[0])", usd) == shown_as


@pytest.mark.parametrize(
    ("count", "shown_as"),
    [(0, ""), (850, "850"), (1500, "1.5k"), (31_400, "31k"), (999_700, "1M"), (2_400_000, "2.4M")],
)
def test_tokens_are_counted_in_thousands_and_millions(page: Page, count: int, shown_as: str):
    assert call(page, "format", "m.tokens(args[0])", count) == shown_as


@pytest.mark.parametrize(
    ("seconds", "shown_as"), [(4.9, "4s"), (252, "4:12"), (3852, "1:04:12"), (266_400, "3d 02h"), (-1, "0s")]
)
def test_a_length_of_time_is_shown_in_its_units(page: Page, seconds: float, shown_as: str):
    assert call(page, "format", "m.duration(args[0])", seconds) == shown_as


@pytest.mark.parametrize(
    ("tree", "title"),
    [
        ({"rootId": "b1", "title": "First", "jobs": 10, "children": 4}, "First and 3 more"),
        ({"rootId": "b1", "title": "Alone", "jobs": 3, "children": 1}, "Alone"),
        ({"rootId": "j1", "title": "Root", "jobs": 4, "children": 3}, "Root"),
        ({"rootId": "b1", "jobs": 0, "children": 0}, "b1"),
    ],
)
def test_a_batch_is_called_after_its_first_task_and_the_number_of_those_beside_it(
    page: Page, tree: dict[str, Any], title: str
):
    assert call(page, "counts", "m.titleOfTree(args[0])", tree) == title


def test_a_text_of_a_job_has_no_codes_for_a_terminal_and_turns_no_direction(page: Page):
    hostile = "\x1b[31mred\x1b[0m \x1b]8;;http://evil\x07link\x1b]8;;\x07 abc\u202etxt.exe \u2066x\u2069 a\x00b\nc"
    assert call(page, "format", "m.oneLine(args[0])", hostile) == "red link abctxt.exe x ab c"
    joined = "\U0001f469\u200d\U0001f467 \u0645\u06cc\u200c\u062e"
    assert call(page, "format", "m.oneLine(args[0])", joined) == joined


@pytest.mark.parametrize("hidden", [*map(chr, (0x202E, 0x1B, 0xAD, 0x2800, 0x3164, 0x115F, 0x34F, 0xE0101, 0x0))])
def test_a_call_that_asks_for_a_permission_marks_what_cannot_be_seen_in_it(page: Page, hidden: str):
    said = "m.unhidden(args[0]).map(part => part.textContent ?? part)"
    marked = call(page, "requests", said, f"rm{hidden} -rf\n\tx é 中")
    assert marked == ["rm", f"U+{ord(hidden):04X}", " -rf\n\tx é 中"]


@pytest.mark.parametrize(
    ("row", "state", "said"),
    [
        ({"status": "running", "activity": "Grep: x", "lastOutputAt": 98}, "running", "Grep: x"),
        ({"status": "running", "activity": "Grep: x", "lastOutputAt": 60}, "running", "Grep: x · 40s"),
        ({"status": "running", "waitingFor": "permission", "waitingBecause": "Bash: ls"}, "asking", "asks: Bash: ls"),
        ({"status": "running", "waitingFor": "children"}, "waiting", "waits for 2 of 3 jobs"),
        ({"status": "queued", "waitingFor": "slot"}, "queued", "waits for a slot"),
        ({"status": "queued", "waitingFor": "siblings", "dependsOn": ["a", "b"]}, "waiting", "waits for a!, b!"),
        ({"status": "queued", "waitingFor": "pause", "paused": True}, "paused", "paused"),
        ({"status": "queued", "waitingFor": "back_off"}, "waiting", "waits after an error"),
        ({"status": "running", "cancelling": True}, "running", "is being ended"),
        ({"status": "completed", "excerpt": "two\nfindings", "reason": "completed"}, "completed", "two findings"),
        ({"status": "completed", "excerpt": "x", "reason": "schema_unmet"}, "completed", "schema unmet: x"),
        ({"status": "failed", "error": "Prompt is too long"}, "failed", "Prompt is too long"),
        ({"status": "timeout", "reason": "deadline"}, "timeout", "deadline"),
        ({"status": "cancelled"}, "cancelled", "cancelled"),
        ({"status": "cancelled", "reason": "dependency_failed"}, "cancelled", "dependency failed"),
    ],
)
def test_a_row_says_what_its_job_does_or_waits_for_or_how_it_ended(
    page: Page, row: dict[str, Any], state: str, said: str
):
    around = "{children: 3, live: 2, names: (ids) => ids.map((id) => id + '!')}"
    assert call(page, "format", f"[m.stateOf(args[0]), m.doing(args[0], 100, {around})]", row) == [state, said]


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("tokens AUTH", True),
        ("tokens nothing", False),
        ("status:failed", True),
        ("status:fail", True),
        ("status:live", False),
        ("status:error", True),
        ("cost>0.5", True),
        ("cost<0.5", False),
        ("cost>$0.75", False),
        ("age<2h", True),
        ("age<1m", False),
        ("age>1.5m status:failed auth", True),
        ("dir:/shop", True),
        ("dir:/other", False),
    ],
)
def test_a_filter_has_words_status_cost_age_and_directory(page: Page, text: str, *, fits: bool):
    row = {"jobId": "j1", "key": "auth/tokens.py", "task": "Look", "status": "failed", "createdAt": 0}
    script = (
        "(() => { const found = m.parse(args[0]);"
        " return !found || found(m.factsOfJob(args[1], {cost: 0.7, now: 600, dir: '/srv/Shop'})); })()"
    )
    assert call(page, "filter", script, text, row) is fits


def test_a_filter_of_trees_looks_at_their_titles_states_directories_and_asks(page: Page):
    tree = {"rootId": "j1", "title": "Review src/", "counts": {"running": 2, "failed": 1}, "asking": 1, "cwd": "/srv"}
    script = "args[0].map((text) => m.parse(text)(m.factsOfTree(args[1], 5)))"
    texts = ["review", "status:asking", "status:live", "status:failed", "status:cancelled", "dir:/srv", "other"]
    assert call(page, "filter", script, texts, tree) == [True, True, True, True, False, True, False]


PARTS = (
    "m.partsOf({row: args[0], id: 'j1', parent: {id: 'root', parent: null}}, 200, args[1] ?? [])"
    ".map((part) => [part.what, part.how, part.from, part.to, part.attempt, part.isOpen])"
)


def test_the_time_of_a_job_has_its_queue_its_attempts_and_their_waits(page: Page):
    row = {
        "status": "running",
        "createdAt": 100,
        "attempts": [
            {"number": 1, "from": 110, "to": 130, "status": "queued", "reason": "overloaded"},
            {"number": 2, "from": 140, "waits": [["children", 150, 160], ["permission", 190]]},
        ],
    }
    assert call(page, "timeline", PARTS, row) == [
        ["queued", "running", 100, 110, 0, False],
        ["working", "failed", 110, 130, 1, False],
        ["queued", "running", 130, 140, 0, False],
        ["working", "running", 140, 150, 2, False],
        ["children", "running", 150, 160, 2, False],
        ["working", "running", 160, 190, 2, False],
        ["permission", "running", 190, 200, 2, True],
    ]


def test_a_pause_of_a_job_or_of_what_is_above_it_is_a_part_of_the_time_in_the_queue(page: Page):
    row = {"status": "queued", "createdAt": 100}
    pauses = [[110, 120, "root"], [150, None, "root/j1"], [160, 170, "root/other"]]
    assert call(page, "timeline", PARTS, row, pauses) == [
        ["queued", "running", 100, 110, 0, False],
        ["paused", "running", 110, 120, 0, False],
        ["queued", "running", 120, 150, 0, False],
        ["paused", "running", 150, 200, 0, True],
    ]


def test_a_job_that_asked_for_subtasks_waits_for_them_between_its_attempts(page: Page):
    row = {
        "status": "completed",
        "createdAt": 100,
        "endedAt": 180,
        "attempts": [
            {"number": 1, "from": 100, "to": 120, "status": "queued", "reason": "completed"},
            {"number": 2, "from": 160, "to": 180, "status": "completed", "reason": "completed"},
        ],
    }
    assert [part[:2] for part in call(page, "timeline", PARTS, row)] == [
        ["working", "completed"],
        ["children", "running"],
        ["working", "completed"],
    ]


def test_the_critical_path_leads_over_the_last_child_and_what_it_waited_for(page: Page):
    script = """(() => {
      const node = (id, ended, more = {}, children = []) => {
        const row = { status: "completed", createdAt: 0, startedAt: 0, endedAt: ended, ...more };
        const made = { id, row, children, parent: null };
        for (const child of children) child.parent = made;
        return made;
      };
      const root = node("root", 100, {}, [
        node("early", 30),
        node("first", 50, {}, [node("below", 45), node("short", 20)]),
        node("quick", 40),
        node("last", 90, { dependsOn: ["first", "quick"], startedAt: 50 }),
      ]);
      const { ids, links } = m.criticalPath(root);
      return [[...ids].sort(), links.map(({ from, to }) => `${from} > ${to}`).sort()];
    })()"""
    ids, links = call(page, "timeline", script)
    assert ids == ["below", "first", "last", "root"]
    assert links == ["below > first", "first > last", "last > root"]


@pytest.mark.parametrize(
    ("seconds", "labels"),
    [(4, ["0", "1s", "2s", "3s", "4s"]), (250, ["0", "1:00", "2:00", "3:00", "4:00"]), (9000, ["0", "1h", "2h"])],
)
def test_the_axis_has_round_ticks(page: Page, seconds: float, labels: list[str]):
    script = (
        "(() => { const s = new m.Scale(); s.width = 400; s.cover(1000, 1000 + args[0], false);"
        " return s.ticks().map((tick) => tick.label); })()"
    )
    assert call(page, "timeline", script, seconds) == labels


def test_a_scale_zooms_around_a_place_pans_within_the_time_and_fits_again(page: Page):
    script = """(() => {
      const s = new m.Scale();
      s.width = 100;
      s.cover(0, 100, false);
      const at = s.at(50);
      s.zoom(4, 50);
      const zoomed = [Math.round(s.at(50)) === Math.round(at), Math.round(s.to - s.from), s.isFitted];
      s.pan(-1000);
      const panned = s.from;
      s.fit();
      return [...zoomed, panned, s.from, Math.round(s.to), s.isFitted];
    })()"""
    assert call(page, "timeline", script) == [True, 25, False, 0, 0, 101, True]


@pytest.mark.parametrize(("notice", "kind"), [("said", "entry is-said"), ("trouble", "entry is-notice")])
def test_words_of_the_cli_are_no_alarm_and_trouble_is(page: Page, notice: str, kind: str):
    entry = {"kind": "notice", "notice": notice, "text": "Ask somebody who knows"}
    assert call(page, "entries", "m.entryView(args[0], new m.Calls()).className", entry) == kind
