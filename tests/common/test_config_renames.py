"""Renamed keys: files that have the old ones are read with one warning, and what was trained under them stays valid."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import CONFIG

from foldcraft.common import checksums, config_file, config_renames, executor, notices
from foldcraft.common.config_reference import describe
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.paths import FoldFolder
from foldcraft.study import search_space

LEAST = "competition: {name: shapes}\nbackbone: {name: test_resnet}\n"
# What the last version with the old keys gave: the words, and the fingerprint of what they train.
TRAINED = {
    "fine-tuning": ([], "5c3717e6d02b8427"),
    "linear probe": (["finetune.mode=linear_probe"], "8823d65a0fdd7eba"),
    "distillation": (["distill.teachers=[a,b]", "distill.pseudo=0.2", "experiment=student"], "3b97d9e1ea53377c"),
    "early stopping": (["train.patience=3", "train.validate_every=2"], "3b294db42d7c5a17"),
    "every renamed key": (
        [
            *("train.epochs=3", "train.batch=16", "train.accumulate=2", "train.lr=0.002", "train.min_lr=1e-5"),
            *("train.warmup=0.2", "train.weight_decay=0.01", "train.label_smoothing=0", "train.imbalance=weighted"),
            *("train.rdrop=0.3", "train.swa=0.3", "train.clip=0", "train.ema=false"),
            *("train.ema_decay=0.9", "train.validate_every=2", "train.workers=1", "train.device=cpu"),
            *("train.precision=32-true", "train.memory_format=contiguous", "backbone.drop=0.1"),
        ],
        "23a2b91cffa1a612",
    ),
}
OLD = CONFIG.replace("machine: {", "train: {epochs: 2, batch: 8, ").replace("train: {epochs: 2, batch: 8}\n", "", 1)


@pytest.fixture(autouse=True)
def untold() -> Iterator[None]:
    """No warning has been told yet."""
    notices.tell_once.cache_clear()
    yield
    notices.tell_once.cache_clear()


@pytest.fixture
def least(tmp_path: Path) -> Path:
    path = tmp_path / "least.yaml"
    path.write_text(LEAST)
    return path


def old_form(settings: dict) -> str:
    """A run's config.yaml as it was written under the old names."""
    return checksums.seal_text(yaml.safe_dump({**config_renames.canonical(settings), "soup": {}}))


@pytest.mark.parametrize(("words", "known"), TRAINED.values(), ids=TRAINED)
def test_an_experiment_is_the_same_under_old_and_new_keys(least: Path, words: list[str], known: str) -> None:
    key_values = [word.partition("=") for word in words]
    today = [f"{config_renames.current(key)}={value}" for key, _, value in key_values]
    assert config_file.load(least, words).training_fingerprint() == known
    assert config_file.load(least, today).training_fingerprint() == known
    assert config_file.load(least, today).as_trial().experiment.endswith(known[:8])


def test_a_soup_is_the_same_as_when_it_was_a_setting(least: Path) -> None:
    members = {"a": "0123456789abcdef", "b": "fedcba9876543210"}
    assert config_file.load(least, ["experiment=soup"]).training_fingerprint(members) == "14edbca00cdebdcb"


def test_the_table_leads_from_keys_that_are_gone_to_keys_that_are_there() -> None:
    known = {name for name, *_ in describe()}
    assert set(config_renames.RENAMED.values()) - set(config_renames.WITHDRAWN) <= known
    assert not known & set(config_renames.RENAMED)
    assert {config_renames.current(config_renames.oldest(name)) for name in known} == known


def test_one_warning_names_all_old_keys_and_their_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "root.yaml").write_text(LEAST + "train: {epochs: 3, lr: 0.5, rdrop: 0.1}\n")
    paths = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    for path in paths:
        path.write_text("extends: root.yaml\noptim: {lr: 0.25}\n")
    one, other = config_file.load_all(paths, ["train.workers=2"])
    assert (one.optim.lr, one.regularize.rdrop, one.machine.workers, one.train.epochs) == (0.25, 0.1, 2, 3)
    assert other.training_fingerprint() == one.training_fingerprint()
    assert len(caplog.messages) == 1
    said = caplog.messages[0]
    assert f"train.lr is now optim.lr, train.rdrop is now regularize.rdrop ({tmp_path / 'root.yaml'})" in said
    assert said.count("train.workers is now machine.workers (command line)") == 1
    assert "\n" not in said


