"""A record of a tree as the engine sends it: a review with jobs in every state, and trees of any size."""

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

ZERO = 1_796_032_800.0
"""When the review began: 30 November 2026, 10:00 UTC."""

NOW = ZERO + 252
OPUS, SONNET = "claude-opus-5", "claude-sonnet-5"

FINDINGS = """\
## Findings

**Two problems** in `auth/tokens.py`, both easy to mend:

1. A token is written to the log when its signature is wrong (`verify`, line 88).
2. Refresh tokens have no expiry.

```python
def verify(token: str) -> Claims:
    try:
        return decode(token, KEYS)
    except BadSignature:
        log.warning("bad token %s", token)  # <-- here
        raise
```

Nothing else that matters: <script>alert("not run")</script> is text here, & so is this.
"""


HOSTILE = "</svg></style></details>\"'><script>alert(1)</script><img src=x onerror=alert(1)>&amp;`**"


class Sample:
    """Rows of jobs of one tree.

    Args:
        root: Id of the root job.
    """

    def __init__(self, root: str = "j0root") -> None:
        self._numbers = count()
        self.root = root
        self.rows: list[dict[str, Any]] = []

    def job(self, task: str, above: str | None = None, **fields: Any) -> str:
        """Add a job and return its id."""
        number = next(self._numbers)
        job_id = self.root if not number else f"j{number}{'abcdefgh'[number % 8]}{number * 7919 % 9973}"
        depth = 0 if above is None else 1 + next(row["depth"] for row in self.rows if row["jobId"] == above)
        row = {
            "jobId": job_id,
            "parentJobId": above,
            "batchId": f"b-{above}",
            "depth": depth,
            "order": number,
            "status": "completed",
            "task": task,
            "taskChars": len(task),
            "cwd": "/home/ada/shop",
            "createdAt": ZERO,
            "rights": {"permissionMode": "acceptEdits", "allowedTools": ["Read", "Grep", "Bash(git log:*)"]},
            **fields,
        }
        self.rows.append({name: value for name, value in row.items() if value is not None})
        return job_id

    def pages(self, size: int = 1000, answer_chars: int = 16_000, **tree: Any) -> Iterator[Mapping[str, Any]]:
        """Yield the rows as the engine sends them, the newest first."""
        head = {
            "id": self.root,
            "rootId": self.root,
            "isBatch": False,
            "createdAt": ZERO,
            "now": NOW,
            "version": "0.1.0",
            **tree,
        }
        newest_first = self.rows[::-1]
        for at in range(0, max(1, len(newest_first)), size):
            jobs = newest_first[at : at + size]
            yield {"ok": True, "jobs": jobs, "answerChars": answer_chars, **({} if at else {"tree": head})}


def attempt(number: int, since: float, until: float | None, reason: str = "completed", **fields: Any) -> dict[str, Any]:
    """Return an attempt; times in seconds since the beginning of the tree."""
    status = {"completed": "completed", "overloaded": "queued", "interrupted": "queued"}.get(reason, "failed")
    row = {
        "number": number,
        "from": ZERO + since,
        "to": None if until is None else ZERO + until,
        "status": None if until is None else status,
        "reason": None if until is None else reason,
        "model": SONNET,
        "cliVersion": "2.1.330",
        "waits": None,
        **fields,
    }
    return {name: value for name, value in row.items() if value is not None}


def wait(what: str, since: float, until: float | None = None) -> list[Any]:
    return [what, ZERO + since] if until is None else [what, ZERO + since, ZERO + until]


