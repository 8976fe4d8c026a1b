"""Plans the launch of an attempt: session, command, directory, job marker, and the attempt that it continues."""

import uuid
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import anyio

from jobs.claude.binary import Claude, ClaudeFinder, features_of
from jobs.claude.command import USER_ONLY, Command, LaunchContext, McpServer, build
from jobs.claude.stale_files import ClientDirectories
from jobs.client_context import ClientContextStore
from jobs.errors import BadInputError, JobsError, StoreError
from jobs.ids import new_token
from jobs.model import Attempt, Job, JobStatus, Reason, Usage
from jobs.permissions.rights import check_mode_at_launch, setting_sources, verify_directories_unchanged
from jobs.ports import Store
from jobs.processes.attempt_dir import SERVERS, AttemptDirectory, ever_ran
from jobs.prompts.briefing import Prompts
from jobs.settings import Settings
from jobs.util.keyed import SingleFlight

NOT_EXECUTED = frozenset({126, 127})
"""Exit codes of a shell whose program cannot be executed ("Text file busy"), or is not there."""

NOT_EXECUTED_SECONDS = 2.0
"""Pause before a job is launched again whose `claude` could not be executed."""

NEVER_ANSWERED = frozenset({Reason.STARTUP, Reason.SESSION_IN_USE})
"""Ends of attempts that were told nothing: their session is as the attempts before them left it."""


async def resumable_attempt(store: Store, job_id: str, number: int) -> Attempt | None:
    """Return the latest of a job's first attempts that the model answered, or None where a new session is to begin.

    An attempt that never ran, or was gone before the model said anything, did no work, and its prompt may not
    be in its session: the CLI writes that down after its first frame (measured on 2.1.332). It is told again, and
    what an attempt before it did is not lost.

    Args:
        store: Where attempts are.
        job_id: The job.
        number: How many attempts there are to look at.
    """
    for earlier in range(number, 0, -1):
        attempt = await store.attempt(job_id, earlier)
        if attempt is None or attempt.reason is Reason.NO_SESSION:
            return None
        if attempt.reason not in NEVER_ANSWERED and _was_answered(attempt):
            return attempt
    return None


