"""The boundary at which an exception of somebody's work becomes a value.

A node that raises makes LangGraph cancel every sibling Send, so nothing that is injected may raise into a graph.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from langgraph.errors import GraphBubbleUp, NodeCancelledError

from orchestration.failures import Failure

logger = logging.getLogger(__name__)


async def attempt(work: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    """Call `work` and return its value, or a `Failure` where it raised.

    Cancellation propagates, and so does what LangGraph raises to steer a graph, such as an interrupt.

    Raises:
        NodeCancelledError: A node of a nested run was cancelled; LangGraph turns that into an exception.
    """
    try:
        return await work(*arguments)
    except (GraphBubbleUp, NodeCancelledError):
        raise
    except Exception as error:
        logger.info("A task failed: %r", error, exc_info=error)
        return Failure.of(error)
