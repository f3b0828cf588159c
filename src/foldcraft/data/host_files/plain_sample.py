"""A sample submission where the host has none: the test rows in their order, and a column for each answer."""

from pathlib import Path

import pandas as pd

from foldcraft.common.config import CompetitionConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.data.targets import reading
from foldcraft.data.targets.target import Target
from foldcraft.metrics import host_metric, scores
from foldcraft.metrics.spaces import ClassSpace


def of(names: CompetitionConfig, train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """Ids under the name that they have in the test table, answers under those of the target.

    Where the metric wants probabilities each class has a column.

    Raises:
        FoldcraftError: what is predicted is not understood; the id has the name of an answer.
    """
    target = reading.read(names, train, Path(names.train)).target
    columns = _columns(names, target)
    if names.test_id in columns:
        what = f"the answers' column is called {names.test_id!r}, as the id is"
        raise FoldcraftError(what, "competition.sample", "name another id, or a sample file")
    first = target.space.names[0] if target.space.form == "classes" and len(columns) < target.space.width else "0"
    return pd.DataFrame({names.test_id: test[names.test_id].to_numpy(), **dict.fromkeys(columns, first)})


def _columns(names: CompetitionConfig, target: Target) -> tuple[str, ...]:
    space = target.space
    if space.form == "values" or _wants(names, target) != "probabilities":
        return tuple(target.columns)
    return tuple(space.names)


def _wants(names: CompetitionConfig, target: Target) -> str:
    if host_metric.is_one(names.metric):
        return str(names.metric.get("wants", "labels")) if isinstance(names.metric, dict) else "labels"
    widths = target.space.widths if isinstance(target.space, ClassSpace) else ()
    return scores.get(names.metric, target.kind, target.heads, widths).wants
