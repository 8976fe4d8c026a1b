"""The flat pattern: a coordinator, any number of parallel Sends, a join."""

import ast
import inspect
import textwrap
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from types import CellType
from typing import Any, Final, get_origin

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from orchestration.patterns.send_api import DictState, create_sends

_SEND_MAKERS: Final = frozenset({"Send", "create_sends", "create_parallel_sends"})


def named_targets(routing: Callable[..., Any]) -> Iterator[str]:
    """Find the targets that a routing function names by a text, or by a constant from outside of it.

    Args:
        routing: Any callable; one whose source cannot be read names none, and so does what it calls.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(routing)))
    except (OSError, TypeError, SyntaxError):  # typed at a prompt, built in, or a piece of an expression
        return
    constants = _constants(routing, tree)
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and _name_of(call.func) in _SEND_MAKERS:
            named = [keyword.value for keyword in call.keywords if keyword.arg in ("node", "target_node")]
            for target in [*call.args[:1], *named]:
                yield from _value(target, constants)


def _value(target: ast.expr, constants: Mapping[str, Any]) -> Iterator[str]:
    match target:
        case ast.Constant(value=str(name)):
            yield name
        case ast.Name(id=variable) if isinstance(constants.get(variable), str):
            yield constants[variable]


def _constants(routing: Callable[..., Any], tree: ast.Module) -> Mapping[str, Any]:
    """Return the variables around a function; what it assigns itself is known only when it runs."""
    function = inspect.unwrap(getattr(routing, "__func__", routing))
    code = getattr(function, "__code__", None)
    if code is None:
        return {}
    enclosed = {name: _content(cell) for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True)}
    around = {**function.__globals__, **enclosed}
    own = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    own |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return {name: value for name, value in around.items() if name not in own}


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that gets its value after this function
        return None


def _name_of(function: ast.expr) -> str:
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


COORDINATOR: Final = "coordinator"
JOIN: Final = "join"

Routing = Callable[..., Any]


class GraphBuildError(ValueError):
    """A graph was described in a way that cannot work.

    Args:
        problem: What is wrong, in a few words.
        remedy: What to do next, as a sentence.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}. {remedy}")


class ParallelOrchestrationPattern:
    """Builds flat fan-out graphs."""

    @staticmethod
    def create_parallel_sends(target_node: str, tasks: Iterable[Any]) -> list[Send]:
        """Return one Send per task to `target_node`, in the order of the tasks; no tasks, no Sends."""
        return create_sends(target_node, tasks)

    @staticmethod
    def build_parallel_graph(
        state_type: type[Any],
        node_functions: Mapping[str, Callable[..., Any]],
        parallel_routing_func: Routing,
    ) -> "StateGraph[Any, Any, Any, Any]":
        """Build START → coordinator → (Sends of the routing function) → join → END, not yet compiled.

        Args:
            state_type: `dict` for a plain dictionary, whose "results" are united and whose other keys are replaced; or
                a state type of your own, with a reducer wherever parallel nodes write.
            node_functions: Node name to function. "coordinator" is required and runs first. "join" runs once after
                all Sends, and where it is left out nothing happens there. Every other one can be a target.
            parallel_routing_func: Gets the state after the coordinator and returns Sends. With an empty list the join
                follows at once. It never writes, and is none of the nodes.

        Raises:
            GraphBuildError: No coordinator, a routing function that is a node too, or a Send to a node that does not
                exist. The targets that the source of the routing function names, as a text or by a constant from
                outside of it, are checked here, any other when the Send is made.
        """
        nodes = dict(node_functions)
        targets = [name for name in nodes if name not in (COORDINATOR, JOIN)]
        _check(nodes, targets, parallel_routing_func)
        builder = StateGraph(_schema(state_type))
        nodes.setdefault(JOIN, _join(nodes, parallel_routing_func))
        for name, function in nodes.items():
            builder.add_node(name, function)
        builder.add_edge(START, COORDINATOR)
        builder.add_conditional_edges(COORDINATOR, _checked(parallel_routing_func, targets), [*targets, JOIN])
        for name in targets:
            builder.add_edge(name, JOIN)
        builder.add_edge(JOIN, END)
        return builder


def _schema(state_type: Any) -> Any:
    return DictState if state_type is dict or get_origin(state_type) is dict else state_type


def _check(nodes: Mapping[str, Callable[..., Any]], targets: Sequence[str], routing: Routing) -> None:
    if COORDINATOR not in nodes:
        raise GraphBuildError(
            f"No {COORDINATOR!r} among the nodes {sorted(nodes)}",
            f"Add the function that runs first as {COORDINATOR!r}.",
        )
    if not targets:
        raise GraphBuildError("No node to send to", "Add at least one node besides the coordinator and the join.")
    for name, function in nodes.items():
        if function == routing:
            raise GraphBuildError(
                f"The routing function is also the node {name!r}",
                "Write two functions: a node returns a change of state, a routing function returns Sends.",
            )
    for name in named_targets(routing):
        _check_target(name, targets)


def _check_target(name: str, targets: Sequence[str]) -> None:
    if name not in targets:
        raise GraphBuildError(
            f"A Send to {name!r}, which is not a node to send to", f"Send to one of {sorted(targets)}, or add it."
        )


def _checked(routing: Routing, targets: Sequence[str]) -> Routing:
    """Wrap a routing function so that a Send to nowhere is an error with a remedy, and no Send leads to the join."""

    def checked(routed: Any) -> Any:
        sends = routed if isinstance(routed, list | tuple) else [routed] if routed else []
        for send in sends:
            if send != JOIN:
                _check_target(send.node if isinstance(send, Send) else send, targets)
        return list(sends) or JOIN

    async def route(state: Any) -> Any:
        return checked(await routing(state))

    def route_in_thread(state: Any) -> Any:
        return checked(routing(state))

    # LangGraph runs a plain function in a thread, which `invoke` without a loop needs.
    return route if inspect.iscoroutinefunction(routing) else route_in_thread


def _join(
    nodes: Mapping[str, Callable[..., Any]], routing: Routing
) -> Callable[[Any], dict[str, Any] | Awaitable[dict[str, Any]]]:
    """Return a node that does nothing: async, which saves a thread, wherever the graph needs a loop in any case."""

    async def join(state: Any) -> dict[str, Any]:
        return {}

    def join_in_thread(state: Any) -> dict[str, Any]:
        return {}

    needs_loop = any(inspect.iscoroutinefunction(function) for function in [*nodes.values(), routing])
    return join if needs_loop else join_in_thread
