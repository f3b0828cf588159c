"""What a soup may be made of, and under which name: asked before torch is imported."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, listing
from foldcraft.common.paths import experiment_folder
from foldcraft.predictions import lineage
from foldcraft.predictions.finished import FinishedExperiment, open_finished

# What members may differ in. All else decides where a training begins, or what its net is and sees.
FREE = (
    *("seed", "augment", "train", "optim", "regularize", "distill", "probe"),
    *("finetune.layer_decay", "finetune.unfreeze_epochs", "finetune.lora_rank", "finetune.interpolate"),
)

MARK = "# The mean of the weights of"  # how the config of a soup begins


@dataclass(frozen=True)
class Ingredients:
    """Experiments whose weights may be averaged, all of them looked at in the views of the first.

    Attributes:
        folds: those that all members have finished.
    """

    members: tuple[FinishedExperiment, ...]
    folds: tuple[int, ...]


def with_seeds(configs: Sequence[Config], seeds: str | None) -> list[Config]:
    """The configs as they are, or the one there is with each of the seeds.

    The experiment with the config's own seed bears its own name, the others end in -s and their seed.

    Raises:
        FoldcraftError: several configs, or seeds that are no numbers.
    """
    if seeds is None:
        return list(configs)
    if len(configs) > 1:
        raise FoldcraftError("goes with one config", "--seeds", "name each config, without --seeds")
    words = seeds.split(",")
    if not all(word.isdecimal() for word in words):
        raise FoldcraftError(f"{seeds!r} are no seeds", "--seeds", "write 0,1,2")
    own = configs[0]
    named = {int(word): own.experiment if int(word) == own.seed else f"{own.experiment}-s{int(word)}" for word in words}
    return [own.model_copy(update={"seed": seed, "experiment": name}) for seed, name in named.items()]


def find_ingredients(configs: Sequence[Config]) -> Ingredients:
    """Finished experiments that may be averaged.

    Raises:
        FoldcraftError: fewer than two experiments, or than two folds that all have finished; what `check` and
            `check_files` raise, and all that `open_members` does.
    """
    if len(configs) < 2:
        raise FoldcraftError("a soup needs two experiments at the least", "--config", "name more, or give --seeds")
    configs = [config.model_copy(update={"tta": configs[0].tta}) for config in configs]
    for config in configs:
        check(configs[0], config)
    members = open_finished(configs)
    folds = [fold for fold in members[0].done_folds if all(fold in member.done_folds for member in members)]
    if len(folds) < 2:
        raise FoldcraftError(
            f"{len(folds)} folds are finished by all of {listing([member.name for member in members])}",
            "--config",
            "train two at the least: a choice is judged on a fold that had no say in it",
        )
    check_files(members, folds)
    return Ingredients(tuple(members), tuple(folds))


def check(first: Config, other: Config) -> None:
    """See that an experiment may go into a soup with the first: trained, and from the same weights on the same images.

    Raises:
        FoldcraftError: it may not.
    """
    if lineage.soup_members(other):
        raise FoldcraftError("is a soup itself", other.experiment, "name the experiments that it was made of")
    if other.competition.metadata:
        hint = "blend it by infer.py, or train it with competition.metadata=null"
        raise FoldcraftError("sees metadata, which soups are not made for", other.experiment, hint)
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
            "experiments may differ in seed, augment, train, optim and regularize; blend others by infer.py",
        )


def _flat(settings: dict[str, object]) -> Iterator[tuple[str, object]]:
    for section, value in settings.items():
        if isinstance(value, dict):
            yield from ((f"{section}.{key}", inner) for key, inner in value.items())
        else:
            yield section, value


def check_files(members: Sequence[FinishedExperiment], folds: Sequence[int]) -> None:
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


def check_free(config: Config, members: Mapping[str, str] | None = None) -> None:
    """See that no other experiment lies where a soup of that name would.

    Args:
        config: of the soup, or of any experiment with that name.
        members: what it is made of, with the digests of their settings; None: that is not known yet.

    Raises:
        FoldcraftError: one does.
    """
    for path in sorted(experiment_folder(config).glob("fold*/config.yaml")):
        made_of = lineage.soup_members(config)
        if not made_of or (members is not None and made_of != members):
            what = "another soup" if made_of else "an experiment that was trained"
            raise FoldcraftError(f"holds {what}", path.parent, "give the soup another name with --name")


def check_target(target: Path) -> None:
    """See that the config which is to be written takes the place of no other.

    Raises:
        FoldcraftError: it would.
    """
    if target.is_file() and not target.read_text().startswith(MARK):
        raise FoldcraftError("is there already, and no soup", target, "give the soup another name with --name")
