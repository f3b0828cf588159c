"""Settings that do not go together, each of which would be fine by itself."""

from foldcraft.common.config import Config, DistillConfig, ImagesConfig
from foldcraft.common.errors import FoldcraftError


def check(config: Config) -> None:
    """See that the settings go together.

    Raises:
        FoldcraftError: they do not.
    """
    _check_images(config.images)
    _check_distill(config)
    _check_probe(config)
    if config.augment.swaps:
        _check_swaps(config)


def _check_images(images: ImagesConfig) -> None:
    """See that white is brighter than black."""
    black, white = images.bounds
    if images.max_value != "auto" and white <= black:
        raise FoldcraftError(f"{white:g} is not above images.min_value = {black:g}", "images.max_value")


def _check_swaps(config: Config) -> None:
    """See that nothing turns or mirrors an image unheard where a flip changes the label."""
    where = f"augment.{next(iter(config.augment.swaps))}.swap"
    views = [*(config.tta.views or []), *(config.probe.views or [])]
    if turned := [view for view in views if {"rot90", "rot270"} & set(view.split("+"))]:
        raise FoldcraftError(f"a quarter turn has no such swap: view {turned[0]}", where, "leave the view out")
    if config.augment.rot90:
        raise FoldcraftError("a quarter turn has no such swap", where, "set augment.rot90=0")
    if config.augment.transforms is not None:
        raise FoldcraftError("augment.transforms flips by itself, if at all", where, "use augment.preset")
    if config.is_probe and config.probe.mirror is True:
        raise FoldcraftError("a mirror image has another label here", "probe.mirror", "set it to false, or auto")


def _check_probe(config: Config) -> None:
    """See that the nets and sizes of a linear probe go together with the rest."""
    if config.is_probe and max(config.probe_sizes) > config.images.size:
        raise FoldcraftError(
            f"{max(config.probe_sizes)} is larger than images.size = {config.images.size}",
            "probe.sizes",
            "raise images.size: images are kept at it, and reduced to the other sizes",
        )
    if config.backbone.name in config.probe_nets:
        raise FoldcraftError(f"{config.backbone.name} is the backbone itself", "probe.nets", "name other nets")


def _check_distill(config: Config) -> None:
    """See that what is to be learned from teachers goes together."""
    wanted = config.distill
    off = dict(DistillConfig(share=0.0))
    idle = [key for key, value in wanted if key != "teachers" and value != off[key]]
    teaches = bool(wanted.share or wanted.pseudo)
    rules: list[tuple[object, str, str, str]] = [
        (
            not wanted.teachers and idle,
            "teachers",
            f"none, so {', '.join(idle)} cannot be",
            "name finished experiments",
        ),
        (config.experiment in wanted.teachers, "teachers", "an experiment cannot teach itself", "set experiment=NAME"),
        (
            wanted.teachers and config.finetune.mode == "linear_probe",
            "teachers",
            "a closed-form head is solved for labels and takes no probabilities",
            "use another finetune.mode; a linear probe may be a teacher",
        ),
        (wanted.teachers and not teaches, "teachers", "nothing is learned from them", "set distill.share or pseudo"),
        (wanted.confidence and not wanted.pseudo, "confidence", "chooses test images, and none is used", "set pseudo"),
        (
            wanted.hard and wanted.temperature != 1,
            "temperature",
            "changes nothing in a hard answer",
            "drop one of both",
        ),
        (
            wanted.pseudo and config.train.imbalance == "sampler",
            "pseudo",
            "the sampler draws classes alike by their labels, and test images have none",
            "use pseudo=0 or another train.imbalance",
        ),
    ]
    for wrong, key, what, hint in rules:
        if wrong:
            raise FoldcraftError(what, f"distill.{key}", hint)