def test_what_extends_a_file_with_old_keys_wins_over_it_and_loses_to_words(tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text(LEAST + "optim: {lr: 0.5}\n")
    (tmp_path / "old.yaml").write_text("extends: new.yaml\ntrain: {lr: 0.25}\n")
    assert config_file.load(tmp_path / "old.yaml").optim.lr == 0.25
    assert config_file.load(tmp_path / "old.yaml", ["optim.lr=0.1"]).optim.lr == 0.1


def test_new_keys_are_read_in_silence(least: Path, caplog: pytest.LogCaptureFixture) -> None:
    config_file.load(least, ["optim.lr=0.1", "train.epochs=3"])
    assert caplog.messages == []


@pytest.mark.parametrize("text", ["train: {lr: 0.1}\noptim: {lr: 0.2}\n", "train: {lr: 0.1}\noptim: {lr: 0.1}\n"])
def test_both_names_in_one_file_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "both.yaml"
    path.write_text(LEAST + text)
    with pytest.raises(FoldcraftError, match=r"both\.yaml: train\.lr is called optim\.lr now, and both are given"):
        config_file.load(path)


def test_both_names_on_the_command_line_are_refused(least: Path) -> None:
    with pytest.raises(FoldcraftError, match=r"command line: train\.lr is called optim\.lr now"):
        config_file.load(least, ["optim.lr=0.1", "train.lr=0.2"])


@pytest.mark.parametrize(
    "text", ["train: 3\n", "train: {lr: 0.1}\noptim: 3\n", "train: {lr: fast}\n", "train: {1: 2}\n"]
)
def test_what_is_wrong_under_an_old_key_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(LEAST + text)
    with pytest.raises(FoldcraftError, match=r"odd\.yaml"):
        config_file.load(path)


def test_a_whole_section_may_be_renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a key twice: identities keep the oldest name, files may have either."""
    monkeypatch.setattr(config_renames, "RENAMED", {"a": "b.c", "x.k": "z.k", "y.k": "z.k"})
    monkeypatch.setattr(config_renames, "_OLDEST", {"b.c": "a", "z.k": "x.k"})
    assert config_renames.renew({"a": {"d": 1}, "y": {"k": 2}}, "f") == (
        {"b": {"c": {"d": 1}}, "z": {"k": 2}},
        ["a", "y.k"],
    )
    assert config_renames.canonical({"b": {"c": {"d": 1}}, "z": {"k": 2}}) == {"a": {"d": 1}, "x": {"k": 2}}
    assert (config_renames.current("a.d"), config_renames.oldest("b.c.d")) == ("b.c.d", "a.d")
    assert config_renames.current("ab") == "ab"


def test_a_sweep_may_have_old_keys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("parameters: {train.lr: {values: [0.1, 0.2]}, seed: {values: [0, 1]}}")
    assert [one.name for one in search_space.read(path).parameters] == ["optim.lr", "seed"]
    assert [f"train.lr is now optim.lr ({path})" in said for said in caplog.messages] == [True]
    path.write_text("parameters: {train.lr: {values: [0.1]}, optim.lr: {values: [0.1]}}")
    with pytest.raises(FoldcraftError, match=r"train\.lr is called optim\.lr now, and both are given"):
        search_space.read(path)


def test_a_sweep_that_was_begun_under_old_keys_goes_on(shapes: Path, command) -> None:
    """The study keeps the oldest names, so the same space is the same sweep, however its file says it."""
    space, words = Path("space.yaml"), ["--config", shapes, "--space", "space.yaml", "finetune.mode=linear_probe"]
    command("split", "--config", shapes)
    space.write_text("{name: s, method: grid, parameters: {train.lr: {values: [0.1, 0.2]}}}")
    first = command("sweep", *words, "--trials", "1")
    space.write_text("{name: s, method: grid, parameters: {optim.lr: {values: [0.1, 0.2]}}}")
    second = command("sweep", *words)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert "trial 1: optim.lr=0.2" in second.out
    assert "trial 0" not in second.out


def test_folds_trained_under_old_keys_count_as_done(shapes: Path, command, caplog: pytest.LogCaptureFixture) -> None:
    """Their settings are read in silence, whatever the config that is named looks like."""
    command("split", "--config", shapes)
    assert command("train", "--config", shapes, "--fold", "all").code == 0
    for fold in range(3):
        folder = FoldFolder(Path(f"runs/shapes/tiny/fold{fold}"), fold)
        folder.config.write_text(old_form(folder.read_settings()))
        assert "lr" in yaml.safe_load(folder.config.read_text())["train"]
        assert folder.read_settings()["optim"]["lr"] == 0.001

    again = command("train", "--config", shapes, "--fold", "all")
    assert again.out.count("done before") == 3
    compared = command("compare", "runs/shapes/tiny", "runs/shapes/tiny", "train.epochs=2")
    assert "is named twice" in compared.err
    other = command("train", "--config", shapes, "--fold", "0", "optim.lr=0.1")
    assert "optim.lr was 0.001, is 0.1" in other.err

    assert caplog.messages == []
    shapes.write_text(OLD)
    once_more = command("train", "--config", shapes, "--fold", "all")
    assert once_more.out.count("done before") == 3
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("word", ["train.sam=0.05", "regularize.sam=0.05"])
def test_an_option_that_is_gone_is_refused_where_it_is_on(least: Path, word: str) -> None:
    with pytest.raises(FoldcraftError, match=r"regularize\.sam=0\.05: SAM is gone"):
        config_file.load(least, [word])


def test_an_option_that_is_gone_may_be_off_and_counts_as_before(least: Path) -> None:
    assert config_file.load(least, ["regularize.sam=0"]) == config_file.load(least)
    assert config_renames.canonical(config_file.load(least).training_settings())["train"]["sam"] == 0.0


def test_a_task_does_not_repeat_the_warning(
    least: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(executor.IS_TASK, "1")
    config_file.load(least, ["train.lr=0.1"])
    assert caplog.records == []
