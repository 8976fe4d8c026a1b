"""Who is calling: a person or a program at the root, or the job that holds the token."""

from dataclasses import dataclass

from jobs.errors import JobsError
from jobs.model import Job
from jobs.origin import Origin
from jobs.ports import Store


class UnknownTokenError(JobsError):
    """A connection brought a token that no running job holds."""

    def __init__(self) -> None:
        super().__init__("This job's token is not valid: the job is over. End this process.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The other end of a connection.

    Args:
        origin: The client's directory and environment, for trees that it begins.
        token_hash: Hash of the token it brought, or None for a person or a program outside every tree.
    """

    origin: Origin
    token_hash: str | None = None


async def calling_job(store: Store, caller: Caller) -> Job | None:
    """Return the job that calls, or None for a caller outside every tree.

    Raises:
        UnknownTokenError: The job is over, so its token is no longer good.
    """
    if caller.token_hash is None:
        return None
    job = await store.caller(caller.token_hash)
    if job is None:
        raise UnknownTokenError
    return job
