"""Which version serves: a newer client replaces an idle older engine, and nobody else does."""

import pytest

from server.client.connect import EngineGoneError, RefusedError, connect, control
from server.client.engine_socket import ensure_engine
from server.client.state_dir import StatePaths
from server.client.wire import Hello, ProtocolError
from tests.unit.client.conftest import MakeEndpoint, noted
from tests.unit.client.test_connect import at_once

HELLO = Hello(cwd="/", version="0.2.0")


def entered_version(make_endpoint: MakeEndpoint, *options: str, notes: list[str] | None = None) -> str:
    connection, welcome = connect(make_endpoint(*options, notes=notes), HELLO)
    connection.close()
    return welcome.version


def test_an_idle_older_engine_is_replaced(make_endpoint: MakeEndpoint, paths: StatePaths):
    ensure_engine(make_endpoint("--version", "0.1.9")).close()

    assert entered_version(make_endpoint, "--version", "0.2.0") == "0.2.0"
    assert len(noted(paths, "starts")) == 2


def test_twenty_newer_clients_replace_an_idle_older_engine_once(make_endpoint: MakeEndpoint, paths: StatePaths):
    ensure_engine(make_endpoint("--version", "0.1.9")).close()

    versions = at_once(20, lambda: entered_version(make_endpoint, "--version", "0.2.0"))

    assert versions == ["0.2.0"] * 20
    assert len(noted(paths, "starts")) == 2


def test_an_older_engine_with_work_goes_on_serving_and_the_person_is_told(
    make_endpoint: MakeEndpoint, paths: StatePaths
):
    ensure_engine(make_endpoint("--version", "0.1.9", "--busy")).close()
    notes: list[str] = []

    assert entered_version(make_endpoint, "--version", "0.2.0", notes=notes) == "0.1.9"
    assert len(noted(paths, "starts")) == 1
    assert "claude-jobs engine stop" in notes[0]


@pytest.mark.parametrize("version", ["0.2.0", "0.2", "0.2.0rc1", "0.10.0", "1.0"])
def test_an_engine_of_the_same_or_a_newer_version_is_used_as_it_is(
    make_endpoint: MakeEndpoint, paths: StatePaths, version: str
):
    ensure_engine(make_endpoint("--version", version)).close()
    notes: list[str] = []

    assert entered_version(make_endpoint, "--die", "must not run", notes=notes) == version
    assert notes == []
    assert len(noted(paths, "hellos")) == 1


def test_an_engine_that_leaves_between_connect_and_hello_is_started_anew(
    make_endpoint: MakeEndpoint, paths: StatePaths
):
    assert entered_version(make_endpoint, "--version", "0.2.0", "--leave-first") == "0.2.0"
    assert len(noted(paths, "starts")) == 2


def test_an_engine_that_always_hangs_up_is_given_up(make_endpoint: MakeEndpoint, paths: StatePaths):
    with pytest.raises(EngineGoneError):
        connect(make_endpoint("--hang-up"), HELLO)

    assert len(noted(paths, "starts")) == 1


def test_a_refusal_is_raised_in_the_engines_own_words(make_endpoint: MakeEndpoint):
    with pytest.raises(RefusedError, match=r"^The token is unknown\. Start a new job\.$"):
        connect(make_endpoint("--refuse", "The token is unknown. Start a new job."), HELLO)


def test_an_engine_of_another_protocol_is_an_error_that_says_what_to_do(make_endpoint: MakeEndpoint):
    with pytest.raises(ProtocolError, match="claude-jobs engine stop"):
        connect(make_endpoint("--wire", "2"), HELLO)


def test_a_request_without_an_engine_starts_none(make_endpoint: MakeEndpoint, paths: StatePaths):
    assert control(make_endpoint(), {"do": "status"}, HELLO) is None
    assert noted(paths, "starts") == []


def test_a_request_is_answered_on_a_control_connection(make_endpoint: MakeEndpoint, paths: StatePaths):
    ensure_engine(make_endpoint()).close()

    assert control(make_endpoint(), {"do": "status"}, HELLO) == {"ok": True}
    assert noted(paths, "hellos")[-1]["role"] == "control"
