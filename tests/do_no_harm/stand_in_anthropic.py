"""A stand-in for the mock server that the Anthropic SDK's tests want, made from the SDK's own source.

Upstream serves the API's OpenAPI document, which is not in the sdist. Here each operation's path and answer are read
from the SDK's resource classes, and the answer is the least that its type asks for. Runs in the suite's environment:
prints its URL and serves until its standard input ends.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

import anthropic
import pydantic

from msgtap.testing import replies
from msgtap.testing.endpoint import Endpoint, Received
from msgtap.testing.replies import Reply

Operation: TypeAlias = tuple[str, re.Pattern[str], Any]  # method, path, answer

_CALLS = {
    "_delete": "DELETE",
    "_get": "GET",
    "_get_api_list": "GET",
    "_patch": "PATCH",
    "_post": "POST",
    "_put": "PUT",
}
_SIMPLE: Mapping[object, object] = {
    str: "string",
    int: 0,
    float: 0.0,
    bool: True,
    object: {},
    datetime: "2019-12-27T18:11:19.117Z",
    date: "2019-12-27",
    NoneType: None,
}


def operations() -> Iterator[Operation]:
    """What the resource classes call."""
    root = Path(anthropic.__file__).parent
    for path in sorted((root / "resources").rglob("*.py")):
        name = ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CALLS:
                operation = _operation(_CALLS[node.func.attr], node, vars(importlib.import_module(name)))
                if operation is not None:
                    yield operation


def _operation(method: str, call: ast.Call, names: dict[str, Any]) -> Operation | None:
    said = {keyword.arg: keyword.value for keyword in call.keywords}
    page = said.get("page")
    kind = page or said.get("cast_to")
    path = _path(call.args[0]) if call.args else None
    if kind is None or path is None:
        return None
    with suppress(NameError):  # a type that the method was given
        cast_to = eval(compile(ast.Expression(kind), "<the SDK's source>", "eval"), names)  # noqa: S307
        answer = {"data": [sample(get_args(cast_to)[0])]} if page and not hasattr(cast_to, "model_fields") else None
        return method, re.compile(path), answer or sample(cast_to)
    return None


def _path(node: ast.expr) -> str | None:
    """The path of an operation as a regular expression."""
    match node:
        case ast.Call(args=[inner, *_]):  # path_template("/v1/files/{file_id}", file_id=file_id)
            return _path(inner)
        case ast.Constant(value=str(text)):
            return re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(text.partition("?")[0]))
        case ast.JoinedStr(values=parts):
            return "".join("[^/]+" if isinstance(part, ast.FormattedValue) else _path(part) or "" for part in parts)
        case _:
            return None


def sample(kind: Any) -> Any:
    """The least JSON that is a ``kind``."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        fields = kind.model_fields.items()
        return {
            field.alias or name: sample(field.annotation)
            for name, field in fields
            if field.is_required() or get_origin(field.annotation) is Literal
        }
    if origin is Literal:
        return arguments[0]
    if origin in (Annotated, Union, UnionType):
        return None if NoneType in arguments else sample(arguments[0])
    if origin is list:
        return [sample(arguments[0])]
    return {}


def merged(one: Any, other: Any) -> Any:
    """An answer that is both: an operation and its beta share a path, and their types agree in what they share."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {name: merged(one.get(name), other.get(name)) for name in one | other}
    if isinstance(one, list) and isinstance(other, list) and one and other:
        return [merged(one[0], other[0])]
    return other if one is None else one


def table(found: Iterator[Operation]) -> Sequence[Operation]:
    """One row for each method and path; paths without a placeholder come first."""
    rows: dict[tuple[str, str], Any] = {}
    for method, path, answer in found:
        key = method, path.pattern
        rows[key] = merged(rows.get(key), answer)
    ordered = sorted(rows, key=lambda key: key[1].count("[^/]+"))
    return [(method, re.compile(path), rows[method, path]) for method, path in ordered]


def main() -> None:
    """The command."""
    rows = table(operations())

    def respond(received: Received) -> Reply:
        path = received.target.partition("?")[0]
        if path == "/v1/messages" and received.json().get("stream") is True:
            return replies.stream(replies.Answer())
        for method, pattern, answer in rows:
            if method == received.method and pattern.fullmatch(path):
                return replies.json_reply(200, answer)
        return replies.error(404)

    with Endpoint(respond=respond) as endpoint:
        sys.stdout.write(f"{endpoint.url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
