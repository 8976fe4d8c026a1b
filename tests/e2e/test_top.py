"""`claude-jobs top` as a person sees it in a terminal, before a whole engine."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engines import MAIN, SECONDS, House, house
from tests.support.review_scene import ASKED, AUTH, BROKEN, OAUTH, ROOT, SESSION, TEMPLATES, TOKENS, Scene, review_scene
from tests.support.seat import top
from tests.support.waiting import until_now

pytestmark = pytest.mark.timeout(300)

ESCAPE = "\x1b"


@pytest.fixture
def scene() -> Iterator[Scene]:
    with review_scene() as made:
        yield made


@pytest.fixture
def empty() -> Iterator[House]:
    with house() as made:
        yield made


def test_the_first_look_says_what_runs_which_tool_what_waits_for_what_and_what_needs_the_person(scene: Scene):
    drawn = scene.made.run("tree").stdout
    with top(scene.made, lines=24, columns=80) as view:
        view.shows("Grep: redirect_uri", "Read: web/upload.py", "waits for a slot", "waits for 2 of 4 jobs")
        view.shows(f"? {SESSION} asks: Bash: git log -p", "2 findings", "Prompt is too long", "$0.19")
        rows = view.grid.rows
    assert all(len(row) <= 80 for row in rows)
    assert "2 running" in rows[0]
    assert "4 waiting" in rows[0]
    # The drawing of the same tree says the same.
    assert "11 jobs: 2 running, 4 waiting, 1 queued, 3 completed, 1 failed" in drawn
    waits = [line for line in drawn.splitlines() if "◌" in line]
    assert len(waits) == 4
    assert all("  waiting for " in line or "  asks: " in line for line in waits)
    order = [next(at for at, row in enumerate(rows[2:]) if name in row) for name in (ROOT[:20], TOKENS, OAUTH, BROKEN)]
    assert order == sorted(order)


def test_a_request_is_shown_whole_and_allowed_and_the_job_hears_of_it(scene: Scene):
    with top(scene.made) as view:
        view.shows("a answers")
        view.type("a")
        view.shows("asks to call Bash", f"command: {ASKED}", "Without an answer it is denied at")
        view.type("y")
        view.shows("Allowed.")
        view.hides("a answers")
    assert "waitingFor" not in scene.status(SESSION)


def test_a_subtree_is_killed_after_a_question_and_the_rest_goes_on(scene: Scene):
    with top(scene.made) as view:
        view.shows("Grep: redirect_uri")
        # In one go: the second key is for what the first one has selected.
        view.type("\x1b[Bk")
        view.shows("Kill this job?", AUTH)
        view.type("n")
        view.hides("Kill this job?")
        assert scene.status(AUTH)["status"] == "running"
        view.type("k")
        view.shows("Kill this job?")
        view.type("y")
        view.shows("killed")
        until_now(lambda: scene.status(OAUTH)["status"] == "cancelled", SECONDS, "the kill")
        view.shows("cancelled")
    assert scene.status(ROOT)["status"] == "running"


def test_what_failed_below_a_job_runs_again_with_one_key(scene: Scene):
    scene.person.json("claude_kill_job", jobId=scene.ids[AUTH])
    with top(scene.made) as view:
        view.shows("Read: web/upload.py", "cancelled")
        view.type("r")
        view.shows("Run again what failed?", "Below it: 1 failed, 3 cancelled.", "all 4")
        view.type("y")
        view.shows("Queued again: 4 jobs.")
    assert {scene.status(task)["status"] for task in (AUTH, OAUTH, SESSION)} <= {"queued", "running"}


def test_at_120_columns_names_and_waits_are_whole_where_there_is_room(scene: Scene):
    with top(scene.made, lines=24, columns=120) as view:
        view.shows("Grep: redirect_uri", "auth/ with a job for each file", f"asks: Bash: {ASKED} ")
        view.shows("waits for web/upload.py, web/templates/")


def test_a_subtree_is_paused_and_resumed_with_one_key(scene: Scene):
    with top(scene.made) as view:
        view.shows("Grep: redirect_uri")
        view.type("/templates\r")
        view.hides(OAUTH)
        view.type("p")
        view.shows("is paused", "paused by a person")
        assert scene.status(TEMPLATES)["waitingFor"] == "pause"
        view.type("p")
        view.shows("goes on", "waits for a slot")
        assert scene.status(TEMPLATES)["waitingFor"] == "slot"


def test_a_pause_of_everything_is_said_although_no_job_lives():
    with house() as made, made.pump() as person, top(made) as view:
        view.shows("No jobs here yet.")
        person.json("claude_pause", jobId="all")
        view.shows("Everything is paused: no job starts before `claude-jobs resume`.")
        person.json("claude_pause", jobId="all", resume=True)
        view.hides("Everything is paused")


def test_the_transcript_of_the_selected_job_follows_and_its_facts_are_there(scene: Scene):
    with top(scene.made, lines=40, columns=140) as view:
        view.shows("Grep: redirect_uri")
        # In one go, as it is pasted: no letter is taken for a command, and what fits is selected.
        view.type("/oauth\r")
        view.shows("I look where the", "Grep(redirect_uri)", "claude-sonnet-5", "acceptEdits")
        scene.end(OAUTH)
        view.shows("● no findings", "completed")


def test_the_view_survives_engines_and_keeps_its_selection(scene: Scene):
    with top(scene.made, lines=30, columns=120) as view:
        view.shows("Grep: redirect_uri")
        view.type("\x1b[B\x1b[B\x1b[B\x1b[B")
        view.shows(f"◐ {OAUTH}")
        engine = scene.made.control("status")
        assert engine is not None
        scene.made.control("stop")
        view.shows("The engine has stopped", "Press e")
        view.type("e")
        scene.made.wait_for_another_engine(engine["pid"])
        view.hides("Press e")
        second = scene.made.control("status")
        assert second is not None
        os.kill(second["pid"], signal.SIGKILL)
        # It is started again unasked: nobody has stopped it.
        scene.made.wait_for_another_engine(second["pid"])
        view.hides("unexpectedly")
        view.shows(f"◐ {OAUTH}", "Grep: redirect_uri")
        view.type("q")
        assert view.end() == 0


def test_without_colour_and_without_utf_8_it_says_the_same(scene: Scene):
    with top(scene.made, NO_COLOR="1") as view:
        view.shows("Grep: redirect_uri")
        assert not {f"\x1b[{code}" for code in ("31", "32", "33", "36")} & {
            piece[:4] for piece in view.written.split("m")
        }
        assert "38;" not in view.written
    with top(scene.made, LC_ALL="C") as view:
        view.shows("Grep: redirect_uri", "* auth/oauth.py")
        assert view.grid.text.isascii()


def test_on_an_empty_engine_it_starts_one_and_says_how_to_start_a_job(empty: House):
    with top(empty) as view:
        view.shows("No jobs here yet.", "claude-jobs run")
        empty.run("run", "stub:say=answered", "--detach")
        view.shows("answered")
        view.type("q")
        assert view.end() == 0


def test_codes_and_markup_in_a_task_reach_the_terminal_as_text(empty: House):
    with empty.pump() as person:
        person.json("claude_run_batch", tasks=["[red]x[/red] \x1b]0;title\x07\x1b[31mcolour stub:say=日本語の答え"])
    with top(empty) as view:
        view.shows("[red]x[/red]")
        view.type("\x1b[B\r")
        view.shows("> [red]x[/red] colour")
        assert "]0;title" not in view.written
        assert "日本語" in view.grid.text


def test_one_tree_is_shown_where_an_id_is_given_and_an_unknown_one_is_refused(scene: Scene):
    with top(scene.made, scene.ids[AUTH][:8]) as view:
        view.shows(OAUTH)
        assert BROKEN not in view.grid.text
    with top(scene.made, "jnone") as view:
        assert view.end() == 1
        assert "No job or batch has the id 'jnone'" in view.written


@pytest.mark.parametrize("environ", [{}, {"TERM": "dumb"}])
def test_without_a_terminal_it_says_what_to_use_instead(empty: House, environ: dict[str, str]):
    done = subprocess.run(
        [sys.executable, str(MAIN), "top"],
        env={**empty.environ, **environ},
        cwd=empty.work,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "claude-jobs tree" in done.stderr


def test_without_textual_it_says_how_to_install_it(empty: House, tmp_path: Path):
    # A package of that name that cannot be imported is like one that is not installed.
    (tmp_path / "textual.py").write_text("raise ModuleNotFoundError('No module named textual', name='textual')\n")
    with top(empty, PYTHONPATH=str(tmp_path)) as view:
        assert view.end() == 1
        assert "pip install 'textual>=8,<9'" in view.written
