"""Settings of the experiments that are worth running: probes of frozen nets, and fine-tunings beside them.

What `src/diagnose.py` advises and what `src/compete.py` runs is written from here. docs/experiments.md has the
comparisons that each choice rests on.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from foldcraft.common.config import Config
from foldcraft.metrics.gain import Gain
from foldcraft.study.diagnose import ViewEffect
from foldcraft.training.plan import full_epochs

FLIPS = ("hflip", "vflip")
ZOOM = "scale1.25"  # worth more to a fine-tuned net than its mirror image, in the same time
BATCH = 32
CNN_LR, ATTENTION_LR = 1.5e-3, 5e-4
PARTS_LR = {"lora": 1e-3, "norm": 3e-3}  # where a part of the weights is trained
MOST_COPIES, MOST_LEARNED = 16, 4000  # of an image; rows that a probe learns from with them
COPIES_PRESET = "medium"  # of these copies
POOL = "pool"  # name of the experiment that has all nets of the pool under one head
PLACE = ("machine", "tracking", "runs", "scratch")  # sections that are of a place, and not of an experiment
Mode = Literal["full", "norm", "lora"]


@dataclass(frozen=True)
class Looks:
    """What views of an image may be used.

    Attributes:
        used: views that keep the label and cost no score.
        mirror: are features averaged with those of the mirror image?
    """

    used: tuple[str, ...]
    mirror: bool

    @classmethod
    def as_configured(cls, config: Config) -> "Looks":
        """Before any image was looked at: the flips that the config allows."""
        flips = tuple(flip for flip in FLIPS if config.augment.chance(flip) and flip not in config.augment.swaps)
        return cls((*flips, ZOOM), "hflip" in flips)

    @classmethod
    def as_seen(cls, effects: Sequence[ViewEffect], mirror: Gain | None, config: Config) -> "Looks":
        """After a look at the images: views that keep the label and help, but for those that the config rules out.

        Args:
            mirror: what averaging features with those of the mirror image takes off the loss.
        """
        helpful = [each for each in effects if each.keeps_label and (each.plain.value >= 0 or each.view == "hflip")]
        used = tuple(each.view for each in helpful if not is_ruled_out(each.view, config))
        return cls(used, "hflip" in used and mirror is not None and mirror.value > 0)

    @property
    def of_fine_tuning(self) -> list[str]:
        """Views that a fine-tuned net is asked in, beside the image as it is."""
        return [ZOOM] if ZOOM in self.used else [view for view in FLIPS if view in self.used]


def is_ruled_out(view: str, config: Config) -> bool:
    """Does the config itself say no to it? Who knows what the labels mean knows better than a probe."""
    if view not in config.augment.model_fields_set:
        return False
    return not (config.augment.chance(view) if view in FLIPS else getattr(config.augment, view))


@dataclass(frozen=True)
class Recipe:
    """The settings of an experiment.

    Attributes:
        sections: of the config, by name.
    """

    name: str
    sections: Mapping[str, Any] = field(repr=False)

    def text(self, head: str, why: Mapping[str, str] | None = None) -> str:
        """As a config file, with a line above each section that `why` gives a reason for."""
        lines = [head]
        for name, values in self.sections.items():
            if values == {}:
                continue
            if name in (why or {}):
                lines.append(f"# {(why or {})[name]}")
            if isinstance(values, Mapping):
                flow = yaml.safe_dump(dict(values), default_flow_style=True, sort_keys=False, width=1000)
                lines.append(f"{name}: {flow.strip()}")
            else:
                scalar = json.dumps(values, ensure_ascii=False)  # which is YAML, whatever a path holds
                lines.append(f"{name}: {scalar}")
        return "\n".join(lines) + "\n"

    def updated(self, name: str, **sections: Mapping[str, Any] | int) -> "Recipe":
        """The same under another name with other values in some sections."""
        merged = dict(self.sections)
        for section, values in sections.items():
            merged[section] = {**merged.get(section, {}), **values} if isinstance(values, Mapping) else values
        return replace(self, name=name, sections=merged)


def probe(config: Config, names: Sequence[str], looks: Looks, sizes: Sequence[int]) -> Recipe:
    """A closed-form head on frozen features of one net, or of several together.

    It looks at an image once: turns and zooms add time and no score.

    Args:
        config: whose data, images and folds it is for.
        names: of the nets.
        sizes: sides at which they see an image, in pixels.
    """
    first, *others = names
    sections = _common(config, looks, [])
    sections["augment"]["preset"] = "light"
    sections |= {
        "backbone": _backbone(config, first),
        "finetune": {"mode": "linear_probe"},
        "probe": {
            **({"nets": others} if others else {}),
            **({"sizes": list(sizes)} if len(sizes) > 1 else {}),
            "mirror": looks.mirror,
            "views": ["identity"],
        },
    }
    sections["images"]["size"] = max(sizes)
    return Recipe(POOL if others else f"probe_{first}", sections)


def fine_tuning(config: Config, name: str, transformer: bool, looks: Looks, rows: int, mode: Mode = "full") -> Recipe:
    """Fine-tuning of a net: a transformer's from a new head, a CNN's from the solved one (LP-FT).

    So each did best where both were tried. No choice hangs on what is seen on the way, so the held-out images are
    looked at once, at the end: a look takes as long as a tenth of an epoch.

    Args:
        rows: that each fold learns from.
    """
    epochs = full_epochs(rows, BATCH)
    lr = PARTS_LR.get(mode, ATTENTION_LR if transformer else CNN_LR)
    sections = {
        **_common(config, looks, looks.of_fine_tuning),
        "backbone": _backbone(config, name),
        "finetune": {"mode": mode, "head_init": "random" if transformer else "probe", "batchnorm": "frozen"},
        "train": {"epochs": epochs, "batch": BATCH, "validate_every": epochs},
        "optim": {"lr": lr},
    }
    return Recipe(f"{mode}_{name}", sections)


def shorter(recipe: Recipe) -> Recipe:
    """A fine-tuning that sees an eighth of the images, each of them once at the least, in half the batch.

    Where time is short steps count more than images do. It begins as the whole one does: a solved head was no better
    for a transformer (docs/experiments.md), and needs features of all images first.
    """
    epochs = math.ceil(recipe.sections["train"]["epochs"] / 8)
    settings = {"epochs": epochs, "batch": BATCH // 2, "validate_every": epochs}
    return recipe.updated(f"{recipe.name}_short", train=settings)


def copies_for(rows: int) -> int:
    """Augmented copies of each of so many training images that a probe learns from: the fewer images, the more."""
    return max(0, min(MOST_COPIES, MOST_LEARNED // rows - 1))


def with_copies(recipe: Recipe, rows: int) -> Recipe:
    """A probe that learns from augmented copies as well, as many as suit so many training images."""
    copies = copies_for(rows)
    preset = {"preset": COPIES_PRESET} if copies else {}
    return recipe.updated(recipe.name, probe={"augmented": copies}, augment=preset)


def _backbone(config: Config, name: str) -> dict[str, Any]:
    """The config's own net as it says, another as its weights come."""
    if name == config.backbone.name:
        return {"name": name, **config.backbone.model_dump(mode="json", exclude_defaults=True)}
    return {"name": name, **({} if config.backbone.weights == "pretrained" else {"weights": config.backbone.weights})}


