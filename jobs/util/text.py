"""Removes terminal codes and secrets from text that others wrote.

A secret is known by the form that its issuer gives it, by the header that carries it, or by its value. Words are left
alone, even if they begin like a secret.
"""

import base64
import binascii
import json
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Final

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor and the like
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # titles, clipboard and the like
    r"|\x1b[@-_]"
)
_KEPT = "\n\t\u200c\u200d"
"""Newline, tab, and the two joiners that Persian, Hindi and composed emoji are spelled with."""


_PLAIN = re.compile(r"[\n\t -~]*+")
_MOST_KNOWN: Final = 10_000


class _Seen(dict[int, int | None]):
    """Character to itself, or to None where a person cannot see it; looked up once, for `_MOST_KNOWN` of them."""

    def __missing__(self, code: int) -> int | None:
        char = chr(code)
        is_kept = char in _KEPT or unicodedata.category(char) not in {"Cc", "Cf", "Co", "Cs"}
        found = code if is_kept else None
        if len(self) < _MOST_KNOWN:
            self[code] = found
        return found


_SEEN: Final = _Seen()


def strip_terminal_codes(text: str) -> str:
    """Return text that can do nothing to a terminal.

    No escape sequence is left, and no control or format character but newline, tab and the two joiners of letters.
    """
    # Most texts are plain: 4 ns a character instead of 300 (measured).
    return text if _PLAIN.fullmatch(text) else _ESCAPES.sub("", text).translate(_SEEN)


HIDDEN: Final = "[redacted]"

_START: Final = r"(?:(?<![A-Za-z0-9_-])|(?<=\\[bfnrt])|(?<=%[0-9A-Fa-f]{2})|(?<=[\d\[]m))"
"""Where a key may begin: not inside a word. In front of it may be the end of an escape in JSON, in a URL or for a
terminal, which looks like a letter."""

_KEYS: Final = re.compile(
    # Anthropic, and the tokens of our jobs: nothing else looks like them, so they may also begin inside a word.
    r"(?:sk-ant-[\w-]{20,}|cj1_[\w-]{16,}"
    rf"|{_START}(?:"
    r"sk-(?:proj|svcacct|admin|service|None|or-v1)-[\w-]{32,}|sk-[A-Za-z0-9]{32,}"  # OpenAI and those like it
    r"|gh[pousr]_(?:\d{1,20}_)?[A-Za-z0-9]{30,}(?:\.[\w-]+)*|github_pat_[A-Za-z0-9]{20,}\w*"
    r"|gl(?:pat|oas|dt|rt|rtr|ptt|cbt|ft|imt|agent|soat|ffct)-[\w-]{20,}(?:\.\w+)*"  # GitLab
    r"|xox[a-z]-[\w-]{16,}|xapp-\d-[\w-]{16,}"  # Slack
    r"|(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])|ABSK[A-Za-z0-9+/]{80,}={0,2}"  # AWS, the last of Bedrock
    r"|AIza[\w-]{35}(?![\w-])|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}"  # Google
    r"|npm_[A-Za-z0-9]{36}(?![A-Za-z0-9])|pypi-AgE[\w-]{30,}|hf_[A-Za-z0-9]{30,}"
    r"|[sr]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/]{24,}"  # Stripe
    r"|hv[bs]\.[\w-]{24,}|SG\.[\w-]{22}\.[\w-]{43}|(?:xai|pplx)-[A-Za-z0-9]{40,}"  # Vault, SendGrid, xAI, Perplexity
    r"|(?:gsk|r8|sbp|lin_api|do[opr]_v1|shp(?:at|ca|pa|ss)|dckr_[op]at|lsv2_(?:pt|sk))_[A-Za-z0-9]{27,}"
    r"|eyJ[\w-]{8,}\.[\w-]*\.[\w-]{8,}(?:\.[\w-]+)*"  # a signed or encrypted JSON web token
    r"))",
    re.ASCII,
)

_SEPARATOR: Final = r"[\\\"']{0,4}\s{0,8}[:=,]\s{0,8}[\\\"']{0,4}"
_VALUE: Final = r"(?P<secret>[\w.~+/=-]{%d,})"
_NAMED: Final = tuple(
    re.compile(rf"(?P<kept>{before}){_VALUE % least}", re.IGNORECASE | re.ASCII)
    for before, least in (
        (rf"\bauthorization{_SEPARATOR}(?:Bearer|Basic|token)\s{{1,8}}", 8),
        (rf"(?:\bauthorization{_SEPARATOR}|\bBearer\s{{1,8}})(?=[A-Za-z0-9]{{20}})", 20),
        (rf"\bx-(?:goog-)?api-key{_SEPARATOR}", 8),
        (rf"(?:ANTHROPIC_(?:API_KEY|AUTH_TOKEN)|CLAUDE_CODE_OAUTH_TOKEN){_SEPARATOR}", 8),
        (rf"(?:secret[_-]?access[_-]?key|(?:security|session)[_-]?token){_SEPARATOR}", 40),  # AWS
    )
)
"""Headers and variables that carry a secret, and how many characters it has at least there."""

_BASIC: Final = re.compile(r"(?P<kept>\bBasic\s{1,8})(?P<secret>[A-Za-z0-9+/]{6,}={0,2})", re.IGNORECASE | re.ASCII)
_USER_IN_URL: Final = re.compile(r"(?P<kept>://[^\s/?#@:\"'<>]*:)(?P<secret>(?![$<{%])[^\s/?#@\"'<>]+)(?=@[\w\[])")

