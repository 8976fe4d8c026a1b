"""The terminal view by its keys and by what is on its screen."""

from collections.abc import Sequence

import pytest
from inline_snapshot import snapshot
from rich.segment import Segment

from server.tui import job_list
from server.tui.cells import Columns, row_segments
from server.tui.marks import PlainCharacters
from server.tui.model import Node
from tests.unit.tui.stand_in import NOW, REVIEW, page, row, view

pytestmark = pytest.mark.anyio


async def test_at_80_columns_it_is_plain_what_runs_what_waits_and_what_it_cost():
    async with view() as shown:
        assert shown.lines == snapshot(
            [
                "◐ 1 running  ◌ 4 waiting  ○ 1 queued  ● 1 completed  ✗ 1 failed  $1.32",
                "? auth/session.py asks: Bash: git log -p  a answers",
                "Job                          Now                                   Cost     Time",
                "▾ ◌ Review src/              waits for 3 of 4 jobs                $1.32     1:30",
                "  ▾ ◌ auth                   waits for 2 of 3 jobs                $0.61     1:30",
                "      ● auth/tokens.py       2 findings                           $0.19     1:00",
                "      ◐ auth/oauth.py        Grep: redirect_uri                   $0.24     1:30",
                "      ? auth/session.py      asks: Bash: git log -p               $0.08     1:30",
                "    ✗ db/migrate.py          prompt too long                      $0.31     1:00",
                "    ○ web/templates          waits for a slot",
                "    ◌ summary                waits for web/templates",
                "enter open  / filter  k kill  r retry  s send  a allow  p pause  ? help  q quit",
            ]
        )


async def test_with_room_the_details_are_next_to_the_list():
    async with view(size=(120, 30)) as shown:
        await shown.press("down", "down", "down")
        left, right = zip(*[line.split("│", 1) for line in shown.lines if "│" in line][:7], strict=True)
        assert "auth/oauth.py" in "".join(left)
        # The time of day depends on the time zone.
        assert [line for line in right if " Time " not in line] == snapshot(
            [
                " ◐ auth/oauth.py",
                " Status    running",
                " Now       Grep: redirect_uri · 1s ago",
                " Cost      $0.24",
                " Id        j3",
                " ─────────────────────────────────────────",
            ]
        )


async def test_without_jobs_it_says_how_to_start_one():
    async with view([]) as shown:
        await shown.take(reset=True)
        assert "claude-jobs run" in shown.text


async def test_only_characters_of_ascii_are_shown_where_the_terminal_has_no_others():
    async with view(filters=[PlainCharacters(ascii_only=True)]) as shown:
        await shown.take(row(8, parent=0, task="日本語 the wide one"))
        assert shown.text.isascii()
        assert "the wide one" in shown.text
        await shown.press("k")
        assert shown.text.isascii()


async def test_markup_and_terminal_codes_of_jobs_are_text():
    async with view(
        [row(0, task="[red]markup[/red] \x1b[31mred\x1b[0m", activity="[b]Bash[/b]: \x1b]0;x\x07ls")]
    ) as shown:
        assert "[red]markup[/red] red" in shown.text
        assert "[b]Bash[/b]: ls" in shown.text
        await shown.press("enter")
        assert "[red]markup[/red] red" in shown.text


async def test_the_selection_stays_on_its_job_while_others_come_and_end():
    async with view() as shown:
        await shown.press("down", "down", "down")
        assert shown.selected == "j3"
        place = next(index for index, line in enumerate(shown.lines) if "oauth" in line)
        new_tree = [row(90 + number, rootId="j90", parent=90 if number else None) for number in range(3)]
        await shown.take(*new_tree)
        assert shown.selected == "j3"
        await shown.take(row(2, "failed", parent=1), {**REVIEW[4], "status": "completed"})
        assert shown.selected == "j3"
        assert place > 0
        await shown.take(*REVIEW, reset=True)
        assert shown.selected == "j3"


async def test_folding_hides_what_is_below_and_says_how_many_it_is():
    async with view() as shown:
        await shown.press("down", "left")
        assert "oauth" not in shown.text
        assert "auth 4 jobs" in shown.text
        assert "1 running, 2 waiting" in shown.text
        await shown.press("right")
        assert "oauth" in shown.text
        await shown.press("right", "left", "left")
        assert shown.selected == "j1"
        await shown.press("h", "h")
        assert shown.selected == "j0"


