"""Who gets into the page of a whole engine, asked by raw requests: nobody but the person's own browser."""

import http.client
import json
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress

import pytest

from server.client.connect import RefusedError, control
from server.client.wire import Hello
from server.web.guard import MOST_BYTES, SECURITY_HEADERS
from tests.support.engines import House, house
from tests.support.page_client import SECONDS, PageClient, asked_for, signed_in
from tests.support.shells import SHELL_CLI, JobShell, job_shell
from tests.support.tokens import attempt_directory, token_of

HOLD = "stub:wait=/nonexistent"


@pytest.fixture(scope="module")
def made() -> Iterator[House]:
    with house() as built:
        built.start_engine()
        yield built


@pytest.fixture
def link(made: House) -> tuple[PageClient, str]:
    """A client that was not let in yet, and a link that would let it in."""
    answer = asked_for(made)
    return PageClient(port=answer["port"]), answer["url"]


@pytest.fixture
def inside(made: House) -> PageClient:
    return signed_in(made)


def path_of(url: str) -> str:
    return url[url.index("/open") :]


def test_a_link_lets_one_browser_in_and_sets_a_cookie_that_no_script_and_no_other_site_gets(
    link: tuple[PageClient, str],
):
    client, url = link
    answer = client.open(url)
    assert answer.status == 200
    name, *marks = [part.strip() for part in answer.headers["set-cookie"].split(";")]
    assert name.startswith(f"claude-jobs-{client.port}=")
    assert set(marks) == {"HttpOnly", "Path=/", "SameSite=Strict"}
    assert 'content="0; url=/"' in answer.body
    assert client.get("/").status == 200
    assert client.get("/api/session").json["ok"] is True


def test_a_link_is_good_once(link: tuple[PageClient, str]):
    client, url = link
    assert client.open(url).status == 200
    other = PageClient(port=client.port)
    refused = other.open(url)
    assert (refused.status, "set-cookie" in refused.headers) == (403, False)
    assert "claude-jobs web" in refused.body
    # The browser that was let in may load it again.
    assert client.open(url).status == 200


@pytest.mark.parametrize("path", ["/open", "/open?code=", "/open?code=wrong", "/open?code=a&code=b", "/open?code=%00"])
def test_a_wrong_code_lets_nobody_in(link: tuple[PageClient, str], path: str):
    answer = link[0].get(path)
    assert (answer.status, "set-cookie" in answer.headers) == (403, False)


