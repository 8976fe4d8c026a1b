"""What each tool accepts: camelCase as the older server had it, snake_case as well, and nothing that is unknown."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from jobs.intake import TaskRequest
from jobs.model import JobStatus


class Arguments(BaseModel):
    """Base of every tool's arguments."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )


class TaskOptions(Arguments):
    """What a job may be told beside its task."""

    cwd: str | None = None
    model: str | None = None
    permission_mode: str | None = None
    output_format: str = "json"
    verbose: bool = False
    effort: str | None = None
    max_budget_usd: float | None = None
    timeout_seconds: float | None = None
    allowed_tools: list[str] = []
    disallowed_tools: list[str] = []
    append_system_prompt: str | None = None
    json_schema: dict[str, Any] | str | None = None


class TaskArguments(TaskOptions):
    """One task with its options."""

    task: str

    def request(self) -> TaskRequest:
        """Return these arguments as the request that `jobs` knows."""
        return TaskRequest(**_fields_of(self))


def _task_of_text(value: Any) -> Any:
    return {"task": value} if isinstance(value, str) else value


BatchTask = Annotated[TaskArguments, BeforeValidator(_task_of_text)]
"""A task of a batch: its text, or an object with options."""


class RunArguments(TaskArguments):
    """Arguments of `claude_run` and `claude_run_async`."""

    parent_job_id: str | None = None
    idempotency_key: str | None = None

    def request(self) -> TaskRequest:
        """Return the task itself, without what belongs to its submission."""
        return TaskRequest(**_fields_of(self, without=("parent_job_id", "idempotency_key")))


class BatchArguments(TaskOptions):
    """Arguments of `claude_run_batch` and `claude_run_batch_async`; options hold for every task that names none."""

    tasks: list[BatchTask]
    parent_job_id: str | None = None
    idempotency_key: str | None = None

    def requests(self) -> list[TaskRequest]:
        """Return the tasks, each with the batch's options where it has none of its own."""
        shared = _fields_of(self, without=("tasks", "parent_job_id", "idempotency_key"), only_set=True)
        return [TaskRequest(**{**shared, **_fields_of(task, only_set=True)}) for task in self.tasks]


class JobArguments(Arguments):
    """Arguments of a tool about one job."""

    job_id: str


class ResultArguments(Arguments):
    """Arguments of `claude_result`: one job, or several within one reply."""

    job_id: str | None = None
    job_ids: list[str] = []
    offset: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1)] | None = None


class WaitArguments(Arguments):
    """Arguments of `claude_wait`: jobs, a batch, or everything below a job."""

    job_ids: list[str] = []
    batch_id: str | None = None
    subtree_of: str | None = None
    mode: Literal["all", "any", "first_success"] = "all"
    timeout_seconds: Annotated[float, Field(ge=0)] | None = None
    cursor: str | None = None


class ListArguments(Arguments):
    """Arguments of `claude_list_jobs`."""

    under: str | None = None
    status: JobStatus | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 30
    before: str | None = None


class NoArguments(Arguments):
    """For a tool that takes none."""


def _fields_of(arguments: Arguments, *, without: tuple[str, ...] = (), only_set: bool = False) -> dict[str, Any]:
    names = arguments.model_fields_set if only_set else type(arguments).model_fields
    fields = {name: getattr(arguments, name) for name in names if name not in without}
    if (schema := fields.get("json_schema")) is not None and not isinstance(schema, str):
        fields["json_schema"] = json.dumps(schema, separators=(",", ":"))
    return fields
