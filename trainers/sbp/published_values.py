"""Values of the published configs: strings that its loader hands to Python's eval. Here only what cannot do harm is computed."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
_LONGEST = 10_000


def published_value(text: str) -> Any:
    """What a string of a published config means: `eval(EXPR)` and lists are computed, literals read, all else is a string.

    Raises: ValueError for an expression that is more than literals, sums and products of them.
    """
    if text.startswith("eval(") and text.endswith(")"):
        return _computed(text[len("eval(") : -1])
    if text.startswith("["):
        return _computed(text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _computed(text: str) -> Any:
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        raise ValueError(f"{text!r} is no expression: {error.msg}") from None
    return _value(tree.body, text)


def _value(node: ast.expr, text: str) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.List(elts=parts):
            return [_value(part, text) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(_value(part, text) for part in parts)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, text)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            first, second = _value(left, text), _value(right, text)
            for sequence, count in ((first, second), (second, first)):
                if (
                    isinstance(sequence, list | tuple | str)
                    and isinstance(count, int)
                    and len(sequence) * count > _LONGEST
                ):
                    raise ValueError(f"{text!r} makes a sequence of more than {_LONGEST} values")
            return _OPERATORS[type(op)](first, second)
    raise ValueError(f"{text!r} holds more than literals, sums and products: {ast.unparse(node)}")
