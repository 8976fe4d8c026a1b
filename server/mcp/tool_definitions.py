"""What defines a tool, and how a client sees it: description, schema and annotations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, get_type_hints

from mcp_types import Tool, ToolAnnotations

from server.mcp.arguments import Arguments
from server.mcp.connection_state import Call


class Handler(Protocol):
    """The function that answers a tool, with the tool's name: a call and its arguments in, text out."""

    __name__: str

    async def __call__(self, call: Call, arguments: Any, /) -> str:
        """Return the reply."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One tool.

    Args:
        name: Its name.
        title: Its title for a person.
        about: Its description: what it does and when to use it.
        arguments: Its arguments.
        handle: Its handler.
        reads: It only reads: Claude Code runs only such tools side by side.
        ends: It can end work.
        spawns: It spawns jobs, so a leaf does not see it.
        steers_below: All that a job can do with it is about jobs below, so a leaf does not see it.
        everyday: It is in the model's prompt from the start, and not only found by a search.
        like: The tool in which all its arguments are described, or None; `about` names it, and the schema of this one
            holds what is required and what is used most.
        inline_chars: Characters of a reply that Claude Code is asked to pass on inline, or None for its own limit.
    """

    name: str
    title: str
    about: str
    arguments: type[Arguments]
    handle: Handler
    reads: bool = False
    ends: bool = False
    spawns: bool = False
    steers_below: bool = False
    everyday: bool = False
    like: str | None = None
    inline_chars: int | None = None


def tool(*, title: str, about: str, **more: Any) -> Callable[[Handler], Definition]:
    """Return a decorator that makes a handler a tool, with the handler's name and the class of its arguments.

    Args:
        title: As in `Definition`.
        about: As there.
        more: What else is there, and is not left at its default.
    """

    def defined(handle: Handler) -> Definition:
        _, arguments, _ = get_type_hints(handle).values()
        return Definition(name=handle.__name__, title=title, about=about, arguments=arguments, handle=handle, **more)

    return defined


_USED_MOST = ("cwd", "model", "permissionMode", "outputFormat", "verbose", "parentJobId")
"""Arguments in the schema of each tool that runs jobs: a client may load one of these tools without the others."""


def as_tool(definition: Definition) -> Tool:
    """Return a tool as the protocol describes it."""
    hints = ToolAnnotations(read_only_hint=True) if definition.reads else None
    if definition.ends:
        hints = ToolAnnotations(destructive_hint=True)
    meta: dict[str, Any] = {}
    if definition.everyday:
        meta["anthropic/alwaysLoad"] = True
    if definition.inline_chars is not None:
        meta["anthropic/maxResultSizeChars"] = definition.inline_chars
    return Tool(
        name=definition.name,
        title=definition.title,
        description=definition.about,
        input_schema=lean_schema(definition.arguments, brief=definition.like is not None),
        annotations=hints,
        _meta=meta or None,
    )


def lean_schema(arguments: type[Arguments], *, brief: bool = False) -> dict[str, Any]:
    """Return the JSON Schema of a tool's arguments without its redundant parts.

    Titles repeat the names, a default that is null, false, 0 or empty is what a reader expects, and "or null" is what
    leaving an optional argument out means; references are written out, since clients differ in how they follow them.
    That no other argument is taken is not said: the tool refuses what it does not know and names what it takes.
    Inside an argument no default is given: a client that fills it in would override what a batch says of all its tasks.

    Args:
        arguments: What the tool accepts.
        brief: Only what is required or used most.
    """
    schema = arguments.model_json_schema(by_alias=True)
    definitions = schema.get("$defs", {})
    if brief:
        shown = (*schema["required"], *_USED_MOST)
        schema["properties"] = {name: schema["properties"][name] for name in shown}
    definitions = {
        name: _own(item, schema, brief=brief) if item["type"] == "object" else item
        for name, item in definitions.items()
    }
    lean = _lean(schema, definitions)
    assert isinstance(lean, dict)
    lean.pop("$defs", None)
    lean.pop("description", None)
    _tell_defaults(lean, schema)
    return lean


def _own(item: Mapping[str, Any], whole: Mapping[str, Any], *, brief: bool) -> dict[str, Any]:
    """Return the schema of an object in a list without the properties that the list's tool describes already."""
    if brief:
        return {"type": "object"}
    own = {name: field for name, field in item["properties"].items() if name not in whole["properties"]}
    return {"type": "object", "properties": own, "required": item["required"]}


def _tell_defaults(lean: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    for name, field in schema.get("properties", {}).items():
        if field.get("default"):
            lean["properties"][name]["default"] = field["default"]


def _lean(node: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_lean(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if (reference := node.get("$ref")) is not None:
        return _lean(definitions[reference.rpartition("/")[2]], definitions)
    if "anyOf" in node:
        return _lean_choice(node["anyOf"], definitions)
    return {
        key: _lean_properties(value, definitions) if key == "properties" else _lean(value, definitions)
        for key, value in node.items()
        if key not in {"title", "default", "description", "additionalProperties"}
    }


def _lean_properties(properties: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _lean(value, definitions) for name, value in properties.items()}


def _lean_choice(options: Sequence[Any], definitions: Mapping[str, Any]) -> Any:
    lean = [_lean(option, definitions) for option in options if option != {"type": "null"}]
    return lean[0] if len(lean) == 1 else {"anyOf": lean}
