"""Identifies the caller: a person or a program outside every tree, or the job that holds the token."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from jobs.claude.command import SESSION
from jobs.client_context import ClientContext
from jobs.errors import BadInputError, JobsError
from jobs.ids import hash_token
from jobs.model import Job
from jobs.ports import Store
from server.client.wire import Hello


class UnknownTokenError(JobsError):
    """A connection brought a token that no running job holds."""

    def __init__(self) -> None:
        super().__init__("This job's token is not valid: the job is over. End this process.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The other end of a connection.

    Args:
        client_context: The client's directory and environment, for trees that it begins.
        token_hash: Hash of the token it brought, or None for a person or a program outside every tree.
        settings: The client's variables that name settings, or None where it sent none.
    """

    client_context: ClientContext
    token_hash: str | None = None
    settings: Mapping[str, str] | None = None


def caller_of(hello: Hello) -> Caller:
    """Return the caller that a hello describes.

    Raises:
        UnknownTokenError: Its token has no valid form.
        BadInputError: Its directory is not valid UTF-8.
    """
    return Caller(client_context=_client_context(hello), token_hash=_token_hash(hello), settings=hello.settings)


async def calling_job(store: Store, caller: Caller) -> Job | None:
    """Return the calling job, or None for a caller outside every tree.

    Raises:
        UnknownTokenError: The job is over, so its token is no longer good.
    """
    if caller.token_hash is None:
        return None
    job = await store.caller(caller.token_hash)
    if job is None:
        raise UnknownTokenError
    return job


def _token_hash(hello: Hello) -> str | None:
    if not hello.token:
        return None
    if not hello.token.isascii():
        raise UnknownTokenError
    return hash_token(hello.token)


def _client_context(hello: Hello) -> ClientContext:
    """Return the client context of a client's trees, with only text that the database and a process can take.

    Variables of the client's own session are left out, even where the client names them.

    Raises:
        BadInputError: Its directory has a name that is not UTF-8.
    """
    try:
        hello.cwd.encode()
    except UnicodeEncodeError:
        raise BadInputError(
            "cwd", "the working directory's name is not UTF-8", "Start the client in a directory with another name."
        ) from None
    client = (hello.session or hello.client or "").encode("utf-8", "replace").decode()
    env = {name: value for name, value in hello.env.items() if _may_pass(name, value)}
    return ClientContext(cwd=hello.cwd, env=env, client=client or None, umask=hello.umask)


def _may_pass(name: str, value: str) -> bool:
    if name.startswith(SESSION):
        return False
    try:
        os.fsencode(name + value)
    except UnicodeEncodeError:
        return False
    return True
