"""Tokens: the secrets by which the engine knows which job is calling; the store keeps only their hashes."""

import hashlib
import secrets

PREFIX = "cj1_"
"""Begins every token, so that a log can be searched for one that leaked."""

_BYTES = 24


def new_token() -> str:
    """Return a token for one attempt of a job: 192 random bits."""
    return PREFIX + secrets.token_urlsafe(_BYTES)


def hash_token(token: str) -> str:
    """Return what the store keeps of a token: its SHA-256 in hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()
