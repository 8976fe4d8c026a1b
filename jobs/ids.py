"""Ids of jobs and batches, the paths that they form in a tree, and the tokens by which a job shows which one it is."""

import hashlib
import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_CHARACTERS = 16

JOB_PREFIX = "j"
BATCH_PREFIX = "b"
NOTICE_PREFIX = "n"

TOKEN_PREFIX = "cj1_"  # noqa: S105 - not a secret
"""Begins every token, so that a log can be searched for one that leaked."""

_TOKEN_BYTES = 24


def new_job_id() -> str:
    """Return a job id: 80 random bits, so that the ids of another tree cannot be guessed."""
    return JOB_PREFIX + _random()


def new_batch_id() -> str:
    """Return a batch id, made like a job's."""
    return BATCH_PREFIX + _random()


def new_notice_id() -> str:
    """Return the id of a notice, made like a job's."""
    return NOTICE_PREFIX + _random()


def is_batch_id(value: str) -> bool:
    """Tell whether this has the form of a batch's id."""
    return value.startswith(BATCH_PREFIX)


def contains(path: str, other: str) -> bool:
    """Tell whether `other` is `path` itself or lies below it; both are ids joined by "/"."""
    return other == path or other.startswith(path + "/")


def _random() -> str:
    # One call for all characters: choosing each by itself asks the system 16 times.
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in secrets.token_bytes(_RANDOM_CHARACTERS))


def subtasks_batch_id(job_id: str, attempt: int) -> str:
    """Return the id of the batch for which an attempt of a job asked: always the same, so it is admitted once."""
    digest = hashlib.sha256(f"{job_id}:{attempt}".encode()).digest()
    return BATCH_PREFIX + "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:_RANDOM_CHARACTERS])


def new_token() -> str:
    """Return a token for one attempt of a job: 192 random bits, of which the store keeps only the hash."""
    return TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)


def hash_token(token: str) -> str:
    """Return what the store keeps of a token: its SHA-256 in hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()
