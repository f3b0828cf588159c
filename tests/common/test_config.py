"""Settings: what extends what, what wins, which files of the repository are sound, and what decides a training."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from omegaconf import OmegaConf

from foldcraft.common import config_reference
from foldcraft.common.config import Config
from foldcraft.common.config_file import load
from foldcraft.common.config_reference import json_schema
from foldcraft.common.errors import FoldcraftError

ROOT = Path(__file__).parents[2]
FILES = sorted(set((ROOT / "configs").rglob("*.yaml")) - set((ROOT / "configs" / "sweeps").iterdir()))
FRAGMENTS = [path for path in FILES if path.parent.name == "recipes" or path.name == "competition.yaml"]
EXPERIMENTS = [path for path in FILES if path not in FRAGMENTS]
LEAST = "competition: {name: shapes}\nbackbone: {name: test_resnet}\n"

SCHEMA = Draft202012Validator(json_schema())


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT / "configs"))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_extends_one_file_relative_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The path is seen from the file that holds it, not from the current folder; files above may extend on."""
    write(tmp_path / "base" / "root.yaml", LEAST + "train: {epochs: 3}\noptim: {lr: 0.5}\n")
    write(tmp_path / "base" / "middle.yaml", "extends: root.yaml\noptim: {lr: 0.25}\n")
    leaf = write(tmp_path / "deep" / "er" / "leaf.yaml", "extends: ../../base/middle.yaml\nseed: 7\n")
    monkeypatch.chdir(tmp_path / "deep")
    made = load(leaf)
    assert (made.train.epochs, made.optim.lr, made.seed) == (3, 0.25, 7)
    assert made == load(Path("er/leaf.yaml"))


def test_of_several_the_later_wins_and_the_file_itself_over_all(tmp_path: Path):
    write(
        tmp_path / "a.yaml", LEAST + "train: {epochs: 1, batch: 4}\noptim: {lr: 0.1}\ntta: {views: [identity, vflip]}\n"
    )
    write(tmp_path / "b.yaml", "train: {epochs: 2}\noptim: {lr: 0.2}\ntta: {views: [identity]}\n")
    path = write(tmp_path / "c.yaml", "extends: [a.yaml, b.yaml]\ntrain: {epochs: 3}\n")
    made = load(path)
    assert (made.train.epochs, made.optim.lr, made.train.batch) == (3, 0.2, 4)
    assert made.tta.views == ["identity"]  # a list is replaced, not joined


def test_the_same_file_may_be_extended_by_two_ways(tmp_path: Path):
    write(tmp_path / "root.yaml", LEAST)
    write(tmp_path / "a.yaml", "extends: root.yaml\nseed: 1\n")
    write(tmp_path / "b.yaml", "extends: root.yaml\ntrain: {epochs: 2}\n")
    made = load(write(tmp_path / "c.yaml", "extends: [a.yaml, b.yaml]\n"))
    assert (made.seed, made.train.epochs) == (1, 2)


@pytest.mark.parametrize("files", [{"a": "a"}, {"a": "b", "b": "c", "c": "a"}], ids=["itself", "three"])
def test_a_circle_is_refused(tmp_path: Path, files: dict[str, str]):
    for name, parent in files.items():
        write(tmp_path / f"{name}.yaml", f"extends: {parent}.yaml\n" + LEAST)
    with pytest.raises(FoldcraftError, match="extends itself") as error:
        load(tmp_path / "a.yaml")
    assert "a.yaml" in str(error.value)


def test_a_missing_parent_is_named(tmp_path: Path):
    path = write(tmp_path / "a.yaml", "extends: nowhere.yaml\n" + LEAST)
    with pytest.raises(FoldcraftError, match=r"nowhere\.yaml: no such config"):
        load(path)


@pytest.mark.parametrize(
    "text",
    ["- a\n- b\n", "train: [1, 2", "a: 1\na: 2\n", "extends: 3\n", "seed: ${nothing}\n", "\xff"],
)
def test_a_file_that_is_no_config_is_told_in_a_line(tmp_path: Path, text: str):
    path = tmp_path / "odd.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(FoldcraftError, match=r"odd\.yaml") as error:
        load(path)
    assert "\n" not in str(error.value)


