"""The engine's state of a connection, without the MCP SDK: it is needed before the SDK is loaded."""

from dataclasses import dataclass, field

from server.mcp.auth import Caller
from server.mcp.flow_control import FlowControl
from server.mcp.tools import Services


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Connection:
    """One client's connection.

    Args:
        services: What handlers call.
        caller: The other end of the connection.
        flow: Counts its open requests.
    """

    services: Services
    caller: Caller
    flow: FlowControl = field(default_factory=FlowControl)
