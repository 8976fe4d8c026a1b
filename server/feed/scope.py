"""What a watcher of the job feed wants to see: all trees or one, their jobs or not, all of them or only some."""

from dataclasses import dataclass

from jobs.model import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedScope:
    """What one watcher is sent. Without anything it is what `claude-jobs top` shows.

    Args:
        root_id: Only this tree, or None for all.
        trees_only: Rows of trees, and none of their jobs.
        parents: Only the jobs right below these jobs, and the root's own row, or None for all; the jobs of a batch that
            began a tree are right below the batch. It is for trees too large to be sent whole.
        detailed: The rows also have sums of what is below a job, its attempts and its waits.
    """

    root_id: str | None = None
    trees_only: bool = False
    parents: frozenset[str] | None = None
    detailed: bool = False

    def has_tree(self, root_id: str) -> bool:
        """Tell whether a tree is in it."""
        return self.root_id is None or self.root_id == root_id

    def has_job(self, job: Job) -> bool:
        """Tell whether the row of a job is in it."""
        if not self.has_tree(job.root_id):
            return False
        return self.parents is None or job.id == job.root_id or (job.parent_id or job.root_id) in self.parents


WHOLE = FeedScope()
"""Everything, in short rows."""
