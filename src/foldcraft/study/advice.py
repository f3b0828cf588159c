"""From a diagnosis to the experiments worth running; rules with their reasons, no measurement of its own.

The rules follow the comparison of methods in docs/experiments.md.
"""

from dataclasses import dataclass
from typing import Literal

import yaml

from foldcraft.common.config import Config
from foldcraft.metrics.gain import Gain
from foldcraft.study.diagnose import Diagnosis, NetScore
from foldcraft.training.plan import FULL_STEPS, full_epochs

Amount = Literal["little", "enough", "cannot tell"]
Likeness = Literal["similar", "dissimilar", "cannot tell"]

MARK = "# Written by src/diagnose.py"  # a file that begins so may be written again
NOTHING_TO_GAIN = 0.995  # a blend of probes that scores so leaves fine-tuning nothing that these data could show
BATCH = 32
FLIPS = ("hflip", "vflip")
CNN_LR, ATTENTION_LR = 1.5e-3, 5e-4
ZOOM = "scale1.25"  # worth more to a fine-tuned net than its mirror image, in the same time (docs/experiments.md)
POOL = "pool"  # name of the experiment that has all nets of the pool under one head
# What textbooks say of transfer learning, by the amount of data and by their likeness to what the net was trained on.
USUAL_ADVICE = {
    ("enough", "similar"): "one usually freezes the backbone and trains the head",
    ("enough", "dissimilar"): "one usually trains the backbone too",
    ("little", "similar"): "one usually trains the head alone",
    ("little", "dissimilar"): "the hardest case: a trained net overfits, a frozen one underfits",
}


@dataclass(frozen=True)
class Advised:
    """An experiment and its config, every setting with the number that led to it."""

    name: str
    text: str


@dataclass(frozen=True)
class Advice:
    """What to do.

    Attributes:
        amount, likeness: how much data there is, and how much it is like ImageNet, as measured.
        reasons: one line each.
        pool: experiments that cost seconds, to be run and blended first.
        tried: fine-tunings, each worth going on with where its first fold is not behind the pool's.
        keeps, breaks: views that keep the label, and views that do not or that cost score.
    """

    amount: Amount
    likeness: Likeness
    reasons: list[str]
    keeps: list[str]
    breaks: list[str]
    pool: list[Advised]
    tried: list[Advised]


def advise(diagnosis: Diagnosis, config: Config) -> Advice:
    """The advice for a competition, with configs for `config`'s data, images and TTA."""
    amount, likeness = _amount(diagnosis), _likeness(diagnosis)
    keeps = [effect.view for effect in diagnosis.views if effect.keeps_label]
    breaks = [effect.view for effect in diagnosis.views if not effect.keeps_label]
    forbidden = [view for view in keeps if _is_forbidden(view, config)]
    helpful = [effect.view for effect in diagnosis.views if effect.plain.value >= 0 or effect.view == "hflip"]
    used = [view for view in keeps if view in helpful and view not in forbidden]
    reasons = [_about_amount(diagnosis, amount), _about_likeness(diagnosis, likeness), _about_both(amount, likeness)]
    if forbidden:
        views = ", ".join(forbidden)
        reasons.append(f"{views}: left out as in the config, though the probe could not see that the label is lost")
    reasons.append(_about_pool(diagnosis, _mirrored(diagnosis, used)))
    pool = _probes(diagnosis, config, used)
    score = f"the blend of probes scores {diagnosis.pool_scores[-1]:.4f}"
    is_bounded = diagnosis.greater_is_better and diagnosis.metric != "log_loss"  # a loss can always be less
    if is_bounded and diagnosis.pool_scores[-1] >= NOTHING_TO_GAIN:
        reasons.append(f"{score}: no fine-tuning is advised, these data could not show that it helps")
        return Advice(amount, likeness, reasons, keeps, breaks, pool, [])
    nets = _finetuned(diagnosis)
    names = " and ".join(net.name for net in nets)
    reasons.append(
        f"{score}: {names}, fine-tuned, may do better or worse; its first fold tells at a fifth of the price"
    )
    return Advice(amount, likeness, reasons, keeps, breaks, pool, [_full(diagnosis, config, net, used) for net in nets])


def _is_forbidden(view: str, config: Config) -> bool:
    """Does the config itself say no to it? Who knows what the labels mean knows better than a probe."""
    if view not in config.augment.model_fields_set:
        return False
    return not (config.augment.chance(view) if view in FLIPS else getattr(config.augment, view))