REFUSED: Mapping[str, tuple[str, Mapping[str, str | None]]] = {
    "foreign name": ("GET", {"Host": "evil.example"}),
    "foreign site": ("GET", {"Origin": "https://evil.example"}),
    "foreign page": ("GET", {"Sec-Fetch-Site": "cross-site"}),
    "page at another port": ("GET", {"Sec-Fetch-Site": "same-site"}),
    "in advance": ("GET", {"Sec-Purpose": "prefetch"}),
    "head": ("HEAD", {}),
    "change": ("POST", {"X-Claude-Jobs": "1", "Content-Type": "application/json", "Content-Length": "0"}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_request_that_is_refused_does_not_use_up_the_code(link: tuple[PageClient, str], case: str):
    client, url = link
    method, headers = REFUSED[case]
    assert client.send(method, path_of(url), headers=headers).status in {403, 405, 503}
    assert client.open(url).status == 200


@pytest.mark.parametrize(
    ("to", "leads"),
    [
        ("tree/b1abc", "/#/tree/b1abc"),
        ("tree/b1abc/j1abc", "/#/tree/b1abc/j1abc"),
        ("costs", "/#/costs"),
        ("//evil.example", "/"),
        ("tree/x%22%3E%3Cscript%3E", "/"),
        ("javascript:alert(1)", "/"),
    ],
)
def test_a_link_leads_to_a_place_in_the_page_and_nowhere_else(link: tuple[PageClient, str], to: str, leads: str):
    client, url = link
    body = client.open(f"{url}&to={to}").body
    assert f'content="0; url={leads}"' in body
    assert "script" not in body
    assert "evil" not in body


@pytest.mark.parametrize(
    "path", ["/", "/static/main.js", "/api/session", "/api/feed", "/api/jobs/j1", "/api/jobs/j1/transcript"]
)
@pytest.mark.parametrize("cookie", ["", "none", "wrong", "another port"])
def test_without_the_cookie_of_this_port_there_is_nothing(inside: PageClient, path: str, cookie: str):
    token = inside.cookie.partition("=")[2]
    given = {
        "": "",
        "none": f"claude-jobs-{inside.port}=",
        "wrong": f"claude-jobs-{inside.port}={token}x",
        "another port": f"claude-jobs-{inside.port + 1}={token}",
    }[cookie]
    answer = PageClient(port=inside.port, cookie=given).get(path)
    assert answer.status == 401
    assert "claude-jobs web" in answer.body


def test_an_action_without_the_cookie_does_nothing(made: House, inside: PageClient):
    with made.pump() as person:
        job_id = person.json("claude_run_async", task=HOLD)["jobId"]
        assert PageClient(port=inside.port).act(do="kill", id=job_id).status == 401
        assert person.json("claude_status", jobId=job_id)["status"] in {"queued", "running"}
        assert inside.act(do="kill", id=job_id).json["ok"] is True


NO_ACTION: Mapping[str, tuple[int, Mapping[str, str | None]]] = {
    "foreign name": (403, {"Host": "evil.example"}),
    "a name that leads to this port": (403, {"Host": "evil.example:{port}"}),
    "no name": (400, {"Host": None}),
    "foreign site": (403, {"Origin": "https://evil.example"}),
    "another port": (403, {"Origin": "http://127.0.0.1:3000"}),
    "hidden site": (403, {"Origin": "null"}),
    "foreign page": (403, {"Sec-Fetch-Site": "cross-site"}),
    "no header": (403, {"X-Claude-Jobs": None}),
    "form": (403, {"Content-Type": "application/x-www-form-urlencoded"}),
    "form of parts": (403, {"Content-Type": "multipart/form-data; boundary=x"}),
    "form of text": (403, {"Content-Type": "text/plain"}),
    "no type": (403, {"Content-Type": None}),
}


@pytest.mark.parametrize("case", NO_ACTION)
def test_an_action_that_another_page_could_send_does_nothing(made: House, inside: PageClient, case: str):
    status, headers = NO_ACTION[case]
    named = {name: value and value.format(port=inside.port) for name, value in headers.items()}
    assert inside.act(named, do="pause", id="").status == status
    told = made.control("status")
    assert told is not None
    assert told["pausedByRequest"] == []


def test_no_preflight_allows_another_site_anything(inside: PageClient):
    wants = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = inside.send("OPTIONS", "/api/actions", headers=wants)
    assert answer.status == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert inside.send("OPTIONS", "/api/actions").status == 405


def test_a_body_that_is_too_long_or_never_ends_or_is_no_json_is_refused(inside: PageClient):
    assert inside.act(do="send", id="j1", message="x" * MOST_BYTES).status == 413
    with closing(http.client.HTTPConnection("127.0.0.1", inside.port, timeout=SECONDS)) as connection:
        headers = {"Cookie": inside.cookie, "Content-Type": "application/json", "X-Claude-Jobs": "1"}
        parts = (b"x" * 65_536 for _ in range(2 * MOST_BYTES // 65_536))
        # It may be refused before all of it was sent.
        with suppress(OSError):
            connection.request("POST", "/api/actions", parts, headers, encode_chunked=True)
        assert connection.getresponse().status == 413
    for body in (b"", b"{", b"[]", b'"kill"', b"\xff", b"[" * 100_000, b'{"do": "kill"}'):
        given = {"Content-Type": "application/json", "X-Claude-Jobs": "1"}
        answer = inside.send("POST", "/api/actions", body, given)
        assert (answer.status, answer.json["ok"]) == (400, False)


@pytest.mark.parametrize(
    "path",
    [
        "/static/../page.py",
        "/static/..%2fpage.py",
        "/static/%2e%2e/page.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/index.html",
        "/static/",
        "/static/main.js%00.css",
        "/static/__init__.py",
        "/page.py",
        "/static",
        "/api",
        "/api/jobs/",
    ],
)
def test_no_path_leads_out_of_the_files_of_the_page(inside: PageClient, path: str):
    answer = inside.get(path)
    assert answer.status == 404
    assert "import" not in answer.body


@pytest.mark.parametrize(
    ("name", "kind"), [("main.js", "text/javascript"), ("base.css", "text/css"), ("icon.svg", "image/svg+xml")]
)
def test_the_files_of_the_page_have_their_types(inside: PageClient, name: str, kind: str):
    answer = inside.get(f"/static/{name}")
    assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, kind)


def test_every_answer_has_the_security_headers_and_no_name_of_a_server(inside: PageClient):
    answers = [
        inside.get("/"),
        inside.get("/static/main.js"),
        inside.get("/api/session"),
        inside.get("/api/jobs/j404"),
        inside.get("/nowhere"),
        inside.get("/", Host="evil.example"),
        inside.send("DELETE", "/"),
        inside.act(do="dance", id=""),
        PageClient(port=inside.port).get("/"),
        PageClient(port=inside.port).get("/open?code=x"),
    ]
    for answer in answers:
        assert SECURITY_HEADERS.items() <= answer.headers.items(), answer
        assert "server" not in answer.headers
    assert {answer.status for answer in answers} == {200, 400, 401, 403, 404, 405}


def test_the_page_listens_on_loopback_alone(inside: PageClient):
    for host in ("127.0.0.2", "::1"):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as stream, pytest.raises(OSError, match=r"refused|assign|unreachable|supported"):
            stream.connect((host, inside.port))


SCRIPT = """
import http.client, sys
port, method, path, cookie, body = sys.argv[1:]
connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
headers = {"Cookie": cookie, "Content-Type": "application/json", "X-Claude-Jobs": "1"}
connection.request(method, path, body or None, headers)
response = connection.getresponse()
print(response.status, response.getheader("set-cookie"), response.read().decode())
"""
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the cookie alone decides")


@pytest.fixture(scope="module")
def shell() -> Iterator[JobShell]:
    with house(CLAUDE_JOBS_CLI=SHELL_CLI) as built, built.pump() as person, job_shell(built, person) as found:
        yield found


@ON_LINUX
@pytest.mark.parametrize("trick", ["none", "bare environment", "orphan"])
def test_a_jobs_own_process_gets_nothing_with_a_stolen_cookie_and_uses_up_no_code(shell: JobShell, trick: str):
    person = signed_in(shell.house)
    job_id = shell.job["jobId"]
    hidden = {"none": (), "bare environment": shell.bare, "orphan": shell.orphaned}[trick]

    def asked(*request: str) -> str:
        return shell.run(*hidden, sys.executable, "-I", "-S", "-c", SCRIPT, str(person.port), *request)

    of_job = f"/api/jobs/{job_id}"
    for path in ("/", "/static/main.js", "/api/session", "/api/feed", of_job, f"{of_job}/transcript"):
        assert asked("GET", path, person.cookie, "").startswith("403 None")
    said = asked("POST", "/api/actions", person.cookie, json.dumps({"do": "kill", "id": job_id}))
    assert said.startswith("403 None")
    assert "runs inside a job" in said
    assert person.get(f"/api/jobs/{job_id}").json["status"] == "running"
    answer = asked_for(shell.house)
    assert asked("GET", path_of(answer["url"]), "", "").startswith("403 None")
    assert PageClient(port=person.port).open(answer["url"]).status == 200


@ON_LINUX
def test_a_jobs_own_process_gets_no_link_by_the_command_either(shell: JobShell):
    said = shell.run(*shell.with_home, *shell.cli("web", "--no-open"))
    assert "runs inside a job" in said
    assert "http://" not in said


@ON_LINUX
def test_a_job_with_its_own_good_token_gets_no_link(shell: JobShell):
    token = token_of(attempt_directory(shell.house, shell.job))
    for request in ({"do": "web"}, {"do": "web", "off": True}):
        with pytest.raises(RefusedError, match="inside a job"):
            control(shell.house.endpoint, request, Hello(cwd="/", token=token, client="test"))