def _common(config: Config, looks: Looks, seen: Sequence[str]) -> dict[str, Any]:
    """Sections that all experiments on a competition share.

    Args:
        seen: views that are predicted besides the image as it is.
    """
    augment: dict[str, Any] = {
        "preset": "medium",
        **{flip: 0.5 if flip in looks.used else 0.0 for flip in FLIPS},
        "rot90": 0.5 if {"rot90", "hflip", "vflip"} <= set(looks.used) else 0.0,
    }
    for flip in config.augment.swaps:  # who says what a flip does to the label keeps it
        augment |= {flip: getattr(config.augment, flip).model_dump(mode="json"), "rot90": 0.0}
    return {
        "competition": config.competition.model_dump(mode="json", exclude_defaults=True),
        "folds": config.folds.model_dump(mode="json", exclude_defaults=True),
        "images": {"size": config.images.size, **config.images.model_dump(mode="json", exclude_defaults=True)},
        "augment": augment,
        "tta": {"views": ["identity", *seen]},
        **{name: _of_place(config, name) for name in PLACE},
    }


def _of_place(config: Config, name: str) -> dict[str, Any] | str:
    """What a section says of where and how experiments are run; nothing where it says what it says anyway."""
    value = getattr(config, name)
    if isinstance(value, Path):
        return {} if value == Config.model_fields[name].default else str(value)
    return value.model_dump(mode="json", exclude_defaults=True)