def test_overrides_win_and_the_last_of_them_most(tmp_path: Path):
    write(tmp_path / "root.yaml", LEAST + "optim: {lr: 0.5}\n")
    path = write(tmp_path / "a.yaml", "extends: root.yaml\ntrain: {epochs: 3}\noptim: {lr: 0.25}\n")
    words = ["optim.lr=0.1", "optim.lr=2e-3", "backbone.name=resnet10t", "tta.views=[vflip]", "images.cache_size=null"]
    made = load(path, words)
    assert (made.optim.lr, made.train.epochs) == (0.002, 3)
    assert (made.backbone.name, made.tta.views, made.images.cache_size) == ("resnet10t", ["vflip"], None)


def test_the_experiment_is_named_after_the_file_unless_it_is_named(tmp_path: Path):
    write(tmp_path / "root.yaml", LEAST)
    path = write(tmp_path / "slow.yaml", "extends: root.yaml\n")
    named = write(tmp_path / "other.yaml", "extends: root.yaml\nexperiment: mine\n")
    assert load(path).experiment == "slow"
    assert load(named).experiment == "mine"
    assert load(path, ["experiment=fast"]).experiment == "fast"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("tta.q=1", "unknown key 'tta.q', known: tta.views"),
        ("train.epoch=3", "unknown key 'train.epoch', did you mean 'train.epochs'?"),
        ("competition.idd=x", "unknown key 'competition.idd', did you mean 'competition.id'?"),
        ("lr=0.1", "unknown key 'lr', did you mean 'optim.lr'?"),
        ("trian.lr=0.1", "unknown key 'trian', did you mean 'train'?"),
    ],
)
def test_an_unknown_key_is_named_with_the_one_that_was_meant(tmp_path: Path, word: str, message: str):
    path = write(tmp_path / "a.yaml", LEAST)
    with pytest.raises(FoldcraftError) as error:
        load(path, [word])
    assert message in str(error.value)


def test_every_mistake_is_told_at_once(tmp_path: Path):
    path = write(tmp_path / "a.yaml", "train: {epochs: 0}\noptim: {lr: fast}\nfolds: {count: 1}\nbackbone: {name: x}\n")
    with pytest.raises(FoldcraftError) as error:
        load(path)
    assert str(error.value) == (
        f"{path}: 'competition' is missing | folds.count must be 2 or more, is 1 | train.epochs must be 1 or more or "
        "auto, is 0 | optim.lr must be a number or auto, is 'fast'"
    )


def test_a_file_that_is_no_config_yet_is_told_what_writes_one(tmp_path: Path):
    path = write(tmp_path / "a.yaml", "")
    with pytest.raises(FoldcraftError) as error:
        load(path)
    said = "'competition' is missing | 'backbone' is missing; `python src/start.py FOLDER` writes a whole config"
    assert str(error.value) == f"{path}: {said}"


