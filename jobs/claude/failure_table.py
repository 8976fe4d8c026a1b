"""Table of failures: maps fields of a result to the reason of the failure.

The values are those of the types and strings of Claude Code 2.1.332 and of the claude-agent-sdk 0.2.187, with those of
older versions that public reports show. A result with `is_error: false` can be a failure all the same; those rows are
the ones that `DENIES` names.
"""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from jobs.model import Reason
from jobs.util.json_values import number, text

SUBTYPE: Final = {
    "error_max_turns": Reason.MAX_TURNS,
    "error_max_budget_usd": Reason.BUDGET_EXHAUSTED,
    "error_max_structured_output_retries": Reason.SCHEMA_UNMET,
}
TERMINAL_REASON: Final = {
    "max_turns": Reason.MAX_TURNS,
    "budget_exhausted": Reason.BUDGET_EXHAUSTED,
    "structured_output_retry_exhausted": Reason.SCHEMA_UNMET,
    "aborted_streaming": Reason.INTERRUPTED,
    "aborted_tools": Reason.INTERRUPTED,
    "tool_deferred": Reason.INTERRUPTED,
    "tool_deferred_unavailable": Reason.INTERRUPTED,
    # A hook said `continue: false` after a tool call, or a client moved the turn to the background.
    "hook_stopped": Reason.INTERRUPTED,
    "background_requested": Reason.INTERRUPTED,
    "prompt_too_long": Reason.PROMPT_TOO_LONG,
    "blocking_limit": Reason.PROMPT_TOO_LONG,
    "rapid_refill_breaker": Reason.PROMPT_TOO_LONG,
    "image_error": Reason.REQUEST_TOO_LARGE,
    "malformed_tool_use_exhausted": Reason.UNKNOWN_ERROR,
    "turn_setup_failed": Reason.UNKNOWN_ERROR,
    # "completed", "api_error", "model_error" and "stop_hook_prevented": the other fields say more.
}
STOP_REASON: Final = {
    "refusal": Reason.REFUSAL,
    "max_tokens": Reason.MAX_OUTPUT_TOKENS,
    "model_context_window_exceeded": Reason.PROMPT_TOO_LONG,
    "tool_deferred": Reason.INTERRUPTED,
    # The API waits for the same messages again; 2.1.332 reports what there is as a success.
    "pause_turn": Reason.INTERRUPTED,
    "compaction": Reason.INTERRUPTED,
}
API_ERROR: Final = {
    "autocompact_thrashing": Reason.PROMPT_TOO_LONG,
    "message_over_context_limit": Reason.PROMPT_TOO_LONG,
    "pdf_too_large": Reason.REQUEST_TOO_LARGE,
    "media_removed": Reason.REQUEST_TOO_LARGE,
    "dlp_request_denied": Reason.REFUSAL,
    "safety_monitor_blocked": Reason.REFUSAL,
    "claude_code_version_too_old": Reason.STARTUP,
    "model_requires_usage_credits": Reason.BILLING,
    "long_context_credits_required": Reason.BILLING,
    "consent_unanswered": Reason.BILLING,
    "no_allowed_fallback": Reason.BILLING,
    "model_substitution_disabled": Reason.BILLING,
    "effort_requires_thinking": Reason.INVALID_REQUEST,
    "advisor_incompatible": Reason.INVALID_REQUEST,
    "tool_history_mismatch": Reason.INVALID_REQUEST,
    "pdf_password_protected": Reason.INVALID_REQUEST,
    "field_not_granted": Reason.INVALID_REQUEST,
    "stored_login_refused": Reason.AUTH,
    "oauth_refresh_store_refused": Reason.AUTH,
    "provider_credentials": Reason.AUTH,
    "gateway_signin_required": Reason.AUTH,
    "gateway_session_expired": Reason.AUTH,
    "api_key_auth_disabled": Reason.AUTH,
    "org_disabled_credential": Reason.AUTH,
    "invalid_credential_header": Reason.AUTH,
    "network_edge_blocked": Reason.AUTH,
    "named_profile_unusable": Reason.AUTH,
    "no_response": Reason.CONNECTION,
    "connection_failed": Reason.CONNECTION,
    "stream_idle_timeout": Reason.CONNECTION,
    "computer_slept": Reason.CONNECTION,
    "empty_completion": Reason.UNKNOWN_ERROR,
    "malformed_tool_use_exhausted": Reason.UNKNOWN_ERROR,
    "unattended_start_limit": Reason.INTERRUPTED,
    "unattended_start_unconfirmed": Reason.INTERRUPTED,
    # No wait helps against these, unlike other trouble with the connection.
    "tls_untrusted_ca": Reason.INVALID_REQUEST,
    "tls_cert_signature_failure": Reason.INVALID_REQUEST,
    "gateway_content_type": Reason.INVALID_REQUEST,
}
ERROR: Final = {
    "billing_error": Reason.BILLING,
    "max_output_tokens": Reason.MAX_OUTPUT_TOKENS,
    "authentication_failed": Reason.AUTH,
    "oauth_org_not_allowed": Reason.AUTH,
    "account_on_hold": Reason.AUTH,
    "verification_required": Reason.AUTH,
    "cloud_credential_error": Reason.AUTH,
    "model_not_found": Reason.MODEL_NOT_FOUND,
    "rate_limit": Reason.RATE_LIMIT,
    "overloaded": Reason.OVERLOADED,
}
API_ERROR_STATUS: Final = {
    # Regardless of its other fields, the same request would be refused again.
    **dict.fromkeys(range(400, 500), Reason.INVALID_REQUEST),
    401: Reason.AUTH,
    402: Reason.BILLING,
    403: Reason.AUTH,
    404: Reason.MODEL_NOT_FOUND,
    # A timeout and a conflict, which the CLI itself meets with another try.
    408: Reason.SERVER_ERROR,
    409: Reason.SERVER_ERROR,
    413: Reason.REQUEST_TOO_LARGE,
    429: Reason.RATE_LIMIT,
    529: Reason.OVERLOADED,
    **dict.fromkeys((*range(500, 529), *range(530, 600)), Reason.SERVER_ERROR),
}
LATE_API_ERROR: Final = {
    # A context that is full is reported with the same kind, and told apart by its words.
    "max_output_tokens": Reason.MAX_OUTPUT_TOKENS,
}
LATE_ERROR: Final = {
    # Where the API answered, its status says more than these two.
    "server_error": Reason.CONNECTION,
    "invalid_request": Reason.INVALID_REQUEST,
}

