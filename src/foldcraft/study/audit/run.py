"""Is the data sound? Files, labels, duplicates, leaks, hidden groups, wrong labels; nothing is changed."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold

from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config, ProbeConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.paths import audit_folder, features_folder
from foldcraft.data import competition, folds, metadata, splitting
from foldcraft.data.competition import Competition
from foldcraft.data.folds import Folds
from foldcraft.data.host_files.tables import Tables
from foldcraft.data.images import image_stats
from foldcraft.data.images.image_cache import ImageSpec, ImageStore
from foldcraft.predictions import answers, linear_probe, oof
from foldcraft.predictions.experiment import Experiment, scaled, with_images_known, with_scale, with_three_channels
from foldcraft.predictions.feature_cache import FeatureRequest, FrozenNet
from foldcraft.predictions.feature_cache import load_or_compute as gather_features
from foldcraft.study.audit import (
    duplicate_issues,
    file_issues,
    group_file,
    hidden_groups,
    label_errors,
    label_issues,
    leak_issues,
    leaks,
)
from foldcraft.study.audit.finding import Finding, worst_first
from foldcraft.training import initialization

SMALL = ImageSpec(64)  # as what copies are told by, at the data's scale


@dataclass
class Audit:
    """All that was found.

    Attributes:
        tables: of the competition, those rows too whose image is missing.
        bounds: what becomes black and what white in images of more than 8 bits.
        csvs: what is listed in full, by the name of the file.
        notes: how lines were drawn.
        skipped: what could not be looked for, and why.
    """

    tables: Tables
    bounds: tuple[float, float]
    findings: list[Finding] = field(default_factory=list)
    csvs: dict[str, pd.DataFrame] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def is_serious(self) -> bool:
        """Is anything serious among the findings?"""
        return any(finding.severity == "serious" for finding in self.findings)


@dataclass(frozen=True)
class Seen:
    """Rows whose image can be read, with what a frozen net makes of them.

    Attributes:
        facts: of the files of these rows, training rows first.
        train, test: features float16 (N, D) and (M, D).
        small: the whole images as small squares, training and test.
        frozen: are the folds those that are kept in git?
    """

    experiment: Experiment
    facts: pd.DataFrame
    net: FrozenNet
    train: np.ndarray
    test: np.ndarray
    small: tuple[ImageStore, ImageStore]
    frozen: bool


def run(config: Config, tables: Tables, callback: Callback) -> Audit:
    """Audit one competition, whose tables have been read."""
    for note in tables.image_notes:
        callback.say(note)
    unlike = None
    try:
        config, channels, scale = with_images_known(config, tables)
    except FoldcraftError as error:  # pictures are still looked at as far as people see them
        channels, unlike = (), error
        config, scale = with_scale(with_three_channels(config), tables)
    for note in channels:
        callback.say(note)
    found = Audit(tables, config.images.bounds)
    found.notes += [f"metadata: {note}" for note in _metadata(tables)]
    for note in found.notes:
        callback.say(note)
    if unlike:
        found.skipped.append(f"channels beyond three: {unlike}")
    facts = _facts(config, tables, callback)
    facts["bands_left_out"] &= config.images.bands == 3
    found.findings += file_issues.find(facts, tables, scale) + label_issues.find(tables, config.folds.count)
    found.csvs["files.csv"] = file_issues.table(facts, found.findings, tables.folder)
    found.csvs["labels.csv"] = label_issues.table(tables)
    found.csvs[label_issues.NAMES_TABLE] = label_issues.group_names(tables)
    found.csvs["mixed_groups.csv"] = label_issues.mixed_groups(tables)
    try:
        seen = look(config, tables, facts, callback)
    except FoldcraftError as error:
        found.skipped.append(f"duplicates, leaks, hidden groups and wrong labels: {error}")
        seen = None
    if seen:
        _duplicates(found, seen, callback)
        _leaks(found, seen, callback)
        _subjects(found, seen)
    _label_errors(found, config, seen, callback)
    found.findings = worst_first(found.findings)
    return found


def _metadata(tables: Tables) -> list[str]:
    """Which there are, and what test rows have that no training row has."""
    names, folder = tables.names, tables.folder
    files = (folder / names.train, folder / names.test)
    train, test = metadata.both(names.metadata, (tables.train, tables.test), files)
    return [] if train is None else [train.describe(), *test.strange(train)]


def _facts(config: Config, tables: Tables, callback: Callback) -> pd.DataFrame:
    with callback.progress("looking at files", len(tables.train) + len(tables.test)) as advance:
        cache = audit_folder(config) / "facts.parquet"
        return image_stats.collect(tables, cache, advance, config.images.bounds)


def look(config: Config, tables: Tables, facts: pd.DataFrame, callback: Callback) -> Seen:
    """Decode what can be read, and take its frozen features.

    Raises:
        FoldcraftError: nothing, or a single class or group, is left; no weights; the net gives no features.
    """
    sound = (facts["problem"] == "").to_numpy()
    readable = tables.only(sound[: len(tables.train)], sound[len(tables.train) :])
    for part, paths in (("training", readable.train_paths), ("test", readable.test_paths)):
        if not paths:
            raise FoldcraftError(f"no image of the {part} set can be read", tables.folder)
    data = competition.of(readable)
    made, frozen = _folds(config, data)
    experiment = Experiment(config, data, made)
    model, blueprint = initialization.fresh_net(config, data.target.outputs)
    net = FrozenNet.of(model, blueprint, config)
    small, stores = experiment.open_images([scaled(SMALL, config.images), experiment.image_spec(blueprint)], callback)
    wanted = [
        FeatureRequest(net, part, store, "identity") for part, store in zip(("train", "test"), stores, strict=True)
    ]
    train, test = gather_features(wanted, features_folder(config), callback)
    return Seen(experiment, facts[sound].reset_index(drop=True), net, train, test, small, frozen)


def _folds(config: Config, data: Competition) -> tuple[Folds, bool]:
    """The frozen folds where they fit, and True; else such as they would be, which are written nowhere, and False."""
    try:
        return folds.read_for(config, data), True
    except FoldcraftError:
        pass
    try:
        return splitting.make(data, config.folds), False
    except FoldcraftError:  # too rare a class, which is a finding of its own
        fold = np.zeros(len(data.targets), dtype=np.int64)
        count = min(config.folds.count, len(set(data.units.tolist())))
        if count < 2:
            raise FoldcraftError("all rows are of one group", config.competition.group) from None
        for number, (_, rows) in enumerate(GroupKFold(count).split(fold, fold, data.units)):
            fold[rows] = number
        return Folds(data.train_ids, fold, count, "plain", 0, data.fingerprint), False


def _duplicates(found: Audit, seen: Seen, callback: Callback) -> None:
    data, (train, test) = seen.experiment.competition, seen.small
    pairs = duplicate_issues.search(data, (train.pixels, test.pixels), (seen.train, seen.test), callback)
    found.csvs[duplicate_issues.TABLE] = pairs
    found.findings += duplicate_issues.find(pairs, data, seen.experiment.folds.fold if seen.frozen else None)
    found.notes += [f"copies: {note}" for note in pairs.attrs["notes"]]


def _leaks(found: Audit, seen: Seen, callback: Callback) -> None:
    data = seen.experiment.competition
    by_metadata = leaks.of_metadata(seen.facts, leaks.question(data.target), data.groups, callback)
    by_features = leaks.of_features(seen.train, seen.test, data.train_ids, data.test_ids, data.groups)
    table = pd.concat([by_metadata, by_features], ignore_index=True)
    found.csvs[leak_issues.TABLE] = table
    found.findings += leak_issues.find(table, data)


def _subjects(found: Audit, seen: Seen) -> None:
    data = seen.experiment.competition
    proposal = hidden_groups.propose(data.train_ids, seen.train, data.groups)
    found.csvs[leak_issues.GROUPS_TABLE] = group_file.whole(proposal.table, found.tables.train_ids.tolist())
    found.findings += leak_issues.find_groups(proposal, data)
    found.notes.append(f"groups: {proposal.says}")


def probe_predictions(seen: Seen) -> np.ndarray:
    """What closed-form heads on the frozen features say of each training row, out-of-fold, (N, W)."""
    target, every = seen.experiment.competition.target, seen.train
    learned = (target.learned, seen.experiment.folds.fold, target.learned_space)
    rows = linear_probe.Rows(seen.net.stages, [every], every, *learned)
    return target.from_learned(linear_probe.solve(rows, ProbeConfig()).predicted)


def _label_errors(found: Audit, config: Config, seen: Seen | None, callback: Callback) -> None:
    """Confident learning on what finished experiments say, or else a probe."""
    try:
        data = seen.experiment.competition if seen else competition.of(found.tables)
    except FoldcraftError as error:
        found.skipped.append(f"wrong labels: {error}")
        return
    finished, left_out = oof.load_complete(config, data)
    found.skipped += [f"predictions: {reason}" for reason in left_out]
    if finished:
        predicted = data.space.pooled(np.stack(list(finished.values())))
        judge = f"the predictions of {', '.join(finished)}"
    elif seen:
        callback.say("no finished experiment yet: labels are judged by a probe on frozen features")
        every = np.arange(len(data.train_ids))
        predicted = answers.of_rows(data, probe_predictions(seen)[None], every).by_way[0][0]
        judge = f"a probe on {seen.net.name}"
    else:
        return
    doubtful = label_errors.doubts(data.answers.target, predicted, data.answers.train_ids)
    found.csvs[label_errors.TABLE] = doubtful.table
    found.findings += label_errors.find(doubtful, judge)
