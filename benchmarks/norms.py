"""Are features of a net better for a probe after a short tuning of its norms?

For each set, share and draw a small competition as in `benchmarks/budget.py`, whose hidden rows are its test images.
For some folds ViT-tiny's norms and biases are tuned, for as many epochs as a short fine-tuning has and for one; then a
probe is solved on features of the net of each fold. The table has log-loss and macro F1 of the probe on the net as it
comes, of the tuned net's own head, and of the probe on its features, out of fold on the rows of these folds and on the
hidden rows, and processor seconds of the tuning.

  FOLDCRAFT_WEIGHTS=weights python benchmarks/norms.py --sets signdigits maskstates --shares .1 --draws 0 --core 1
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from starts import NET, Bench, Spoken, cells_of, command_line, open_bench, scores, spoken

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldcraft.common.callbacks import Callback
from foldcraft.common.config import ProbeConfig
from foldcraft.common.paths import FoldFolder, features_folder
from foldcraft.models import checkpoint
from foldcraft.predictions import linear_probe
from foldcraft.predictions.feature_cache import FeatureRequest, load_or_compute
from foldcraft.predictions.linear_probe import Rows
from foldcraft.study import recipes
from foldcraft.study.compete.nets import of_name
from foldcraft.study.recipes import Looks
from foldcraft.training import initialization
from foldcraft.training.initialization import SourceNet


def compare(bench: Bench, folds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """A row for each way."""
    config = of_name(bench.base.config, NET)
    looks = Looks.as_configured(config)
    fresh = SourceNet(*initialization.fresh_net(config, bench.base.competition.target.outputs), config)
    plain = probed(bench, [fresh] * len(folds), folds)
    yield row(bench, folds, "probe on the net as it comes", 0.0, plain)
    recipe = recipes.shorter(recipes.fine_tuning(config, NET, True, looks, bench.learned, "norm"))
    for epochs in (1, recipe.sections["train"]["epochs"]):
        settings = {"epochs": epochs, "validate_every": epochs}
        member, seconds = bench.train(recipe.updated(f"norms_{epochs}", train=settings), folds)
        models = [FoldFolder.of(member.experiment.config, fold).model for fold in folds]
        tuned = [SourceNet(*checkpoint.load_model(model)[:2], config) for model in models]
        after = probed(bench, tuned, folds)
        yield row(bench, folds, f"norms, {epochs} epochs: its own head", seconds, spoken(member, folds))
        yield row(bench, folds, f"norms, {epochs} epochs: probe on its features", seconds, after)


def probed(bench: Bench, sources: Sequence[SourceNet], folds: Sequence[int]) -> Spoken:
    """What probes say, each fold's on the features of a net of its own, at the temperature that suits their rows."""
    base, target = bench.base, bench.base.competition.target
    fold, space = base.folds.fold, base.competition.space
    own = np.flatnonzero(np.isin(fold, folds))
    oof, hidden = np.zeros((len(fold), target.outputs), np.float32), []
    for source, one in zip(sources, folds, strict=True):
        net = source.frozen(base.config.images.size)
        stores = base.open_images([base.image_spec(source.blueprint)], Callback())[0]
        requests = [
            FeatureRequest(net, part, store, "identity") for part, store in zip(("train", "test"), stores, strict=True)
        ]
        train, test = load_or_compute(requests, features_folder(base.config), Callback())
        rows = Rows(net.stages, [train], train, target.learned, fold, target.learned_space)
        solved = linear_probe.solve(rows, ProbeConfig())
        oof[fold == one] = target.from_learned(solved.predicted)[fold == one]
        hidden.append(target.predictions(solved.outputs(one, [test])[0]).numpy())
    warm = space.fit_temperature(oof[own], base.competition.targets[own])
    return space.at_temperature(oof[own], warm), space.at_temperature(space.pooled(np.stack(hidden)), warm)


def row(bench: Bench, folds: Sequence[int], way: str, seconds: float, said: Spoken) -> dict[str, Any]:
    """Its scores."""
    found = {name[4:]: value for name, value in scores(bench, folds, said, said).items() if name.startswith("net")}
    return {"way": way, "seconds": seconds, **found}


def main() -> None:
    args = command_line(__doc__, "runs/norms").parse_args()
    home, found = args.folder.resolve(), []
    for cell in cells_of(args):
        for each in compare(open_bench(cell, args.size, args.core, home), args.folds):
            found.append({"set": cell.set, "share": cell.share, "draw": cell.draw, **each})
            print(" ".join(str(value) for value in found[-1].values()), flush=True)
    print(pd.DataFrame(found).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
