"""Copies planted among real images: how many of each kind the audit finds, and how many pairs it names wrongly.

Sources are drawn from training and test images; each copy is written to a file, goes through the same decoding as all
others, and joins the training or the test set. Pairs that are found without any copy having been planted are shown on a
sheet (--sheet), for only a person can say whether they are real. They count neither for nor against.

  python benchmarks/audit.py --configs configs/maskstates/vit_tiny.yaml configs/neusteel/vit_tiny.yaml \\
    --backbone mobilenetv2_035 --share 0.1 --seeds 0 1 2 --sheet runs/planted
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageEnhance

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from foldcraft.common import config_file
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.data import competition
from foldcraft.data.competition import Competition
from foldcraft.data.images.image_cache import ImageSpec, decode, open_stores
from foldcraft.predictions.feature_cache import FeatureRequest, FrozenNet, load_or_compute
from foldcraft.study.audit import duplicates
from foldcraft.study.audit.image_hash import SIDE
from foldcraft.training import initialization

CROPPED = 0.85  # sides of a crop over those of the image
TURNS = list(Image.Transpose)


def exact(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image


def resized(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    factor = rng.uniform(0.5, 0.8) if rng.random() < 0.5 else rng.uniform(1.25, 2)
    return image.resize((max(8, round(image.width * factor)), max(8, round(image.height * factor))))


def flipped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.transpose(TURNS[rng.integers(len(TURNS))])


def brighter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(
        rng.uniform(0.6, 0.85) if rng.random() < 0.5 else rng.uniform(1.15, 1.4)
    )


def all_at_once(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return brighter(flipped(resized(image, rng), rng), rng)


def cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = round(image.width * CROPPED), round(image.height * CROPPED)
    left, top = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
    return image.crop((left, top, left + width, top + height))


KINDS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "exact": exact,
    "resized": resized,
    "re-compressed": exact,
    "flipped": flipped,
    "brightness-shifted": brighter,
    "all at once": all_at_once,
    "cropped": cropped,
}
COMPRESSED = ("re-compressed", "all at once")
WANTED = ("exact", "resized", "re-compressed", "flipped", "brightness-shifted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", type=Path, required=True, help="one config a competition")
    parser.add_argument("--backbone", help="net for frozen features; left out: pixels alone")
    parser.add_argument("--share", type=float, default=0.1, help="of the images that get a copy")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--sheet", type=Path, help="folder for sheets of the pairs that were there before")
    args = parser.parse_args()
    rows = []
    for path in args.configs:
        words = [f"backbone.name={args.backbone}"] if args.backbone else []
        settings = config_file.load(path, words)
        data = competition.read(settings)
        with TemporaryDirectory() as folder:
            before = search(settings, data, Path(folder), bool(args.backbone))
        print(f"{data.name}: {len(before)} pairs were there before", flush=True)
        for note in before.attrs["notes"]:
            print(f"  {note}")
        if args.sheet:
            draw(before, data, args.sheet / f"{data.name}.png")
        for seed in args.seeds:
            rows += measure(settings, data, before, args, seed)
    table = pd.DataFrame(rows)
    grouped = table.groupby(["data", "kind"], sort=False)[["planted", "found"]].sum()
    print(grouped.assign(recall=(grouped["found"] / grouped["planted"]).round(4)).to_string())
    false = table.drop_duplicates(["data", "seed"]).groupby("data", sort=False)
    print(false[["pairs", "false", "seconds"]].sum().assign(runs=false.size()).to_string())


def measure(
    settings: Config, data: Competition, before: pd.DataFrame, args: argparse.Namespace, seed: int
) -> list[dict]:
    """Plant, search, and count."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        planted, kinds, origins = plant(data, folder, args.share, np.random.default_rng(seed))
        start = time.process_time()
        found = search(settings, planted, folder, bool(args.backbone))
        seconds = time.process_time() - start
    real = clusters_of(before)
    for copy, origin in origins.items():
        real[copy] = real.get(origin, origin)
    cluster = clusters_of(found)
    right = [real.get(a, a) == real.get(b, b) for a, b in zip(found["id_a"], found["id_b"], strict=True)]
    for a, b, fine, kind, score in zip(found["id_a"], found["id_b"], right, found["kind"], found["score"], strict=True):
        if not fine:
            print(f"  {data.name}, seed {seed}: false {kind} {score} {a} {b} ({origins.get(a)}, {origins.get(b)})")
    hit = {copy: copy in cluster and cluster[copy] == cluster.get(origin) for copy, origin in origins.items()}
    for copy, kind in kinds.items():
        if not hit[copy] and kind in WANTED:
            print(f"  {data.name}, seed {seed}: missed {kind} of {origins[copy]}")
    common = {"data": data.name, "seed": seed, "pairs": len(found), "false": right.count(False), "seconds": seconds}
    members = {kind: [copy for copy in kinds if kinds[copy] == kind] for kind in KINDS}
    return [
        {**common, "kind": kind, "planted": len(copies), "found": sum(hit[copy] for copy in copies)}
        for kind, copies in members.items()
    ]


