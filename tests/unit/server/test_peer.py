"""Another user's process is not served, whatever the modes of the socket and of its directory."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import pytest
from anyio.abc import SocketAttribute, SocketStream

from server.connection import StrangerError, check_peer


class Accepted:
    """An accepted connection, as far as its peer is looked at."""

    def __init__(self, raw: socket.socket) -> None:
        self.extra_attributes: Mapping[Any, Callable[[], socket.socket]] = {SocketAttribute.raw_socket: lambda: raw}


@pytest.fixture
def accepted() -> Iterator[SocketStream]:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        yield cast(SocketStream, Accepted(ours))


def test_the_same_user_is_served(accepted: SocketStream):
    check_peer(accepted)


def test_another_user_is_a_stranger(accepted: SocketStream, monkeypatch: pytest.MonkeyPatch):
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(StrangerError, match=f"user {other - 1} connected"):
        check_peer(accepted)
