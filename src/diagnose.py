"""How much data is there, how unlike ImageNet is it, which nets and views suit it, and what to run: in minutes.

All of it from closed-form heads on frozen features; nothing is trained. Writes the measurements to
runs/<competition>/diagnose/diagnosis.json, and a config for each advised experiment to configs/<competition>/.

  python src/diagnose.py --config configs/maskstates/vit_tiny.yaml
  python src/diagnose.py --config C --backbones convnext_tiny.fb_in22k vit_small_patch14_dinov2 images.size=224
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from foldcraft.common.errors import FoldcraftError
from foldcraft.common.files import write_atomic
from foldcraft.views import cli

if TYPE_CHECKING:
    from foldcraft.study.advice import Advice
    from foldcraft.study.diagnose import Diagnosis
    from foldcraft.views.terminal import Terminal


def main(arguments: Sequence[str]) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--backbones",
        nargs="+",
        default=[],
        metavar="NAME",
        help="more backbones than those in the weights folder and in installed packages",
    )
    parser.add_argument("--configs", type=Path, help="folder for the advised configs (default configs/<competition>)")
    args = parser.parse_intermixed_args(arguments)
    cli.give_back_settings(args, "backbones")
    config = cli.load_config(args)

    from foldcraft.study import make_folds

    terminal = cli.terminal(args)
    experiment = make_folds.open_experiment(config, terminal.say)

    from foldcraft.common.paths import diagnosis_file
    from foldcraft.models import backbones
    from foldcraft.study import diagnose
    from foldcraft.study.advice import advise
    from foldcraft.training import initialization

    names = list(dict.fromkeys([config.backbone.name, *backbones.local_names(), *args.backbones]))
    experiments = [
        experiment,
        *(replace(experiment, config=initialization.config_for(experiment.config, name)) for name in names[1:]),
    ]
    found = diagnose.measure(experiments, terminal)
    advice = advise(found, config)
    write_atomic(diagnosis_file(config), as_json(found, advice))
    try:
        advised = save(advice, args.configs or Path("configs") / config.competition.name)
    finally:
        show(found, terminal)
        tell(advice, terminal)
    for line in commands(*advised):
        terminal.say(line)
    terminal.say(f"all numbers: {diagnosis_file(config)}")
    return 0


def as_json(found: Diagnosis, advice: Advice) -> str:
    """Everything that was measured, and what follows from it."""
    nets = [{key: value for key, value in asdict(net).items() if key != "log_probs"} for net in found.nets]
    return json.dumps({**asdict(found), "nets": nets, "advice": asdict(advice)}, indent=1)


def show(found: Diagnosis, terminal: Terminal) -> None:
    """The measurements as tables."""
    per_class = [(name, images, found.groups_per_class[name]) for name, images in found.images_per_class.items()]
    terminal.table(f"{found.rows} images, {found.groups} groups", ["class", "images", "groups"], per_class)
    terminal.table(
        f"frozen backbones: OOF {found.metric} of closed-form heads",
        ["backbone", "all blocks", "95 % interval", "last layer", "k-NN", "all - last", "BatchNorm distance"],
        [
            (
                net.name,
                f"{net.score:.4f}",
                f"{net.low:.4f}–{net.high:.4f}",
                f"{net.last:.4f}",
                f"{net.neighbours:.4f}",
                f"{net.gap.value:+.4f} ± {net.gap.error:.4f}",
                "–" if net.batchnorm is None else f"{net.batchnorm:.2f}",
            )
            for net in found.nets
        ],
    )
    best = found.best
    terminal.table(
        f"each stage of {best.name} alone", ["stage", found.metric], [(k, f"{v:.4f}") for k, v in best.stages.items()]
    )
    terminal.table(
        f"learning curve of {best.name}'s probe",
        ["share of the groups", found.metric, "spread"],
        [
            (f"{share:.0%}", f"{mean:.4f}", f"{spread:.4f}" if spread else "–")
            for share, (mean, spread) in found.curve.items()
        ],
    )
    terminal.table(
        f"views, by {best.name}'s probe",
        ["view", "on plain images, learned with it", "on images in the view", "keeps the label"],
        [
            (e.view, f"{e.plain.value:+.4f} ± {e.plain.error:.4f}", f"{e.seen:.4f}", "yes" if e.keeps_label else "no")
            for e in found.views
        ],
    )
    blend = [(name, f"{score:.4f}") for name, score in zip(found.pool, found.pool_scores, strict=True)]
    terminal.table("blend of probes, taken one by one", ["backbone", found.metric], blend)


def tell(advice: Advice, terminal: Terminal) -> None:
    """The advice in words."""
    for reason in advice.reasons:
        terminal.say(f"- {reason}")


def save(advice: Advice, folder: Path) -> tuple[list[Path], list[Path]]:
    """Write the configs of the pool, and those that are to be tried; where they are.

    Raises:
        FoldcraftError: a config of that name was written by somebody else.
    """
    from foldcraft.study.advice import MARK

    pool, tried = (
        {folder / f"{advised.name}.yaml": advised.text for advised in some} for some in (advice.pool, advice.tried)
    )
    for path in (*pool, *tried):
        if path.is_file() and not path.read_text().startswith(MARK):
            raise FoldcraftError(
                "is not of src/diagnose.py's making", path, "rename it, or name a folder with --configs"
            )
    for path, text in {**pool, **tried}.items():
        write_atomic(path, text)
    return list(pool), list(tried)


def commands(pool: Sequence[Path], tried: Sequence[Path]) -> Iterator[str]:
    """What to type, in order: the pool, then a fold of each fine-tuning, and the others where it is not behind."""
    named = " ".join(map(str, pool))
    yield "first the pool, in minutes:"
    yield f"  python src/train.py --config {named} --fold all"
    yield f"  python src/infer.py --config {named}"
    for path in tried:
        yield "then one fold of a fine-tuning, and the others where it is not behind the pool on the same rows:"
        yield f"  python src/train.py --config {path} --fold 0"
        yield f"  python src/compare.py {pool[-1]} {path} --not-behind && \\"
        yield f"    python src/train.py --config {path} --fold all && \\"
        yield f"    python src/infer.py --config {named} {path}"


if __name__ == "__main__":
    cli.run(main)
