"""From a diagnosis to the experiments worth running; rules with their reasons, no measurement of its own.

The rules follow the comparison of methods in docs/experiments.md.
"""

from dataclasses import dataclass
from typing import Literal

from foldcraft.common.config import Config
from foldcraft.metrics.gain import Gain
from foldcraft.study import recipes
from foldcraft.study.diagnose import Diagnosis, NetScore
from foldcraft.study.recipes import Looks, Recipe
from foldcraft.training.plan import FULL_STEPS

Amount = Literal["little", "enough", "cannot tell"]
Likeness = Literal["similar", "dissimilar", "cannot tell"]

MARK = "# Written by src/diagnose.py"  # a file that begins so may be written again
HEAD = f"{MARK}; each section with the number that led to it. Remove this line to keep your changes."
NOTHING_TO_GAIN = 0.995  # a blend of probes that scores so leaves fine-tuning nothing that these data could show
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
    forbidden = [view for view in keeps if recipes.is_ruled_out(view, config)]
    looks = Looks.as_seen(diagnosis.views, diagnosis.mirror, config)
    reasons = [_about_amount(diagnosis, amount), _about_likeness(diagnosis, likeness), _about_both(amount, likeness)]
    if forbidden:
        views = ", ".join(forbidden)
        reasons.append(f"{views}: left out as in the config, though the probe could not see that the label is lost")
    reasons.append(_about_pool(diagnosis, looks.mirror))
    pool = _probes(diagnosis, config, looks)
    score = f"the blend of probes scores {diagnosis.pool_scores[-1]:.4f}"
    is_bounded = diagnosis.greater_is_better and diagnosis.metric != "log_loss"  # a loss can always be less
    if is_bounded and diagnosis.pool_scores[-1] >= NOTHING_TO_GAIN:
        reasons.append(f"{score}: no fine-tuning is advised, these data could not show that it helps")
        return Advice(amount, likeness, reasons, keeps, breaks, pool, [])
    nets = _finetuned(diagnosis)
    names = " and ".join(net.name for net in nets)
    reasons.append(
        f"{score}: {names}, fine-tuned, may do better or worse; a first fold tells, one of {config.folds.count}"
    )
    return Advice(
        amount, likeness, reasons, keeps, breaks, pool, [_full(diagnosis, config, net, looks) for net in nets]
    )


def _finetuned(diagnosis: Diagnosis) -> list[NetScore]:
    """The nets that are worth the time of fine-tuning: the best transformer and the best CNN, or two CNNs.

    Which kind gains more differs from set to set, far more than nets of one kind do (docs/experiments.md).
    """
    transformers, cnns = ([net for net in diagnosis.nets if net.transformer is kind] for kind in (True, False))
    chosen = [*transformers[:1], *cnns[:1]] if transformers else cnns[:2]
    return sorted(chosen, key=diagnosis.nets.index)


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


def _about_pool(diagnosis: Diagnosis, mirror: bool) -> str:
    seen = " and ".join(f"{size} px" for size in diagnosis.sizes)
    gain = (
        f" (takes {_signed(diagnosis.mirror.value, diagnosis.mirror.error)} off the {diagnosis.loss_name})"
        if mirror and diagnosis.mirror
        else ""
    )
    words = f", with the mirror image{gain}" if mirror else ""
    return f"the pool: every block of {', '.join(diagnosis.pool)} at {seen}{words}; a head each, and one over all"


def _probes(diagnosis: Diagnosis, config: Config, looks: Looks) -> list[Advised]:
    """A probe on each net of the pool, and one on all of them."""
    singles = [_probe(diagnosis, config, [name], looks) for name in diagnosis.pool]
    return singles if len(diagnosis.pool) < 2 else [*singles, _probe(diagnosis, config, diagnosis.pool, looks)]


def _probe(diagnosis: Diagnosis, config: Config, names: list[str], looks: Looks) -> Advised:
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
    recipe = recipes.with_copies(recipes.probe(config, names, looks, diagnosis.sizes), diagnosis.rows)
    return _advised(recipe, diagnosis, why)


def _full(diagnosis: Diagnosis, config: Config, net: NetScore, looks: Looks) -> Advised:
    rows = diagnosis.rows * (config.folds.count - 1) // config.folds.count
    kind, head = ("transformer", "new") if net.transformer else ("CNN", "solved")
    why = {
        "backbone": f"the {kind} with the best probe: OOF {net.score:.4f} ({net.low:.4f}-{net.high:.4f})",
        "finetune": f"the whole net, from a {head} head: docs/experiments.md; "
        f"the learning curve adds {_signed(diagnosis.more_data.value, diagnosis.more_data.error)}",
        "train": f"at least {FULL_STEPS} steps on {rows} images, about the fewest that paid; validated at the end",
    }
    recipe = recipes.fine_tuning(config, net.name, net.transformer, looks, rows)
    return _advised(recipe, diagnosis, why)


def _advised(recipe: Recipe, diagnosis: Diagnosis, why: dict[str, str]) -> Advised:
    effects = [f"{effect.view} {_signed(effect.plain.value, effect.plain.error)}" for effect in diagnosis.views]
    why["augment"] = f"what learning from a view does to the score: {', '.join(effects)}"
    why["tta"] = "views that keep the label; src/infer.py predicts what is added here, and finds what each counts"
    return Advised(recipe.name, recipe.text(HEAD, why))
