"""The experiments of a submission, a soup, a comparison or a page: what each has finished and predicted."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from foldcraft.common import fingerprint
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, listing
from foldcraft.common.paths import FoldFolder, experiment_folder
from foldcraft.predictions import answers, oof, store, without_training_rows
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.oof import OOF
from foldcraft.predictions.store import Predictions

LONGEST_JOINED = 120  # letters of a name that is made of names; file systems take 255, with "-2.csv" and more behind it


@dataclass(frozen=True)
class FinishedExperiment:
    """One experiment as a member of a blend.

    Attributes:
        moved_to: folder of its folds, where it is another than the config says.
    """

    experiment: Experiment
    moved_to: Path | None = None

    @property
    def home(self) -> Path:
        """Folder of its folds."""
        return self.moved_to or experiment_folder(self.experiment.config)

    @property
    def name(self) -> str:
        return self.experiment.config.experiment

    @property
    def views(self) -> tuple[str, ...]:
        return tuple(self.experiment.config.tta.views)

    @cached_property
    def done_folds(self) -> list[int]:
        """Folds that are finished."""
        return [fold for fold in range(self.experiment.folds.count) if self.folder(fold).is_done]

    @property
    def missing_folds(self) -> list[int]:
        """Folds that are not."""
        return [fold for fold in range(self.experiment.folds.count) if fold not in self.done_folds]

    def folder(self, fold: int) -> FoldFolder:
        """Where the fold lies."""
        return FoldFolder.within(self.home, self.experiment.config, fold)

    def check_done(self) -> None:
        """Make sure that there are finished folds.

        Raises:
            FoldcraftError: there are none.
        """
        if not self.done_folds:
            raise FoldcraftError(
                "no fold is trained yet",
                self.home,
                "run `python src/train.py --fold all` with the same --config, or set runs=FOLDER that holds it",
            )

    def check(self) -> None:
        """Make sure that there are finished folds, and that they are of these settings, data and folds.

        Raises:
            FoldcraftError: there are none, or they are not.
        """
        self.check_done()
        identity = self.experiment.identity
        self.experiment.check_images({fold: identity.check_finished(self.folder(fold)) for fold in self.done_folds})

    def oof(self, name: str | None = None) -> OOF:
        """Out-of-fold predictions of the finished folds, in the config's views.

        Args:
            name: what the experiment is called in messages.
        """
        files = [self.folder(fold).oof for fold in self.done_folds]
        return oof.load(files, self.views, self.experiment.competition, name)

    def test(self) -> list[Predictions]:
        """Test predictions of each finished fold, of images."""
        return [store.read(self.folder(fold).test) for fold in self.done_folds]

    def test_answers(self, parts: Sequence[Predictions] | None = None) -> Predictions:
        """Test predictions, the mean over the finished folds, of answers; views as `OOF.all_views` has them.

        Args:
            parts: what some folds say, as `test` has it; left out: all finished ones.
        """
        mean = store.average_folds(self.test() if parts is None else parts, self.views)
        return answers.of_test(self.experiment.competition, mean)


def joined_name(members: Sequence[FinishedExperiment]) -> str:
    """What several experiments make is named by the competition and by them; of many by their number and a digest."""
    competition, names = members[0].experiment.competition.name, [member.name for member in members]
    whole = "_".join([competition, *names])
    if len(whole) <= LONGEST_JOINED:
        return whole
    return f"{competition}_{len(names)}_experiments-{fingerprint.of_values(names)[:8]}"


def open_finished(configs: Sequence[Config]) -> list[FinishedExperiment]:
    """The experiments of the configs; their images need not be there, and neither the rows that they learned from.

    Raises:
        FoldcraftError: they are of different competitions, one comes twice, or one has no finished fold.
    """
    names = [config.experiment for config in configs]
    if len(competitions := list(dict.fromkeys(config.competition.name for config in configs))) > 1:
        what = f"these experiments are of different competitions: {listing(competitions)}"
        raise FoldcraftError(what, "--config", "give configs of one of them")
    if len(set(names)) < len(names):
        raise FoldcraftError("an experiment is named twice", "--config", "each counts once")
    members = [FinishedExperiment(without_training_rows.opened(config)) for config in configs]
    for member in members:
        member.check()
    return members
