"""A state directory with a short path, so that the socket stands in it."""

from tests.unit.server.conftest import home

__all__ = ["home"]
