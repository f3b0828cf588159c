"""What goes with which kind of target: one table, which refuses settings and is printed in docs/targets.md.

What is refused has no meaning for a target, or would silently do nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.data.targets.classes import Classes
from foldcraft.data.targets.several import MultiLabel, MultiOutput, Regression, Soft
from foldcraft.data.targets.single import HeadsLabel, Ordinal, SingleLabel, WithAuxiliary
from foldcraft.data.targets.target import Target

Lack = Callable[[Target], str]  # why a target does not go with something; "" where it does
BALANCED = ("weighted", "sampler", "logit_adjusted")


@dataclass(frozen=True)
class Feature:
    """Something that can be done with a target, or not.

    Attributes:
        lack: why a target does not go with it.
        key: the setting that asks for it; "" where it is a command or a part of one.
        is_asked: do these settings ask for it?
        instead: what to do where it is refused.
        is_harmless: where it has no meaning it does nothing and is not refused, as its default asks for it.
    """

    name: str
    lack: Lack = lambda target: ""
    key: str = ""
    is_asked: Callable[[Config], bool] = lambda config: False
    instead: str = ""
    is_harmless: bool = False


def no_values(target: Target) -> str:
    """It is about classes or labels."""
    return "values have no classes" if target.space.form == "values" else ""


def _one_label(target: Target) -> str:
    is_one = target.learned_space.form == "classes" and not getattr(target.learned_space, "widths", ())
    return "" if is_one else "is for a single label with one head"


def _one_index(target: Target) -> str:
    return "" if target.learned.ndim == 1 else "is for one class a row with one head"


def _one_stratum(target: Target) -> str:
    if target.strata.ndim > 1:
        return "a row has several labels, and cannot be drawn by one of them"
    return no_values(target)


def _softmax(target: Target) -> str:
    return "" if target.learned_space.form == "classes" else "is for classes, of which a row has one"


def _no_rule(target: Target) -> str:
    votes = target.space.form == "classes" and target.truth.ndim > 1 and not getattr(target.space, "widths", ())
    return "shares are submitted as they are" if votes else no_values(target) and "values are submitted as they are"


def _trains(config: Config, imbalance: str) -> bool:
    return not config.is_probe and config.train.imbalance == imbalance


FEATURES = (
    Feature("folds in equal shares (`folds.scheme: stratified`)"),
    Feature("folds of whole groups"),
    Feature("weights of rows (`competition.weight`)"),
    Feature("linear probe, `probe.solver: ridge`"),
    Feature(
        "linear probe, `probe.solver: logistic`",
        _one_label,
        "probe.solver: logistic",
        lambda config: config.is_probe and config.probe.solver == "logistic",
        "use probe.solver=ridge",
    ),
    Feature(
        "linear probe, `train.imbalance: weighted`, `sampler`, `logit_adjusted`",
        _one_index,
        "train.imbalance of a linear probe",
        lambda config: config.is_probe and config.train.imbalance in BALANCED,
        "use train.imbalance=none",
    ),
    Feature("LP-FT (`finetune.head_init: probe`)"),
    Feature("`finetune.mode: full`, `norm`, `lora`"),
    Feature("`augment.mixup`, `augment.cutmix`"),
    Feature("`regularize.label_smoothing`", no_values, is_harmless=True),
    Feature(
        "`train.imbalance: weighted`",
        no_values,
        "train.imbalance: weighted",
        lambda config: _trains(config, "weighted"),
        "use train.imbalance=none, or a column of weights (competition.weight)",
    ),
    Feature(
        "`train.imbalance: sampler`",
        _one_stratum,
        "train.imbalance: sampler",
        lambda config: _trains(config, "sampler"),
        "use train.imbalance=none or, for labels, weighted",
    ),
    Feature(
        "`train.imbalance: focal`",
        _softmax,
        "train.imbalance: focal",
        lambda config: _trains(config, "focal"),
        "use train.imbalance=none or, for labels, weighted",
    ),
    Feature(
        "`train.imbalance: logit_adjusted`",
        _softmax,
        "train.imbalance: logit_adjusted",
        lambda config: _trains(config, "logit_adjusted"),
        "use train.imbalance=none or, for labels, weighted",
    ),
    Feature(
        "R-Drop (`regularize.rdrop`)",
        lambda target: no_values(target) and "values have no divergence for two draws to agree in",
        "regularize.rdrop",
        lambda config: bool(config.regularize.rdrop) and not config.is_probe,
        "use regularize.rdrop=0, and backbone.drop alone",
    ),
    Feature("interpolation (`finetune.interpolate`)"),
    Feature("distillation, pseudo-labels (`distill.teachers`)"),
    Feature(
        "`distill.confidence`",
        lambda target: no_values(target) and "values come without a probability",
        "distill.confidence",
        lambda config: bool(config.distill.teachers) and config.distill.confidence > 0,
        "use distill.confidence=0",
    ),
    Feature(
        "`distill.hard`",
        no_values,
        "distill.hard",
        lambda config: bool(config.distill.teachers) and config.distill.hard,
        "use distill.hard=false",
    ),
    Feature(
        "`distill.temperature`",
        lambda target: no_values(target) and "values are neither soft nor hard",
        "distill.temperature",
        lambda config: bool(config.distill.teachers) and config.distill.temperature != 1,
        "use distill.temperature=1",
    ),
    Feature("TTA, soups, blend by weighted mean, greedy, stacking, with a temperature"),
    Feature(
        "blend by rank mean", lambda target: no_values(target) and "ranks say nothing of the size of values", "--method"
    ),
    Feature("decision rule", _no_rule, is_harmless=True),
    Feature("audit, check, diagnose, sweep, compare, report"),
)


def check(config: Config, target: Target) -> None:
    """See that what the settings ask for goes with the target.

    Raises:
        FoldcraftError: something does not.
    """
    for feature in FEATURES:
        why = feature.lack(target)
        if why and feature.is_asked(config) and not feature.is_harmless:
            what = f"does not go with the target, {called(target)}: {why}"
            raise FoldcraftError(what, feature.key, feature.instead + _or_as_classes(feature, target))


def _or_as_classes(feature: Feature, target: Target) -> str:
    """Grades may be learned as classes, with which more goes."""
    if not isinstance(target, Ordinal) or not target.cumulative or feature.lack(replace(target, cumulative=False)):
        return ""
    return f", or competition.target={{column: {target.columns[0]}, kind: ordinal, cumulative: false}}"


def called(target: Target) -> str:
    """The kind of a target, with what its nets learn beside it."""
    if isinstance(target, WithAuxiliary):
        return f"{called(target.main)} with auxiliary columns"
    if isinstance(target, HeadsLabel):
        return f"{target.kind} with heads"
    return f"{target.kind} as classes" if isinstance(target, Ordinal) and not target.cumulative else target.kind


def examples() -> dict[str, Target]:
    """A target of each kind, with few rows, by what a table's column calls it."""
    two, three = Classes(("a", "b")), Classes(("0", "1", "2"))
    truth, pairs = np.array([0, 1, 2]), np.array([[0, 0], [1, 2], [0, 1]])
    single = SingleLabel.of("label", three, truth)
    return {
        "single": single,
        "heads": HeadsLabel(("label",), single.space, truth, ("x", "y"), (two, three), pairs),
        "auxiliary": WithAuxiliary.of(single, ("x",), (two,), pairs[:, :1]),
        "ordinal": Ordinal(("grade",), single.space, truth, cumulative=True),
        "ordinal as classes": Ordinal.of("grade", three, truth),
        "multilabel": MultiLabel.of(("x", "y"), ("x", "y"), np.array([[0.0, 1], [1, 0], [1, 1]]), ""),
        "soft": Soft.of(("x", "y"), np.array([[0.2, 0.8], [0.5, 0.5], [1.0, 0]])),
        "regression": Regression.of(("x",), np.array([[1.0], [2], [3]])),
        "multioutput": MultiOutput.of(("x", "y"), (two, three), pairs),
    }


def table() -> str:
    """What goes with what as a Markdown table, and the reasons of what does not."""
    targets, reasons = examples(), {}
    lines = [f"| | {' | '.join(targets)} |", "|---|" + "---|" * len(targets)]
    for feature in FEATURES:
        cells = []
        for target in targets.values():
            why = feature.lack(target)
            mark = reasons.setdefault(why, len(reasons) + 1) if why else 0
            cells.append(f"{'–' if feature.is_harmless else 'no'} ({mark})" if why else "yes")
        lines.append(f"| {feature.name} | {' | '.join(cells)} |")
    notes = "\n".join(f"{number}. {why[0].upper()}{why[1:]}." for why, number in reasons.items())
    return "\n".join(lines) + f"\n\n{notes}\n"