async def test_trees_that_were_over_at_the_start_are_folded_and_one_that_ends_stays_as_it_is():
    over = [row(9, "completed", rootId="j9"), row(10, "completed", parent=9, rootId="j9", task="below the old one")]
    async with view([*REVIEW, *over]) as shown:
        assert "below the old one" not in shown.text
        await shown.take(*[{**one, "status": "completed"} for one in REVIEW])
        assert "auth/oauth.py" in shown.text


async def test_the_filter_leaves_what_fits_and_what_is_above_it_and_escape_clears_it():
    async with view() as shown:
        await shown.press("slash", *"status:failed")
        assert shown.selected == "j5"
        assert "oauth" not in shown.text
        await shown.press("enter")
        assert "filter: status:failed" in shown.text
        await shown.press("escape")
        assert "oauth" in shown.text
        await shown.press("slash", *"cost>0.2", "space", *"auth")
        assert "oauth" in shown.text
        assert "session.py" not in "\n".join(shown.lines[2:])


async def test_kill_asks_first_and_only_y_kills():
    async with view() as shown:
        for key in ("n", "escape", "q"):
            await shown.press("k")
            assert "This ends it now and 5 jobs below it" in shown.text
            await shown.press("enter", "space", key)
        assert shown.done == []
        await shown.press("k", "y")
        await shown.pilot.pause(0.1)
        assert shown.done == [("kill", "j0")]
        assert "did kill" in shown.text


async def test_the_question_names_the_jobs_that_cannot_run_without_the_killed_one():
    async with view() as shown:
        await shown.press("end", "up")
        assert shown.selected == "j6"
        await shown.press("k")
        assert "1 job that depends on it will not run." in shown.text


async def test_what_cannot_be_done_is_said_in_its_place():
    async with view() as shown:
        await shown.press("s")
        assert "It is not over yet" in shown.text
        await shown.press("down", "down", "k")
        assert "It is over already." in shown.text


async def test_a_message_is_typed_and_sent_and_its_letters_are_no_commands():
    async with view() as shown:
        await shown.press("down", "down", "s", *"kill", "space", "q", "enter")
        await shown.pilot.pause(0.1)
        assert shown.done == [("send", "j2", "kill q")]
        await shown.press("s", *"no", "escape")
        assert len(shown.done) == 1


async def test_pause_and_resume_are_one_key_and_a_paused_job_says_so():
    async with view() as shown:
        await shown.press("down", "p")
        await shown.pilot.pause(0.1)
        assert shown.done == [("pause", "j1", False)]
        await shown.take({**REVIEW[1], "paused": True}, {**REVIEW[3], "paused": True})
        assert "(paused) Grep: redirect_uri" in shown.text
        await shown.press("p")
        await shown.pilot.pause(0.1)
        assert shown.done[1:] == [("pause", "j1", True)]


async def test_the_details_of_a_paused_job_say_so_and_how_it_goes_on():
    async with view(size=(120, 30)) as shown:
        await shown.press("down")
        assert "Waits     for 2 of 3 jobs" in shown.text
        await shown.take({**REVIEW[1], "paused": True})
        assert "Paused    what runs goes on to its end" in shown.text
        assert "resumes)" in shown.text


async def test_a_retry_of_one_job_needs_no_question_also_from_the_job_above_it():
    async with view() as shown:
        await shown.press("G", "up", "up", "r")
        await shown.has_read()
        assert shown.done == [("retry", "j5", False)]
        await shown.press("g", "r")
        await shown.has_read()
        assert shown.done[1:] == [("retry", "j0", True)]


async def test_a_job_that_never_ran_because_of_another_says_so_and_not_that_somebody_cancelled_it():
    async with view([*REVIEW, row(8, "cancelled", parent=1, reason="dependency_failed")]) as shown:
        assert "dependency failed" in shown.text


async def test_a_retry_below_a_job_says_how_many_run_again_and_asks():
    async with view([*REVIEW, row(8, "timeout", parent=1), row(9, "cancelled", parent=1)]) as shown:
        await shown.press("r")
        assert "Below it: 1 failed, 1 timeout, 1 cancelled." in shown.text
        assert "y all 3   n leave them" in shown.text
        await shown.press("o", "n")
        assert shown.done == []
        await shown.press("r", "y")
        await shown.has_read()
        assert shown.done == [("retry", "j0", True)]