WHY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "hook_stopped": "A hook of the settings stopped the work before its end.",
        "tool_deferred": "A hook of the settings deferred a tool call, and with it the rest of the work.",
        "pause_turn": "The API paused the answer before its end.",
        "max_tokens": "The answer was cut off at its maximum number of tokens.",
        "model_context_window_exceeded": "The answer was cut off because the context of the model is full.",
        "refusal": "The model refused.",
    }
)
"""Explanations of failures that the CLI reports without a word, or as a success."""

Rows = Sequence[tuple[str, Mapping[Any, Reason]]]
"""Fields with the reasons that their values mean. The first field whose value has a reason decides."""

PRECISE: Final[Rows] = (
    ("subtype", SUBTYPE),
    ("terminal_reason", TERMINAL_REASON),
    ("api_error", API_ERROR),
    ("stop_reason", STOP_REASON),
)
"""These decide before other frames and the words of the message do."""

VAGUE: Final[Rows] = (
    ("api_error", LATE_API_ERROR),
    ("error", ERROR),
    ("api_error_status", API_ERROR_STATUS),
    ("error", LATE_ERROR),
)
"""These decide after it."""

DENIES: Final[Rows] = tuple((name, rows) for name, rows in PRECISE if name != "api_error")
"""Fields that overrule `is_error: false`."""


_OF_A_RESULT: Final = ("subtype", "terminal_reason", "api_error", "stop_reason", "api_error_status")


def reason_of(result: Mapping[str, Any], *, message: Mapping[str, Any], signs: Reason | None) -> Reason:
    """Return the reason of a failed result.

    Args:
        result: The frame.
        message: The last assistant frame, for what the result leaves out.
        signs: What other frames and the words of the message say.
    """
    values = {**_values(message, ("api_error", "api_error_status")), **_values(result, _OF_A_RESULT)}
    values["error"] = text(message.get("error"))
    return _first(PRECISE, values) or signs or _first(VAGUE, values) or Reason.UNKNOWN_ERROR


def denied(result: Mapping[str, Any]) -> Reason | None:
    """Return why a result is an error although it says that it is none, or None where it is none."""
    is_error = text(result.get("subtype")).startswith("error")
    return _first(DENIES, _values(result, _OF_A_RESULT)) or (Reason.UNKNOWN_ERROR if is_error else None)


def explain(result: Mapping[str, Any]) -> str:
    """Return what a result means that is an error and holds no word about it."""
    names = [text(result.get(name)) for name in ("subtype", "terminal_reason", "stop_reason")]
    why = next((WHY[name] for name in names if name in WHY), "The CLI gave no explanation.")
    return f"{why} It reported: {', '.join(filter(None, names)) or 'an error'}."


def _values(frame: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    values: dict[str, Any] = {name: known for name in names if (known := text(frame.get(name)))}
    if "api_error_status" in names and (status := number(frame.get("api_error_status"))) is not None:
        values["api_error_status"] = int(status)
    return values


def _first(table: Rows, values: Mapping[str, Any]) -> Reason | None:
    return next((reason for name, rows in table if (reason := rows.get(values.get(name)))), None)