def plant(
    data: Competition, folder: Path, share: float, rng: np.random.Generator
) -> tuple[Competition, dict[str, str], dict[str, str]]:
    """The competition with copies added; kind and origin of each copy. Copies of test images stay in the test set."""
    paths = [*data.train_paths, *data.test_paths]
    ids = [*data.train_ids.tolist(), *data.test_ids.tolist()]
    chosen = rng.permutation(len(paths))[: max(len(KINDS), round(share * len(paths)))]
    kinds, origins = {}, {}
    new: dict[bool, list[tuple[str, Path, int]]] = {True: [], False: []}
    for number, row in enumerate(chosen):
        kind = list(KINDS)[number % len(KINDS)]
        image = KINDS[kind](decode(paths[row]), rng)
        name = f"copy{number:05d}"
        path = folder / f"{name}.{'jpg' if kind in COMPRESSED else 'png'}"
        image.save(path, **({"quality": int(rng.integers(30, 75))} if kind in COMPRESSED else {}))
        kinds[name], origins[name] = kind, ids[row]
        trains = row < len(data.train_ids) and rng.random() < 0.5
        new[trains].append((name, path, data.targets[row] if trains else -1))
    extended = [*(data.targets.tolist()), *(target for *_, target in new[True])]
    added = Competition(
        name=data.name,
        metric=data.metric,
        train_ids=np.array([*data.train_ids.tolist(), *(name for name, *_ in new[True])]),
        target=data.target.with_truth(np.array(extended)),
        groups=None,
        train_paths=(*data.train_paths, *(path for _, path, _ in new[True])),
        test_ids=np.array([*data.test_ids.tolist(), *(name for name, *_ in new[False])]),
        test_paths=(*data.test_paths, *(path for _, path, _ in new[False])),
        sample=data.sample,
        id_column=data.id_column,
    )
    return added, kinds, origins


def search(settings: Config, data: Competition, folder: Path, with_features: bool) -> pd.DataFrame:
    """What the audit does."""
    callback, features, specs = Callback(), None, [ImageSpec(SIDE)]
    if with_features:
        net = FrozenNet.of(*initialization.fresh_net(settings, data.target.outputs), settings)
        specs.append(ImageSpec(settings.images.size))
    parts = [("train", data.train_paths), ("test", data.test_paths)]
    stores = [open_stores(paths, specs, folder / "cache", part) for part, paths in parts]
    if with_features:
        wanted = [
            FeatureRequest(net, part, store[1], "identity") for (part, _), store in zip(parts, stores, strict=True)
        ]
        features = tuple(load_or_compute(wanted, folder / "features", callback))
    train, test = (store[0].pixels for store in stores)
    return duplicates.find(train, test, data.train_ids, data.test_ids, features, data.targets, callback)


def clusters_of(pairs: pd.DataFrame) -> dict[str, str]:
    """Cluster of each id in any pair; ids of both sets must differ."""
    return duplicates.clusters(pairs, (duplicates.TRAIN, duplicates.BETWEEN, duplicates.TEST)).to_dict()


def draw(pairs: pd.DataFrame, data: Competition, path: Path, side: int = 100, columns: int = 6) -> None:
    """The pairs side by side."""
    where = dict(zip(data.train_ids.tolist() + data.test_ids.tolist(), data.train_paths + data.test_paths, strict=True))
    rows = max(1, -(-len(pairs) // columns))
    sheet = Image.new("RGB", (columns * (2 * side + 12), rows * (side + 26)))
    pen = ImageDraw.Draw(sheet)
    for number, pair in enumerate(pairs.itertuples()):
        x, y = number % columns * (2 * side + 12), number // columns * (side + 26)
        for place, name in enumerate((pair.id_a, pair.id_b)):
            sheet.paste(decode(where[name]).resize((side, side)), (x + place * (side + 2), y))
        pen.text((x, y + side), f"{pair.score} {pair.kind}\n{pair.id_a} {pair.id_b}", fill="white")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


if __name__ == "__main__":
    main()