def _was_answered(attempt: Attempt) -> bool:
    return attempt.frame is not None or attempt.usage != Usage()


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The Claude session of a coming attempt.

    Args:
        id: Its UUID.
        continues: The session that it goes on from, or None for a new one; its own id where it is resumed.
        resumed: The job's own earlier attempt that it continues, or None.
    """

    id: str
    continues: str | None = None
    resumed: Attempt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPlan:
    """What is decided before an attempt is claimed, and written down with the claim before its process exists.

    Args:
        claude: The binary that it runs, or why there is none: `LaunchPlanner.command` raises it.
        session: Its session.
        setting_sources: Whose settings it loads.
        token: Its token.
    """

    claude: Claude | JobsError
    session: Session
    setting_sources: str
    token: str


class LaunchPlanner:
    """Plans the launches of attempts.

    Args:
        settings: The engine's settings.
        store: Where attempts are.
        client_contexts: Where each tree's client environment is.
        trees: Directory of the job directories, one directory a tree.
        mcp_server: How a job's `claude` starts our MCP server; the job's directory is added. None gives jobs no tools
            of ours.
        key: Begins the job marker of every process. Two state directories on one machine have different ones, so that
            neither takes the other's processes for its own.
        umask: Mask of the modes of the files that jobs make whose client did not say its own.
        claudes: Finds the binary; None for a new finder.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        client_contexts: ClientContextStore,
        trees: Path,
        mcp_server: McpServer | None,
        key: str,
        umask: int,
        claudes: ClaudeFinder | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._client_contexts = client_contexts
        self.trees = trees
        self._mcp_server = mcp_server
        self._claudes = claudes or ClaudeFinder()
        limits = settings.tree_limits
        # Without our tools a job can spawn nothing, as at the deepest level.
        self._prompts = Prompts(store, limits if mcp_server else replace(limits, max_depth=0))
        self._key = key
        self._umask = umask
        # The directories may be on a file system that does not answer.
        self._sources = SingleFlight[str]()
        self._unmoved = SingleFlight[None]()

    async def plan(self, job: Job) -> LaunchPlan:
        """Plan the job's next attempt; where an update replaces its `claude`, wait for that."""
        return LaunchPlan(
            claude=await self._claude(job),
            session=await self.session(job),
            setting_sources=await self.setting_sources(job),
            token=new_token(),
        )

    async def session(self, job: Job) -> Session:
        """Choose the session of the job's next attempt."""
        resumed = await resumable_attempt(self._store, job.id, job.attempt)
        if resumed is not None:
            return Session(id=resumed.session_id, continues=resumed.session_id, resumed=resumed)
        asked = job.spec.resume_session
        if asked is not None and not job.spec.fork_session:
            return Session(id=asked, continues=asked)
        return Session(id=str(uuid.uuid4()), continues=asked)

    async def setting_sources(self, job: Job) -> str:
        """Return whose settings the job's next attempt loads.

        A directory's settings can permit what was never granted. A child, which may have no wider rights than its
        parent, loads them only where the parent's attempt loaded the same ones: in the same directory.
        """
        like = None
        if job.parent_id is not None:
            like = await self._store.job(job.parent_id)
            attempt = None if like is None else await self._store.attempt(like.id, like.attempt)
            if like is None or attempt is None or attempt.setting_sources == USER_ONLY:
                return USER_ONLY
        try:
            env = self._client_contexts.load(job.root_id).env
        except StoreError:
            # The launch says what is missing.
            env = {}
        parent = like.spec.cwd if like else None
        look = partial(setting_sources, job.spec.cwd, env, self._settings.trusted_directories, parent=parent)
        asked = (job.spec.cwd, parent, env.get("HOME"), env.get("CLAUDE_CONFIG_DIR"))
        return await self._sources.call(asked, look)

    async def command(self, job: Job, attempt: Attempt, plan: LaunchPlan, left: float | None) -> Command:
        """Return the command of an attempt.

        Args:
            job: The job, with the whole task.
            attempt: The attempt.
            plan: Its plan.
            left: What it may cost, in US dollars, or None for no bound. The CLI bounds its own process.

        Raises:
            BadInputError: A value of the job's that the CLI could misread, an MCP server that the settings lost, or a
                permission mode that they no longer allow.
            RightsError: A directory of the job's leads elsewhere than when it was spawned.
            ClaudeNotFoundError: There is no binary.
            ClaudeTooOldError: The binary is too old.
            StoreError: The tree's environment cannot be read.
        """
        client_context = self._client_contexts.load(job.root_id)
        env = client_context.env
        check_mode_at_launch(job.spec, self._settings)
        if job.parent_id is not None:
            directories = (job.spec.cwd, *job.spec.directories)
            await self._unmoved.call(directories, partial(verify_directories_unchanged, directories))
        if isinstance(plan.claude, JobsError):
            raise plan.claude
        if left != job.spec.max_budget_usd:
            # What is left now, not at the spawn, is what the job is told and what bounds its process.
            job = replace(job, spec=replace(job.spec, max_budget_usd=left))
        prompt = await self._prompts.compose(job, plan.session.resumed)
        directory = self.path(job, attempt.number)
        ours = self._mcp_server
        return build(
            replace(job.spec, task=prompt.text),
            LaunchContext(
                cli=str(plan.claude.path),
                features=features_of(plan.claude.version),
                servers_file=f"{directory}/{SERVERS}",
                session_id=plan.session.id,
                continues=plan.session.continues,
                server=ours and replace(ours, args=(*ours.args, "--job", str(directory))),
                more_servers=self._more_servers(job),
                setting_sources=attempt.setting_sources,
                enabled_tools=self._settings.enabled_tools,
                asks_permission=ours is not None and self._settings.permission_requests != "deny",
                token=plan.token,
                briefing=prompt.briefing,
                client_env=env,
                marker=self.marker(job, attempt.number),
                umask=self._umask if client_context.umask is None else client_context.umask,
            ),
        )

    def path(self, job: Job, attempt: int) -> Path:
        """Return the directory of an attempt."""
        return self.trees / job.root_id / job.id / str(attempt)

    def ever_ran(self, job: Job, attempt: Attempt) -> bool:
        """Tell whether a process of an attempt was ever started; its files do not, where the job removed them."""
        return attempt.pid is not None or ever_ran(AttemptDirectory(self.path(job, attempt.number)))

    def marker(self, job: Job, attempt: int) -> str:
        """Return the job marker of an attempt's processes."""
        return f"{self._key}:{job.id}:{attempt}"

    def owner(self, mark: str) -> tuple[str, int] | None:
        """Return job and attempt of a job marker of this state directory, or None for one of another."""
        home, _, rest = mark.partition(":")
        job_id, _, attempt = rest.rpartition(":")
        return (job_id, int(attempt)) if home == self._key and job_id and attempt.isdecimal() else None

    def client_directories(self, job: Job) -> ClientDirectories:
        """Return where the job's `claude` keeps its files, as far as the tree's environment is still there."""
        try:
            return ClientDirectories.of(self._client_contexts.load(job.root_id).env)
        except StoreError:
            return ClientDirectories()

    def secrets_of(self, job: Job) -> frozenset[str]:
        """Return the secret values that the job has in its environment; none where the tree's environment is gone."""
        return self._client_contexts.secrets_of(job.root_id)

    async def _claude(self, job: Job) -> Claude | JobsError:
        previous = await self._store.attempt(job.id, job.attempt) if job.attempt else None
        if previous is not None and previous.status is JobStatus.QUEUED:
            if previous.exit_code in NOT_EXECUTED:
                # Not the throttle's pause: the `claude` of one client keeps no other client's jobs from running.
                await anyio.sleep(NOT_EXECUTED_SECONDS)
            elif previous.reason is Reason.STARTUP and previous.exit_code is not None and previous.cli is not None:
                # It may be older than it was taken for, and did not understand its options.
                self._claudes.doubt_version(previous.cli, previous.cli_version)
        try:
            client_context = self._client_contexts.load(job.root_id)
            cli = (client_context.settings or self._settings.for_trees).cli
            return await self._claudes.wait_for_update(cli, client_context.env.get("PATH"))
        except JobsError as error:
            return error

    def _more_servers(self, job: Job) -> dict[str, McpServer]:
        known = self._settings.mcp_servers
        if lost := [name for name in job.spec.mcp_servers if name not in known]:
            raise BadInputError(
                "mcpServers", f"{lost[0]} is no longer in the settings", "Add it again and retry the job."
            )
        return {name: McpServer(**known[name].model_dump()) for name in job.spec.mcp_servers}
