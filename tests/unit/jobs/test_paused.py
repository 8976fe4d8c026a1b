"""What is paused, as the engine knows it in memory."""

from jobs.paused import EVERYTHING, PausedPath, PausedPaths


def row(path: str, **fields: object) -> PausedPath:
    return PausedPath(**{"path": path, "since": 1.0, **fields})  # type: ignore[arg-type]


def test_a_pause_holds_for_its_path_and_all_below_it_and_for_no_path_that_begins_alike():
    paused = PausedPaths([row("b1/j1")])

    assert [path for path in ("b1", "b1/j1", "b1/j1/j2", "b1/j12", "j1") if paused.holds(path)] == [
        "b1/j1",
        "b1/j1/j2",
    ]


def test_everything_is_every_path():
    paused = PausedPaths([row(EVERYTHING)])

    assert paused.holds("b1")
    assert paused.holds("b1/j1")
    assert paused.at(EVERYTHING) == row(EVERYTHING)
    paused.drop([EVERYTHING])
    assert paused.is_empty


def test_the_outermost_pause_is_the_one_to_resume():
    paused = PausedPaths([row("b1/j1/j2"), row("b1")])

    assert paused.outermost("b1/j1/j2/j3") == row("b1")
    assert list(paused.covering("b1/j1/j2")) == [row("b1"), row("b1/j1/j2")]
    assert paused.outermost("b2") is None


def test_what_ends_running_jobs_does_so_below_it_alone():
    paused = PausedPaths([row("b1"), row("b1/j1", ends_running=True)])

    assert paused.ends("b1/j1/j2")
    assert not paused.ends("b1/j3")


def test_a_job_is_held_back_by_what_is_paused_below_it_while_that_lives():
    live = {"b1/j1/j2"}
    paused = PausedPaths([row("b1/j1/j2")], lives=live.__contains__)

    assert paused.holds_back("b1/j1")
    assert paused.holds_back("b1/j1/j2/j3")
    assert not paused.holds_back("b1/j3")
    live.clear()
    assert not paused.holds_back("b1/j1")
    assert paused.live() == []


def test_what_is_shown_is_what_keeps_a_live_job_from_starting_and_a_pause_of_everything():
    paused = PausedPaths([row("b1", since=2.0), row("b2"), row(EVERYTHING, since=3.0)], lives={"b1"}.__contains__)

    assert paused.live() == [row("b1", since=2.0), row(EVERYTHING, since=3.0)]
    assert paused.live(["b2"]) == [row(EVERYTHING, since=3.0)]
    assert paused.live([]) == []


def test_a_path_that_is_put_twice_and_dropped_once_is_gone():
    paused = PausedPaths([row("b1/j1"), row("b1/j1", ends_running=True)])

    assert paused.under("b1") == [row("b1/j1", ends_running=True)]
    paused.drop(["b1/j1", "b1/j1", "b9"])
    assert paused.is_empty
    assert not paused.holds_back("b1")


def test_who_paused_it_and_what_it_is_called():
    assert (row("b1/j1").id, row(EVERYTHING).id) == ("j1", None)
    assert row("b1/j1").words_for("b1/j1") == "paused by a person"
    assert row("b1/j1", by_job="j9").words_for("b1/j1/j2") == "paused by job j9, with j1"
    assert row(EVERYTHING).words_for("b1") == "paused by a person, with everything"
