"""A diagnosis as tables, the advice in words, and what to type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foldcraft.study.advice import Advice
    from foldcraft.study.diagnose import Diagnosis
    from foldcraft.views.terminal import Terminal

NETS = ("backbone", "all blocks", "95 % interval", "last layer", "k-NN", "all - last", "BatchNorm distance")
VIEWS = ("view", "on plain images, learned with it", "on images in the view", "keeps the label")


def show(diagnosis: Diagnosis, terminal: Terminal) -> None:
    """The measurements as tables."""
    metric, best = diagnosis.metric, diagnosis.best
    groups = diagnosis.groups_per_class
    per_class = [(name, images, groups[name]) for name, images in diagnosis.images_per_class.items()]
    counted = diagnosis.counted or f"{diagnosis.rows} images"
    terminal.table(f"{counted}, {diagnosis.groups} groups", [diagnosis.part, "images", "groups"], per_class)
    terminal.table(f"frozen backbones: OOF {metric} of closed-form heads", NETS, list(_nets(diagnosis)))
    stages = [(name, f"{score:.4f}") for name, score in best.stages.items()]
    terminal.table(f"each stage of {best.name} alone", ["stage", metric], stages)
    curve = [
        (f"{share:.0%}", f"{mean:.4f}", f"{spread:.4f}" if spread else "–")
        for share, (mean, spread) in diagnosis.curve.items()
    ]
    terminal.table(f"learning curve of {best.name}'s probe", ["share of the groups", metric, "spread"], curve)
    terminal.table(f"views, by {best.name}'s probe", VIEWS, list(_views(diagnosis)))
    blend = [(name, f"{score:.4f}") for name, score in zip(diagnosis.pool, diagnosis.pool_scores, strict=True)]
    terminal.table("blend of probes, taken one by one", ["backbone", metric], blend)


def _nets(diagnosis: Diagnosis) -> Iterator[tuple[str, ...]]:
    for net in diagnosis.nets:
        yield (
            net.name,
            f"{net.score:.4f}",
            f"{net.low:.4f}–{net.high:.4f}",
            f"{net.last:.4f}",
            f"{net.neighbours:.4f}",
            f"{net.gap.value:+.4f} ± {net.gap.error:.4f}",
            "–" if net.batchnorm is None else f"{net.batchnorm:.2f}",
        )


def _views(diagnosis: Diagnosis) -> Iterator[tuple[str, ...]]:
    for effect in diagnosis.views:
        plain = f"{effect.plain.value:+.4f} ± {effect.plain.error:.4f}"
        yield effect.view, plain, f"{effect.seen:.4f}", "yes" if effect.keeps_label else "no"


def tell(advice: Advice, terminal: Terminal) -> None:
    """The advice in words."""
    for reason in advice.reasons:
        terminal.say(f"- {reason}")


def commands(pool: Sequence[Path], fine_tunings: Sequence[Path]) -> Iterator[str]:
    """What to type: the pool, then a fold of each fine-tuning; not behind, it is mixed in, the others follow.

    Args:
        pool, fine_tunings: their configs.
    """
    configs = " ".join(map(str, pool))
    yield "first the pool, in minutes:"
    yield f"  python src/train.py --config {configs} --fold all"
    yield f"  python src/infer.py --config {configs}"
    for path in fine_tunings:
        yield "then one fold of a fine-tuning; where it is not behind the pool on the same rows, a submission with it,"
        yield "the other folds, and one with all of them:"
        yield f"  python src/train.py --config {path} --fold 0"
        yield f"  python src/compare.py {pool[-1]} {path} --not-behind && \\"
        yield f"    python src/infer.py --config {configs} --mix-in {path} && \\"
        yield f"    python src/train.py --config {path} --fold all && \\"
        yield f"    python src/infer.py --config {configs} {path}"
    if len(fine_tunings) > 1:
        yield "and where none of them is behind, all of it:"
        yield f"  python src/infer.py --config {configs} {' '.join(map(str, fine_tunings))}"
