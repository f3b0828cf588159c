"""What inference costs beside its forward passes: 5 models x 4 views over a set of images.

Both sides run in this process, in turn: the pipeline (read, prepare, make views, forward, collect) and the bare forward
passes of as many batches on tensors that lie ready in memory. Printed is the ratio of their times.

  python benchmarks/inference.py
"""

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import numpy as np
import torch
from PIL import Image

from foldcraft.common.config import BackboneConfig, ImagesConfig, MachineConfig
from foldcraft.data.images.image_cache import ImageSpec, ImageStore, open_stores
from foldcraft.data.plain_images import PlainImages
from foldcraft.metrics.spaces import ClassSpace
from foldcraft.models import backbones, hardware
from foldcraft.models.hardware import Hardware
from foldcraft.models.inputs import Inputs
from foldcraft.models.preprocessing import Preparation, predictions
from foldcraft.predictions.inference import BATCH, InferenceModel, predict

VIEWS = ("identity", "hflip", "vflip", "scale1.15")
CLASSES = 6

LOG_PROBS = partial(predictions, of_outputs=ClassSpace(tuple(map(str, range(CLASSES)))).of_outputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder), args.images, args.size)
        members = make_members(args, store, Path(folder))
        rows = np.arange(args.images)
        bare, piped = [], []
        bare_forward(members, rows[:BATCH])
        for _ in range(args.repeats):
            bare.append(bare_forward(members, rows))
            start = time.perf_counter()
            predict(members, rows)
            piped.append(time.perf_counter() - start)
    ratios = [p / b for b, p in zip(bare, piped, strict=True)]
    count = args.images * args.folds * len(VIEWS)
    print(f"{members[0].hardware}: {args.folds} models x {len(VIEWS)} views x {args.images} images")
    print(f"forward passes {count / median(bare):8.1f}/s")
    print(f"pipeline       {count / median(piped):8.1f}/s")
    print(f"cost           {median(ratios):8.3f} x the forward passes (pairs: {', '.join(f'{r:.3f}' for r in ratios)})")


def make_store(folder: Path, images: int, size: int) -> ImageStore:
    """Images drawn for the occasion, decoded."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{row}.jpg" for row in range(images)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(path)
    return open_stores(paths, [ImageSpec(size)], folder, "test")[0]


def make_members(args: argparse.Namespace, store: ImageStore, folder: Path) -> list[InferenceModel]:
    """As many models as there are folds, on the hardware that training would choose."""
    config = BackboneConfig(name=args.backbone, weights="none")
    members = []
    for _ in range(args.folds):
        model, blueprint = backbones.build(config, CLASSES, args.size)
        chosen: Hardware = hardware.choose(MachineConfig(), model, args.size, 32, folder / "hardware.json")
        placed = chosen.place(model).eval()
        preparation = Preparation.of(blueprint, chosen)
        members.append(
            InferenceModel(
                placed, preparation, chosen, PlainImages(store, ImagesConfig(size=args.size)), VIEWS, LOG_PROBS
            )
        )
    return members


def bare_forward(members: list[InferenceModel], rows: np.ndarray) -> float:
    """Seconds of the forward passes alone, batch for batch as the pipeline makes them."""
    ready = {
        count: Inputs(members[0].preparation(torch.zeros(count, *members[0].store.pixels.shape[1:], dtype=torch.uint8)))
        for count in {len(rows[first : first + BATCH]) for first in range(0, len(rows), BATCH)}
    }
    start = time.perf_counter()
    for first in range(0, len(rows), BATCH):
        for member in members:
            for _ in member.views:
                LOG_PROBS(member.model, ready[len(rows[first : first + BATCH])], member.hardware)
    if members[0].hardware.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
