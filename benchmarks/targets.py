"""Each kind of target on real data: what knows no image, probes, a fine-tuning, their blend, and scikit-learn's heads.

The configs of one competition must be trained (`src/train.py --config ... --fold all`), a linear probe first. Its
features are given to scikit-learn as well: the same ridge regression by another solver, with the strengths that were
chosen, and a logistic regression (a Ridge for values), its strength chosen on each fold's training rows by itself.

  python benchmarks/targets.py --configs configs/coffee4/probe.yaml configs/coffee4/vit_tiny.yaml
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV, Ridge, RidgeCV

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldcraft.common import config_file
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import ProbeConfig
from foldcraft.ensemble import blend
from foldcraft.metrics.spaces import ClassSpace, LabelSpace
from foldcraft.models.linear_heads import Scaling, shares
from foldcraft.models.stage_features import stages_of
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.finished import open_finished
from foldcraft.predictions.linear_probe import Rows, solve
from foldcraft.training import initialization


def probe_features(experiment: Experiment) -> tuple[Rows, np.ndarray]:
    """What a probe without copies and views learns from, and the features as they are standardised (N, D)."""
    start = initialization.build(experiment, Callback())
    features = initialization.features_of(experiment, start, Callback())[0][
        experiment.config.tta.views.index("identity")
    ]
    target, stages = experiment.competition.target, stages_of([net.stages for net in start.pool], start.parts)
    rows = Rows(stages, [features], features, target.learned, experiment.folds.fold, target.learned_space)
    whole = torch.from_numpy(np.concatenate(features, axis=1).astype(np.float32))
    widths = [stage.width for stage in stages]
    return rows, Scaling.by(whole, shares(widths, [1.0] * len(widths)))(whole).numpy()


def same_ridge(rows: Rows, scaled: np.ndarray, strengths: Sequence[float]) -> np.ndarray:
    """scikit-learn's ridge with our strengths, linked as ours is (N, W)."""
    space, matrix, fold = rows.space, rows.space.matrix(rows.targets), rows.fold
    scores = np.empty((len(strengths), *matrix.shape), np.float32)
    for k in np.unique(fold):
        learned = fold != k
        for place, strength in enumerate(strengths):
            for column in range(matrix.shape[1]):
                known = learned & ~np.isnan(matrix[:, column])
                head = Ridge(alpha=known.sum() * strength).fit(scaled[known], matrix[known, column])
                scores[place, fold == k, column] = head.predict(scaled[fold == k])
    predicted = np.empty(matrix.shape, np.float32)
    for k in np.unique(fold):
        link = space.fit_link(scores[:, fold != k], rows.targets[fold != k], None)
        outputs = scores[link.strength, :, np.arange(space.width)].T * link.factor + link.shift
        predicted[fold == k] = space.of_outputs(torch.from_numpy(outputs[fold == k])).numpy()
    return predicted


def own_choice(rows: Rows, scaled: np.ndarray) -> np.ndarray:
    """Logistic regressions, or ridges of values, that choose their strength by themselves (N, W)."""
    space, fold = rows.space, rows.fold
    predicted = np.zeros((len(fold), space.width))
    for k in np.unique(fold):
        learned, judged = fold != k, fold == k
        for columns, label in labels_of(rows):
            known = learned & (~np.isnan(label) if label.dtype.kind == "f" else label >= 0)
            if not isinstance(space, ClassSpace | LabelSpace):
                head = RidgeCV(alphas=np.geomspace(1e-2, 1e4, 13)).fit(scaled[known], label[known])
                predicted[judged, columns] = head.predict(scaled[judged])
                continue
            head = LogisticRegressionCV(Cs=6, cv=3, scoring="neg_log_loss", max_iter=500)
            said = head.fit(scaled[known], label[known]).predict_log_proba(scaled[judged])
            if isinstance(space, LabelSpace):
                predicted[judged, columns] = said[:, 1] - said[:, 0]
            else:
                predicted[np.ix_(judged, np.arange(columns.start, columns.stop)[head.classes_.astype(int)])] = said
    return predicted


def labels_of(rows: Rows) -> list[tuple[slice | int, np.ndarray]]:
    """The columns and the truth of each label, or of each column of values."""
    if isinstance(rows.space, ClassSpace):
        return list(zip(rows.space.slices, rows.targets.reshape(len(rows.fold), -1).T, strict=True))
    return list(enumerate(rows.targets.T))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", type=Path, required=True)
    args = parser.parse_args()
    for kind in (ConvergenceWarning, FutureWarning):
        warnings.simplefilter("ignore", kind)
    members = open_finished([config_file.load(path) for path in args.configs])
    experiment, data = members[0].experiment, members[0].experiment.competition
    rows, scaled = probe_features(experiment)
    target, fold = data.target, experiment.folds.fold
    nothing = np.empty((len(fold), data.space.width))
    for k in np.unique(fold):
        nothing[fold == k] = target.baseline(np.flatnonzero(fold != k))
    print(f"{data.name}: {data.metric.name}, {len(fold)} rows")
    ours = solve(rows, ProbeConfig()).predicted
    theirs = same_ridge(rows, scaled, ProbeConfig().strengths)
    for name, predicted in (
        ("knows no image", nothing),
        ("ridge on plain images", target.from_learned(ours)),
        ("the same by scikit-learn", target.from_learned(theirs)),
        ("scikit-learn, own choice", target.from_learned(own_choice(rows, scaled))),
    ):
        print(f"  {name:28} {data.score(predicted):.4f}")
    result = blend.combine(members)
    for one in result.selection.members:
        print(f"  {one.name:28} {one.score.value:.4f} ({one.score.low:.4f} to {one.score.high:.4f})")
    used = result.selection.chosen
    print(f"  blend ({used.name}), nested: {used.score.value:.4f} ({used.score.low:.4f} to {used.score.high:.4f})")
    print("\n".join(f"  {line}" for line in result.selection.words))


if __name__ == "__main__":
    main()
