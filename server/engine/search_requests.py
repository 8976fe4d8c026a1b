"""Answers the control request `search`: words in tasks, answers and transcripts of all trees."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from jobs.errors import JobsError
from jobs.search import Found, Hit, Search
from jobs.store.search_index import JobFilter
from server.engine.request_errors import problems_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """What a person searches for.

    Args:
        text: As it was typed.
        jobs: Which jobs are searched.
        limit: Most hits.
        transcripts: Read transcripts too.
    """

    # A wrong name would be passed over.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    text: str
    jobs: JobFilter = field(default_factory=JobFilter)
    limit: int = 20
    transcripts: bool = False


_REQUEST = TypeAdapter(SearchRequest)

_OPTIONS = {
    "text": "TEXT",
    "limit": "--limit",
    "transcripts": "--transcripts",
    **{f"jobs.{name}": f"--{name}" for name in ("status", "since", "before", "directory")},
}


async def answer_search(search: Search, request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer with hits; where the index is not complete yet, with `catchingUp` alone: the caller asks again.

    Args:
        search: Searches.
        request: `search`, an object with the fields of `SearchRequest`.
    """
    try:
        asked = _REQUEST.validate_python(request.get("search"))
        found = await search.find(asked.text, asked.jobs, limit=asked.limit, transcripts=asked.transcripts)
    except ValidationError as error:
        return {"ok": False, "error": problems_of(error, "search", _OPTIONS)}
    except JobsError as error:
        return {"ok": False, "error": str(error)}
    return {"ok": True, **_reply(found)}


def _reply(found: Found) -> dict[str, Any]:
    if found.catching_up:
        return {"catchingUp": found.catching_up}
    reply: dict[str, Any] = {"hits": [_line(hit) for hit in found.hits]}
    if found.scan is not None:
        scan = found.scan
        reply["transcripts"] = {"searched": scan.files, "bytes": scan.bytes, "notSearched": scan.left}
    return reply


def _line(hit: Hit) -> dict[str, Any]:
    return {
        "jobId": hit.job.id,
        "rootId": hit.job.root_id,
        "status": str(hit.job.status),
        "submittedAt": hit.job.created_at,
        "where": hit.where,
        "excerpt": hit.excerpt,
        "matches": [list(match) for match in hit.matches],
    }
