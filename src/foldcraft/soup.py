"""Weight soups (model soups, arXiv 2203.05482): one net whose weights are the mean of those of several trainings.

Trainings that began at the same weights mostly end in one basin of the loss. There the mean of their weights predicts
about as well as the mean of their predictions, at the cost of a single net. The soup of fold k is made of models of
fold k alone, so none of its ingredients has seen the rows that it is judged on.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import torch
from torch import nn

from foldcraft import backbones, hardware, predictions
from foldcraft.audience import Audience
from foldcraft.averaging import measure_statistics
from foldcraft.backbones import Blueprint
from foldcraft.blending import MemberRuns, complete, open_members
from foldcraft.config import Config
from foldcraft.errors import FoldcraftError, listing
from foldcraft.foldmodel import FoldModel
from foldcraft.forward import Preparation
from foldcraft.hardware import Hardware
from foldcraft.images import ImageStore
from foldcraft.inference import BATCH
from foldcraft.loader import PlainImages
from foldcraft.predictions import log_mean
from foldcraft.rundir import hardware_file
from foldcraft.workspace import Workspace

State = dict[str, torch.Tensor]
Chosen = tuple[int, ...]  # which members, in rising order

# What members may differ in. All else decides where a training begins, or what its net is and sees.
FREE = (
    *("seed", "augment", "train", "distill", "probe"),
    *("finetune.layer_decay", "finetune.unfreeze_epochs", "finetune.lora_rank", "finetune.interpolate"),
)
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
        raise FoldcraftError(f"nets of different kinds do not mix: {listing(strange, 3)}", mend="use one backbone")


def open_pot(configs: Sequence[Config], audience: Audience) -> "Pot":
    """Finished experiments that may be averaged; they are all looked at in the views of the first.

    Raises:
        FoldcraftError: fewer than two experiments, or than two folds that all have finished; what `check` and
            `check_files` raise, and all that `open_members` does.
    """
    if len(configs) < 2:
        raise FoldcraftError("a soup needs two experiments at the least", "--config", "name more, or give --seeds")
    configs = [config.model_copy(update={"tta": configs[0].tta}) for config in configs]
    for config in configs:
        check(configs[0], config)
    members = open_members(configs)
    folds = [fold for fold in members[0].done_folds if all(fold in member.done_folds for member in members)]
    if len(folds) < 2:
        raise FoldcraftError(
            f"{len(folds)} folds are finished by all of {listing([member.name for member in members])}",
            "--config",
            "train two at the least: a choice is judged on a fold that had no say in it",
        )
    check_files(members, folds)
    complete(members, audience)
    config = members[0].work.config
    loaded = FoldModel.load(members[0].work, members[0].folder(folds[0]), CPU)
    stores = members[0].work.open_images([members[0].work.image_spec(loaded.blueprint)], audience)[0]
    chosen = hardware.for_inference(config.train, hardware_file(config))
    return Pot(tuple(members), tuple(folds), *stores, loaded.blueprint, chosen, audience)


def check(first: Config, other: Config) -> None:
    """See that an experiment may go into a soup with the first: trained, and from the same weights on the same images.

    Raises:
        FoldcraftError: it may not.
    """
    if other.soup:
        raise FoldcraftError("is a soup itself", other.experiment, "name the experiments that it was made of")
    if other.finetune.mode == "linear_probe":
        raise FoldcraftError(
            "trains nothing: its head is solved, and the same for every seed", other.experiment, "blend it by infer.py"
        )
    mine, theirs = (dict(_flat(config.training_settings())) for config in (first, other))
    kept = [name for name in mine if not name.startswith(tuple(f"{free}." for free in FREE)) and name not in FREE]
    different = [f"{name} is {mine[name]!r} and {theirs[name]!r}" for name in kept if mine[name] != theirs[name]]
    if different:
        raise FoldcraftError(
            f"{first.experiment} and {other.experiment} do not go into one soup: {listing(different, 3)}",
            "--config",
            "experiments may differ in seed, train and augment; blend others by infer.py",
        )


def _flat(settings: dict[str, object]) -> Iterator[tuple[str, object]]:
    for section, value in settings.items():
        if isinstance(value, dict):
            yield from ((f"{section}.{key}", inner) for key, inner in value.items())
        else:
            yield section, value


def check_files(members: Sequence[MemberRuns], folds: Sequence[int]) -> None:
    """See that the models were made from the same pixels and the same pretrained weights.

    Raises:
        FoldcraftError: they were not.
    """
    for what, told in (("images", "images"), ("pretrained", "pretrained weights")):
        found: dict[str, str] = {}
        for member, fold in product(members, folds):
            kept = member.folder(fold).read_manifest().get("fingerprints", {})
            found.setdefault(kept.get(what, ""), f"{member.name} (fold {fold})")
        if len(found) > 1:
            raise FoldcraftError(
                f"were made from different {told}: {listing(list(found.values()), 3)}",
                "--config",
                "train them again from the same files",
            )


@dataclass(frozen=True)
class Pot:
    """Experiments whose weights may be averaged, and what means of them have predicted so far.

    Attributes:
        folds: those that all members have finished.
        train, test: the images that all of them look at.
    """

    members: tuple[MemberRuns, ...]
    folds: tuple[int, ...]
    train: ImageStore
    test: ImageStore
    blueprint: Blueprint
    hardware: Hardware
    audience: Audience
    _known: dict[tuple[Chosen, int], np.ndarray] = field(default_factory=dict)

    @property
    def work(self) -> Workspace:
        return self.members[0].work

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
        """The validation rows of those folds, fold by fold (N,)."""
        return np.concatenate([self.work.folds.valid_rows(fold) for fold in folds])

    def log_probs(self, chosen: Chosen, folds: Sequence[int]) -> np.ndarray:
        """Out-of-fold log-probabilities (N, K) of the mean of the chosen members' weights, in the order of `rows`."""
        return np.concatenate([log_mean(self.in_views(chosen, fold)) for fold in folds])

    @property
    def tried(self) -> int:
        """How many sets of several members have been predicted on a fold."""
        return sum(len(chosen) > 1 for chosen, _ in self._known)

    def in_views(self, chosen: Chosen, fold: int) -> np.ndarray:
        """Log-probabilities (V, N, K) of the fold's validation rows; of one member those that lie in its folder."""
        if (chosen, fold) not in self._known:
            if len(chosen) == 1:
                kept = predictions.read(self.members[chosen[0]].folder(fold).oof)
                found = kept.log_probs[[kept.views.index(view) for view in self.views]]
            else:
                found = self._predict(chosen, fold)
            self._known[chosen, fold] = found
        return self._known[chosen, fold]

    def _predict(self, chosen: Chosen, fold: int) -> np.ndarray:
        model = FoldModel(self.work, fold, self.net(chosen, fold), self.blueprint, self.hardware, weights="")
        return model.predict_oof(self.train, self.views, Audience()).log_probs

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
        measure_statistics(placed, self.work.config.finetune, self._learned(fold), self.hardware)
        return placed

    def _state(self, number: int, fold: int) -> State:
        member = self.members[number]
        loaded = FoldModel.load(member.work, member.folder(fold), CPU)
        if loaded.blueprint != self.blueprint:
            raise FoldcraftError(f"is another net than that of {self.members[0].name}", member.folder(fold).model)
        return loaded.model.state_dict()

    def _learned(self, fold: int) -> Iterator[torch.Tensor]:
        """The fold's training images as inference sees them, in batches of about the same size."""
        prepare = Preparation.of(self.blueprint, self.hardware)
        images, rows = PlainImages(self.train, self.work.config.images), self.work.folds.train_rows(fold)
        for some in np.array_split(rows, max(1, round(len(rows) / BATCH))):
            yield prepare(images.__getitems__(some))
