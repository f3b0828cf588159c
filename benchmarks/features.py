"""Frozen features of a competition beside a plain forward pass of the same nets.

One side is all that `diagnose` and a linear probe do: decode the images, prepare them, run the net with BatchNorm
folded in, pool every block, write the file. The other is timm's net as it comes, on tensors that lie ready, and nothing
else. Both keep freed memory, run on one thread and take turns; processor seconds.

  FOLDCRAFT_WEIGHTS=weights python benchmarks/features.py --config configs/signdigits/vit_tiny.yaml --rows 600
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldcraft.common import allocator, config_file
from foldcraft.common.callbacks import Callback
from foldcraft.data.images.image_cache import ImageStore, open_stores
from foldcraft.models import backbones
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.feature_cache import FeatureRequest, FrozenNet, load_or_compute
from foldcraft.training import initialization

BATCH = 64
NETS = ("mobilenetv1_100", "mobilenetv2_100", "tf_efficientnet_lite1", "vit_tiny_patch16_224")


def seconds(experiment: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    start = time.process_time()
    experiment()
    return time.process_time() - start


def decoded(experiment: Experiment, blueprint: backbones.Blueprint, rows: int, folder: Path) -> ImageStore:
    paths = experiment.competition.train_paths[:rows]
    return open_stores(paths, [experiment.image_spec(blueprint)], folder, "train")[0]


def gathered(frozen: FrozenNet, store: ImageStore, folder: Path) -> np.ndarray:
    return load_or_compute([FeatureRequest(frozen, "train", store, "identity")], folder, Callback())[0]


@torch.inference_mode()
def plain(net: torch.nn.Module, images: Sequence[torch.Tensor]) -> None:
    for some in images:
        net(some)


def compare(experiment: Experiment, rows: int, rounds: int) -> dict[str, object]:
    """One net: seconds of both sides, of the decoding alone, and images/s."""
    net, blueprint = initialization.fresh_net(experiment.config, experiment.competition.target.outputs)
    frozen = FrozenNet.of(net, blueprint, experiment.config)
    store = decoded(experiment, blueprint, rows, Path(tempfile.mkdtemp()))
    layout = frozen.hardware.torch_memory_format
    net = net.eval().to(memory_format=layout)
    pixels = torch.from_numpy(np.array(store.pixels))
    ready = [frozen.preparation(some).contiguous(memory_format=layout) for some in pixels.split(BATCH)]
    plain(net, ready[:1])
    decode, gathering, forward = [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            decode.append(seconds(lambda: decoded(experiment, blueprint, rows, Path(folder))))
            gathering.append(seconds(lambda: gathered(frozen, store, Path(folder))))
        forward.append(seconds(lambda: plain(net, ready)))
    whole, bare = np.median(decode) + np.median(gathering), np.median(forward)
    return {
        "net": experiment.config.backbone.name,
        "features an image": frozen.width,
        "decoding s": np.median(decode),
        "gathering s": np.median(gathering),
        "forward alone s": bare,
        "both over forward": whole / bare,
        "images/s gathered": len(store) / whole,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--nets", nargs="+", default=list(NETS))
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    allocator.keep_freed_memory()
    torch.set_num_threads(1)
    experiment = Experiment.open(config_file.load(args.config))
    named = [replace(experiment, config=initialization.config_for(experiment.config, name)) for name in args.nets]
    table = [compare(one, args.rows, args.rounds) for one in named]
    print(pd.DataFrame(table).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
