"""Arithmetic and comparison over the columns of a table, and nothing else: no calls, no attributes, no other names."""

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from foldcraft.common.errors import FoldcraftError, shorten, suggest

LONGEST = 2000  # characters
DEEPEST = 100  # parts within parts
LARGEST_POWER, LARGEST = 16, 1e100
EXACT = 2**53  # up to here whole numbers are not rounded
UNDEFINED = np.inf  # what 1 / 0 and all that is made of it is; an empty cell is NaN
NAME = re.compile(  # of a column: in braces, or a word of other letters than a to z, which Python would write otherwise
    r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\{([^{}]*)\}|((?:[A-Za-z_]|[^\x00-\x7f\s])(?:\w|[^\x00-\x7f\s])*)"
)
PLACEHOLDER = "_column_{}_"
ALLOWED = "columns, numbers, texts, + - * / // % **, comparisons, in, and, or, not"
ARITHMETIC: Mapping[type, Callable] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: np.divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.mod,
    ast.Pow: np.power,
}
COMPARISON: Mapping[type, Callable] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
NODES = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Name, ast.Constant, ast.Load),
    *(ast.And, ast.Or, ast.Not, ast.USub, ast.UAdd, ast.In, ast.NotIn, ast.Tuple, ast.List),
    *ARITHMETIC,
    *COMPARISON,
)


@dataclass(frozen=True)
class Expression:
    """An expression that has been read.

    Attributes:
        columns: that it speaks of, each once.
        where: the setting that it is from.
    """

    text: str
    tree: ast.expr
    columns: tuple[str, ...]
    where: str
    names: Mapping[str, str] = field(repr=False)


def read(text: str, where: str) -> Expression:
    """Read an expression; a column whose name is no word stands in braces, {Bild Nr}.

    Raises:
        FoldcraftError: it is more than arithmetic and comparison.
    """
    if len(text) > LONGEST:
        raise FoldcraftError(f"has {len(text)} characters, at most {LONGEST}", where, "make columns of its parts")
    braced: dict[str, str] = {}

    def placed(found: re.Match) -> str:
        column = found[2] if found[1] is None else found[1]
        if column is None or (found[1] is None and column.isascii()):
            return found[0]
        name = PLACEHOLDER.format(len(braced))
        braced[name] = column
        return name

    try:
        tree = ast.parse(NAME.sub(placed, text).strip(), mode="eval").body
        nodes = _nodes(tree)
        _check(nodes)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        shown = error.msg if isinstance(error, SyntaxError) else str(error) or "it is too deep"
        what = f"{shorten(text, 60)!r} cannot be read: {shorten(shown, 80)}"
        raise FoldcraftError(what, where, f"there may be {ALLOWED}") from None
    names = {node.id: braced.get(node.id, node.id) for node in nodes if isinstance(node, ast.Name)}
    columns = tuple(dict.fromkeys(names[node.id] for node in nodes if isinstance(node, ast.Name)))
    return Expression(text, tree, columns, where, names)


def _nodes(tree: ast.expr) -> list[ast.AST]:
    found, level = [], [tree]
    for _ in range(DEEPEST):
        found += level
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if level:
        raise ValueError("it is too deep")
    return found


def _check(nodes: Sequence[ast.AST]) -> None:
    for node in nodes:
        if not isinstance(node, NODES):
            raise ValueError(f"it has a {type(node).__name__}")
        if isinstance(node, ast.Constant) and (
            isinstance(node.value, bool) or type(node.value) not in (int, float, str)
        ):
            raise ValueError(f"it has {node.value!r}")
        if isinstance(node, ast.Constant) and not isinstance(node.value, str) and abs(node.value) > LARGEST:
            raise ValueError(f"it has a number above {LARGEST:g}")
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            power = node.right.value if isinstance(node.right, ast.Constant) else None
            if not isinstance(power, int | float) or not 0 <= power <= LARGEST_POWER:
                raise ValueError(f"a power is a number from 0 to {LARGEST_POWER}")
        if isinstance(node, ast.Compare):
            for op, right in zip(node.ops, node.comparators, strict=True):
                if isinstance(op, ast.In | ast.NotIn) != isinstance(right, ast.Tuple | ast.List):
                    raise ValueError("after in stands a list of numbers or texts, ('a', 'b')")
        if isinstance(node, ast.Tuple | ast.List) and not all(isinstance(one, ast.Constant) for one in node.elts):
            raise ValueError("a list holds numbers or texts alone")


