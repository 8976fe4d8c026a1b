"""Early replies of `claude_run` and `claude_run_batch`, when a job below the caller waits for a permission."""

from collections.abc import Sequence

from jobs.permissions.approvals import PermissionRequest
from jobs.ports import Admission
from server.mcp.replies import permission_requests, pretty


def run_asks(admission: Admission, requests: Sequence[PermissionRequest]) -> str:
    """Answer `claude_run` while its job goes on."""
    job_id = admission.jobs[0].id
    reply = {"jobId": job_id, "status": "running", "waitingForPermission": permission_requests(requests)}
    return pretty({**reply, "next": f"{_ANSWER} jobIds [{job_id!r}], and read it with claude_result."})


def batch_asks(admission: Admission, requests: Sequence[PermissionRequest]) -> str:
    """Answer `claude_run_batch` while its jobs go on."""
    batch_id = admission.batch.id
    reply = {"batch_id": batch_id, "status": "running", "waitingForPermission": permission_requests(requests)}
    return pretty({**reply, "next": f"{_ANSWER} batchId {batch_id!r}."})


_ANSWER = "Answer each with claude_approve. The jobs go on: to wait for their end, call claude_wait with"