def _finetuned(diagnosis: Diagnosis) -> list[NetScore]:
    """The nets that are worth the time of fine-tuning: the best transformer, or two CNNs where there is none.

    Of the nets that were measured the transformer gained most from fine-tuning, where its probe was the best and where
    it was the worst. A second net costs as much again (docs/experiments.md).
    """
    return [net for net in diagnosis.nets if net.transformer][:1] or diagnosis.nets[:2]


def _amount(diagnosis: Diagnosis) -> Amount:
    if diagnosis.more_data.is_real:
        return "little"
    return "enough" if _is_small(diagnosis.more_data, diagnosis) else "cannot tell"


def _likeness(diagnosis: Diagnosis) -> Likeness:
    if diagnosis.best.gap.is_real:
        return "dissimilar"
    return "similar" if _is_small(diagnosis.best.gap, diagnosis) else "cannot tell"


def _is_small(gain: Gain, diagnosis: Diagnosis) -> bool:
    return Gain(gain.value / diagnosis.unit, gain.error / diagnosis.unit).is_small


def _signed(value: float, error: float) -> str:
    return f"{value:+.4f} ± {error:.4f}"


def _about_amount(diagnosis: Diagnosis, amount: Amount) -> str:
    gap = _signed(diagnosis.more_data.value, diagnosis.more_data.error)
    meaning = {
        "little": "more data would still help: there is little",
        "enough": "more data would hardly help: there is enough for a probe",
        "cannot tell": "these data cannot tell whether more would help",
    }
    return f"the second half of the groups adds {gap}: {meaning[amount]}"


def _about_likeness(diagnosis: Diagnosis, likeness: Likeness) -> str:
    gap = _signed(diagnosis.best.gap.value, diagnosis.best.gap.error)
    meaning = {
        "dissimilar": "what the last layer has thrown away counts here: unlike ImageNet",
        "similar": "the last layer knows all that counts here: like ImageNet",
        "cannot tell": "these data cannot tell how unlike ImageNet they are",
    }
    return f"all blocks of {diagnosis.best.name} beat its last layer by {gap}: {meaning[likeness]}"


def _about_both(amount: Amount, likeness: Likeness) -> str:
    if "cannot tell" in (amount, likeness):
        return "amount and likeness together: cannot tell; the advice below does not depend on it"
    size = "little data" if amount == "little" else "enough data"
    kind = "like ImageNet" if likeness == "similar" else "unlike ImageNet"
    return f"{size}, {kind}: {USUAL_ADVICE[amount, likeness]}"


def _mirrored(diagnosis: Diagnosis, used: list[str]) -> bool:
    """Are features averaged with those of the mirror image?"""
    return "hflip" in used and diagnosis.mirror is not None and diagnosis.mirror.value > 0


def _about_pool(diagnosis: Diagnosis, mirror: bool) -> str:
    seen = " and ".join(f"{size} px" for size in diagnosis.sizes)
    gain = (
        f" (takes {_signed(diagnosis.mirror.value, diagnosis.mirror.error)} off the {diagnosis.loss_name})"
        if mirror and diagnosis.mirror
        else ""
    )
    words = f", with the mirror image{gain}" if mirror else ""
    return f"the pool: every block of {', '.join(diagnosis.pool)} at {seen}{words}; a head each, and one over all"


def _probes(diagnosis: Diagnosis, config: Config, used: list[str]) -> list[Advised]:
    """A probe on each net of the pool, and one on all of them."""
    singles = [_probe(diagnosis, config, [name], used) for name in diagnosis.pool]
    return singles if len(diagnosis.pool) < 2 else [*singles, _probe(diagnosis, config, diagnosis.pool, used)]


