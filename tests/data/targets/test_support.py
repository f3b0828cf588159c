"""What the table refuses is refused in one line, and what it allows trains and predicts, for every kind of target."""

from collections.abc import Iterator
from pathlib import Path

import kinds_ground
import numpy as np
import pytest
from kinds_ground import TARGETS

from foldcraft.common import config_file
from foldcraft.common.callbacks import Callback
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.paths import FoldFolder
from foldcraft.data.targets import support
from foldcraft.predictions import store
from foldcraft.study import make_folds
from foldcraft.training.distributed import Processes
from foldcraft.training.fold import train_fold

PROBE, TEACHER = "finetune.mode=linear_probe", "distill.teachers=[other]"
ASKED = {  # by what asks for it, the words that a feature of the table is asked for by
    "logistic": ("probe.solver: logistic", (PROBE, "probe.solver=logistic")),
    "balanced probe": ("train.imbalance of a linear probe", (PROBE, "train.imbalance=weighted")),
    "weighted": ("train.imbalance: weighted", ("train.imbalance=weighted",)),
    "sampler": ("train.imbalance: sampler", ("train.imbalance=sampler",)),
    "focal": ("train.imbalance: focal", ("train.imbalance=focal",)),
    "logit_adjusted": ("train.imbalance: logit_adjusted", ("train.imbalance=logit_adjusted",)),
    "rdrop": ("regularize.rdrop", ("regularize.rdrop=0.5", "backbone.drop=0.2")),
    "confidence": ("distill.confidence", (TEACHER, "distill.pseudo=0.3", "distill.confidence=0.5")),
    "hard": ("distill.hard", (TEACHER, "distill.hard=true")),
    "temperature": ("distill.temperature", (TEACHER, "distill.temperature=2")),
}
ALLOWED = {  # what the table allows for every kind
    "ridge": (PROBE,),
    "head from a probe": ("finetune.head_init=probe",),
    "norm": ("finetune.mode=norm",),
    "lora": ("finetune.mode=lora",),
    "mixed": ("augment.mixup=0.4", "augment.cutmix=1", "augment.mix_off=0"),
    "smoothed": ("regularize.label_smoothing=0.3",),
    "interpolated": ("finetune.head_init=probe", "finetune.interpolate=true"),
}
FAST = {("mixed", shape) for shape in ("multilabel", "regression", "multioutput", "soft")}
FAST |= {("weighted", "multilabel"), ("weighted", "heads"), ("rdrop", "ordinal"), ("head from a probe", "auxiliary")}


def lacks(key: str, shape: str) -> str:
    return next(feature.lack(support.examples()[shape]) for feature in support.FEATURES if feature.key == key)


@pytest.mark.parametrize("shape", TARGETS)
def test_what_does_not_go_with_a_target_is_refused_in_one_line(shape: str, workplace: Path) -> None:
    target = kinds_ground.target(shape)
    for key, words in ASKED.values():
        settings = kinds_ground.settings(shape, *words)
        if not lacks(key, shape):
            support.check(settings, target)
            continue
        with pytest.raises(FoldcraftError, match="does not go with the target") as told:
            support.check(settings, target)
        assert len(str(told.value)) < 300
        assert str(told.value).startswith(key)
        assert ("cumulative: false" in told.value.hint) == (shape == "ordinal")
        assert told.value.hint


def test_every_feature_that_may_be_refused_is_tried() -> None:
    assert {feature.key for feature in support.FEATURES if feature.instead} == {key for key, _ in ASKED.values()}


def test_examples_are_of_the_shapes_that_are_drawn(workplace: Path) -> None:
    assert list(support.examples()) == ["single", "heads", "auxiliary", *list(TARGETS)[3:]]
    for shape, example in support.examples().items():
        drawn = kinds_ground.target(shape)
        assert (drawn.kind, support.called(drawn)) == (example.kind, support.called(example))
        assert [feature.lack(drawn) for feature in support.FEATURES] == [
            feature.lack(example) for feature in support.FEATURES
        ]


def test_a_refusal_is_the_first_thing_that_a_command_says(command, workplace: Path) -> None:
    kinds_ground.write(Path("input/kinds"))
    path = kinds_ground.config("regression")
    done = command("train", "--config", path, "--fold", "0", "train.imbalance=sampler")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "train.imbalance: sampler: does not go with the target, regression: values have no classes" in done.err


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The drawn competition, for all tests of this file."""
    folder = tmp_path_factory.mktemp("kinds")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        kinds_ground.write(Path("input/kinds"))
        yield folder


def cells() -> Iterator[object]:
    words = ALLOWED | {
        name: asked
        for name, (key, asked) in ASKED.items()
        if not key.startswith("distill") and any(not lacks(key, shape) for shape in TARGETS)
    }
    for name, asked in words.items():
        for shape in TARGETS:
            if name not in ALLOWED and lacks(ASKED[name][0], shape):
                continue
            marks = [pytest.mark.integration if (name, shape) in FAST else pytest.mark.slow]
            yield pytest.param(shape, asked, id=f"{shape}: {name}", marks=marks)


@pytest.mark.parametrize(("shape", "words"), list(cells()))
def test_what_goes_with_a_target_trains_and_predicts(shape: str, words: tuple[str, ...], ground: Path) -> None:
    name = f"tried{abs(hash(words))}"
    settings = config_file.load(kinds_ground.config(shape), [*words, f"experiment={name}"])
    experiment = make_folds.open_experiment(settings, lambda word: None)
    manifest = train_fold(experiment, 0, Processes(), Callback())
    found = store.read(FoldFolder.of(settings, 0).oof)
    space = experiment.competition.space
    assert np.isfinite(manifest["score"])
    assert found.predicted.shape == (1, len(experiment.folds.valid_rows(0)), space.width)
    assert space.is_valid(found.predicted[0])
    assert np.ptp(found.predicted[0], axis=0).max() > 0, "images differ, and so does what is said of them"