async def test_a_job_that_failed_with_what_is_below_it_runs_again_alone_or_with_all_of_it():
    failed = [row(0, "failed"), row(1, "failed", parent=0), row(2, "completed", parent=0)]
    for key, subtree in (("o", False), ("y", True)):
        async with view(failed) as shown:
            await shown.press("r")
            assert "It failed. Below it: 1 failed." in shown.text
            assert "y all 2   o this job alone   n leave them" in shown.text
            await shown.press(key)
            await shown.has_read()
            assert shown.done == [("retry", "j0", subtree)]


async def test_enter_opens_a_batch_and_never_folds_it():
    async with view([row(1, rootId="b0", key="one"), row(2, "failed", rootId="b0")]) as shown:
        await shown.press("left")
        assert "one" not in shown.text
        assert "enter open" in shown.lines[-1]
        await shown.press("enter")
        assert "one" in shown.text
        await shown.press("enter")
        assert "Now       1 running, 1 failed" in shown.text
        assert "Id        b0" in shown.text
        assert shown.lines[-1].startswith("esc back")


async def test_a_row_without_figures_has_their_columns_and_a_long_name_those_that_a_wait_leaves():
    name, waits = "n" * 45, "waits for " + "s" * 50
    rows = [
        row(0, task=name, waitingFor="children", costUsd=1.0),
        row(1, parent=0, task=name, activity="Bash: ls"),
        row(2, "queued", parent=0, key="short", waitingFor="siblings", dependsOn=["j3"]),
        row(3, "queued", parent=0, key="s" * 50, waitingFor="slot"),
    ]
    async with view(rows) as shown:
        at = next(index for index, line in enumerate(shown.lines) if line.startswith("Job"))
        parent, running, queued, _ = shown.lines[at + 1 : at + 5]
        assert f"{name[:33]}" in parent
        assert "waits for 3 of 3 jobs" in parent
        assert waits[:50] in queued
        # What a running job does changes each second: its name keeps its columns, and the next one is where it was.
        assert running.index("Bash: ls") == shown.lines[at].index("Now")
        assert all(len(line) <= 80 for line in shown.lines)


async def test_the_first_of_ten_thousand_jobs_and_the_last_are_a_key_apart_and_only_what_is_seen_is_drawn(
    monkeypatch: pytest.MonkeyPatch,
):
    drawn: list[str] = []

    def noted(node: Node, columns: Columns, now: float, *, is_selected: bool) -> Sequence[Segment]:
        drawn.append(node.id)
        return row_segments(node, columns, now, is_selected=is_selected)

    rows = [row(0), *[row(number, parent=0, task=f"number {number}") for number in range(1, 10_000)]]
    async with view(rows) as shown:
        monkeypatch.setattr(job_list, "row_segments", noted)
        await shown.press("G")
        assert "number 9999" in shown.text
        await shown.press("g", "pagedown", "up")
        await shown.take(row(5, "completed", parent=0, excerpt="changed"))
        assert len(set(drawn)) <= 4 * 24
        assert len(drawn) <= 20 * 24


async def test_the_mouse_selects_folds_and_opens():
    async with view() as shown:
        at = next(index for index, line in enumerate(shown.lines) if "oauth" in line)
        top = at - 4
        await shown.pilot.click(job_list.JobList, offset=(12, 4))
        assert shown.selected == "j3"
        await shown.pilot.click(job_list.JobList, offset=(2, 2))
        assert "oauth" not in "\n".join(shown.lines[2:])
        assert top > 0


async def test_a_click_on_a_key_of_the_bar_does_what_the_key_does():
    async with view() as shown:
        at = shown.lines[-1].index("? help")
        await shown.pilot.click("#keys", offset=(at + 2, 0))
        await shown.pilot.pause()
        assert "quit; jobs go on" in shown.text


async def test_a_batch_is_killed_as_a_whole_after_a_question():
    async with view([row(1, rootId="b0"), row(2, "completed", rootId="b0")]) as shown:
        assert shown.selected == "b0"
        await shown.press("k")
        assert "This ends 1 job now." in shown.text
        await shown.press("y")
        await shown.pilot.pause(0.1)
        assert shown.done == [("kill", "b0")]