def _probe(diagnosis: Diagnosis, config: Config, names: list[str], used: list[str]) -> Advised:
    """A probe that learns from augmented copies, and looks at an image once: turns and zooms add time and no score."""
    first, *others = names
    net = next(net for net in diagnosis.nets if net.name == first)
    place = diagnosis.pool.index(first)
    before = f"{diagnosis.pool_scores[place - 1]:.4f} without it" if place else "the first of the blend"
    alone = f"at {diagnosis.sizes[0]} px OOF {net.score:.4f} ({net.low:.4f}-{net.high:.4f})"
    why = {
        "backbone": f"{alone}; the blend {diagnosis.pool_scores[place]:.4f}, {before}",
        "probe": f"all blocks over the last layer: {_signed(net.gap.value, net.gap.error)}",
    }
    if others:
        why = {"probe": "one head over all nets of the pool, beside their own: docs/experiments.md"}
    sections = {
        **_common(diagnosis, config, used, [], why),
        "backbone": {"name": first},
        "finetune": {"mode": "linear_probe"},
        "probe": {
            **({"nets": others} if others else {}),
            **({"sizes": diagnosis.sizes} if len(diagnosis.sizes) > 1 else {}),
            "mirror": _mirrored(diagnosis, used),
            "views": ["identity"],
        },
    }
    sections["augment"]["preset"] = "light"
    return Advised(POOL if others else f"probe_{first}", _text(sections, why))


def _full(diagnosis: Diagnosis, config: Config, net: NetScore, used: list[str]) -> Advised:
    """Fine-tuning of the whole net: a transformer's from a new head, a CNN's from the solved one (LP-FT).

    So each did best where both were tried (docs/experiments.md). No choice hangs on what is seen on the way, so the
    held-out images are looked at once, at the end: a look takes as long as a tenth of an epoch.
    """
    rows = diagnosis.rows * (config.folds.count - 1) // config.folds.count
    epochs = full_epochs(rows, BATCH)
    kind, head = ("transformer", "random") if net.transformer else ("CNN", "probe")
    why = {
        "backbone": f"the {kind} with the best probe: OOF {net.score:.4f} ({net.low:.4f}-{net.high:.4f})",
        "finetune": f"the whole net, from a {'new' if head == 'random' else 'solved'} head: docs/experiments.md; "
        f"the learning curve adds {_signed(diagnosis.more_data.value, diagnosis.more_data.error)}",
        "train": f"at least {FULL_STEPS} steps on {rows} images, about the fewest that paid; validated at the end",
    }
    sections = {
        **_common(diagnosis, config, used, [ZOOM] if ZOOM in used else _flips(used), why),
        "backbone": {"name": net.name},
        "finetune": {"mode": "full", "head_init": head, "batchnorm": "frozen"},
        "train": {"epochs": epochs, "batch": BATCH, "validate_every": epochs},
        "optim": {"lr": ATTENTION_LR if net.transformer else CNN_LR},
    }
    return Advised(f"full_{net.name}", _text(sections, why))


def _flips(used: list[str]) -> list[str]:
    return [view for view in FLIPS if view in used]


def _common(
    diagnosis: Diagnosis, config: Config, used: list[str], seen: list[str], why: dict[str, str]
) -> dict[str, object]:
    """Sections that all advised experiments share; `why` gets their reasons.

    Args:
        seen: views that are predicted besides the image as it is.
    """
    augment = {
        "preset": "medium",
        **{flip: 0.5 if flip in used else 0.0 for flip in FLIPS},
        "rot90": 0.5 if {"rot90", "hflip", "vflip"} <= set(used) else 0.0,
    }
    for flip in config.augment.swaps:  # who says what a flip does to the label keeps it
        augment |= {flip: getattr(config.augment, flip).model_dump(mode="json"), "rot90": 0.0}
    effects = [f"{effect.view} {_signed(effect.plain.value, effect.plain.error)}" for effect in diagnosis.views]
    why["augment"] = f"what learning from a view does to the score: {', '.join(effects)}"
    why["tta"] = "views that keep the label; src/infer.py predicts what is added here, and finds what each counts"
    return {
        "competition": config.competition.model_dump(mode="json", exclude_defaults=True),
        "folds": config.folds.model_dump(mode="json", exclude_defaults=True),
        "images": {"size": config.images.size, **config.images.model_dump(mode="json", exclude_defaults=True)},
        "augment": augment,
        "tta": {"views": ["identity", *seen]},
    }


def _text(sections: dict[str, object], why: dict[str, str]) -> str:
    lines = [f"{MARK}; each section with the number that led to it. Remove this line to keep your changes."]
    for name, values in sections.items():
        if not values:
            continue
        if name in why:
            lines.append(f"# {why[name]}")
        lines.append(f"{name}: {yaml.safe_dump(values, default_flow_style=True, sort_keys=False, width=1000).strip()}")
    return "\n".join(lines) + "\n"