@dataclass(frozen=True)
class _Value:
    """Numbers (N,), texts (N,), or both of a column whose cells are all numbers; NaN: not known."""

    numbers: np.ndarray | None = None
    texts: np.ndarray | None = None
    column: str = ""
    literal: bool = False


def evaluate(expression: Expression, table: pd.DataFrame, every_text: bool) -> list[str | None]:
    """The value of each row as text, whole numbers without a point; None where a cell that it speaks of is empty.

    Args:
        every_text: refuse a text that no row has in the column that it is compared with.

    Raises:
        FoldcraftError: text where a number is needed.
    """
    worker = _Evaluation(expression, table, every_text)
    with np.errstate(all="ignore"):
        value = worker.of(expression.tree)
    if value.texts is not None and (value.numbers is None or value.column):
        words = np.broadcast_to(value.texts, len(table)).tolist()
        return [None if gone else word for word, gone in zip(words, worker.unknown, strict=True)]
    assert value.numbers is not None
    numbers = np.where(worker.unknown, np.nan, np.broadcast_to(value.numbers, len(table)).astype(np.float64))
    return [as_text(number) if np.isfinite(number) else None for number in numbers.tolist()]


def as_text(number: float) -> str:
    """A number, without a point where it is whole."""
    return str(int(number)) if number == int(number) and abs(number) <= EXACT else repr(float(number))


