"""What it means that a child has no wider rights than its parent, said a second time and apart from `meet`."""

import os
from collections.abc import Iterable
from pathlib import PurePath

from jobs.permissions.rights import RANK, Rights, permits


def within(parent: Rights, child: Rights) -> bool:
    """Tell whether a child may do nothing that its parent may not."""
    return (
        RANK[child.mode] <= RANK[parent.mode]
        and all(permits(parent, rule) for rule in child.allowed)
        and set(parent.disallowed) <= set(child.disallowed)
        and all(_inside(path, parent.directories) for path in child.directories)
        and set(child.servers) <= set(parent.servers)
    )


def _inside(path: str, directories: Iterable[str]) -> bool:
    real = PurePath(os.path.realpath(path))
    return any(real.is_relative_to(os.path.realpath(directory)) for directory in directories)
