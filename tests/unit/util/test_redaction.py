"""Secrets do not stand in logs, errors and events."""

import io
import logging
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.claude.ndjson import Line
from jobs.ids import new_token
from jobs.notice import shortened
from jobs.permissions.approvals import PermissionRequest
from jobs.util.text import HIDDEN, ending, redact, strip_terminal_codes
from server.cli.conversation import Conversation
from server.feed.job_details import request_of
from server.logging_setup import FORM, SafeFormatter
from server.mcp.replies import compact, permission_requests
from tests.unit.jobs.support import job

SECRETS = (
    "sk-ant-api03-AbC_dEf-0123456789",
    "sk-ant-oat01-zzzzzzzzzzzzzzzz",
    "cj1_AbCdEfGhIjKlMnOpQrStUvWxYz012345",
)


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("around", ["{}", "key={} end", '{{"a": "{}"}}', "({})", "a {}\nb"])
def test_a_secret_is_taken_out_wherever_it_stands(secret: str, around: str):
    text = redact(around.format(secret))
    assert secret not in text
    assert text == around.format(HIDDEN)


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abcdef123456",
        "authorization: bearer abcdef123456",
        '"x-api-key": "abcdef123456"',
        "X-Api-Key: abcdef123456",
        "ANTHROPIC_API_KEY=abcdef123456",
        "CLAUDE_CODE_OAUTH_TOKEN=abcdef123456",
    ],
)
def test_what_follows_the_name_of_a_secret_is_taken_out_and_the_name_stays(text: str):
    hidden = redact(text)
    assert "abcdef123456" not in hidden
    assert hidden.lower().startswith(text.lower().partition("abcdef")[0])
    assert redact(hidden) == hidden


@pytest.mark.parametrize("text", ["task-list", "the bearer of news", "sk-", "disk-ant", "risk-averse people", "cj1_"])
def test_ordinary_words_stay(text: str):
    assert redact(text) == text


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_token_of_ours_never_survives_and_a_second_time_changes_nothing(before: str, after: str):
    token = new_token()
    once = redact(f"{before} {token} {after}")
    assert token not in once
    assert redact(once) == once


def logged(message: str, *arguments: object, error: Exception | None = None) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(SafeFormatter(FORM))
    record = logging.LogRecord("n", logging.INFO, "f", 1, message, arguments, None)
    if error is not None:
        record.exc_info = (type(error), error, None)
    handler.handle(record)
    return stream.getvalue()


def test_the_log_has_no_secret_in_message_arguments_or_traceback():
    text = logged("%s and %s", SECRETS[0], {"token": SECRETS[2]}, error=ValueError(SECRETS[1]))
    assert not any(secret in text for secret in SECRETS)
    assert text.count(HIDDEN) == 3


def test_the_log_holds_nothing_that_a_terminal_obeys():
    text = logged("%s", "\x1b]52;c;aGVsbG8=\x07\x1b[31mred\x9b0m\x00")
    assert text.rstrip("\n").endswith("red")
    assert all(char == "\n" or char.isprintable() for char in text)


def test_a_transcript_has_no_secret():
    frame = {"type": "assistant", "message": {"content": [{"type": "text", "text": f"my key is {SECRETS[0]}"}]}}
    assert list(Conversation().rows(Line(offset=0, end=1, text="", frame=frame))) == [f"● my key is {HIDDEN}"]


@pytest.mark.parametrize("before", [0, 1975, 1990, 3980, 100_000])
def test_a_question_for_a_permission_is_cut_after_its_keys_were_taken_out(before: int):
    arguments = {"content": f"{'x' * before} {SECRETS[0]} {'y' * 3000}"}
    request = PermissionRequest(id="p1", job=job("j1"), tool="Write", arguments=arguments, asked_at=0.0)
    [line] = permission_requests([request])
    shown, _, rest = line["input"].partition("… (")
    assert 1999 <= len(shown) <= 2000
    assert rest.endswith(" characters more)")
    assert "sk-ant" not in shown


KNOWN = "Kn0wn-" + "aB3dE6gH9j" * 30
LONG = "eyJhbGciOiJIUzI1NiJ9." + "aB3dE6gH9j" * 180 + "." + "k" * 40
CUT = {
    "key": "sk-ant-api03-" + "xY7z" * 24,
    "header": "-H 'Authorization: Bearer " + "xY7z" * 12 + "'",
    "web token": "eyJhbGciOiJIUzI1NiJ9." + "xY7z" * 60 + "." + "xY7z" * 10,
    "url": "postgres://user:" + "xY7z" * 10 + "@host/db",
    "private key": "-----BEGIN RSA PRIVATE KEY-----\n" + ("xY7z" * 16 + "\n") * 12 + "-----END RSA PRIVATE KEY-----",
    "known": KNOWN,
    "known, with blanks": "Pass word " * 30,
}
SEEN: Mapping[str, Callable[[PermissionRequest], str]] = {
    "the line of a wait": lambda one: one.call,
    "a reply and a form": lambda one: permission_requests([one])[0]["input"],
    "the view": lambda one: request_of(one)["input"],
    "a hook": lambda one: shortened(compact(one.arguments), one.secrets),
}


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("before", ["word ", LONG])
def test_a_secret_that_is_cut_where_reading_ends_leaves_no_half(name: str, before: str, seen: str):
    secret = CUT[name]
    for start in (50, 1_900, 1_950, 1_990, 2_350, 3_900, 3_980, 39_900):
        # Secrets before it are replaced by so little that the cut comes into view.
        text = (f"{before} " * (start // (len(before) + 1) + 1))[:start].rpartition(" ")[0]
        text += " " * (start - len(text)) + f" {secret} and on" * 2
        request = PermissionRequest(
            id="p1",
            job=job("j1"),
            tool="Bash",
            arguments={"command": text},
            asked_at=0.0,
            secrets=(KNOWN, CUT["known, with blanks"]),
        )
        said = SEEN[seen](request)
        assert not any(part in said for part in ("xY7z", "xY7", "Kn0wn-", "aB3dE", "Pass wo")), (start, said[-300:])


@given(st.text())
def test_text_made_safe_has_no_control_character_and_is_safe_already(text: str):
    plain = strip_terminal_codes(text)
    assert all(char in "\n\t" or not (ord(char) < 32 or 127 <= ord(char) < 160) for char in plain)
    assert strip_terminal_codes(plain) == plain


@pytest.mark.parametrize("name", ["key", "header"])
def test_a_secret_that_is_cut_where_the_end_of_a_text_begins_leaves_no_half(name: str):
    text = f"$ curl {CUT[name]} https://example.org\n" + "The server refused it.\n" * 20
    for start in range(1, text.index("\n")):
        shown = redact(ending(text[start:]))
        assert "xY7z" not in shown
        assert shown.endswith("The server refused it.\n")


def test_of_one_long_line_whose_beginning_is_missing_the_first_word_is_left_out():
    assert ending(f"{SECRETS[0][10:]} {'word ' * 20}") == f" {'word ' * 20}"
    assert ending(SECRETS[0][10:]) == ""
