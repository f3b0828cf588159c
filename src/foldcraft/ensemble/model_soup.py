"""Weight soups (model soups, arXiv 2203.05482): one net whose weights are the mean of those of several trainings.

Trainings that began at the same weights mostly end in one basin of the loss. There the mean of their weights predicts
about as well as the mean of their predictions, at the cost of a single net. The soup of fold k is made of models of
fold k alone, so none of its ingredients has seen the rows that it is judged on.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from foldcraft.common.callbacks import Callback
from foldcraft.common.errors import FoldcraftError, listing
from foldcraft.common.paths import hardware_file
from foldcraft.data.images.image_cache import ImageStore
from foldcraft.data.plain_images import PlainImages
from foldcraft.ensemble.blend import complete
from foldcraft.ensemble.soup_ingredients import Ingredients
from foldcraft.models import backbones, hardware
from foldcraft.models.backbones import Blueprint
from foldcraft.models.hardware import Hardware
from foldcraft.models.inputs import Inputs
from foldcraft.models.preprocessing import Preparation
from foldcraft.models.weight_averaging import measure_statistics
from foldcraft.predictions import answers, store
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.finished import FinishedExperiment
from foldcraft.predictions.fold_model import FoldModel
from foldcraft.predictions.inference import BATCH

State = dict[str, torch.Tensor]
Chosen = tuple[int, ...]  # which members, in rising order

CPU = Hardware("cpu", "32-true", "contiguous", "")  # where weights are read


def mean_of(states: Iterable[State]) -> State:
    """The mean of the weights of nets of one kind, summed in 64 bits; the states are asked for one by one.

    Integers are no weights: those of the first are taken, and all must be the same, but for counters of batches.

    Raises:
        FoldcraftError: the nets are of different kinds.
    """
    left = iter(states)
    first = next(left)
    sums = {name: value.double() for name, value in first.items() if value.is_floating_point()}
    count = 1
    for state in left:
        _check_kind(first, state)
        sums = {name: total + state[name] for name, total in sums.items()}
        count += 1
    return {name: (sums[name] / count).to(value.dtype) if name in sums else value for name, value in first.items()}


def _check_kind(first: State, other: State) -> None:
    shapes, others = ({name: value.shape for name, value in state.items()} for state in (first, other))
    strange = [name for name in {**shapes, **others} if shapes.get(name) != others.get(name)]
    if not strange:
        fixed = [name for name, value in first.items() if not value.is_floating_point()]
        known = [name for name in fixed if not name.endswith("num_batches_tracked")]
        strange = [name for name in known if not torch.equal(first[name], other[name])]
    if strange:
        raise FoldcraftError(f"nets of different kinds do not mix: {listing(strange, 3)}", hint="use one backbone")


def open_candidates(ingredients: Ingredients, callback: Callback) -> "SoupCandidates":
    """The experiments with their images, and with predictions in every view of the first.

    Raises:
        FoldcraftError: a model is damaged; an image cannot be read.
    """
    members, folds = ingredients.members, ingredients.folds
    complete(members, callback)
    config = members[0].experiment.config
    loaded = FoldModel.load(members[0].experiment, members[0].folder(folds[0]), CPU)
    stores = members[0].experiment.open_images([members[0].experiment.image_spec(loaded.blueprint)], callback)[0]
    chosen = hardware.for_inference(config.machine, hardware_file(config))
    return SoupCandidates(members, folds, *stores, loaded.blueprint, chosen, callback)


@dataclass(frozen=True)
class SoupCandidates:
    """Experiments whose weights may be averaged, and what means of them have predicted so far.

    Attributes:
        folds: those that all members have finished.
        train, test: the images that all of them look at.
    """

    members: tuple[FinishedExperiment, ...]
    folds: tuple[int, ...]
    train: ImageStore
    test: ImageStore
    blueprint: Blueprint
    hardware: Hardware
    callback: Callback
    _known: dict[tuple[Chosen, int], np.ndarray] = field(default_factory=dict)

    @property
    def experiment(self) -> Experiment:
        return self.members[0].experiment

    @property
    def views(self) -> tuple[str, ...]:
        return self.members[0].views

    @property
    def all(self) -> Chosen:
        """Every member."""
        return tuple(range(len(self.members)))

    def names(self, chosen: Chosen) -> list[str]:
        """Names of the experiments."""
        return [self.members[number].name for number in chosen]

    def rows(self, folds: Sequence[int]) -> np.ndarray:
        """The validation rows of those folds, or their answers, fold by fold (N,)."""
        data, split = self.experiment.competition, self.experiment.folds
        return np.concatenate([answers.places(data, split.valid_rows(fold)) for fold in folds])

    def predicted(self, chosen: Chosen, folds: Sequence[int]) -> np.ndarray:
        """Out-of-fold log-probabilities (N, K) of the mean of the chosen members' weights, in the order of `rows`."""
        data, split = self.experiment.competition, self.experiment.folds
        found = [answers.of_rows(data, self.in_views(chosen, fold), split.valid_rows(fold)) for fold in folds]
        return np.concatenate([data.space.pooled(each.by_way[0]) for each in found])

    @property
    def tried(self) -> int:
        """How many sets of several members have been predicted on a fold."""
        return sum(len(chosen) > 1 for chosen, _ in self._known)

    def in_views(self, chosen: Chosen, fold: int) -> np.ndarray:
        """Log-probabilities (V, N, K) of the fold's validation rows; of one member those that lie in its folder."""
        if (chosen, fold) not in self._known:
            if len(chosen) == 1:
                kept = store.read(self.members[chosen[0]].folder(fold).oof)
                found = kept.predicted[[kept.views.index(view) for view in self.views]]
            else:
                found = self._predict(chosen, fold)
            self._known[chosen, fold] = found
        return self._known[chosen, fold]

    def _predict(self, chosen: Chosen, fold: int) -> np.ndarray:
        model = FoldModel(self.experiment, fold, self.net(chosen, fold), self.blueprint, self.hardware, weights="")
        return model.predict_oof(self.train, self.views, Callback()).predicted

    def net(self, chosen: Chosen, fold: int) -> nn.Module:
        """The net whose weights are the mean of the chosen members' of that fold, in evaluation mode.

        Statistics of BatchNorm that were trained are measured anew on the fold's training images: the mean of several
        nets has activations that none of them had. Frozen ones are the same in all.

        Raises:
            FoldcraftError: a model is damaged, or a net of another kind.
        """
        net = backbones.rebuild(self.blueprint)
        net.load_state_dict(mean_of(self._state(number, fold) for number in chosen))
        placed = self.hardware.place(net.eval())
        measure_statistics(placed, self.experiment.config.finetune, self._learned(fold), self.hardware)
        return placed

    def _state(self, number: int, fold: int) -> State:
        member = self.members[number]
        loaded = FoldModel.load(member.experiment, member.folder(fold), CPU)
        if loaded.blueprint != self.blueprint:
            raise FoldcraftError(f"is another net than that of {self.members[0].name}", member.folder(fold).model)
        return loaded.model.state_dict()

    def _learned(self, fold: int) -> Iterator[Inputs]:
        """The fold's training images as inference sees them, in batches of about the same size."""
        prepare = Preparation.of(self.blueprint, self.hardware)
        images, rows = PlainImages(self.train, self.experiment.config.images), self.experiment.folds.train_rows(fold)
        for some in np.array_split(rows, max(1, round(len(rows) / BATCH))):
            yield Inputs(prepare(images.at(some)))
