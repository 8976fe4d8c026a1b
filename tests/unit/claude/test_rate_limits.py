from collections.abc import Mapping
from typing import Any

import pytest

from jobs.claude.rate_limits import ExtraUsage, NeedsCredits, RateLimited, UsageLimitReached, rate_limit_signal

LIMIT = "You've hit your session limit · resets 11:08am (UTC)"
REJECTED = {"status": "rejected", "resetsAt": 2e9, "rateLimitType": "five_hour"}


def event(**info: Any) -> Mapping[str, Any]:
    return {"type": "rate_limit_event", "rate_limit_info": info}


def message(words: str, id: str = "166a5dd2-ce6c-40af-8110-2838211e9b99", **fields: Any) -> Mapping[str, Any]:  # noqa: A002 - the field's own name
    return {"type": "assistant", "message": {"id": id, "content": [{"type": "text", "text": words}]}, **fields}


@pytest.mark.parametrize(
    ("frame", "sign"),
    [
        (event(**REJECTED), UsageLimitReached(2e9, "the five-hour limit is reached")),
        (event(status="rejected"), UsageLimitReached(None, "a usage limit is reached")),
        (
            event(**REJECTED, overageStatus="rejected", isUsingOverage=False),
            UsageLimitReached(2e9, "the five-hour limit is reached"),
        ),
        (event(**REJECTED, isUsingOverage=True), ExtraUsage(2e9, "the five-hour limit is reached")),
        (event(**REJECTED, overageStatus="allowed"), ExtraUsage(2e9, "the five-hour limit is reached")),
        (event(**REJECTED, overageStatus="allowed_warning"), ExtraUsage(2e9, "the five-hour limit is reached")),
        (
            event(status="rejected", rateLimitType="of_a_later_version"),
            UsageLimitReached(None, "the limit of_a_later_version is reached"),
        ),
        (event(status="allowed", overageStatus="rejected"), None),
        (event(status="allowed_warning", resetsAt=2e9), None),
        (event(status="rejected", errorCode="credits_required"), NeedsCredits()),
        (event(status="rejected", errorCode="credits_required", rateLimitType="overage", resetsAt=2e9), NeedsCredits()),
        (event(**REJECTED, errorCode="credits_required"), UsageLimitReached(2e9, "the five-hour limit is reached")),
        (
            message("no", error="rate_limit", api_error_params={"rate_limit_info": REJECTED}),
            UsageLimitReached(2e9, "the five-hour limit is reached"),
        ),
        (message(LIMIT, timestamp="2026-11-22T10:22:21Z"), UsageLimitReached(1795345680.0, LIMIT)),
        (message(LIMIT, id="msg_1"), None),
        (message("You've reached your download limit. Upgrade to go on.", id="chatcmpl-7f3a9c"), None),
        (message(LIMIT, id="gen-1"), None),
        (message(LIMIT, id="", timestamp="2026-11-22T10:22:21Z"), UsageLimitReached(1795345680.0, LIMIT)),
        (event(**REJECTED, overageStatus={"x": 1}), UsageLimitReached(2e9, "the five-hour limit is reached")),
        (event(**REJECTED, overageStatus=["allowed"]), UsageLimitReached(2e9, "the five-hour limit is reached")),
        (
            message(LIMIT, id="msg_1", error="rate_limit", timestamp="2026-11-22T10:22:21Z"),
            UsageLimitReached(1795345680.0, LIMIT),
        ),
        (message("Credit balance is too low"), NeedsCredits()),
        (message("done"), None),
        ({"type": "result", "api_error_status": 429, "result": "API Error: 429"}, RateLimited()),
        ({"type": "result", "api_error_status": 529, "result": "API Error: 529"}, RateLimited()),
        ({"type": "result", "api_error_status": 429, "result": "You're out of usage credits."}, NeedsCredits()),
        ({"type": "result", "result": "done"}, None),
        ({"type": "system", "subtype": "api_retry", "error_status": 429}, RateLimited()),
        ({"type": "assistant", "message": [], "api_error_params": 1, "error": {}}, None),
    ],
)
def test_a_frame_says_what_it_means_for_other_jobs(frame: Mapping[str, Any], sign: object) -> None:
    assert rate_limit_signal(frame) == sign
