"""The arguments of each tool: camelCase as in the older server, snake_case as well, and no unknown names."""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from jobs.errors import BadInputError
from jobs.model import JobStatus
from jobs.spec import TaskRequest


class Arguments(BaseModel):
    """Base of every tool's arguments."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    @model_validator(mode="before")
    @classmethod
    def _as_meant(cls, given: Any) -> Any:
        """Treat an empty argument as left out, and a list spelled as JSON text as the list.

        Many clients fill in each argument that they do not use with null or an empty text, and models spell a list as
        text where a schema does not show the argument.
        """
        if not isinstance(given, Mapping):
            return given
        fields = {field.alias: field for field in cls.model_fields.values()} | cls.model_fields
        meant = {}
        for name, value in given.items():
            field = fields.get(name)
            if field is None or field.is_required() or not _says_nothing(value, field.annotation):
                meant[name] = _list_in(value) if field and _takes_list(field.annotation) else value
        return meant


class OptionArguments(Arguments):
    """Options of a job; those of a batch are the defaults for its tasks."""

    cwd: str | None = None
    model: str | None = None
    permission_mode: str | None = None
    output_format: str = "json"
    verbose: bool = False
    effort: str | None = None
    max_budget_usd: float | None = None
    timeout_seconds: float | None = None
    max_jobs: int | None = None
    subtree_seconds: float | None = None
    allowed_tools: list[str] | None = None
    disallowed_tools: list[str] = []
    directories: list[str] | None = None
    mcp_servers: list[str] | None = None
    append_system_prompt: str | None = None
    json_schema: dict[str, Any] | str | None = None


class TaskArguments(OptionArguments):
    """One task of a batch with its options."""

    task: str
    key: str | None = None
    depends_on: list[str | int] = []
    idempotency_key: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return the given options under the field names of `TaskRequest`."""
        return _fields_of(self, without=("idempotency_key",), only_set=True)


def _task_of_text(value: Any) -> Any:
    return {"task": value} if isinstance(value, str) else value


BatchTask = Annotated[TaskArguments, BeforeValidator(_task_of_text, json_schema_input_type=str | TaskArguments)]
"""A task of a batch: its text, or an object with options."""


class RunArguments(OptionArguments):
    """Arguments of `claude_run` and `claude_run_async`."""

    task: str
    strategy: Literal["direct", "decompose"] = "direct"
    parent_job_id: str | None = None
    idempotency_key: str | None = None

    def request(self) -> TaskRequest:
        """Return the task itself, without the arguments of its submission."""
        fields = _fields_of(self, without=("parent_job_id", "idempotency_key", "strategy"))
        return TaskRequest(**fields, can_decompose=self.strategy == "decompose")


class BatchArguments(OptionArguments):
    """Arguments of `claude_run_batch` and `claude_run_batch_async`; options hold for every task that names none."""

    tasks: list[BatchTask]
    parent_job_id: str | None = None
    idempotency_key: str | None = None
    tree_budget_usd: float | None = None
    tree_timeout_seconds: float | None = None
    max_concurrent: Annotated[int, Field(ge=1)] | None = None

    def requests(self) -> list[TaskRequest]:
        """Return the tasks, each with the batch's options as defaults."""
        shared = _fields_of(self, only=OptionArguments.model_fields, only_set=True)
        shared |= {"batch_slots": self.max_concurrent}
        return [TaskRequest(**{**shared, **task.fields()}) for task in self.tasks]

    def key(self) -> str | None:
        """Return the key of the submission: its own, or one made of its tasks' keys.

        Raises:
            BadInputError: Some tasks have a key and others have none: they are admitted together or not at all.
        """
        keys = [task.idempotency_key for task in self.tasks]
        if self.idempotency_key is not None or not any(keys):
            return self.idempotency_key
        if not all(keys):
            raise BadInputError(
                "idempotencyKey", "some tasks have one and others have none", "Give all of them one, or the batch."
            )
        return hashlib.sha256(json.dumps(keys).encode()).hexdigest()


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


class SendArguments(Arguments):
    """Arguments of `claude_send`."""

    job_id: str
    task: str
    fork: bool = False
    output_format: str = "json"
    max_budget_usd: float | None = None
    timeout_seconds: float | None = None
    json_schema: dict[str, Any] | str | None = None
    idempotency_key: str | None = None

    def message(self) -> TaskRequest:
        """Return the follow-up."""
        return TaskRequest(**_fields_of(self, without=("job_id", "fork", "idempotency_key")), fork_session=self.fork)


class RetryArguments(Arguments):
    """Arguments of `claude_retry`."""

    job_id: str
    subtree: bool = False


class PauseArguments(Arguments):
    """Arguments of `claude_pause`; the job id may be that of a batch, or "all"."""

    job_id: str
    resume: bool = False
    now: bool = False


class ListArguments(Arguments):
    """Arguments of `claude_list_jobs`."""

    under: str | None = None
    status: JobStatus | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 30
    before: str | None = None


class NoArguments(Arguments):
    """For a tool that takes none."""


def _says_nothing(value: Any, annotation: Any) -> bool:
    # An empty text is no "yes", also where leaving the argument out means yes.
    return value is None or (value == "" and annotation is not bool)


def _takes_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(_takes_list(part) for part in get_args(annotation))


def _list_in(value: Any) -> Any:
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _fields_of(
    arguments: Arguments,
    *,
    without: Collection[str] = (),
    only: Collection[str] | None = None,
    only_set: bool = False,
) -> dict[str, Any]:
    names = arguments.model_fields_set if only_set else type(arguments).model_fields
    fields = {
        name: getattr(arguments, name) for name in names if name not in without and (only is None or name in only)
    }
    if (schema := fields.get("json_schema")) is not None and not isinstance(schema, str):
        fields["json_schema"] = json.dumps(schema, separators=(",", ":"))
    return fields
