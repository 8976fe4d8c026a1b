"""Takes secrets out of text that is kept for people: logs, errors and events."""

import re
from typing import Final

HIDDEN: Final = "[redacted]"

_SECRETS: Final = re.compile(
    r"(?P<kept>\b(?:Bearer|Basic)\s+|\b(?:x-api-key|authorization)\b[\"']?\s*[:=]\s*[\"']?(?:Bearer\s+|Basic\s+)?+"
    r"|\bANTHROPIC_(?:API_KEY|AUTH_TOKEN)\b[\"']?\s*[:=]\s*[\"']?|\bCLAUDE_CODE_OAUTH_TOKEN\b[\"']?\s*[:=]\s*[\"']?)"
    r"(?!\[redacted\])[\w.~+/=-]{6,}"
    r"|\bsk-[A-Za-z0-9][\w-]{7,}"
    r"|\bcj1_[\w-]{8,}",
    re.IGNORECASE,
)
"""An API key or an OAuth token of Anthropic, a bearer token, and the tokens of our jobs."""


def redact(text: str) -> str:
    """Return the text with every secret of a known form replaced; a second time changes nothing."""
    return _SECRETS.sub(lambda found: f"{found['kept'] or ''}{HIDDEN}", text)
