"""What stands in for pydantic where it is not installed: settings that were validated before, and are only held.

A packed blend (`submission.pack`) is read on machines where nothing can be installed. Its settings went through the
whole schema when it was packed, so here classes need no more than their fields, defaults and copies.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

_REQUIRED = object()


class FieldInfo:
    """The default of a field."""

    def __init__(self, default: Any = _REQUIRED, default_factory: Callable[[], Any] | None = None) -> None:
        self.default, self.default_factory = default, default_factory

    def get_default(self, call_default_factory: bool = True) -> Any:
        """The default; None where there is none."""
        if self.default_factory is not None:
            return self.default_factory()
        return None if self.default is _REQUIRED else self.default


def Field(default: Any = _REQUIRED, **about: Any) -> FieldInfo:
    """A field as it is declared; of ranges and descriptions nothing is kept."""
    return FieldInfo(None if default is ... else default, about.get("default_factory"))


class BaseModel:
    """Settings with fields; nothing is validated."""

    model_fields: ClassVar[dict[str, FieldInfo]] = {}

    def __init_subclass__(cls, **about: Any) -> None:
        super().__init_subclass__(**about)
        own = {}
        for name in inspect.get_annotations(cls):
            declared = cls.__dict__.get(name, _REQUIRED)
            own[name] = declared if isinstance(declared, FieldInfo) else FieldInfo(declared)
        cls.model_fields = {**cls.model_fields, **own}

    def __init__(self, **values: Any) -> None:
        if strange := set(values) - set(self.model_fields):
            raise ValueError(f"{type(self).__name__} has no {', '.join(sorted(strange))}")
        for name, field in self.model_fields.items():
            object.__setattr__(self, name, values[name] if name in values else field.get_default())
        object.__setattr__(self, "model_fields_set", set(values))

    @classmethod
    def model_construct(cls, **values: Any) -> Any:
        """Settings from values that need no look."""
        return cls(**values)

    def model_copy(self, update: Mapping[str, Any] | None = None) -> Any:
        """The same with other values of some fields."""
        return type(self)(**{name: getattr(self, name) for name in self.model_fields} | dict(update or {}))

    def model_dump(self, exclude: Collection[str] = ()) -> dict[str, Any]:
        """The fields as plain values."""
        return {name: _plain(getattr(self, name)) for name in self.model_fields if name not in exclude}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash((type(self), str(self.model_dump())))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return value


def ConfigDict(**about: Any) -> dict[str, Any]:
    """Of no meaning here."""
    return about


def AfterValidator(check: Callable[..., Any]) -> Callable[..., Any]:
    """Of no meaning here."""
    return check


BeforeValidator = AfterValidator


def model_validator(mode: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Leaves a method as it is."""
    return lambda method: method