def test_of_many_mistakes_the_first_are_told(tmp_path: Path):
    path = write(tmp_path / "a.yaml", LEAST + "augment: {transforms: [" + ", ".join(["{a: [x]}"] * 50) + "]}\n")
    with pytest.raises(FoldcraftError) as error:
        load(path)
    assert "augment.transforms.0.a must be a mapping, as {a: 1}, is ['x'] | augment.transforms.1.a" in str(error.value)
    assert re.search(r" \| and 4\d more$", str(error.value))
    assert len(str(error.value)) < 300 + len(str(path))


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("train.epochs=three", "must be a whole number or auto, is 'three'"),
        ("train.batch=three", "must be a whole number, is 'three'"),
        ("train.batch=2.5", "must be a whole number, is 2.5"),
        ("train.batch=null", "must be a whole number, is empty"),
        ("images.cache_size={a: 1}", "must be a whole number, is {'a': 1}"),
        ("optim.lr=abc", "must be a number or auto, is 'abc'"),
        ("optim.lr=-1", "must be greater than 0 or auto, is -1"),
        ("optim.min_lr=.inf", "must be a finite number, is inf"),
        ("train.accumulate=2000", "must be 1024 or less, is 2000"),
        ("seed=9999999999", "must be less than 4294967296, is 9999999999"),
        ("optim.ema=ja", "must be true or false, is 'ja'"),
        ("folds.merge_duplicates=3", "must be auto or true or false, is 3"),
        ("images.resize=croop", "must be squash, pad or crop, is 'croop'; did you mean 'crop'?"),
        ("images.resize=stretch", "must be squash, pad or crop, is 'stretch'"),
        ("tracking.wandb=true", "must be auto, online, offline or off, is true"),
        ("tta.views=hflip", "must be a list, as [a, b], is 'hflip'"),
        ("tta.views=[]", "must be a list of 1 or more, is []"),
        ("tta.views=[a,a]", "cannot be ['a', 'a']: named more than once: a"),
        ("tta.views=[identity,1]", "tta.views.1 must be text, is 1; put quotes around it"),
        ("probe.sizes=[32,3]", "probe.sizes.1 must be 8 or more, is 3"),
        ("probe.stages=[1]", "probe.stages.0 must be text, is 1; put quotes around it"),
        ("probe.stages=3", "must be auto, all, coarse or last or a list, as [a, b], is 3"),
        ("augment.transforms=[5]", "augment.transforms.0 must be a mapping, as {a: 1} or text, is 5"),
        ("augment.transforms=[{Flip: 5}]", "augment.transforms.0.Flip must be a mapping, as {a: 1}, is 5"),
        ("probe.stage_weights={float: x}", "probe.stage_weights.float must be a number, is 'x'"),
        ("probe.stage_weights=[1]", "must be a mapping, as {a: 1}, is [1]"),
        ("competition.name=2024", "must be text, is 2024; put quotes around it"),
        ("competition.order=[null]", "put quotes around no, yes, on, off, true, false and null"),
        ("experiment=../up", "must be letters, digits, '.', '_' and '-', the first a letter or digit, is '../up'"),
        (f"experiment={'x' * 101}", "must be text of 100 characters or fewer, is 'xxx"),
        ("runs=5", "must be a path, is 5"),
        ("train=5", "must be a section of 'key: value' lines, is 5"),
        ("backbone.nmae=x", "unknown key 'backbone.nmae', did you mean 'backbone.name'?"),
        ("train.lr=abc", "optim.lr must be a number or auto, is 'abc'"),
    ],
)
def test_a_mistake_in_a_word_of_the_command_line_is_told_plainly(tmp_path: Path, word: str, told: str):
    with pytest.raises(FoldcraftError) as error:
        load(write(tmp_path / "a.yaml", LEAST), ["seed=1", word])
    said = str(error.value)
    named = word.partition("=")[0] if "unknown key" in told or "{" in word else word[:60]
    assert said.startswith(f"command line: {named}"), said
    assert told in said
    assert not re.search("input|valid |string|integer|dictionary|boolean", said.removeprefix(f"command line: {word}"))
    assert len(said) < 300


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("tta.views.x=1", "command line: does not fit what is there already: tta.views is a list, and is given as a"),
        ("train=[1]", "command line: does not fit what is there already: train is a section, and is given as a list"),
        ("optim.lr=[", "command line: the value of 'optim.lr=[' cannot be read; close brackets and quotes"),
    ],
)
def test_a_word_that_fits_nothing_is_told(tmp_path: Path, word: str, told: str):
    text = LEAST + "train: {epochs: 3}\ntta: {views: [identity]}\n"
    with pytest.raises(FoldcraftError, match=f"^{re.escape(told)}"):
        load(write(tmp_path / "a.yaml", text), [word])
    if word.startswith("tta"):
        leaf = write(tmp_path / "leaf.yaml", "extends: a.yaml\ntta: {views: {x: 1}}\n")
        with pytest.raises(FoldcraftError, match=r"leaf\.yaml: does not fit .* tta\.views is a list"):
            load(leaf)


def test_a_mistake_is_laid_to_the_file_that_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write(Path("root.yaml"), LEAST + "train: {epochs: three, batch: 8}\n")
    leaf = write(Path("leaf.yaml"), "extends: root.yaml\ntrain: {batch: x}\n")
    with pytest.raises(FoldcraftError) as error:
        load(leaf, ["optim.lr=abc"])
    assert str(error.value) == (
        "root.yaml: train.epochs must be a whole number or auto, is 'three' | "
        "leaf.yaml: train.batch must be a whole number, is 'x' | "
        "command line: optim.lr=abc: must be a number or auto, is 'abc'"
    )


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name_of)
def test_an_experiment_of_the_repository_loads(path: Path):
    made = load(path)
    assert made.competition.name == path.parent.name or path.name == "default.yaml"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_config_of_the_repository_fits_the_schema(path: Path):
    SCHEMA.validate(OmegaConf.to_container(OmegaConf.load(path)))


def test_the_repository_has_configs_of_both_kinds():
    assert ROOT / "configs" / "default.yaml" in EXPERIMENTS
    assert len(FRAGMENTS) >= 2


