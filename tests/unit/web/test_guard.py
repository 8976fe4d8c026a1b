"""What a request must have, header by header, and what every answer has."""

from collections.abc import Mapping
from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import Message

from server.web.guard import HEADER, MOST_BYTES, SECURITY_HEADERS, Guard, Request, refusal_of, tokens_in

PORT = 8470
HOST = {"host": f"127.0.0.1:{PORT}"}
CHANGE = {**HOST, HEADER: "1", "content-type": "application/json", "content-length": "2"}


def status(method: str, headers: Mapping[str, str]) -> int | None:
    refusal = refusal_of(Request(method=method, path="/", headers=headers), PORT)
    return None if refusal is None else refusal.status


GOOD: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "an address line": ("GET", {**HOST, "sec-fetch-site": "none"}),
    "the page itself": ("GET", {**HOST, "sec-fetch-site": "same-origin", "origin": f"http://127.0.0.1:{PORT}"}),
    "a browser that says nothing of it": ("GET", HOST),
    "the other name": ("GET", {"host": f"localhost:{PORT}", "origin": f"http://localhost:{PORT}"}),
    "a change": ("POST", CHANGE),
    "a change of the page": ("POST", {**CHANGE, "origin": f"http://127.0.0.1:{PORT}", "sec-fetch-site": "same-origin"}),
    "a charset": ("POST", {**CHANGE, "content-type": "Application/JSON; charset=utf-8"}),
    "the longest": ("POST", {**CHANGE, "content-length": str(MOST_BYTES)}),
}

BAD: Mapping[str, tuple[int, str, Mapping[str, str]]] = {
    "no host": (403, "GET", {}),
    "a name that leads here": (403, "GET", {"host": f"evil.example:{PORT}"}),
    "a name that begins like ours": (403, "GET", {"host": f"localhost.evil.example:{PORT}"}),
    "another port": (403, "GET", {"host": f"127.0.0.1:{PORT + 1}"}),
    "no port": (403, "GET", {"host": "127.0.0.1"}),
    "another address of this machine": (403, "GET", {"host": f"127.0.0.2:{PORT}"}),
    "IPv6": (403, "GET", {"host": f"[::1]:{PORT}"}),
    "two hosts": (403, "GET", {"host": f"127.0.0.1:{PORT}, evil.example"}),
    "another site": (403, "GET", {**HOST, "origin": "https://evil.example"}),
    "another port of this machine": (403, "GET", {**HOST, "origin": "http://127.0.0.1:3000"}),
    "our other name, which is another origin": (403, "GET", {**HOST, "origin": f"http://localhost:{PORT}"}),
    "the same name over TLS": (403, "GET", {**HOST, "origin": f"https://127.0.0.1:{PORT}"}),
    "an origin that is hidden": (403, "GET", {**HOST, "origin": "null"}),
    "an origin that is empty": (403, "GET", {**HOST, "origin": ""}),
    "a page of another site": (403, "GET", {**HOST, "sec-fetch-site": "cross-site"}),
    "a page at another port": (403, "GET", {**HOST, "sec-fetch-site": "same-site"}),
    "a site that is made up": (403, "GET", {**HOST, "sec-fetch-site": "same-origin, none"}),
    "a preflight": (405, "OPTIONS", HOST),
    "a head, which would use up a code": (405, "HEAD", HOST),
    "another method": (405, "PUT", HOST),
    "a fetch in advance": (503, "GET", {**HOST, "sec-purpose": "prefetch;prerender"}),
    "a change without the header": (403, "POST", {name: one for name, one in CHANGE.items() if name != HEADER}),
    "a change with the header twice": (403, "POST", {**CHANGE, HEADER: "1, 1"}),
    "a form": (403, "POST", {**CHANGE, "content-type": "application/x-www-form-urlencoded"}),
    "a form of text": (403, "POST", {**CHANGE, "content-type": "text/plain; application/json"}),
    "a form of parts": (403, "POST", {**CHANGE, "content-type": "multipart/form-data"}),
    "no type": (403, "POST", {name: one for name, one in CHANGE.items() if name != "content-type"}),
    "too long": (413, "POST", {**CHANGE, "content-length": str(MOST_BYTES + 1)}),
    "a length that is no number": (400, "POST", {**CHANGE, "content-length": "-1"}),
    "a change of another site": (403, "POST", {**CHANGE, "origin": "https://evil.example"}),
    "a change under a foreign name": (403, "POST", {**CHANGE, "host": "evil.example"}),
}


@pytest.mark.parametrize("case", GOOD)
def test_a_request_of_the_person_or_of_the_page_is_served(case: str):
    assert status(*GOOD[case]) is None


@pytest.mark.parametrize("case", BAD)
def test_any_other_request_is_refused(case: str):
    wanted, method, headers = BAD[case]
    assert status(method, headers) == wanted


@pytest.mark.parametrize(
    ("header", "tokens"),
    [
        (f"claude-jobs-{PORT}=abc", ["abc"]),
        (f"other=1; claude-jobs-{PORT}=abc; more=2", ["abc"]),
        (f"claude-jobs-{PORT}=of-another-server; claude-jobs-{PORT}=abc", ["of-another-server", "abc"]),
        (f'odd={{"a": [1, 2]}}; é=ü; claude-jobs-{PORT}=abc', ["abc"]),
        (f"claude-jobs-{PORT + 1}=abc", []),
        (f"xclaude-jobs-{PORT}=abc", []),
        (f"claude-jobs-{PORT}=", []),
        (f"claude-jobs-{PORT}", []),
        ("", []),
        ("=;;\x00=\\", []),
        ("; ".join([f"claude-jobs-{PORT}=x"] * 1000), ["x"] * 8),
    ],
)
def test_the_tokens_are_those_of_this_port_whatever_other_servers_set(header: str, tokens: list[str]):
    assert tokens_in(header, PORT) == tokens


async def served(headers: Mapping[str, str], peer: str | None = None) -> tuple[list[str], dict[str, Any], bytes]:
    """Send a request through a guard; return what the application saw, and the answer."""
    seen: list[str] = []
    sent: list[Message] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await Response("fine", headers={"content-security-policy": "none at all"})(scope, receive, send)

    async def refusal(_: Any) -> str | None:
        return peer

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    named = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": "/open", "headers": named, "query_string": b""}
    await Guard(app, PORT, refusal)(scope, receive, send)
    start, *parts = sent
    got = {name.decode(): value.decode() for name, value in start["headers"]}
    return seen, {"status": start["status"], **got}, b"".join(part["body"] for part in parts)


@pytest.mark.anyio
@pytest.mark.parametrize(("headers", "peer"), [(HOST, None), ({}, None), (HOST, "inside a job")])
async def test_every_answer_has_the_security_headers_once(headers: Mapping[str, str], peer: str | None):
    _, answer, _ = await served(headers, peer)
    assert SECURITY_HEADERS.items() <= answer.items()


@pytest.mark.anyio
async def test_the_policy_allows_no_inline_code_and_no_other_server():
    _, answer, _ = await served(HOST)
    policy = answer["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert "http" not in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.anyio
async def test_what_is_refused_never_reaches_the_application():
    assert (await served(HOST))[0] == ["/open"]
    for headers, peer in (({}, None), (HOST, "inside a job")):
        seen, answer, body = await served(headers, peer)
        assert (seen, answer["status"]) == ([], 403)
        assert b'"ok": false' in body
    assert b"inside a job" in body