_BREAK: Final = r"(?:\s|\\+[nrt])"
_LINE: Final = rf"{_BREAK}*+(?:(?:\d{{1,6}}+(?:→|:|\||{_BREAK})|[>|+-](?!-)){_BREAK}*+){{0,3}}+"
"""Between two lines of a file; tools that show one put its number or a mark before each, empty ones included."""
_BASE64: Final = "[A-Za-z0-9+/=]"
_PRIVATE_KEY: Final = re.compile(
    rf"-----BEGIN (?:[A-Z]{{2,9}} ){{0,2}}PRIVATE KEY(?: BLOCK)?-----"
    rf"(?:(?={_BREAK}){_LINE}[A-Z][\w-]{{3,12}}: [\w.,-]++)*+"
    rf"(?:{_LINE}{_BASE64}{{16,}}+)++"
    rf"(?:(?:{_LINE}{_BASE64}{{1,15}}){{0,2}}{_LINE}-----END [A-Z ]{{4,40}}-----)?"
)
"""A private key, to its end or to where the text was cut off."""

_SECRET_NAME: Final = re.compile(
    r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|CONNECTION_STRING)$", re.IGNORECASE
)
# Of Bedrock, and of a managed identity of Azure.
_SECRET_NAMES: Final = frozenset({"AWS_BEARER_TOKEN_BEDROCK", "IDENTITY_HEADER"})
_HEADERS: Final = frozenset({"authorization", "proxy-authorization", "cookie"})
_AROUND: Final = (" ", "\n", "\t", '"', "'", "<", ">")
"""What may be around a secret, and is in none but private keys and values of variables."""
_LEAST_VALUE: Final = 8
_SURE_VALUE: Final = 20


def redact(text: str, known: Iterable[str] = ()) -> str:
    """Return the text with every secret replaced by `HIDDEN`; a second time changes nothing.

    The time it takes grows with the length of the text, for any text.

    Args:
        text: The text.
        known: Values that are secret in any form, as `secrets_in` finds them.
    """
    # The longest first: one value may be the beginning of another.
    for value in sorted(known, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    text = _PRIVATE_KEY.sub(HIDDEN, text)
    text = _USER_IN_URL.sub(rf"\g<kept>{HIDDEN}", text)
    text = _KEYS.sub(lambda found: HIDDEN if _is_random(found[0]) else found[0], text)
    text = _BASIC.sub(partial(_hide, _is_user_and_password), text)
    for pattern in _NAMED:
        text = pattern.sub(partial(_hide, _has_digit), text)
    return text


def beginning(text: str, most: int, known: Collection[str] = ()) -> str:
    """Return at most `most` characters of the beginning of a text, for `redact`.

    Of a secret that reaches over the cut nothing is left: its first half would have no form by which it is known. At
    least half of the characters are kept where that is none.

    Args:
        text: The text.
        most: Most characters that are read of it.
        known: As in `redact`.
    """
    if len(text) <= most:
        return text
    head = text[:most]
    end = 1 + max(map(head.rfind, _AROUND))
    # No secret but a web token and a known value is as long as half of what is read.
    token = head.find("eyJ", end)
    end = max(end, most // 2) if token < 0 else token
    for value in known:
        over = next((size for size in range(min(len(value) - 1, most), 0, -1) if head.endswith(value[:size])), 0)
        end = min(end, most - over)
    return head[:end]


def ending(text: str) -> str:
    """Return a text whose beginning is missing, for `redact`: without its first line, which may hold half of a secret.

    Where that is more than half of the text, only its first word is left out. The lines of a private key have no form
    by which they are known.
    """
    line = text.find("\n", 0, len(text) // 2)
    starts = [line] if line >= 0 else [start for around in _AROUND if (start := text.find(around)) >= 0]
    return text[min(starts, default=len(text)) :]


def is_secret_name(name: str) -> bool:
    """Tell whether an argument or a header of this name holds a secret, such as `x-api-key`; a mere `key` does not."""
    return name.lower() in _HEADERS or (name.lower() != "key" and _SECRET_NAME.search(name) is not None)


def secrets_in(environment: Mapping[str, str]) -> frozenset[str]:
    """Return the values of variables that hold a secret by their names, without paths and without single words.

    Each is there as JSON writes it, too.
    """
    named = (value for name, value in environment.items() if _SECRET_NAME.search(name) or name in _SECRET_NAMES)
    held = [value for one in named if _is_no_word(value := one.strip())]
    return frozenset(form for value in held for form in (value, _in_json(value), _in_json(value, ascii_only=False)))


def _in_json(text: str, *, ascii_only: bool = True) -> str:
    return json.dumps(text, ensure_ascii=ascii_only)[1:-1]


def _is_no_word(value: str) -> bool:
    if len(value) < _LEAST_VALUE or value.startswith(("/", "~", ".")):
        return False
    return len(value) >= _SURE_VALUE or not (value.isalpha() or value.isdecimal())


def _is_random(key: str) -> bool:
    """Tell whether a key was drawn rather than written: with a digit, or of both cases."""
    return _has_digit(key) or not (key.islower() or key.isupper())


def _has_digit(value: str) -> bool:
    # Names of classes may follow a header's or variable's name too: both cases alone say nothing there.
    return any(char.isdigit() for char in value)


def _is_user_and_password(value: str) -> bool:
    try:
        decoded = base64.b64decode(value + "=" * (-len(value) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return False
    return ":" in decoded and decoded.isprintable()


def _hide(is_secret: Callable[[str], bool], found: re.Match[str]) -> str:
    return f"{found['kept']}{HIDDEN}" if is_secret(found["secret"]) else found[0]
