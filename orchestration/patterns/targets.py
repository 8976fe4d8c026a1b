"""The targets that stand in the source of a routing function, so that a Send to nowhere is found before it is made."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from types import CellType
from typing import Any, Final

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
