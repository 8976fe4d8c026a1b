"""The document of a record: its order, its sums, and what is left out of it."""

import json
from typing import Any

import pytest

from server.report.document import NAME_CHARS, document_of
from tests.unit.report.sample import Sample, attempt, ended, review, used

KEY = "sk-ant-api03-" + "aB3" * 20
PASSWORD = "correct horse battery staple 42"


def document(sample: Sample, *, known: tuple[str, ...] = (), with_answers: bool = True, size: int = 1000, **tree: Any):
    return document_of(sample.pages(size=size, **tree), known, with_answers=with_answers)


def test_each_job_comes_before_those_below_it_and_those_beside_it_as_they_were_submitted():
    names = [row["task"].partition("\n")[0] for row in document(review())["jobs"]]
    assert names == [
        "Review src/ for security problems",
        "auth/",
        "auth/tokens.py",
        "auth/password.py",
        "auth/oauth.py",
        "auth/session.py",
        "api/",
        "api/orders.py",
        "api/payments.py",
        "api/users.py",
        "api/webhooks.py",
        "db/migrate.py",
        "web/upload.py",
        "web/templates/",
        "summary",
        "docs/",
        "scripts/",
    ]


@pytest.mark.parametrize("size", [1, 2, 5, 17])
def test_the_pages_of_a_record_make_one_document_whatever_their_size(size: int):
    assert document(review(), size=size) == document(review())


def test_a_tree_of_any_depth_is_put_in_order():
    sample = Sample()
    above = sample.job("0", **ended(0.1, 0, 1, 2))
    for number in range(1, 3000):
        above = sample.job(str(number), above, **ended(0.001, 0, 1, 2))
    jobs = document(sample)["jobs"]
    assert [row["task"] for row in jobs] == [str(number) for number in range(3000)]
    assert jobs[0]["below"]["counts"] == {"completed": 2999}


@pytest.mark.parametrize(("is_batch", "title"), [(True, "first and 2 more"), (False, "first")])
def test_a_batch_is_called_after_its_first_task_and_the_number_of_those_beside_it(is_batch: bool, title: str):
    sample = Sample()
    above = sample.job("first\nwith more to say", **ended(0.1, 0, 1, 2))
    sample.job("below", above, **ended(0.1, 0, 1, 2))
    for task in ("second", "third"):
        sample.job(task, **ended(0.1, 0, 1, 2))
    assert document(sample, isBatch=is_batch)["tree"]["title"] == title


def test_sums_are_those_of_everything_below():
    found = document(review())
    by_task = {row["task"].partition("\n")[0]: row for row in found["jobs"]}
    api = by_task["api/"]
    assert (api["children"], api["below"]["counts"]) == (4, {"completed": 4})
    assert api["below"]["costUsd"] == pytest.approx(
        sum(by_task[f"api/{one}.py"]["costUsd"] for one in ("orders", "payments", "users", "webhooks"))
    )
    tree = found["tree"]
    assert tree["counts"] == {"running": 5, "completed": 7, "failed": 1, "queued": 3, "cancelled": 1}
    assert (tree["jobs"], tree["asking"], tree["deepest"]) == (17, 1, 2)
    assert tree["costUsd"] == pytest.approx(sum(row.get("costUsd", 0) for row in found["jobs"]))
    assert sum(row["costUsd"] for row in found["depths"]) == pytest.approx(tree["costUsd"])
    assert sum(row["costUsd"] for row in found["models"]) == pytest.approx(tree["costUsd"])
    assert [row["jobs"] for row in found["depths"]] == [1, 8, 8]
    assert "endedAt" not in tree
    assert tree["elapsedSeconds"] == 252


def test_a_tree_that_is_over_says_when_it_ended_and_how_long_it_took():
    sample = Sample()
    root = sample.job("all", **ended(0.1, 0, 1, 60))
    sample.job("part", root, **ended(0.1, 5, 6, 90))
    tree = document(sample)["tree"]
    assert (tree["elapsedSeconds"], tree["endedAt"] - tree["createdAt"]) == (90, 90)


def test_what_attempts_cost_that_are_not_listed_any_more_counts_for_no_model():
    sample = Sample()
    fields = used(0.5, attempt(21, 0, 10))
    sample.job("often tried", **{**fields, "costUsd": fields["costUsd"] + 1.25})
    assert [(row["model"], row["costUsd"]) for row in document(sample)["models"]] == [
        (None, 1.25),
        ("claude-sonnet-5", 0.5),
    ]


def test_without_answers_there_is_neither_an_answer_nor_more_of_a_task_than_its_first_line():
    sample = review()
    sample.job("x" * 1000, sample.root, error=f"{'e' * 1000}\nthe second line", status="failed", reason="unknown_error")
    text = json.dumps(document(sample, with_answers=False))
    assert "Findings" not in text
    assert "One job for each directory" not in text
    assert "the second line" not in text
    assert "x" * NAME_CHARS in text
    assert "x" * (NAME_CHARS + 1) not in text
    assert "Review src/ for security problems" in text


@pytest.mark.parametrize("secret", [KEY, PASSWORD])
@pytest.mark.parametrize("with_answers", [True, False])
def test_no_text_of_a_document_holds_a_secret(secret: str, with_answers: bool):
    sample = Sample()
    sample.job(
        f"use {secret}",
        key=f"k {secret}",
        model=secret,
        answeringModel=secret,
        activity=f"Bash: {secret}",
        waitingBecause=secret,
        cwd=f"/srv/{secret}",
        error=f"failed with {secret}",
        answer=f"The answer is {secret}.",
        rights={"permissionMode": "plan", "allowedTools": [f"Bash({secret})"], "mcpServers": [secret]},
        **ended(0.1, 0, 1, 2),
    )
    sample.rows[0]["attempts"][0].update(model=secret, cliVersion=secret)
    found = document(sample, known=(PASSWORD,), with_answers=with_answers, client=f"a client {secret}")
    assert secret not in json.dumps(found)
    assert "[redacted]" in json.dumps(found)


def test_no_half_of_a_secret_is_left_where_an_answer_is_cut():
    for before in range(300):
        words = ("word " * 400)[: 700 + before]
        sample = Sample()
        # As the engine sends it: twice as many characters as are shown, cut wherever that is.
        whole = f"{words} {KEY} {words}"
        sample.job("all", answer=whole[:1000], answerChars=len(whole), **ended(0.1, 0, 1, 2))
        [row] = document_of(sample.pages(answer_chars=500), (), with_answers=True)["jobs"]
        assert KEY[:20] not in row["answer"]
        assert len(row["answer"]) <= 500
        assert row["answerChars"] == len(whole)


def test_no_text_holds_what_a_terminal_or_a_reader_is_deceived_by():
    bad = "\x1b[2J\x1b]0;t\x07\u202eevil\u2066\x00"
    sample = Sample()
    sample.job(
        f"t{bad}", key=f"k{bad}", answer=f"a{bad}", error=f"e{bad}", cwd=f"/c{bad}", activity=bad, **ended(0.1, 0, 1, 2)
    )
    text = json.dumps(document(sample), ensure_ascii=False)
    assert not {"\x1b", "\x07", "\u202e", "\u2066", "\x00"} & set(text)
    assert "\\u001b" not in text
