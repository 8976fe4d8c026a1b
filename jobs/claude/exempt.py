"""Processes that an attempt does not own although they are below it: never killed with what it left."""

from collections.abc import Collection

from jobs.claude.kill_children import names_of
from jobs.claude.proctable import ProcessIdentity
from jobs.claude.survivors import Exempt
from jobs.claude.unmanaged import Programs, program_of


def exempt(shims: Collection[ProcessIdentity], keep: Collection[str], programs: Programs = program_of) -> Exempt:
    """Return what exempts the shims of living attempts, and the programs with these names.

    A shim is below a process of another attempt where that process started the engine that launched it.

    Args:
        shims: The shims of the attempts that live.
        keep: Names of programs that a person wants to keep; see `names_of`.
        programs: Tells what a process runs.
    """

    def exempted(identity: ProcessIdentity) -> bool:
        if identity in shims:
            return True
        program = programs(identity.pid) if keep else None
        return program is not None and not names_of(program.executable, program.arguments).isdisjoint(keep)

    return exempted