class _Evaluation:
    def __init__(self, expression: Expression, table: pd.DataFrame, every_text: bool) -> None:
        self.expression, self.table, self.every_text = expression, table, every_text
        # An empty cell that is compared with the empty text is known to be empty.
        asked = {
            expression.names[side.id]
            for node in ast.walk(expression.tree)
            if isinstance(node, ast.Compare)
            for side in (node.left, *node.comparators)
            if isinstance(side, ast.Name) and _speaks_of_nothing(node)
        }
        gaps = [table[name].str.strip().to_numpy(dtype=str) == "" for name in expression.columns if name not in asked]
        self.unknown = np.any(gaps, axis=0) if gaps else np.zeros(len(table), dtype=bool)

    def of(self, node: ast.expr) -> _Value:
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                return _Value(texts=np.array(node.value), literal=True)
            return _Value(numbers=np.array(float(node.value)), literal=True)
        if isinstance(node, ast.Name):
            return self._column(self.expression.names[node.id])
        if isinstance(node, ast.BinOp):
            return _Value(_arithmetic(node.op, self._number(node.left), self._number(node.right)))
        if isinstance(node, ast.UnaryOp):
            number = self._number(node.operand)
            return _Value(_not(number) if isinstance(node.op, ast.Not) else number * self._sign(node.op))
        if isinstance(node, ast.BoolOp):
            return _Value(_joined(node.op, [self._number(part) for part in node.values]))
        assert isinstance(node, ast.Compare)
        return self._compared(node)

    def _sign(self, op: ast.unaryop) -> float:
        return -1.0 if isinstance(op, ast.USub) else 1.0

    def _column(self, name: str) -> _Value:
        cells = self.table[name].str.strip()
        numbers = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
        texts = cells.to_numpy(dtype=str)
        are_numbers = (np.isfinite(numbers) | (texts == "")).all()
        return _Value(numbers if are_numbers else None, texts, name)

    def _number(self, node: ast.expr) -> np.ndarray:
        value = self.of(node)
        if value.numbers is None:
            raise self._no_number(value)
        self._check_exact(value)
        return value.numbers

    def _check_exact(self, value: _Value) -> None:
        """See that no whole number of a column is so large that arithmetic rounds it, as ids of 17 digits are."""
        large = np.abs(value.numbers) >= EXACT if value.column and value.numbers is not None else np.array(False)
        for row in np.flatnonzero(large):
            cell = str(value.texts[row]) if value.texts is not None else ""
            if re.fullmatch(r"[+-]?\d+", cell) and int(cell) != EXACT:
                what = f"column {value.column!r} holds {shorten(cell, 40)} in row {row + 1}, which arithmetic rounds"
                raise FoldcraftError(
                    what, self.expression.where, "compare it with a text: == '123', or cut it by regex"
                )

    def _no_number(self, value: _Value) -> FoldcraftError:
        if not value.column:
            return FoldcraftError(f"{str(value.texts)!r} is no number", self.expression.where)
        numbers = pd.to_numeric(pd.Series(value.texts), errors="coerce").to_numpy(dtype=np.float64)
        row = int(np.flatnonzero(~np.isfinite(numbers) & (value.texts != ""))[0])
        what = f"column {value.column!r} is no number in row {row + 1}: {shorten(str(value.texts[row]), 40)!r}"
        return FoldcraftError(what, self.expression.where, "compare it with a text: == 'a'")

    def _compared(self, node: ast.Compare) -> _Value:
        left, said = node.left, []
        for op, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(op, ast.In | ast.NotIn):
                assert isinstance(right, ast.Tuple | ast.List)
                pairs = [self._pair(ast.Eq(), self.of(left), self.of(one)) for one in right.elts]
                found = _joined(ast.Or(), pairs) if pairs else np.array(0.0)
                said.append(found if isinstance(op, ast.In) else _not(found))
            else:
                said.append(self._pair(op, self.of(left), self.of(right)))
            left = right
        return _Value(_joined(ast.And(), said))

    def _pair(self, op: ast.cmpop, left: _Value, right: _Value) -> np.ndarray:
        if left.numbers is not None and right.numbers is not None:
            self._check_exact(left)
            self._check_exact(right)
            undefined = np.isinf(left.numbers) | np.isinf(right.numbers)
            return np.where(undefined, UNDEFINED, COMPARISON[type(op)](left.numbers, right.numbers))
        for text in (left, right):
            if text.texts is None or not isinstance(op, ast.Eq | ast.NotEq):
                other = right if text is left else left
                raise self._no_number(other if text.texts is None or text.numbers is not None else text)
        for literal, column in ((left, right), (right, left)):
            if literal.literal and column.column and self.every_text:
                self._check_is_there(str(literal.texts), column)
        return COMPARISON[type(op)](left.texts, right.texts) * 1.0

    def _check_is_there(self, text: str, column: _Value) -> None:
        if text and not (column.texts == text).any():
            known = sorted(set(column.texts.tolist()) - {""})
            what = f"no row has {shorten(text, 40)!r} in column {column.column!r}"
            raise FoldcraftError(what, self.expression.where, shorten(suggest(text, known), 150))


def _arithmetic(op: ast.operator, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """What an operation gives; undefined where it has no finite result, or something undefined in it."""
    made = ARITHMETIC[type(op)](left, right)
    empty = np.isnan(left) | np.isnan(right)
    return np.where(np.isinf(left) | np.isinf(right) | (~np.isfinite(made) & ~empty), UNDEFINED, made)


def _not(part: np.ndarray) -> np.ndarray:
    return np.where(np.isinf(part), UNDEFINED, part == 0)


def _joined(op: ast.boolop, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Parts joined by and, or: 1 or 0 where one of them decides it, whatever the others are."""
    decisive = isinstance(op, ast.Or)
    decided, undefined = np.array(False), np.array(False)
    for part in parts:
        known = ~np.isinf(part)
        decided, undefined = decided | (known & ((part != 0) == decisive)), undefined | ~known
    return np.where(decided, decisive, np.where(undefined, UNDEFINED, not decisive))


def _speaks_of_nothing(node: ast.Compare) -> bool:
    constants = [one for side in (node.left, *node.comparators) for one in ast.walk(side)]
    return any(isinstance(one, ast.Constant) and one.value == "" for one in constants)
