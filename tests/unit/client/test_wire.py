"""The two lines of the handshake."""

import json
from typing import Any

import pytest

from server.client.wire import MAX_LINE, ROLES, EnvironmentTooLongError, Hello, ProtocolError, Welcome, decode_line

FRAME: dict[str, Any] = {
    "claude_jobs": 1,
    "version": "0.1.0",
    "role": "mcp",
    "token": None,
    "session": None,
    "client": None,
    "cwd": "/w",
    "env": {"PATH": "/bin"},
}


def line(**changes: Any) -> bytes:
    return json.dumps(FRAME | changes).encode() + b"\n"


@pytest.mark.parametrize("role", ROLES)
def test_a_hello_comes_back_as_it_was_sent(role: str):
    hello = Hello(cwd="/w", env={"LANG": "C"}, role=role, token="cj1_x", session="s", client="me", version="3.2.1")

    assert Hello.decode(hello.encode()) == hello


def test_a_hello_is_one_line_whatever_it_holds():
    hello = Hello(cwd="/a\nb", env={"LANG": "\u2028\udc80\r\n"})

    assert hello.encode().count(b"\n") == 1
    assert Hello.decode(hello.encode()) == hello


def test_a_hello_on_the_wire_has_the_agreed_keys():
    assert json.loads(Hello(cwd="/w", env={"PATH": "/bin"}, version="0.1.0").encode()) == FRAME


def test_a_hello_of_an_older_client_says_nothing_of_its_umask():
    assert Hello.decode(line()).umask is None
    assert Hello.decode(line(umask=0o027)).umask == 0o027


def test_a_value_is_replaced_and_never_changed():
    hello = Hello(cwd="/srv")
    with pytest.raises(AttributeError, match="replace"):
        hello.cwd = "/"
    with pytest.raises(AttributeError):
        hello.other = "x"  # type: ignore[attr-defined]
    assert (hello.replace(cwd="/").cwd, hello.cwd) == ("/", "/srv")


def test_a_key_that_is_not_known_here_is_left_alone():
    assert Hello.decode(line(since="0.2.0")).cwd == "/w"


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (b"", "not JSON"),
        (b"GET / HTTP/1.1\r\n", "not JSON"),
        (b"\xff\xfe\n", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"[1]\n", "not a JSON object"),
        (line() + line(), "not JSON"),
        (b" " * (MAX_LINE + 1), str(MAX_LINE)),
        (line(claude_jobs=2), "claude_jobs"),
        (line(claude_jobs=True), "claude_jobs"),
        (line(claude_jobs=[[["deep"]]]), "a list"),
        (line(version=None), "version"),
        (line(version=1), "version"),
        (line(role="admin"), "mcp, control"),
        (line(role=None), "role"),
        (line(token=5), "token"),
        (line(cwd="relative"), "absolute"),
        (line(cwd="/a\0b"), "cwd"),
        (line(cwd=None), "cwd"),
        (line(env=None), "env"),
        (line(umask=-1), "umask"),
        (line(umask=0o1000), "umask"),
        (line(umask=True), "umask"),
        (line(env={"PATH": 1}), "env"),
        (line(env={"PATH": "a\0b"}), "env"),
    ],
)
def test_a_hello_that_cannot_be_used_says_what_is_wrong_and_what_to_do(bad: bytes, says: str):
    with pytest.raises(ProtocolError) as caught:
        Hello.decode(bad)

    assert says in str(caught.value)
    assert "claude-jobs engine status" in str(caught.value)


def test_a_hello_longer_than_its_limit_is_never_sent():
    with pytest.raises(EnvironmentTooLongError, match=str(MAX_LINE)):
        Hello(cwd="/w", env={"ANTHROPIC_CUSTOM_HEADERS": "x" * MAX_LINE}).encode()


def test_token_and_environment_are_not_shown_where_a_hello_is_logged():
    shown = repr(Hello(cwd="/w", env={"ANTHROPIC_API_KEY": "sk-secret"}, token="cj1_secret"))

    assert "secret" not in shown


@pytest.mark.parametrize(
    "welcome",
    [
        Welcome(version="0.1.0", pid=7, idle=True),
        Welcome(version="0.1.0", pid=7, idle=False),
    ],
)
def test_a_welcome_comes_back_as_it_was_sent(welcome: Welcome):
    assert Welcome.decode(welcome.encode()) == welcome


def test_a_refusal_keeps_its_sentence():
    refusal = Welcome.decode(Welcome(ok=False, error="Wait a minute.", version="0.1.0", pid=7).encode())

    assert (refusal.ok, refusal.error) == (False, "Wait a minute.")


def test_a_refusal_by_an_engine_of_another_protocol_is_still_understood():
    assert Welcome.decode(b'{"claude_jobs": 9, "ok": false, "error": "Update."}').error == "Update."


@pytest.mark.parametrize(
    "bad",
    [
        b"\n",
        b"{}\n",
        b'{"ok": 1}\n',
        b'{"ok": true}\n',
        b'{"claude_jobs": 2, "version": "1", "pid": 1, "ok": true, "idle": true}\n',
        b'{"claude_jobs": 1, "version": "1", "pid": "1", "ok": true, "idle": true}\n',
        b'{"claude_jobs": 1, "version": "1", "pid": true, "ok": true, "idle": true}\n',
        b'{"claude_jobs": 1, "version": "1", "pid": 1, "ok": true}\n',
        b'{"claude_jobs": 1, "pid": 1, "ok": true, "idle": true}\n',
    ],
)
def test_a_welcome_that_cannot_be_used_is_an_error(bad: bytes):
    with pytest.raises(ProtocolError, match="welcome"):
        Welcome.decode(bad)


def test_a_control_line_must_be_an_object():
    with pytest.raises(ProtocolError, match="request"):
        decode_line(b'"stop"\n', "request")
