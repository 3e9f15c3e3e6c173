"""Recipes as plain data (what YAML holds) and back. Strict: what is not understood is an error that says what is known.

    name: mine
    ops:
      - sometimes: 0.8
        ops:
          - gaussian_blur: {sigma: {choice: [0.1, 0.2, 0.3]}}
          - add: {value: {uniform: [-5, 15]}, per_channel: true}
          - one_of:
              - rotate: {angle: {uniform: [-10, 10]}}
              - perspective: {scale: 0.03}
      - flip: {p: 0.5}

An operation is called as its class, in lower case with underscores; its settings are the fields of the class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType
from typing import Any

from loaders.augment import crops, jitter, randaugment, recipe
from loaders.augment.recipe import OneOf, Op, Recipe, Sometimes
from loaders.augment.values import Choice, Integers, Uniform, Value

_VALUES = MappingProxyType({"uniform": Uniform, "integers": Integers})


def recipe_from_config(config: Mapping[str, Any]) -> Recipe:
    """Raises: ValueError, with the place, for anything that is not understood."""
    _known_keys("a recipe", config, ("name", "ops"))
    return Recipe(_ops(config.get("ops", []), "ops"), str(config.get("name", "")))


def recipe_to_config(what: Recipe) -> dict[str, Any]:
    """The plain data of which `recipe_from_config` makes an equal recipe."""
    return {"name": what.name, "ops": [_op_to_config(op) for op in what.ops]}


def _ops(config: Any, place: str) -> tuple[Op, ...]:
    if not isinstance(config, list):
        raise ValueError(f"{place} is {config!r}; it must be a list of operations")
    return tuple(_op(each, f"{place}[{index}]") for index, each in enumerate(config))


def _op(config: Any, place: str) -> Op:
    if not isinstance(config, Mapping) or not config:
        raise ValueError(f"{place} is {config!r}; it must be an operation, such as {{flip: {{p: 0.5}}}}")
    if "sometimes" in config:
        _known_keys(place, config, ("sometimes", "ops"))
        return Sometimes(_number(config["sometimes"], f"{place}.sometimes"), _ops(config.get("ops"), f"{place}.ops"))
    if len(config) != 1:
        raise ValueError(f"{place} has the keys {', '.join(config)}; an operation has one, its name")
    ((name, settings),) = config.items()
    if name == "one_of":
        return OneOf(_ops(settings, f"{place}.one_of"))
    kinds = _kinds()
    if name not in kinds:
        raise ValueError(f"{place}: there is no operation {name!r}{_nearest(name, kinds)}")
    kind, settings = kinds[name], settings or {}
    if not isinstance(settings, Mapping):
        raise ValueError(f"{place}.{name} is {settings!r}; it must be a mapping of settings")
    names = {each.name: each for each in fields(kind)}
    _known_keys(f"{place}.{name}", settings, tuple(names))
    missing = [key for key, each in names.items() if each.default is MISSING and key not in settings]
    if missing:
        raise ValueError(f"{place}.{name} lacks {', '.join(missing)}")
    return kind(**{key: _setting(value, f"{place}.{name}.{key}") for key, value in settings.items()})


def _setting(config: Any, place: str) -> Any:
    """A value to be drawn, a plain number, a word, a switch, or a list of these."""
    if isinstance(config, list):
        return tuple(_setting(each, place) for each in config)
    if not isinstance(config, Mapping):
        return config
    ((kind, settings),) = config.items() if len(config) == 1 else [("", None)]
    if kind == "choice" and isinstance(settings, list):
        return Choice(tuple(_number(each, place) for each in settings))
    if kind in _VALUES and isinstance(settings, list) and len(settings) == 2:
        return _VALUES[kind](*(_number(each, place) for each in settings))
    raise ValueError(
        f"{place} is {config!r}; a range is {{uniform: [low, high]}}, {{integers: [low, high]}} or {{choice: [...]}}"
    )


def _number(value: Any, place: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{place} is {value!r}; it must be a number")
    return value


def _op_to_config(op: Op) -> dict[str, Any]:
    if isinstance(op, Sometimes):
        return {"sometimes": op.p, "ops": [_op_to_config(each) for each in op.ops]}
    if isinstance(op, OneOf):
        return {"one_of": [_op_to_config(each) for each in op.ops]}
    settings = {each.name: _setting_to_config(getattr(op, each.name)) for each in fields(op)}  # type: ignore[arg-type]
    return {_name(type(op)): settings}


def _setting_to_config(value: Value | tuple | str) -> Any:
    if isinstance(value, Choice):
        return {"choice": list(value.values)}
    if isinstance(value, Uniform | Integers):
        return {type(value).__name__.lower(): [value.low, value.high]}
    return [_setting_to_config(each) for each in value] if isinstance(value, tuple) else value


@cache
def _kinds() -> dict[str, Any]:
    """Every operation there is, by its name in a config."""
    found = [kind for module in (recipe, crops, jitter, randaugment) for kind in vars(module).values()]
    ops = [kind for kind in found if isinstance(kind, type) and is_dataclass(kind) and hasattr(kind, "draw")]
    others = (Sometimes, OneOf, Uniform, Integers, Choice)
    return {_name(kind): kind for kind in ops if kind not in others}


def _name(kind: type) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()


def _known_keys(place: str, config: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if not isinstance(config, Mapping):
        raise ValueError(f"{place} is {config!r}; it must be a mapping")
    for key in config:
        if key not in known:
            raise ValueError(f"{place} has the key {key!r}{_nearest(key, known)}")


def _nearest(word: str, known: Any) -> str:
    near = get_close_matches(str(word), list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
