"""Settings, plans and arrays as JSON and one .npz, which read without running code from the file.

A value is written with the name of its class, and is made again by that class's constructor from its fields. Only
classes of this project are looked up.
"""

import importlib
import io
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd

from foldcraft.common.config import BaseModel
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.files import parse_json, read_bytes, write_atomic

PREFIX = "foldcraft."
TABLE, ARRAYS = "pack.json", "pack.npz"
TEXT = pd.Series(["a"]).dtype  # of a column of text: pandas 3 has a type of its own


def write(folder: Path, value: object) -> None:
    """Write a value into a folder, as `TABLE` and `ARRAYS`."""
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_plain(value, arrays), indent=1)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    write_atomic(folder / TABLE, text)
    write_atomic(folder / ARRAYS, stream.getvalue())


def read(folder: Path) -> Any:
    """The value that `write` wrote.

    Raises:
        FoldcraftError: the files are missing or damaged.
    """
    try:
        with np.load(io.BytesIO(read_bytes(folder / ARRAYS)), allow_pickle=False) as arrays:
            return _value(parse_json(read_bytes(folder / TABLE)), arrays)
    except FoldcraftError:
        raise
    except Exception as error:  # a reader of damaged files raises errors of every kind
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise FoldcraftError(
            f"a damaged pack: {reason}", folder, "pack the blend again, and upload all of it"
        ) from None


def _plain(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        arrays[f"a{len(arrays)}"] = value
        return {"$array": f"a{len(arrays) - 1}"}
    if isinstance(value, PurePath):
        return {"$path": str(value)}
    if isinstance(value, slice):
        return {"$slice": [value.start, value.stop]}
    if isinstance(value, list):
        return [_plain(each, arrays) for each in value]
    if isinstance(value, tuple):
        return {"$tuple": [_plain(each, arrays) for each in value]}
    if isinstance(value, Mapping):
        return {"$dict": [[_plain(key, arrays), _plain(each, arrays)] for key, each in value.items()]}
    if isinstance(value, pd.DataFrame):
        return {"$table": {str(name): value[name].where(value[name].notna(), None).tolist() for name in value}}
    kind = type(value)
    if not kind.__module__.startswith(PREFIX) or not (is_dataclass(value) or isinstance(value, BaseModel)):
        raise TypeError(f"{kind.__module__}.{kind.__qualname__} cannot be packed")
    names = type(value).model_fields if isinstance(value, BaseModel) else [each.name for each in fields(value)]
    return {"$": f"{kind.__module__}:{kind.__qualname__}"} | {
        name: _plain(getattr(value, name), arrays) for name in names
    }


def _value(plain: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(plain, list):
        return [_value(each, arrays) for each in plain]
    if not isinstance(plain, dict):
        return plain
    if "$" in plain:
        made = {name: _value(each, arrays) for name, each in plain.items() if name != "$"}
        kind = _class(plain["$"])
        return kind.model_construct(**made) if issubclass(kind, BaseModel) else kind(**made)
    ((how, content),) = plain.items()
    if how == "$array":
        return arrays[content]
    if how == "$path":
        return Path(content)
    if how == "$slice":
        return slice(*content)
    if how == "$tuple":
        return tuple(_value(each, arrays) for each in content)
    if how == "$dict":
        return {_value(key, arrays): _value(each, arrays) for key, each in content}
    if how == "$table":
        return pd.DataFrame({name: pd.Series(cells, dtype=TEXT) for name, cells in content.items()})
    raise ValueError(f"{how} is not known")


def _class(name: str) -> type:
    module, _, qualified = name.partition(":")
    if not module.startswith(PREFIX):
        raise ValueError(f"{name} is no class of a pack")
    found = getattr(importlib.import_module(module), qualified)
    if not isinstance(found, type) or not (is_dataclass(found) or issubclass(found, BaseModel)):
        raise ValueError(f"{name} is no class of a pack")
    return found
