"""What the form of a submission is told by."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from foldcraft.data.host_files.sample_rows import SubmissionRequest
from foldcraft.data.targets.target import Target
from foldcraft.metrics.metric import Wants
from foldcraft.metrics.spaces import Space


@dataclass(frozen=True)
class FileRequest:
    """What the host asks for in one file, and what is known to answer it by.

    Attributes:
        id_column: of the sample.
        wants: what the metric takes; None: nothing says it, and the cells of the sample show it.
        judge: a metric of two classes that judges by the second; "" for any other.
    """

    target: Target
    sample: pd.DataFrame
    id_column: str
    submission: SubmissionRequest
    wants: Wants | None = None
    judge: str = ""

    @property
    def space(self) -> Space:
        """The form of predictions."""
        return self.target.space

    @property
    def answers(self) -> list[str]:
        """The columns beside the ids."""
        return [column for column in self.sample.columns if column != self.id_column]
