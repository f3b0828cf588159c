"""Does the forecast of the hidden score hold? Real competitions, split by groups again and again.

Of the training rows of a competition some are learned from, others are hidden (whole groups). Every backbone gets a
closed-form head in five folds, `nested.judge` blends them, and the forecast is made of what the blend knows; labels of
hidden rows have no part in it. Then the hidden rows are scored, answered by the mean of the fold models.

The table has, for each competition, the mean of score minus hidden score and how often the 95 % interval held the
hidden score, of the forecast and of the nested score, which is what is shown without one. And what averaging the fold
models gains: as forecast without labels, as models of three folds gain it on rows that none of four has seen, and in
truth on the hidden rows. Repeats are kept in the file, and skipped the next time.

  FOLDCRAFT_WEIGHTS=weights python benchmarks/forecast.py --repeats 200 --file runs/forecast.jsonl \
      --configs configs/maskstates/vit_tiny.yaml configs/signdigits/vit_tiny.yaml configs/neusteel/vit_tiny.yaml

With --useless N the blend is then given N members more, one by one, that are noise or copies of a good member with
noise added; after each all so far are judged, and `BestSoFar` keeps one. The table has the hidden score before and
after them, and how far what is shown lies from it.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import finished_rows
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
from foldcraft.ensemble.best_so_far import BestSoFar, Step
from foldcraft.ensemble.forecast import Forecast, forecast
from foldcraft.ensemble.nested import BlendMember, BlendSelection, Labels
from foldcraft.metrics import scores
from foldcraft.metrics.spaces import Link, Space
from foldcraft.models import kernel_ridge
from foldcraft.models.linear_heads import Scaling
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.feature_cache import FeatureRequest, load_or_compute
from foldcraft.study import make_folds
from foldcraft.training import initialization
from foldcraft.training.initialization import SourceNet

NETS = ("vit_tiny_patch16_224", "mobilenetv1_100", "tf_efficientnet_lite0")
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
FOLDS = 5
LEARNED, HIDDEN = (200, 2000), (100, 2000)  # rows, as far as there are so many; half of all are hidden at the most
LOUDEST = 2.0  # noise added to log-probabilities of a good member


def products(experiment: Experiment, name: str) -> np.ndarray:
    """Of all training rows with each other (N, N), of one backbone's features."""
    config = initialization.config_for(experiment.config, name)
    source = SourceNet(*initialization.fresh_net(config, experiment.competition.target.outputs), config)
    spec = replace(experiment, config=config).image_spec(source.blueprint)
    store = experiment.open_images([spec], Callback())[0][0]
    net = source.frozen(config.images.size)
    wanted = [FeatureRequest(net, "train", store, "identity")]
    (features,) = load_or_compute(wanted, features_folder(experiment.config), Callback())
    known = torch.from_numpy(np.asarray(features, np.float32))
    widths = [stage.width for stage in net.stages]
    standard = Scaling.of(known, widths, [1.0] * len(widths))(known)
    return (standard @ standard.T).numpy()