@pytest.mark.parametrize(
    "values",
    [
        {"sed": 1},
        {"train": {"learning_rate": 0.1}},
        {"train": {"epochs": 0}},
        {"images": {"resize": "stretch"}},
        {"experiment": "../up"},
        {"extends": 3},
    ],
)
def test_the_schema_refuses_what_loading_refuses(values: dict):
    assert list(SCHEMA.iter_errors(values))


def test_the_schema_takes_any_part_of_a_config():
    assert SCHEMA.is_valid({})
    assert SCHEMA.is_valid({"extends": ["a.yaml", "b.yaml"], "train": {"epochs": 3}})
    Draft202012Validator.check_schema(json_schema())


def test_every_key_is_described():
    rows = list(config_reference.describe())
    assert {"seed", "competition.id", "optim.lr", "tta.views"} <= {name for name, *_ in rows}
    assert all(text and kind for _, kind, _, text in rows)


def named_in(values: object, place: tuple[str, ...] = ()) -> Iterator[str]:
    """The dotted keys of a YAML file."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield ".".join((*place, str(key)))
            yield from named_in(value, (*place, str(key)))


def test_every_key_is_shown_in_a_config_or_in_the_guide():
    """A setting that nobody meets is one that nobody needs."""
    shown = set(re.findall(r"`([a-z0-9_.]+)[`:]", (ROOT / "docs" / "guide.md").read_text()))
    for file in (ROOT / "configs").rglob("*.yaml"):
        values = yaml.safe_load(file.read_text())
        shown |= {*named_in(values), *values.get("parameters", {})}
    assert [name for name, *_ in config_reference.describe() if name not in shown] == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "a.yaml", LEAST)


@pytest.mark.parametrize(
    ("words", "views"),
    [
        ([], ["identity", "hflip", "scale1.25"]),
        (["augment.hflip=0"], ["identity", "scale1.25"]),
        (["augment.hflip=0", "augment.vflip=0.5"], ["identity", "vflip", "scale1.25"]),
        (["tta.views=[identity,rot180]"], ["identity", "rot180"]),
    ],
)
def test_views_left_out_are_those_that_training_shows(path: Path, words: list[str], views: list[str]):
    """A hand that is mirrored may be another sign: no flip is looked at unless the config draws it or names it."""
    assert load(path, words).tta.views == views


@pytest.mark.parametrize(
    "word",
    [
        "experiment=b",
        "runs=elsewhere",
        "tta.views=[identity]",
        "tracking.wandb=offline",
        "tracking.project=p",
        "machine.workers=3",
        "machine.device=cpu",
        "competition.folder=/moved",
    ],
)
def test_where_and_how_it_runs_does_not_change_what_is_trained(path: Path, word: str):
    assert load(path, [word]) != load(path)
    assert load(path, [word]).training_fingerprint() == load(path).training_fingerprint()


@pytest.mark.parametrize(
    "word",
    [
        "optim.lr=0.002",
        "train.epochs=13",
        "regularize.label_smoothing=0",
        "seed=1",
        "images.size=64",
        "images.max_value=4095",
        "augment.hflip=0",
        "augment.transforms=[HorizontalFlip]",
        "backbone.name=resnet10t",
        "backbone.weights=none",
        "backbone.args.in_chans=3",
        "finetune.batchnorm=adapted",
        "competition.name=others",
    ],
)
def test_what_decides_a_training_changes_its_fingerprint(path: Path, word: str):
    assert load(path, [word]).training_fingerprint() != load(path).training_fingerprint()


def test_what_is_written_into_a_run_loads_as_the_same(tmp_path: Path):
    """The hard ones: words that YAML takes for something else, nothing, a path, nested transforms."""
    words = [
        "runs=a/b",
        "tracking.wandb=off",
        "competition.target='on'",
        "competition.id='07'",
        "competition.image='{a}/{b}.jpg'",
        "competition.folder=some where",
        "optim.lr=1e-5",
        "optim.ema_decay=0.5",
        "finetune.layer_decay=0.5",
        "backbone.args={drop_block_rate: 0.1, norm_layer: null}",
        "augment.transforms=[HorizontalFlip, {OneOf: {transforms: [Blur], p: 0.5}}, Affine: null]",
    ]
    made = load(write(tmp_path / "a.yaml", LEAST), words)
    again = load(write(tmp_path / "again.yaml", made.to_yaml()))
    assert isinstance(made, Config)
    assert again == made
    assert again.training_fingerprint() == made.training_fingerprint()
    assert (made.competition.target, made.competition.id, made.tracking.wandb) == ("on", "07", "off")
