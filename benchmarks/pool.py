"""Which features should the pool of frozen nets have? Ways on parts of real competitions, hidden groups set aside.

For each competition, share and draw: a quarter of the groups is hidden, a share of the others is kept, five folds are
made, every net gets a head of its own and all of them one together, and heads are blended one by one while the
log-loss of their out-of-fold predictions falls, two at the least. The table has log-loss and macro F1, out of fold and
on the hidden groups, where the five folds' answers are averaged. Finished cells are kept in the file and skipped.

  FOLDCRAFT_WEIGHTS=weights python benchmarks/pool.py --config configs/signdigits/vit_tiny.yaml --shares .1 .3 1 \
      --draws 0 1 2 --file runs/pool.jsonl
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import classifiers
import finished_rows
import numpy as np
import pandas as pd
import torch
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from hidden import hide

from foldcraft.common import allocator, config_file
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import ProbeConfig
from foldcraft.common.paths import features_folder
from foldcraft.data.images.image_cache import ImageStore
from foldcraft.metrics.spaces import Space
from foldcraft.models import blocks
from foldcraft.models.inputs import channels_of
from foldcraft.models.stage_features import Stage, StageFeatures
from foldcraft.predictions import linear_probe
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.feature_cache import FeatureRequest, FrozenNet, load_or_compute
from foldcraft.predictions.linear_probe import Rows
from foldcraft.training import initialization
from foldcraft.training.initialization import SourceNet

NETS = ("vit_tiny_patch16_224", "mobilenetv1_100", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
LARGER = 1.4
WITHIN = ("mlp.act", "attn", "bn1", "bn2")  # hidden layers of a transformer's block, and of a CNN's
Look = tuple[str, int, bool]  # a net, the side of its images, and whether its blocks are looked into
FOLDS, HIDDEN, FEWEST = 5, 4, 2


@dataclass(frozen=True)
class Way:
    """What a head learns from.

    Attributes:
        stages: as `probe.stages`.
        sizes: how many, one or two.
        mirror: "no", "mean" (averaged in, at the smaller size) or "rows" (learned from as well).
        copies: augmented ones of each image.
        preset: how strongly they are changed, as `augment.preset`.
        asked: augmented copies that predictions are averaged over, beside the image as it is.
        zoom: is an enlarged view learned from and asked as well?
        within: do features within blocks count as well: hidden activations and attention?
        power: are features replaced by the roots of their sizes, with their signs?
        classifier: a key of `classifiers.WAYS`, or "ridge", which is the product's own.
    """

    stages: str = "all"
    sizes: int = 1
    mirror: str = "mean"
    copies: int = 0
    preset: str = "light"
    asked: int = 0
    zoom: bool = False
    within: bool = False
    power: bool = False
    classifier: str = "ridge"


WAYS = {
    "four stages, mirror image as rows (version 0.1)": Way("coarse", mirror="rows"),
    "every block": Way(mirror="no"),
    "every block, mirror image averaged": Way(),
    "the same, 1 copy": Way(copies=1),
    "the same, 2 copies": Way(copies=2),
    "the same, 4 copies": Way(copies=4),
    "the same, 8 copies": Way(copies=8),
    "the same, 16 copies": Way(copies=16),
    "the same, 8 medium copies": Way(copies=8, preset="medium"),
    "the same, 16 medium copies": Way(copies=16, preset="medium"),
    "the same, 32 medium copies": Way(copies=32, preset="medium"),
    "the same, 2 medium copies": Way(copies=2, preset="medium"),
    "the same, 16 heavy copies": Way(copies=16, preset="heavy"),
    "16 medium copies, 4 of the asked image": Way(copies=16, preset="medium", asked=4),
    "the same, an enlarged view": Way(zoom=True),
    "the same, within blocks": Way(within=True),
    "the same, roots of features": Way(power=True),
    "the same, logistic regression": Way(classifier="logistic"),
    "the same, discriminant analysis": Way(classifier="discriminant"),
    "the same, RBF kernel": Way(classifier="rbf"),
    "16 medium copies, logistic regression": Way(copies=16, preset="medium", classifier="logistic"),
    "16 medium copies, discriminant analysis": Way(copies=16, preset="medium", classifier="discriminant"),
    "16 medium copies, RBF kernel": Way(copies=16, preset="medium", classifier="rbf"),
    "16 medium copies, within blocks": Way(copies=16, preset="medium", within=True),
    "16 medium copies, roots of features": Way(copies=16, preset="medium", power=True),
    "16 medium copies, two sizes": Way(copies=16, preset="medium", sizes=2),
    "two sizes, mirror image averaged": Way(sizes=2),
    "two sizes, mirror image averaged, 1 copy": Way(sizes=2, copies=1),
}


class Table:
    """Features of all nets for one competition, gathered when first asked for."""

    def __init__(self, experiment: Experiment, nets: Sequence[str]) -> None:
        self.mirrored = bool(experiment.config.augment.hflip)
        size = experiment.config.images.size
        self.sizes = [size, 32 * round(LARGER * size / 32)]
        images = experiment.config.images.model_copy(update={"size": max(self.sizes)})
        update = {
            "images": images,
            "finetune": experiment.config.finetune.model_copy(update={"mode": "linear_probe"}),
            "probe": experiment.config.probe.model_copy(update={"sizes": self.sizes}),
        }
        self.experiment = replace(experiment, config=experiment.config.model_copy(update=update))
        self.names, self.nets, self.stores = nets, {}, {}
        for name in nets:
            own = initialization.config_for(self.experiment.config, name)
            source = SourceNet(*initialization.fresh_net(own, experiment.competition.target.outputs), own)
            spec = replace(self.experiment, config=own).image_spec(source.blueprint)
            self.stores[name] = self.experiment.open_images([spec], Callback())[0][0]
            for size in self.sizes:
                self.nets[name, size, False] = source.frozen(size)
                self.nets[name, size, True] = within_blocks(source.frozen(size))

    def of(
        self, look: Look, views: Sequence[str], rows: np.ndarray | None = None, preset: str = "light"
    ) -> list[np.ndarray]:
        """Features (N, D) of a net, of all images or of some rows, a view after the other."""
        net: FrozenNet = self.nets[look]
        augment = net.config.augment.model_copy(update={"preset": preset})
        net = replace(net, config=net.config.model_copy(update={"augment": augment}))
        store: ImageStore = self.stores[look[0]]
        wanted = [FeatureRequest(net, "train", store, view, rows) for view in views]
        return load_or_compute(wanted, features_folder(self.experiment.config), Callback())

    def parts(self, names: Sequence[str], way: Way, kept: np.ndarray, hidden: np.ndarray) -> "Parts":
        """What a way sees of some nets."""
        stages, parts, copies, asked = [], [], [], []
        for name in names:
            for place, size in enumerate(self.sizes[: way.sizes]):
                look = (name, size, way.within)
                plain = self.of(look, ["identity", *(["scale1.25"] if way.zoom else [])])
                if self.mirrored and way.mirror == "rows":
                    plain += self.of(look, ["hflip"])
                elif self.mirrored and way.mirror == "mean" and not place:
                    both = [plain[0], *self.of(look, ["hflip"])]
                    plain[0] = np.mean(both, axis=0, dtype=np.float32).astype(np.float16)
                drawn = self.of(look, [f"draw{k}" for k in range(way.copies)], kept, way.preset)
                own = self.of(look, [f"draw{k}" for k in range(way.asked)], hidden, way.preset)
                if way.power:
                    plain, drawn, own = ([roots(view) for view in views] for views in (plain, drawn, own))
                parts.append(plain)
                copies.append(drawn)
                asked.append(own)
                stages += [replace(stage, part=f"{name}@{size}") for stage in self.nets[look].stages]
        return Parts(tuple(stages), parts, copies, asked)


@dataclass(frozen=True)
class Parts:
    """Features of some nets at some sizes.

    Attributes:
        stages: of the columns of all parts.
        plain: for each part its views of all images, (N, D) each.
        copies: for each part the copies of the rows that are kept.
        asked: for each part copies of the hidden rows.
    """

    stages: tuple[Stage, ...]
    plain: list[list[np.ndarray]]
    copies: list[list[np.ndarray]]
    asked: list[list[np.ndarray]]

    def views(self, rows: np.ndarray) -> list[list[np.ndarray]]:
        """Of some rows, for each view its parts."""
        return [[part[view][rows] for part in self.plain] for view in range(len(self.plain[0]))]


def within_blocks(net: FrozenNet) -> FrozenNet:
    """The same net, with features of what happens within its blocks as well."""
    bare, size = net.features.net, net.size
    whole = blocks.block_names(bare)
    inner = [
        name for name, _ in bare.named_modules() if any(name == f"{block}.{part}" for block in whole for part in WITHIN)
    ]
    features = StageFeatures(bare, size)
    features.blocks = blocks.find_blocks(bare, size, [*whole, *inner])
    with torch.no_grad():
        pooled = features._pooled(torch.zeros(1, channels_of(bare), size, size))
    features.stages = tuple(Stage(name, values.shape[1]) for name, values in pooled.items())
    return replace(net, features=features)


def roots(features: np.ndarray) -> np.ndarray:
    """Power normalisation: the root of each number's size, with its sign (Perronnin et al., ECCV 2010)."""
    whole = features.astype(np.float32)
    return (np.sign(whole) * np.sqrt(np.abs(whole))).astype(np.float16)


