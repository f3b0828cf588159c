"""What is generated from the settings: the list of all keys, and a JSON schema for editors."""

import types
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel

from foldcraft.common.config import Config, Section


def describe(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Every key as (name, type and range, default, description), in the order of this file."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from describe(field.annotation, f"{prefix}{name}.")
            continue
        default = "required" if field.is_required() else _show(field.default)
        yield f"{prefix}{name}", _type_of(field.annotation, field.metadata), default, field.description or ""


def _show(value: object) -> str:
    if value is None:
        return "–"
    return str(value).lower() if isinstance(value, bool) else str(value)


_BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}


def _type_of(annotation: Any, metadata: Sequence[object]) -> str:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        inner, *extra = typing.get_args(annotation)
        return _type_of(inner, [*extra, *metadata])
    if origin is Literal:
        return ", ".join(str(choice) for choice in typing.get_args(annotation))
    if origin in (types.UnionType, typing.Union):
        parts = [_type_of(part, metadata) for part in typing.get_args(annotation) if part is not type(None)]
        return " or ".join(parts)
    if origin in (list, dict):
        return origin.__name__
    bounds = []
    for constraint in metadata:
        for part in getattr(constraint, "metadata", [constraint]):
            bounds += [text.format(getattr(part, key)) for key, text in _BOUNDS.items() if hasattr(part, key)]
    base = {"str": "text", "Path": "path", "bool": "true or false"}.get(annotation.__name__, annotation.__name__)
    return " ".join([base, ", ".join(bounds)]).strip()


def json_schema() -> dict[str, Any]:
    """A JSON schema for editors: as `Config`, but a file may hold a part of it, and may extend others."""
    schema = Config.model_json_schema()
    for part in [schema, *schema.get("$defs", {}).values()]:
        part.pop("required", None)
    path = {"type": "string"}
    schema["properties"]["extends"] = {
        "description": "one or more YAML files, relative to this one, that it builds on; later ones win",
        "anyOf": [path, {"type": "array", "items": path}],
    }
    return schema
