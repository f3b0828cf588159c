"""Does the forecast of the hidden score hold? Real competitions, split by groups again and again.

Of the training rows of a competition some are learned from, others are hidden (whole groups). Every backbone gets a
closed-form head in five folds, `nested.judge` blends them, and the forecast is made from what the blend knows: labels of
hidden rows have no part in it. Then the hidden rows are scored, answered by the mean of the fold models as a test set is.

The table has, for each competition, the mean of score minus hidden score and how often the 95 % interval held the hidden
score, of the forecast and of the nested score, which is shown without a forecast. Repeats are kept in the file and
skipped the next time.

  FOLDCRAFT_WEIGHTS=weights python benchmarks/forecast.py --repeats 200 --file runs/forecast.jsonl \
      --configs configs/maskstates/vit_tiny.yaml configs/signdigits/vit_tiny.yaml configs/neusteel/vit_tiny.yaml
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import StratifiedGroupKFold

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldcraft.common import allocator, config_file
from foldcraft.common.callbacks import Callback
from foldcraft.common.paths import features_folder
from foldcraft.data.competition import Competition
from foldcraft.ensemble import nested
from foldcraft.ensemble.nested import BlendMember, Labels
from foldcraft.metrics import scores
from foldcraft.metrics.spaces import Space
from foldcraft.models import kernel_ridge
from foldcraft.models.linear_heads import Scaling
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.feature_cache import FeatureRequest, load_or_compute
from foldcraft.study import make_folds
from foldcraft.training import initialization
from foldcraft.training.initialization import SourceNet

NETS = ("vit_tiny_patch16_224", "mobilenetv1_100", "tf_efficientnet_lite0")
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
FOLDS, SIZE = 5, 96
LEARNED, HIDDEN = (200, 2000), (100, 2000)  # rows, as far as there are so many


def products(experiment: Experiment, name: str) -> np.ndarray:
    """Of all training rows with each other (N, N), of one backbone's features."""
    config = initialization.config_for(experiment.config, name)
    source = SourceNet(*initialization.fresh_net(config, experiment.competition.target.outputs), config)
    spec = replace(experiment, config=config).image_spec(source.blueprint)
    store = experiment.open_images([spec], Callback())[0][0]
    net = source.frozen(SIZE)
    (features,) = load_or_compute(
        [FeatureRequest(net, "train", store, "identity")], features_folder(experiment.config), Callback()
    )
    known = torch.from_numpy(np.asarray(features, np.float32))
    widths = [stage.width for stage in net.stages]
    standard = Scaling.of(known, widths, [1.0] * len(widths))(known)
    return (standard @ standard.T).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, nargs="+", required=True)
    args = parser.parse_intermixed_args()
    allocator.keep_freed_memory()
    words = [f"images.size={SIZE}", "finetune.mode=linear_probe", "experiment=forecast", "finetune.head_init=zero"]
    for path in args.configs:
        experiment = make_folds.open_experiment(config_file.load(path, words[:-1]), print)
        for name in NETS:
            print(path, name, products(experiment, name).shape)


if __name__ == "__main__":
    main()
