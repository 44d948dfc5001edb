"""Typed settings: a section of the config is a dataclass; a wrong key, type, choice or number ends in a one-line error."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from common.errors import UserError

S = typing.TypeVar("S")  # a dataclass of settings


# Former names of keys, by section; the error for a former name gives the present one.
RENAMED = {
    "recipe.probe": "linear_probe",
    "recipe.bucket": "length_group",
    "evaluation.probes": "mask_prompts",
}


def choice(*words: str) -> type[Enum]:
    """The type of a setting that takes one of these words."""
    return Enum("choice", {word: word for word in words})  # type: ignore[return-value]


def number(
    default: Any,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    words: tuple[str, ...] = (),
) -> Any:
    """A field with bounds; the setting may also be one of `words` (the field's type is Any then)."""
    bounds = {"least": least, "most": most, "above": above, "below": below, "words": words, "number": True}
    return dataclasses.field(default=default, metadata=bounds)


def section(schema: type) -> Any:
    """A field that holds another dataclass."""
    return dataclasses.field(default_factory=schema)


def several(*values: Any) -> Any:
    """A field that holds a list; `values` are its default."""
    return dataclasses.field(default_factory=lambda: list(values))


def named() -> Any:
    """A field that holds a dictionary whose keys are names of the user's own."""
    return dataclasses.field(default_factory=dict)


def checked(schema: type, values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """`values`, any subset of the keys of `schema`, converted to its types; UserError for the first value that does not fit.

    OmegaConf's structured configs check types, choices and keys. Bounds are metadata of the fields. The method `check` of a
    dataclass checks rules between several keys. `where` is the key of the section, for the message.
    """
    _check_keys(schema, values, where)
    try:
        typed = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.create(dict(values)))
        plain = OmegaConf.to_container(typed, resolve=False, enum_to_str=True)
    except OmegaConfBaseException as error:
        key = str(getattr(error, "full_key", "") or "")
        found = _field_at(schema, key)
        wanted = f"expected {_wanted(*found)}" if found else str(error).splitlines()[0]
        raise UserError(f"{_joined(where, key)}={_shown(_value_at(values, key))}: {wanted}.") from None
    result = _same_keys(values, plain)
    _check_bounds(schema, values, where)
    _check_together(schema, result, where)
    return result


def typed(schema: type[S], values: Mapping[str, Any], where: str = "") -> S:
    """`values` as an object of the dataclass `schema`, checked; missing keys have their defaults.

    Its sections are objects too, so that each room can be given its own. Raises UserError as `checked` does.
    """
    return _object_of(schema, checked(schema, values, where))


def plain(settings: Any) -> dict[str, Any]:
    """Settings as nested dictionaries, the form in which a run records and digests them."""
    return dataclasses.asdict(settings)


def _object_of(schema: type[S], values: Mapping[str, Any]) -> S:
    """An object of `schema` from values that are checked already."""
    hints, made = typing.get_type_hints(schema), {}
    for key, value in values.items():
        inner = _dataclass_in(hints[key])
        if inner and isinstance(value, list):
            made[key] = [_object_of(inner, part) for part in value]
        else:
            made[key] = _object_of(inner, value) if inner and isinstance(value, Mapping) else value
    return schema(**made)


def keys_of(schema: type) -> list[str]:
    """The keys of a section, or of a whole script."""
    return [field.name for field in dataclasses.fields(schema)]


def paths_of(schema: type, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """(dotted key, type) of every setting of `schema` and of the sections in it."""
    for name, hint in typing.get_type_hints(schema).items():
        yield f"{prefix}{name}", hint
        if inner := _dataclass_in(hint):
            yield from paths_of(inner, f"{prefix}{name}.")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ " Did you mean X?", or "" if no known word is similar."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]}?" if close else ""


def renamed(key: str) -> str | None:
    """The present name of a dotted key that was renamed, also inside a section of its own; None for any other key."""
    section, _, last = key.rpartition(".")
    new = RENAMED.get(f"{section.replace(' ', '.').rpartition('.')[2]}.{last}")
    return None if new is None else f"{section}.{new}"


def _joined(where: str, key: str) -> str:
    return f"{where}.{key}" if where and key else where or key


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def _without_none(hint: Any) -> tuple[Any, bool]:
    """The type without its None, and whether it had one."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        left = [part for part in typing.get_args(hint) if part is not type(None)]
        return (left[0] if len(left) == 1 else hint), len(left) < len(typing.get_args(hint))
    return hint, False


def _dataclass_in(hint: Any) -> type | None:
    """The dataclass that a field holds, directly or in a list."""
    bare, _ = _without_none(hint)
    if typing.get_origin(bare) is list:
        bare = typing.get_args(bare)[0]
    return bare if dataclasses.is_dataclass(bare) else None


def _field_at(schema: type, key: str) -> tuple[dataclasses.Field, Any] | None:
    found = None
    for word in key.replace("[", ".").replace("]", "").split("."):
        if word.isdigit():
            continue
        hints = typing.get_type_hints(schema) if dataclasses.is_dataclass(schema) else {}
        if word not in hints:
            return found
        found = next(f for f in dataclasses.fields(schema) if f.name == word), hints[word]
        schema = _dataclass_in(hints[word])  # type: ignore[assignment]
    return found


def _value_at(values: Any, key: str) -> Any:
    for word in filter(None, key.replace("[", ".").replace("]", "").split(".")):
        values = values[int(word)] if isinstance(values, list) else values.get(word) if isinstance(values, Mapping) else values
    return values


def _wanted(field: dataclasses.Field, hint: Any) -> str:
    """The values that a field accepts, for an error message."""
    bare, optional = _without_none(hint)
    if isinstance(bare, type) and issubclass(bare, Enum):
        words = "one of " + ", ".join([*(["null"] if optional else []), *(word.name for word in bare)])
        return words
    origin = typing.get_origin(bare)
    kind = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "{key: value}",
    }
    text = kind.get(
        origin or bare, "{" + ", ".join(typing.get_type_hints(bare)) + "}" if dataclasses.is_dataclass(bare) else "a number"
    )
    limits = {"least": "of at least", "above": "above", "most": "at most", "below": "below"}
    text += " and".join(f" {limits[k]} {field.metadata[k]:g}" for k in limits if field.metadata.get(k) is not None)
    text += "".join(f" or {word}" for word in field.metadata.get("words", ()))
    return text + " or null" * optional


def _check_keys(schema: type, values: Any, where: str) -> None:
    hints = typing.get_type_hints(schema)
    for key, value in values.items():
        if key not in hints:
            if new := renamed(_joined(where, key)):
                raise UserError(f"{_joined(where, key)}: this key is now {new.rpartition(': ')[2]}.")
            there = f" There are: {', '.join(hints)}." if len(hints) < 30 else ""
            raise UserError(f"{_joined(where, key)}: no such key.{did_you_mean(key, hints)}{there}")
        if inner := _dataclass_in(hints[key]):
            for number_, part in enumerate(value) if isinstance(value, list) else [("", value)]:
                if isinstance(part, Mapping):
                    _check_keys(inner, part, _joined(where, f"{key}[{number_}]" if number_ != "" else key))


def _check_bounds(schema: type, values: Any, where: str) -> None:
    """Check bounds, and the types that OmegaConf would convert silently: 3.7 to 3, true to 1."""
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        if field.name not in values:
            continue
        value, hint, key = values[field.name], hints[field.name], _joined(where, field.name)
        if inner := _dataclass_in(hint):
            for place, part in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(part, Mapping):
                    _check_bounds(inner, part, key if place is None else f"{key}[{place}]")
            continue
        bare, optional = _without_none(hint)
        is_number = bare in (int, float) or field.metadata.get("number")
        if not is_number or (value is None and (optional or hint is Any)) or value in field.metadata.get("words", ()):
            continue
        good = not isinstance(value, bool) and isinstance(value, int | float | str)
        if good and isinstance(value, str):
            good = bare is not Any
            value = float(value) if good else value  # OmegaConf has read it already
        good = good and math.isfinite(value) and not (bare is int and value != int(value))
        least, most, above, below = (field.metadata.get(word) for word in ("least", "most", "above", "below"))
        if not good or not (
            (least is None or value >= least)
            and (most is None or value <= most)
            and (above is None or value > above)
            and (below is None or value < below)
        ):
            raise UserError(f"{key}={_shown(values[field.name])}: expected {_wanted(field, hint)}.")


def _check_together(schema: type, values: dict[str, Any], where: str) -> None:
    for key, hint in typing.get_type_hints(schema).items():
        if (inner := _dataclass_in(hint)) and isinstance(values.get(key), dict):
            _check_together(inner, values[key], _joined(where, key))
    if check := getattr(schema, "check", None):
        check(values, where)


def _same_keys(values: Any, typed: Any) -> Any:
    """`typed` without the defaults of keys that `values` does not set."""
    if isinstance(values, Mapping) and isinstance(typed, Mapping):
        return {key: _same_keys(value, typed[key]) for key, value in values.items()}
    if isinstance(values, list) and isinstance(typed, list):
        return [_same_keys(a, b) for a, b in zip(values, typed, strict=True)]
    return values if type(values) is int and values == typed else typed  # 16 for a float stays 16, because digests depend on it
