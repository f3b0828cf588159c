"""Do the folds hold, and does a batch hold what its rows say?"""

import numpy as np
import pandas as pd

from foldcraft.common.config import Config
from foldcraft.data.folds import torn_groups
from foldcraft.data.host_files import host_rows
from foldcraft.data.images import image_cache as pictures
from foldcraft.data.images.inference_size import resize_for_inference
from foldcraft.data.targets import reading
from foldcraft.data.targets.target import Target
from foldcraft.study.checks.result import CheckResult, verdict
from foldcraft.study.checks.subject import Subject

SOME = 32  # images that are decoded anew


def folds_hold(subject: Subject) -> CheckResult:
    """No group in two folds, no row learned from and judged on, no id twice, made for these data."""
    hint = "delete the file and run `python src/split.py` again; runs on the old folds are void"
    if subject.folds_problem:
        return verdict(False, subject.folds_problem, hint)
    split, data = subject.whole.folds, subject.whole.competition
    problems = _id_problems(subject)
    torn = torn_groups(split, data)
    both = sum(len(np.intersect1d(split.train_rows(k), split.valid_rows(k))) for k in range(split.count))
    judged = np.concatenate([split.valid_rows(k) for k in range(split.count)])
    problems += [f"{torn} groups lie in several folds"] if torn else []
    problems += [f"{both} rows are both learned from and judged on"] if both else []
    if not np.array_equal(np.sort(judged), np.arange(len(data.targets))):
        problems.append("not every row is judged exactly once")
    strangers = _strangers(subject)
    problems += [f"training draws {strangers} rows that are not the fold's to learn from"] if strangers else []
    groups = "no group column" if data.groups is None else f"{len(np.unique(data.groups))} groups, none in two folds"
    sound = f"{split.count} folds of {len(data.targets)} rows, {groups}"
    return verdict(not problems, "; ".join(problems) or sound, hint, torn_groups=torn, shared_rows=both)


def _id_problems(subject: Subject) -> list[str]:
    """What is wrong with the ids in the file itself."""
    ids = pd.read_csv(subject.config.folds_file, skiprows=1, dtype=str, keep_default_na=False)["id"]
    ours = subject.whole.competition.train_ids
    problems = [f"{ids.duplicated().sum()} ids stand twice in the file"] if ids.duplicated().any() else []
    apart = len(set(ids) ^ set(ours.tolist()))
    return [*problems, f"{apart} ids differ from the training rows'"] if apart else problems


def _strangers(subject: Subject) -> int:
    """Rows in an epoch's batches that the fold must not learn from."""
    if not subject.trains:
        return 0
    trainer = subject.trainer(subject.as_is)
    drawn = {draw.row for batch in trainer.batches for draw in batch}
    fold = subject.experiment.folds.fold
    return sum(fold[row] == 0 for row in drawn)


def pairs_hold(subject: Subject) -> CheckResult:
    """Images and labels of a batch are those of its ids, by the CSV and the files read anew."""
    data, config = subject.competition, subject.config
    start = subject.as_is.start
    rows = subject.some_rows(SOME)
    spec = subject.experiment.image_spec(start.blueprint)
    written = _written(config)
    wrong_labels = wrong_images = seen = 0
    for row, image, target in _drawn(subject, rows):
        wanted = resize_for_inference(pictures.square(data.train_paths[row], spec), config.images)
        wrong_images += not np.array_equal(image, wanted)
        wrong_labels += not np.array_equal(target, written[data.train_ids[row]], equal_nan=True)
        seen += 1
    number = (
        f"of {seen} images in batches, {wrong_images} are not their file's and {wrong_labels} labels not their row's"
    )
    hint = "look for rows that were shuffled, sorted or joined apart; delete runs/<competition>/cache if images differ"
    return verdict(not wrong_images and not wrong_labels, number, hint, images=wrong_images, labels=wrong_labels)


def _written(config: Config) -> dict[str, np.ndarray]:
    """What a net is to learn of each row, by its id: the file read anew, by the target's own rules."""
    rows = host_rows.read(config.folder, config.competition)
    target = reading.read(rows.names, rows.train, config.folder / rows.names.train).target
    return dict(zip(rows.train[rows.names.train_id].tolist(), _learned(target), strict=True))


def _learned(target: Target) -> np.ndarray:
    """Class indices (N,) of one label, else what heads learn (N, W)."""
    return target.learned if target.learned.ndim == 1 else target.learned_space.matrix(target.learned)


def _drawn(subject: Subject, rows: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Row, image and what is learned of it of everything in an epoch's batches, without augmentation."""
    if not subject.trains:
        targets = _learned(subject.competition.target)
        images = subject.fresh.images.at(rows)
        return [(int(row), image.numpy(), targets[row]) for row, image in zip(rows, images, strict=True)]
    trainer = subject.trainer(subject.plain, rows, train={"batch": 8}, machine={"workers": 0})
    found = []
    for batch in trainer.loader:
        parts = zip(batch.rows.tolist(), batch.images, batch.targets.numpy(), strict=True)
        found += [(row, image.numpy(), target) for row, image, target in parts]
    return found
