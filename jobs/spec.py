"""What a job is asked to be: the request of a caller, and the complete specification that is made of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

TASK_PREVIEW = 2000
"""Characters of a task that a job carries; `Store.task` returns the whole text. 450 jobs that carried a million
characters each took 1.8 GB (measured)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest:
    """One task as a caller gives it; None asks for the default.

    Args:
        task: The text.
        cwd: Directory to work in; relative paths start at the client's directory, or at the spawning job's.
        model: Model name.
        permission_mode: The CLI's permission mode.
        output_format: "json", "text" or "stream-json".
        verbose: Keep the bulk of the CLI's result object.
        effort: The CLI's effort level.
        max_budget_usd: Most US dollars.
        timeout_seconds: Seconds that one attempt may run.
        max_jobs: Most jobs below it.
        subtree_seconds: Seconds from its admission on, after which neither it nor anything below it may run.
        allowed_tools: Tools that need no permission; None takes the spawning job's.
        disallowed_tools: Tools that are off, besides the spawning job's.
        directories: Directories besides `cwd`; None takes the spawning job's.
        mcp_servers: Names of MCP servers from the settings; None takes the spawning job's.
        append_system_prompt: Text for the end of the system prompt.
        json_schema: JSON Schema as text.
        can_decompose: The job may answer with subtasks.
        key: The caller's name for the task among its siblings.
        depends_on: Siblings that must complete first: their keys, or their positions counted from 0.
        batch_slots: Most jobs of the batch that may run at once; a limit below those of the tree and the machine.
        resume_session: Session to continue with the task.
        fork_session: Continue a copy of that session.
    """

    task: str
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
    allowed_tools: Sequence[str] | None = None
    disallowed_tools: Sequence[str] = ()
    directories: Sequence[str] | None = None
    mcp_servers: Sequence[str] | None = None
    append_system_prompt: str | None = None
    json_schema: str | None = None
    can_decompose: bool = False
    key: str | None = None
    depends_on: Sequence[str | int] = ()
    batch_slots: int | None = None
    resume_session: str | None = None
    fork_session: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """Complete specification of a job: defaults are filled in and checked before a spec exists.

    Args:
        task: The task's text, passed to Claude as data. In a job that comes from the store, at most its first
            `TASK_PREVIEW` characters.
        task_chars: Characters of the whole text where `task` is only its beginning, or None.
        cwd: Absolute path of the directory that the job works in.
        model: Model name, or None for the CLI's own default.
        permission_mode: The CLI's permission mode.
        output_format: "json", "text" or "stream-json": how a caller reads the result; the last is read as the first.
        verbose: Keep the bulk of the CLI's result object in replies.
        effort: The CLI's effort level, or None.
        max_budget_usd: Most US dollars for this job and everything below it, or None.
        max_jobs: Most jobs below this job, or None.
        deadline: Seconds since the epoch after which nothing of this job's subtree may run, or None.
        timeout_seconds: Seconds that one attempt may run.
        allowed_tools: Tools that need no permission, in the CLI's spelling.
        disallowed_tools: Tools that are off, in the CLI's spelling.
        directories: Absolute directories besides `cwd` that the job may work in.
        mcp_servers: Names of MCP servers from the settings that it gets besides ours.
        append_system_prompt: Text for the end of the system prompt, or None.
        json_schema: JSON Schema, as text, that the answer must meet, or None.
        key: The caller's name for this job among its siblings, or None.
        depends_on: Ids of siblings that must complete first.
        batch_slots: Most jobs of its batch that may run at once, itself included, or None.
        can_decompose: The job may answer with subtasks; they are run below it, and it is resumed with their results.
        resume_session: Session to continue with the task, or None for a new one.
        fork_session: Continue a copy of that session instead of the session itself.
    """

    task: str
    task_chars: int | None = None
    cwd: str
    model: str | None = None
    permission_mode: str = "acceptEdits"
    output_format: str = "json"
    verbose: bool = False
    effort: str | None = None
    max_budget_usd: float | None = None
    max_jobs: int | None = None
    deadline: float | None = None
    timeout_seconds: float = 1800.0
    allowed_tools: tuple[str, ...] = ()
    disallowed_tools: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    mcp_servers: tuple[str, ...] = ()
    append_system_prompt: str | None = None
    json_schema: str | None = None
    key: str | None = None
    depends_on: tuple[str, ...] = ()
    batch_slots: int | None = None
    can_decompose: bool = False
    resume_session: str | None = None
    fork_session: bool = False

    def with_task_preview(self) -> "JobSpec":
        """Return this spec with at most the first `TASK_PREVIEW` characters of the task."""
        if len(self.task) <= TASK_PREVIEW:
            return self
        return replace(self, task=self.task[:TASK_PREVIEW], task_chars=len(self.task))