def cell(experiment: Experiment, share: float, draw: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows that are kept, the fold of each, and hidden rows."""
    targets, units = experiment.competition.targets, experiment.competition.units
    rest, hidden = hide(units, targets, share, draw, HIDDEN)
    fold = np.empty(len(rest), np.int64)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=draw).split(rest, targets[rest], units[rest])
    for k, (_, rows) in enumerate(folds):
        fold[rows] = k
    return rest, fold, hidden


Answers = tuple[np.ndarray, np.ndarray]  # log-probabilities out of fold and of the hidden rows


def answers(
    table: Table, names: Sequence[str], way: Way, kept: np.ndarray, fold: np.ndarray, hidden: np.ndarray
) -> Answers:
    """What one head over these nets says."""
    parts = table.parts(names, way, kept, hidden)
    truth, space = table.experiment.competition.targets[kept], table.experiment.competition.space
    plain = parts.views(kept)
    copied = [[part[copy] for part in parts.copies] for copy in range(way.copies)]
    rows = Rows(parts.stages, [*plain, *copied], plain[0], truth, fold, space)
    seen = parts.views(hidden) + [[part[copy] for part in parts.asked] for copy in range(way.asked)]
    if way.classifier != "ridge":
        return classifiers.answers(rows, seen[0], way.classifier)
    solved = linear_probe.solve(rows, ProbeConfig(stages=way.stages))
    looks = [*plain, *copied[: way.asked]]
    oof = np.empty((len(looks), len(kept), space.width))
    for k in range(FOLDS):
        own = fold == k
        oof[:, own] = space.of_outputs(solved.outputs(k, [[part[own] for part in view] for view in looks])).numpy()
    later = np.concatenate([space.of_outputs(solved.outputs(k, seen)).numpy() for k in range(FOLDS)])
    return space.pooled(oof), space.pooled(later)


def blended(members: Sequence[Answers], truth: np.ndarray, space: Space) -> Answers:
    """Taken one by one while the log-loss falls, two at the least."""
    warm = [space.fit_temperature(oof, truth) for oof, _ in members]
    made = [tuple(space.at_temperature(part, t) for part in one) for one, t in zip(members, warm, strict=True)]
    chosen: list[int] = []
    best = np.inf
    while len(chosen) < len(made):
        left = [k for k in range(len(made)) if k not in chosen]
        losses = {k: space.loss(space.pooled(np.stack([made[i][0] for i in [*chosen, k]])), truth) for k in left}
        k = min(losses, key=lambda one: losses[one])
        if losses[k] >= best and len(chosen) >= FEWEST:
            break
        best = min(best, losses[k])
        chosen.append(k)
    return tuple(space.pooled(np.stack([made[k][part] for k in chosen])) for part in (0, 1))


def compare(table: Table, share: float, draw: int, names: Sequence[str]) -> Iterator[dict[str, object]]:
    """One cell: a row for each way."""
    if not names:
        return
    kept, fold, hidden = cell(table.experiment, share, draw)
    targets = table.experiment.competition.targets
    for name in names:
        way = WAYS[name]
        if len(kept) * (1 + way.copies) > linear_probe.MOST_ROWS:
            continue
        alone = [answers(table, [net], way, kept, fold, hidden) for net in table.names]
        together = [answers(table, table.names, way, kept, fold, hidden)] if way.stages == "all" else []
        oof, later = blended([*alone, *together], targets[kept], table.experiment.competition.space)
        yield {"share": share, "draw": draw, "rows": len(kept), "way": name} | {
            f"{where} {what}": float(score)
            for where, said, rows in (("OOF", oof, kept), ("hidden", later, hidden))
            for what, score in (
                ("log-loss", table.experiment.competition.space.loss(said, targets[rows])),
                ("F1", f1_score(targets[rows], said.argmax(1), average="macro")),
            )
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the config's")
    parser.add_argument("--nets", nargs="+", default=list(NETS))
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.3, 1.0])
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help="some of the ways")
    parser.add_argument("--file", type=Path, default=Path("runs/pool.jsonl"))
    args = parser.parse_intermixed_args()
    allocator.keep_freed_memory()
    experiment = Experiment.open(config_file.load(args.config, args.overrides))
    table, name = Table(experiment, args.nets), experiment.competition.name
    done = finished_rows.read(args.file)
    for share in args.shares:
        for draw in args.draws:
            cell_rows = [row for row in done if (row["competition"], row["share"], row["draw"]) == (name, share, draw)]
            there = {row["way"] for row in cell_rows}
            for row in compare(table, share, draw, [way for way in args.ways if way not in there]):
                done.append({"competition": name, **row})
                finished_rows.write(args.file, done)
    frame = pd.DataFrame(done)
    scores = [column for column in frame if str(column).startswith(("OOF", "hidden"))]
    print(frame.groupby(["competition", "share", "way"], sort=False)[scores].mean().round(3).to_string())


if __name__ == "__main__":
    main()
