"""All that a page is made of, gathered from the rooms that know it and the files that lie about."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, said_by
from foldcraft.common.paths import report_file, study_folder
from foldcraft.data.images.sources import Source, files_of
from foldcraft.data.targets.classes import Classes
from foldcraft.data.targets.target import Target
from foldcraft.ensemble import blend
from foldcraft.ensemble.blend import Combined
from foldcraft.ensemble.nested import BlendCandidate
from foldcraft.metrics import significance
from foldcraft.metrics.parts import Part, parts_of
from foldcraft.metrics.significance import ClassScore
from foldcraft.predictions.finished import FinishedExperiment
from foldcraft.submission import leaderboard, ledger
from foldcraft.submission.leaderboard import LeaderboardHistory
from foldcraft.views.report import mistakes
from foldcraft.views.report.blocks import in_words
from foldcraft.views.report.mistakes import Mistake


@dataclass(frozen=True)
class Evidence:
    """What is known of some experiments of one competition.

    Attributes:
        combined: their blend.
        looks: of each member, log-probabilities (V, N, K) of the rows that were judged, as `combined.views` names them.
        submissions: folder of the ledger.
        page: where the page will lie.
    """

    members: Sequence[FinishedExperiment]
    combined: Combined
    looks: Sequence[np.ndarray]
    submissions: Path
    page: Path

    @property
    def config(self) -> Config:
        return self.members[0].experiment.config

    @property
    def classes(self) -> Classes:
        return self.members[0].experiment.competition.classes

    @property
    def metric(self) -> str:
        return self.combined.truth.metric.name

    @property
    def metric_words(self) -> str:
        """The metric as people say it, with what was chosen of it."""
        metric = self.combined.truth.metric
        return in_words(metric.name) + (f" ({metric.options})" if metric.options else "")

    @property
    def target(self) -> Target:
        return self.members[0].experiment.competition.target

    @property
    def chosen(self) -> BlendCandidate:
        return self.combined.selection.chosen

    @cached_property
    def plain(self) -> BlendCandidate:
        """The chosen combination without its decision rule: its probabilities are meant as such."""
        return self.combined.selection.before_rule

    @cached_property
    def strongest(self) -> int:
        """Place of the member that counts most; of equals the one with the better score."""
        shares, alone = self.chosen.plan.combination.shares, self.combined.selection.members
        sign = self.combined.truth.metric.sign
        return max(range(len(self.members)), key=lambda k: (round(shares[k], 6), sign * alone[k].score.value))

    @cached_property
    def answers(self) -> np.ndarray:
        """The nested answer to each row, as the truth is written: a class index (N,), else (N, ·)."""
        return self.target.answered(self.chosen.nested)

    @property
    def rows(self) -> np.ndarray:
        """Place of each judged row among the competition's training rows, or its answers (N,)."""
        return self.combined.rows

    @property
    def makes_answers(self) -> bool:
        """Do several images make one answer?"""
        return self.members[0].experiment.competition.answering is not None

    @property
    def thing(self) -> str:
        """What is judged: an image, or an answer of several."""
        return "answer" if self.makes_answers else "image"

    def scored(self, name: str) -> np.ndarray:
        """What a measure is given: what is decided after the decision rule, all else before it (N, W)."""
        of = self.chosen if name in ("F1", "macro F1", "accuracy") else self.plain
        return self.target.space.scored(of.nested)

    @property
    def image_rows(self) -> np.ndarray:
        """Place of the image of each judged row among the training rows (N,); of an answer's images the first."""
        made = self.members[0].experiment.competition.answering
        return self.rows if made is None else made.first[self.rows]

    @property
    def ids(self) -> np.ndarray:
        """Ids of the judged rows (N,)."""
        return self.members[0].experiment.competition.answers.train_ids[self.rows]

    @cached_property
    def cases(self) -> list[Mistake]:
        """Wrong answers, the worst first; where answers are near or far, all rows."""
        members, truth = [one.nested for one in self.combined.selection.members], self.combined.truth.targets
        if truth.ndim == 1:
            return mistakes.find_mistakes(self.answers, self.plain.nested, truth, members)
        return mistakes.find_worst(self.target, self.chosen.nested, self.plain.nested, truth, members)

    @cached_property
    def parts(self) -> list[Part]:
        """The labels, heads or columns; none of one label a row."""
        truth = self.combined.truth
        return parts_of(truth.space, truth.targets, self.target.heads, truth.metric)

    @cached_property
    def each_class(self) -> list[ClassScore]:
        """How well each class is answered, of one label a row."""
        truth = self.combined.truth
        return significance.each_class(truth.targets, np.exp(self.chosen.nested), self.classes.names, truth.units)

    @cached_property
    def manifests(self) -> list[dict[int, dict[str, Any]]]:
        """Of each member, the manifest of each finished fold."""
        return [{fold: one.folder(fold).read_manifest() for fold in one.done_folds} for one in self.members]

    def seconds(self, member: int) -> float:
        """Training time of a member's folds."""
        return sum(manifest.get("seconds", 0) for manifest in self.manifests[member].values())

    def history(self, member: int) -> pd.DataFrame | None:
        """A member's epochs, fold by fold; None where there were none."""
        folds = self.members[member].done_folds
        files = {fold: self.members[member].folder(fold).history for fold in folds}
        read = [pd.read_csv(file).assign(fold=fold) for fold, file in files.items() if file.is_file()]
        return pd.concat(read) if read else None

    @cached_property
    def standing(self) -> LeaderboardHistory | None:
        """The competition's submissions; None where there is none yet."""
        name = self.config.competition.name
        rows = ledger.read(ledger.path_in(self.submissions), name)
        found = leaderboard.read(self.submissions, rows[rows["competition"] == name])
        return next((one for one in found if one.metric == self.metric), None)

    @cached_property
    def audited(self) -> dict[str, Any] | None:
        """What the audit left: `findings`, and `not_looked_at`; None where there was none."""
        found = read_json(self.study("audit") / "summary.json")
        if found is None:
            return None
        about = found if isinstance(found, dict) else {"findings": found}
        findings = [one for one in about.get("findings", []) if isinstance(one, dict)]
        return {"findings": findings, "not_looked_at": about.get("not_looked_at", [])}

    def link(self, source: Source) -> str:
        """A path as the page links to it; of an image of several files the first, of one of none the page itself."""
        path = next(iter(files_of(source)), self.page)
        return quote(Path(os.path.relpath(path, self.page.parent)).as_posix())

    def study(self, name: str) -> Path:
        """Where a study's results lie."""
        return study_folder(self.config, name)


def gather_evidence(
    members: Sequence[FinishedExperiment], submissions: Path, callback: Callback, page: Path | None = None
) -> Evidence:
    """Blend the experiments and keep what the page shows of it.

    Args:
        submissions: folder of the ledger.
        page: where the page will lie; left out: `paths.report_file`.

    Raises:
        FoldcraftError: the experiments do not belong together, or the ledger is damaged.
    """
    blend.complete(members, callback)
    callback.say("judging the blend")
    combined = blend.combine(members)
    looks = [one.oof().at(combined.rows).all_predicted for one in members]
    looks += [one.predicted for one in combined.boosted]
    return Evidence(members, combined, looks, submissions, page or report_file(members[0].experiment.config))


def read_json(path: Path) -> Any:
    """What a study has left; None where it has not run.

    Raises:
        FoldcraftError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FoldcraftError(
            f"damaged: {said_by(error)}", path, "delete it and run the command that writes it again"
        ) from None
