"""Runs a host's metric in a process of its own; started by `host_metric` as a script, and imports nothing of Foldcraft.

It reads lines of JSON (first two tables, then which rows are drawn) and answers each with a line of JSON.
"""

import contextlib
import ctypes
import importlib.util
import inspect
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

Tables = tuple[pd.DataFrame, pd.DataFrame]
PR_SET_PDEATHSIG = 1  # from Linux's prctl.h


def main(file: str, function: str) -> None:
    """Answer until there are no more questions."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    questions, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    silent = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):  # the metric may print, or ask, what it likes
        os.dup2(silent, number)
    print("{}", file=answers, flush=True)  # it is ready
    score, tables = None, None
    for line in questions:
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                asked = json.loads(line)
                if "tables" in asked:
                    tables, key, pieces = _tables(asked), asked["id"], asked["pieces"]
                    answer = {}
                else:
                    score = score or _loaded(Path(file), function)
                    answer = {"score": _number(_called(score, *_drawn(tables, key, pieces, asked["rows"]), key))}
        except BaseException as error:  # a metric may call exit() too
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        answers.write(json.dumps({**answer, "printed": said.getvalue()[:300]}) + "\n")
        answers.flush()


def _loaded(file: Path, function: str) -> Callable:
    sys.path.append(str(file.parent))
    spec = importlib.util.spec_from_file_location("host_metric_code", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["host_metric_code"] = module
    spec.loader.exec_module(module)
    return getattr(module, function)


def _called(score: Callable, solution: pd.DataFrame, submission: pd.DataFrame, key: str) -> object:
    """Kaggle's own metrics take the name of the id column as well."""
    takes = inspect.signature(score).parameters.values()
    by_place = [one for one in takes if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    needed = [one for one in by_place if one.default is one.empty]
    named = {"row_id_column_name": key} if any(one.name == "row_id_column_name" for one in takes) else {}
    if not named and len(needed) == 3:
        return score(solution, submission, key)
    return score(solution, submission, **named)


def _number(value: object) -> float:
    if isinstance(value, bool | str) or np.ndim(value) != 0:
        raise TypeError(f"a {type(value).__name__} is returned, not a number")
    return float(value)


def _tables(asked: dict) -> Tables:
    return tuple(pd.DataFrame(asked["tables"][name]) for name in ("solution", "submission"))


def _drawn(tables: Tables, key: str, pieces: list[list[str]], rows: list[int] | None) -> Tables:
    """The rows that are drawn, with ids of their own; fresh copies, as metrics like to drop columns in place.

    Args:
        pieces: what stands around a row's number in the ids of each of its lines.
    """
    if rows is None:
        return tuple(table.copy() for table in tables)
    lines = [row * len(pieces) + line for row in rows for line in range(len(pieces))]
    drawn = [table.iloc[lines].reset_index(drop=True) for table in tables]
    for table in drawn:
        table[key] = [str(row).join(around) for row in range(len(rows)) for around in pieces]
    return tuple(drawn)


if __name__ == "__main__":
    main(*sys.argv[1:])
