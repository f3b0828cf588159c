"""Four photos a house: a score a photo beside answers of four photos, combined in each way; real photos, price bands.

The mosaics of `houses` are cut into their four photos, a row each. A linear probe is trained in folds that keep a
house together; its predictions are then judged a photo at a time and, in each way to combine them, a house at a time.

  FOLDCRAFT_WEIGHTS=.../weights python benchmarks/answers.py --source input/houses --folder /tmp/photos
"""

import argparse
import os
import sys
from pathlib import Path

import pandas as pd
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldcraft.common import config_file
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.ensemble import blend
from foldcraft.metrics.intervals import bootstrap_interval
from foldcraft.predictions import store
from foldcraft.predictions.finished import FinishedExperiment, open_finished
from foldcraft.study import make_folds
from foldcraft.training.distributed import Processes
from foldcraft.training.fold import train_fold

WAYS = ("mean", "log_mean", "max", "top_k_mean", "auto")
CONFIG = """
competition: {name: photos, id: house, target: price_band, image: "{part}/{photo}", test_image: "{part}/{photo}",
  metric: METRIC, answer: {by: house, k: 2}}
finetune: {mode: linear_probe}
probe: {augmented: 0, views: [identity]}
backbone: {name: tf_efficientnet_lite0}
images: {size: 128}
tta: {views: [identity]}
tracking: {wandb: "off"}
"""


def cut(source: Path, folder: Path) -> None:
    """Each table with a row a photo, and the photos."""
    for part in ("train", "test"):
        table, rows = pd.read_csv(source / f"{part}.csv", dtype=str), []
        (folder / part).mkdir(parents=True)
        for row in table.to_dict("records"):
            whole = Image.open(source / part / row["id"])
            half = whole.width // 2
            for place, (x, y) in enumerate(((0, 0), (half, 0), (0, half), (half, half))):
                photo = f"{Path(row['id']).stem}-{place}.png"
                whole.crop((x, y, x + half, y + half)).save(folder / part / photo)
                rows.append(
                    {"house": row["id"], "photo": photo, "part": part} | {k: row[k] for k in row if k == "price_band"}
                )
        pd.DataFrame(rows).to_csv(folder / f"{part}.csv", index=False)
    pd.read_csv(source / "test.csv", dtype=str)[["id"]].rename(columns={"id": "house"}).assign(price_band="low").to_csv(
        folder / "sample_submission.csv", index=False
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    args = parser.parse_args()
    if not (args.folder / "input").exists():
        cut(args.source.resolve(), args.folder / "input" / "photos")
    os.chdir(args.folder)
    for metric in ("accuracy", "log_loss"):
        path = Path(f"{metric}.yaml")
        path.write_text(CONFIG.replace("METRIC", metric))
        judge(path, metric)


def judge(path: Path, metric: str) -> None:
    def config(*words: str) -> Config:
        return config_file.load(path, ["experiment=probe", *words])

    experiment = make_folds.open_experiment(config(), print)
    for fold in range(experiment.folds.count):
        train_fold(experiment, fold, Processes(), Callback())
    (member,) = open_finished([config()])
    print(metric, "a photo", of_photos(member))
    for way in WAYS:
        print(metric, way, told(open_finished([config(f"competition.answer.combine={way}")])))


def of_photos(member: FinishedExperiment) -> str:
    """Each photo judged by itself, houses drawn whole."""
    data = member.experiment.competition
    kept = store.join_folds([store.read(member.folder(fold).oof) for fold in member.done_folds], member.views)
    rows, said = data.train_rows(kept.ids), data.space.scored(kept.mean(member.views))
    low, high = bootstrap_interval(data.metric, data.targets[rows], said, data.units[rows])
    return f"{len(rows)} images: {data.metric(data.targets[rows], said):.4f} ({low:.4f} to {high:.4f})"


def told(members: list) -> str:
    combined = blend.combine(members)
    one = combined.selection.members[0]
    views = [view for view, weight in zip(combined.views[0], one.plan.views[0], strict=True) if weight]
    low, high = one.score.low, one.score.high
    return f"{combined.counted}: {one.score.value:.4f} ({low:.4f} to {high:.4f}) {', '.join(views)}"


if __name__ == "__main__":
    main()