def split(data: Competition, draw: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows that are learned from, the fold of each, and hidden rows; numbers of rows are drawn evenly in their log."""
    rng = np.random.default_rng(draw)
    names, sizes = np.unique(data.units, return_counts=True)
    order = rng.permutation(len(names))
    ends = np.cumsum(sizes[order])
    first = np.searchsorted(ends, _drawn(rng, *HIDDEN, ends[-1] // 2)) + 1
    left = ends[-1] - ends[first - 1]
    last = np.searchsorted(ends, ends[first - 1] + _drawn(rng, *LEARNED, left - 1)) + 1
    hidden, kept = (np.flatnonzero(np.isin(data.units, names[part])) for part in (order[:first], order[first:last]))
    fold = np.empty(len(kept), np.int64)
    with warnings.catch_warnings():  # classes that are rarer than folds
        warnings.simplefilter("ignore")
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=draw)
        for number, (_, rows) in enumerate(folds.split(kept, data.targets[kept], data.units[kept])):
            fold[rows] = number
    return kept, fold, hidden


def _drawn(rng: np.random.Generator, low: int, high: int, most: int) -> int:
    return int(np.exp(rng.uniform(np.log(low), np.log(min(high, most)))))


@dataclass(frozen=True)
class Answers:
    """What one member says.

    Attributes:
        oof: of the rows that are learned from (N, W).
        tests: of the hidden rows, by the model of each fold (F, M, W).
        pairs: of the rows that are learned from, by the four models that lack their fold and one more (F - 1, N, W).
    """

    oof: np.ndarray
    tests: np.ndarray
    pairs: np.ndarray


def solve(
    known: np.ndarray, asked: np.ndarray, targets: np.ndarray, fold: np.ndarray, space: Space, pairs: bool
) -> Answers:
    """A head for each fold, as `linear_probe.solve` has them, from products of rows.

    Args:
        known, asked: products of the rows that are learned from with each other, and of hidden rows with these.
    """
    own, later, matrix = torch.from_numpy(known), torch.from_numpy(asked), torch.from_numpy(space.matrix(targets))

    def fitted(*without: int, strengths: Sequence[float] = STRENGTHS) -> kernel_ridge.Fit:
        return kernel_ridge.fit(own, torch.from_numpy(np.flatnonzero(~np.isin(fold, without))), matrix, strengths)

    fits = [fitted(k) for k in range(FOLDS)]
    judged = [fit.scores(own[torch.from_numpy(fold == k)]).numpy() for k, fit in enumerate(fits)]
    links = []
    for k in range(FOLDS):
        others = [other for other in range(FOLDS) if other != k]
        truth = np.concatenate([targets[fold == other] for other in others])
        links.append(space.fit_link(np.concatenate([judged[other] for other in others], axis=1), truth, None))
    oof = np.empty((len(targets), space.width), np.float32)
    for k in range(FOLDS):
        oof[fold == k] = _said(judged[k], links[k], space)
    tests = [_said(fit.scores(later).numpy(), link, space) for fit, link in zip(fits, links, strict=True)]
    twice = np.zeros((FOLDS - 1, *oof.shape), np.float32)
    for one in range(FOLDS if pairs else 0):
        for place, other in enumerate(k for k in range(FOLDS) if k != one):
            fit = fitted(one, other, strengths=[STRENGTHS[int(np.bincount(links[one].strength).argmax())]])
            found = fit.scores(own[torch.from_numpy(fold == one)]).numpy()
            twice[place, fold == one] = _said(
                found, replace(links[one], strength=np.zeros_like(links[one].strength)), space
            )
    return Answers(oof, np.stack(tests), twice)


def _said(found: np.ndarray, link: Link, space: Space) -> np.ndarray:
    outputs = found[link.strength, :, np.arange(space.width)].T * link.factor + link.shift
    return space.of_outputs(torch.from_numpy(np.ascontiguousarray(outputs))).numpy()


@dataclass(frozen=True)
class Case:
    """One split, with what its members say.

    Attributes:
        targets: of the hidden rows.
        members: name and answers of each.
    """

    truth: Labels
    targets: np.ndarray
    members: dict[str, Answers]

    def known(self) -> list[BlendMember]:
        """The members out of fold."""
        return [member(name, one.oof) for name, one in self.members.items()]

    def mean(self) -> list[BlendMember]:
        """The members on hidden rows, each the mean of its fold models."""
        return [member(name, self.truth.space.pooled(one.tests)) for name, one in self.members.items()]

    def by_fold(self, what: Callable[[Answers], np.ndarray]) -> list[list[BlendMember]]:
        """The same of each model, of hidden rows or of others."""
        count = len(what(next(iter(self.members.values()))))
        return [[member(name, what(one)[k]) for name, one in self.members.items()] for k in range(count)]

    def forecast(self, selection: BlendSelection) -> Forecast:
        """Of the hidden score."""
        every = self.by_fold(lambda one: one.tests)
        return forecast(selection, self.truth, self.mean(), every, len(self.targets))

    def hidden(self, selection: BlendSelection, members: Sequence[BlendMember]) -> float:
        """The score of the hidden rows."""
        return self.truth.metric(self.targets, self.truth.space.scored(selection.chosen.plan.apply(members)))


def member(name: str, predicted: np.ndarray) -> BlendMember:
    return BlendMember(name, ("identity",), predicted[None])


def case(data: Competition, kernels: dict[str, np.ndarray], draw: int, metric: str | None, pairs: bool) -> Case:
    """One split of a competition."""
    kept, fold, hidden = split(data, draw)
    targets, judge = data.targets[kept], data.metric if metric is None else scores.get(metric)
    truth = Labels(targets, fold, data.units[kept], judge, data.space)
    members = {
        name: solve(kernel[np.ix_(kept, kept)], kernel[np.ix_(hidden, kept)], targets, fold, data.space, pairs)
        for name, kernel in kernels.items()
    }
    return Case(truth, data.targets[hidden], members)


def repeat(one: Case) -> dict[str, object]:
    """Forecast, nested score and the truth of one split."""
    selection = nested.judge(one.known(), one.truth)
    hidden = one.hidden(selection, one.mean())
    single = [one.hidden(selection, members) for members in one.by_fold(lambda each: each.tests)]
    gains = {"in truth": hidden - float(np.mean(single)), "by pairs": _by_pairs(one, selection)}
    return {"rows": len(one.truth.fold), "hidden rows": len(one.targets), "hidden": hidden} | _shown(
        one.forecast(selection), gains, selection
    )


def _shown(found: Forecast, gains: dict[str, float], selection: BlendSelection) -> dict[str, object]:
    score = selection.chosen.score
    return {
        "forecast": [found.value, found.low, found.high],
        "nested": [found.nested, score.low, score.high],
        "shift": found.spread.shift,
        "gain": {"forecast": found.averaging.gain, **gains},
    }


def _by_pairs(one: Case, selection: BlendSelection) -> float:
    """What the mean of four models, each without a row's fold and one fold more, gains over one of them."""
    truth, plan = one.truth, selection.chosen.plan
    single = [truth.score(plan.apply(members)) for members in one.by_fold(lambda each: each.pairs)]
    mean = [member(name, truth.space.pooled(each.pairs)) for name, each in one.members.items()]
    return float(truth.score(plan.apply(mean)) - np.mean(single))


def useless(one: Case, count: int, draw: int) -> dict[str, object]:
    """What is shown, and the hidden score, before and after so many members that know nothing more."""
    rng, good = np.random.default_rng(draw), list(one.members.items())
    best, kept, most = BestSoFar(one.truth), None, None
    for number in range(len(good) + count):
        new = good[number] if number < len(good) else (f"useless {number}", _worthless(good, rng, number))
        one = replace(one, members={**(one.members if number else {}), **dict([new])})
        selection = nested.judge(one.known(), one.truth)
        if best.add(Step(selection.chosen.nested, selection.undecided)):
            kept = (one, selection)
        most = selection.chosen.score.value if most is None else max(most, selection.chosen.score.value)
        if number == len(good) - 1:
            before = kept[0].hidden(kept[1], kept[0].mean())
    chosen = replace(kept[1].chosen, nested=best.answers, score=best.score)
    found = kept[0].forecast(replace(kept[1], chosen=chosen))
    return {
        "rows": len(one.truth.fold),
        "hidden rows": len(one.targets),
        "before": before,
        "hidden": kept[0].hidden(kept[1], kept[0].mean()),
        "forecast": [found.value, found.low, found.high],
        "nested": [best.score.value, best.score.low, best.score.high],
        "best of all": most,
        "kept": len(kept[0].members) > len(good),
    }


def _worthless(good: Sequence[tuple[str, Answers]], rng: np.random.Generator, number: int) -> Answers:
    """Noise, or in turn a good member with noise added."""
    source = good[number % len(good)][1]
    if number % 2:
        made = [rng.normal(0, 1, part.shape) for part in (source.oof, source.tests)]
    else:
        loud = rng.uniform(0.2, LOUDEST)
        made = [part + rng.normal(0, loud, part.shape) for part in (source.oof, source.tests)]
    oof, tests = (part - np.log(np.exp(part).sum(-1, keepdims=True)) for part in made)
    return Answers(oof, tests, source.pairs)


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """A line for each competition, and one for all."""
    every = rows.groupby("set", sort=False)
    lines = {str(name): _line(part) for name, part in every} | ({"all": _line(rows)} if len(every) > 1 else {})
    return pd.DataFrame(lines).T.round(4)


def _line(rows: pd.DataFrame) -> dict[str, float]:
    found: dict[str, float] = {"repeats": len(rows), "hidden": rows["hidden"].mean()}
    for what in ("forecast", "nested"):
        value, low, high = np.array(rows[what].tolist()).T
        held = (low <= rows["hidden"]) & (rows["hidden"] <= high)
        found |= {f"{what} error": (value - rows["hidden"]).mean(), f"{what} held": held.mean()}
        found |= {f"{what} width": (high - low).mean()}
    if "gain" in rows:
        gains = pd.DataFrame(rows["gain"].tolist())
        found |= {f"gain {name}": gains[name].mean() for name in gains}
    else:
        found |= {"before": rows["before"].mean(), "best error": (rows["best of all"] - rows["hidden"]).mean()}
        found |= {"kept": rows["kept"].mean()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, nargs="+", required=True)
    parser.add_argument("--size", type=int, default=96, help="side of the images, in pixels")
    parser.add_argument("--metric", help="another than the competition's")
    parser.add_argument("--repeats", type=int, default=200, help="of each competition")
    parser.add_argument("--useless", type=int, default=0, help="members that know nothing more")
    parser.add_argument("--file", type=Path, default=Path("runs/forecast.jsonl"))
    args = parser.parse_args()
    allocator.keep_freed_memory()
    done = finished_rows.read(args.file)
    words = [f"images.size={args.size}", "finetune.mode=linear_probe", "experiment=forecast"]
    for path in args.configs:
        experiment = make_folds.open_experiment(config_file.load(path, words), print)
        data = experiment.competition
        about = {"set": data.name, "size": args.size, "metric": args.metric, "useless": args.useless}
        there = {row["draw"] for row in done if about.items() <= row.items()}
        kernels = {name: products(experiment, name) for name in NETS} if len(there) < args.repeats else {}
        for draw in (draw for draw in range(args.repeats) if draw not in there):
            one = case(data, kernels, draw, args.metric, pairs=not args.useless)
            found = useless(one, args.useless, draw) if args.useless else repeat(one)
            done.append({**about, "draw": draw, **found})
            with open(args.file, "a") as stream:
                stream.write(json.dumps(done[-1]) + "\n")
    wanted = {"size": args.size, "metric": args.metric, "useless": args.useless}
    print(table(pd.DataFrame([row for row in done if wanted.items() <= row.items()])).T.to_string())


if __name__ == "__main__":
    main()