async def test_help_names_every_key_of_the_bar():
    async with view() as shown:
        await shown.press("question_mark")
        for key in ("enter", "/", "k", "r", "s", "a", "y", "q"):
            assert any(line.lstrip("│ ").startswith(f"{key} ") for line in [part[8:] for part in shown.lines]), key


async def test_a_narrow_terminal_opens_the_details_in_place_of_the_list_and_escape_goes_back():
    async with view() as shown:
        await shown.press("down", "down", "down", "enter")
        assert "Grep: redirect_uri" in shown.text
        assert "db/migrate" not in shown.text
        assert shown.lines[-1].startswith("esc back")
        await shown.press("escape")
        assert "db/migrate" in shown.text
        assert shown.lines[-1].startswith("enter open")
        assert shown.selected == "j3"


async def test_only_one_subtree_is_shown_where_one_was_named():
    async with view(under="j1") as shown:
        assert "oauth" in shown.text
        assert "db/migrate" not in shown.text


async def test_a_pause_of_an_account_is_said_with_its_end_and_how_many_jobs_wait():
    pauses = [{"until": NOW + 3600, "because": "the five-hour limit is reached", "waiting": 2}]
    async with view([row(0, "queued", waitingFor="limit", waitingUntil=NOW + 3600)]) as shown:
        await shown.take(pauses=pauses)
        assert ": the five-hour limit is reached; 2 jobs wait" in shown.text
        assert "usage limit until" in shown.text
        await shown.take()
        assert "2 jobs wait" not in shown.text
        # A person has paused all of them: it is not the limit for which they wait.
        await shown.take(pauses=[{**pauses[0], "waiting": 0}], allPaused=True)
        assert "Paused until" not in shown.text
        assert "Everything is paused: no job starts before `claude-jobs resume`." in shown.text


@pytest.mark.parametrize(
    ("typed", "left"),
    [("status:waiting", {"j0", "j1", "j4", "j6", "j7"}), ("status:live", {"j0", "j1", "j3", "j4", "j6", "j7"})],
)
async def test_the_filter_knows_what_waits_and_what_is_live(typed: str, left: set[str]):
    async with view() as shown:
        await shown.press("slash", *typed)
        assert {node.id for node in shown.app.table.visible} == left


async def test_escape_and_keys_of_the_list_do_nothing_where_nothing_fits_the_filter():
    async with view() as shown:
        await shown.press("slash", *"nowhere", "enter", "down", "G", "space")
        assert shown.selected is None
        await shown.press("escape")
        assert "oauth" in shown.text
        assert shown.selected is not None


async def test_a_double_click_opens_a_job_and_a_click_on_the_heading_does_nothing():
    async with view() as shown:
        await shown.pilot.click(job_list.JobList, offset=(12, 0))
        assert shown.selected == "j0"
        await shown.pilot.click(job_list.JobList, offset=(12, 4), times=2)
        await shown.pilot.pause()
        assert shown.selected == "j3"
        assert shown.lines[-1].startswith("esc back")


async def test_a_job_that_ended_oddly_or_is_being_ended_says_so():
    async with view(
        [row(0, "completed", reason="max_turns", excerpt="half of it"), row(1, rootId="j1", cancelling=True)]
    ) as shown:
        assert "max turns: half of it" in shown.text
        assert "is being ended" in shown.text


async def test_a_page_that_comes_while_the_view_is_being_closed_is_dropped():
    async with view() as shown:
        await shown.app.pane.query_one("#facts").remove()
        shown.app.page_arrived(page(row(9, task="unseen")))
        await shown.pilot.pause()
        assert "unseen" not in shown.text


async def test_the_page_opens_at_the_selected_job_and_where_no_browser_opens_a_link_is_shown():
    async with view() as shown:
        await shown.press("down", "w")
        await shown.has_read()
        assert shown.done == [("open_page", "tree/j0/j1")]
        assert "Open it in your browser, once, within 10 minutes:" in shown.text
        assert "did open_page" in shown.text
        await shown.press("c")
        assert "Sent to the clipboard: did open_page" in shown.text