def used(cost: float, *attempts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a job cost, shared among its attempts by their length, and when it ran."""
    total = sum(one.get("to", NOW) - one["from"] for one in attempts) or 1.0
    shared = [{**one, **_usage(cost * (one.get("to", NOW) - one["from"]) / total)} for one in attempts]
    times = {"startedAt": attempts[-1]["from"], "endedAt": attempts[-1].get("to"), "attempt": len(attempts)}
    spent = {name: round(sum(one[name] for one in shared), 6) for name in _usage(cost)}
    return {**spent, **{name: value for name, value in times.items() if value is not None}, "attempts": shared}


def _usage(cost: float) -> dict[str, Any]:
    return {"costUsd": round(cost, 6), "inputTokens": int(cost * 110_000), "outputTokens": int(cost * 5200)}


def ended(cost: float, created: float, since: float, until: float, **fields: Any) -> dict[str, Any]:
    """Return the fields of a job that one attempt completed."""
    return {"createdAt": ZERO + created, "reason": "completed", **used(cost, attempt(1, since, until)), **fields}


def review() -> Sample:
    """Return a review that is not over: jobs that run, wait, ask, are queued, and that ended in several ways."""
    sample = Sample()
    live: dict[str, Any] = {"status": "running"}
    root = sample.job(
        "Review src/ for security problems\n\nOne job for each directory. Report what can be exploited, with the line.",
        **live,
        waitingFor="children",
        maxBudgetUsd=5.0,
        **used(0.09, attempt(1, 1, None, model=OPUS, waits=[wait("children", 32)])),
        answeringModel=OPUS,
    )
    auth = sample.job(
        "auth/", root, **live, waitingFor="children", createdAt=ZERO + 20,
        **used(0.06, attempt(1, 32, None, waits=[wait("children", 66)])), answeringModel=SONNET,
    )  # fmt: skip
    sample.job("auth/tokens.py", auth, answer=FINDINGS, **ended(0.19, 66, 72, 163))
    sample.job("auth/password.py", auth, answer="No findings.", **ended(0.11, 66, 72, 124))
    sample.job(
        "auth/oauth.py", auth, **live, activity="Grep: redirect_uri", createdAt=ZERO + 66, maxBudgetUsd=0.6,
        **used(0.24, attempt(1, 72, 112, "overloaded"), attempt(2, 126, None)), model="sonnet",
    )  # fmt: skip
    sample.job(
        "auth/session.py", auth, **live, waitingFor="permission", waitingBecause="Bash: git log -p -- auth/",
        createdAt=ZERO + 66, **used(0.08, attempt(1, 184, None, waits=[wait("permission", 232)])),
    )  # fmt: skip
    api = sample.job(
        "api/", root, answer="Four findings in two files; see the jobs below.", createdAt=ZERO + 20, reason="completed",
        **used(0.12, attempt(1, 32, 214, waits=[wait("children", 50, 200)])),
    )  # fmt: skip
    for name, since, until in (("orders", 50, 120), ("payments", 50, 198), ("users", 58, 131), ("webhooks", 120, 171)):
        answer = f"{len(name) % 3} findings.\n\nI read `api/{name}.py` and what it calls."
        sample.job(f"api/{name}.py", api, answer=answer, **ended((until - since) / 600, 48, since, until))
    sample.job(
        "db/migrate.py", root, status="failed", reason="prompt_too_long", createdAt=ZERO + 20,
        error="Prompt is too long: 212,480 tokens of 200,000. Divide the task, or name fewer files.",
        **used(0.31, attempt(1, 48, 92, "prompt_too_long")),
    )  # fmt: skip
    upload = sample.job(
        "web/upload.py", root, **live, activity="Read: web/upload.py", createdAt=ZERO + 20,
        **used(0.16, attempt(1, 182, None)),
    )  # fmt: skip
    templates = sample.job(
        "web/templates/", root, status="queued", waitingFor="slot", createdAt=ZERO + 20, costUsd=None
    )
    sample.job(
        "summary", root, key="summary", status="queued", waitingFor="siblings", createdAt=ZERO + 20,
        waitingBecause="web/upload.py, web/templates/", dependsOn=[upload, templates],
    )  # fmt: skip
    sample.job(
        "docs/", root, status="cancelled", reason="cancelled", createdAt=ZERO + 20,
        error="Cancelled by a person.", endedAt=ZERO + 40,
    )  # fmt: skip
    sample.job(
        "scripts/", root, status="queued", paused=True, waitingFor="pause", createdAt=ZERO + 20,
        **used(0.05, attempt(1, 60, 100, "interrupted")),
    )  # fmt: skip
    return sample


def large(jobs: int, answer: str = "Done. Nothing to report here.") -> Sample:
    """Return a tree of many jobs, three levels deep, all over."""
    sample = Sample()
    root = sample.job("A large tree", answer=answer, **ended(0.5, 0, 1, jobs + 20))
    above, inner = root, 0
    for number in range(1, jobs):
        if number % 50 == 1:
            inner = number
            above = sample.job(
                f"Part {number // 50}", root, answer=answer, **ended(0.02, number, number + 1, number + 60)
            )
        else:
            sample.job(
                f"Look into file {number} of src/", above, answer=answer, **ended(0.01, inner, number, number + 9)
            )
    return sample


def hostile() -> Sample:
    """Return a tree whose jobs wrote markup into every text."""
    sample = Sample()
    fields = {"model": HOSTILE, "cwd": HOSTILE, "activity": HOSTILE, "waitingBecause": HOSTILE}
    root = sample.job(
        HOSTILE,
        key=HOSTILE,
        answer=f"{HOSTILE}\n```\n{HOSTILE}\n```\n# {HOSTILE}\n`{HOSTILE}`",
        **fields,
        **ended(0.1, 0, 1, 9),
    )
    sample.job(f"{HOSTILE}\n{HOSTILE}", root, error=HOSTILE, status="failed", reason="unknown_error", **fields)
    sample.job("live", root, status="running", waitingFor="permission", **fields)
    sample.rows[0]["attempts"][0]["model"] = HOSTILE
    sample.rows[0]["rights"] = {"permissionMode": HOSTILE, "allowedTools": [HOSTILE], "mcpServers": [HOSTILE]}
    return sample
