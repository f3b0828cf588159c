"""Weight soups: what may be averaged, the mean itself, the honest choice, and the soup's life as an experiment."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from conftest import CONFIG, Outcome, write_competition
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy.special import log_softmax
from torch import nn

from foldcraft.common import checksums, config_file
from foldcraft.common.callbacks import Callback
from foldcraft.common.errors import FoldcraftError
from foldcraft.data.plain_images import PlainImages
from foldcraft.ensemble import model_soup, soup_ingredients, soup_selection
from foldcraft.ensemble.model_soup import SoupCandidates, mean_of
from foldcraft.ensemble.soup_selection import SoupGain
from foldcraft.metrics import gain
from foldcraft.metrics.gain import Gain
from foldcraft.models import checkpoint
from foldcraft.models.preprocessing import Preparation
from foldcraft.predictions import lineage, store
from foldcraft.predictions.experiment import Experiment

Command = Callable[..., Outcome]
RUNS = Path("runs/shapes")
LEARNING = "augment: {preset: none}\ntrain: {epochs: 8}\noptim: {lr: 0.005}\nregularize: {label_smoothing: 0}\n"
EXPERIMENTS = {
    "a": "extends: tiny.yaml\nbackbone: {name: start, weights: pretrained}\ntrain: {epochs: 2}\noptim: {lr: 0.002}\n",
    "a-s1": "extends: a.yaml\nseed: 1\n",
    "slow": "extends: a.yaml\nseed: 2\ntrain: {epochs: 1}\noptim: {lr: 0.0005}\n",
    "loose": "extends: a.yaml\nfinetune: {batchnorm: train}\ntrain: {epochs: 1}\n",
    "loose-s1": "extends: loose.yaml\nseed: 1\n",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five trainings from one start, two of which let BatchNorm follow; a folder to be copied."""
    import split
    import train

    folder, before = tmp_path_factory.mktemp("soup"), Path.cwd()
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLDCRAFT_WEIGHTS", str(folder / "weights"))
        write_competition(Path("input/shapes"))
        Path("configs").mkdir()
        Path("configs/tiny.yaml").write_text(CONFIG)
        Path("configs/start.yaml").write_text(f"extends: tiny.yaml\n{LEARNING}")
        for name, text in EXPERIMENTS.items():
            Path(f"configs/{name}.yaml").write_text(text)
        split.main(["--config", "configs/tiny.yaml"])
        train.main(["--config", "configs/start.yaml", "--fold", "0"])
        put_weights(Path("weights/start"), RUNS / "start" / "fold0" / "model.safetensors")
        for name in EXPERIMENTS:
            train.main(["--config", f"configs/{name}.yaml", "--fold", "0,1" if name.startswith("loose") else "all"])
        shutil.rmtree(RUNS / "start")
    os.chdir(before)
    return folder


def put_weights(folder: Path, model: Path) -> None:
    """A trained net as pretrained weights, laid out as on the hub."""
    net, blueprint, _ = checkpoint.load_model(model)
    cfg = {**timm.get_pretrained_cfg(blueprint.arch).to_dict(), "num_classes": 3}
    folder.mkdir(parents=True)
    described = {"architecture": blueprint.arch, "num_classes": 3, "pretrained_cfg": cfg}
    (folder / "config.json").write_text(json.dumps(described))
    save_file(net.state_dict(), folder / "model.safetensors")


@pytest.fixture
def kitchen(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the current folder."""
    shutil.copytree(trained, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.setenv("FOLDCRAFT_WEIGHTS", str(tmp_path / "place" / "weights"))
    return tmp_path / "place"


def pot_of(*names: str) -> SoupCandidates:
    gathered = soup_ingredients.find_ingredients([config_file.load(Path(f"configs/{name}.yaml")) for name in names])
    return model_soup.open_candidates(gathered, Callback())


def files(*names: str) -> list[str]:
    return [f"configs/{name}.yaml" for name in names]


# The mean


def state(seed: int, steps: int = 3) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    weights = torch.randn(5, 3, generator=draw)
    return {"w": weights, "n.num_batches_tracked": torch.tensor(steps), "index": torch.arange(4)}


@given(seeds=st.lists(st.integers(0, 99), min_size=1, max_size=6), data=st.data())
def test_the_mean_of_weights(seeds: list[int], data: st.DataObject) -> None:
    made = mean_of(state(seed) for seed in seeds)
    wanted = np.mean([state(seed)["w"].double().numpy() for seed in seeds], axis=0)
    np.testing.assert_array_equal(made["w"].numpy(), wanted.astype(np.float32))
    other = mean_of(state(seed) for seed in data.draw(st.permutations(seeds)))
    assert torch.allclose(made["w"], other["w"], atol=1e-7)
    assert torch.equal(mean_of([state(7)] * 3)["w"], state(7)["w"])


def test_integers_are_no_weights() -> None:
    made = mean_of([state(0, steps=3), state(1, steps=9)])
    assert made["n.num_batches_tracked"] == 3
    assert made["index"].tolist() == [0, 1, 2, 3]
    for broken in (
        {**state(1), "index": torch.arange(4) + 1},
        {**state(1), "w": torch.zeros(5, 4)},
        {**state(1), "more": torch.zeros(1)},
        {"w": torch.zeros(5, 3)},
    ):
        with pytest.raises(FoldcraftError, match="nets of different kinds do not mix"):
            mean_of([state(0), broken])


def test_frozen_statistics_stay_and_trained_ones_are_measured_anew(kitchen: Path) -> None:
    frozen = pot_of("a", "a-s1")
    net = frozen.net((0, 1), 0)
    states = [
        checkpoint.load_model(RUNS / name / "fold0" / "model.safetensors")[0].state_dict() for name in ("a", "a-s1")
    ]
    assert not torch.equal(states[0]["fc.weight"], states[1]["fc.weight"])
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, mean_of(states)[name])
        if "running" in name:
            assert torch.equal(value, states[0][name])

    candidates = pot_of("loose", "loose-s1")
    net = candidates.net((0, 1), 0)
    norm = next(module for module in net.modules() if isinstance(module, nn.BatchNorm2d))
    seen: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    images = PlainImages(candidates.train, candidates.experiment.config.images).at(
        candidates.experiment.folds.train_rows(0)
    )
    with torch.no_grad():
        net(Preparation.of(candidates.blueprint, candidates.hardware)(images))
    torch.testing.assert_close(norm.running_mean, seen[0].mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(norm.running_var, seen[0].var((0, 2, 3)), atol=1e-5, rtol=1e-4)
    assert not net.training


def test_a_mean_of_one_predicts_what_its_member_did(kitchen: Path) -> None:
    candidates = pot_of("a", "a-s1")
    np.testing.assert_allclose(np.exp(candidates._predict((1,), 2)), np.exp(candidates.in_views((1,), 2)), atol=1e-5)
    assert np.abs(candidates.in_views((0, 1), 2) - candidates.in_views((1,), 2)).max() > 1e-4


# The choice


def invented(candidates: SoupCandidates, strength: dict[tuple[int, ...], float]) -> SoupCandidates:
    """The candidates with made up predictions: of each set noisy evidence for the truth, as strong as is said."""
    known = {}
    for number, (chosen, much) in enumerate(strength.items()):
        for fold in candidates.folds:
            truth = candidates.experiment.competition.targets[candidates.experiment.folds.valid_rows(fold)]
            evidence = np.random.default_rng([number, fold]).normal(0, 1, (2, len(truth), 3))
            evidence[:, np.arange(len(truth)), truth] += much
            known[chosen, fold] = log_softmax(evidence, axis=-1).astype(np.float32)
    return replace(candidates, _known=known)


def with_labels(candidates: SoupCandidates, targets: np.ndarray) -> SoupCandidates:
    """The candidates with other labels and the same predictions."""
    first = candidates.members[0]
    data = first.experiment.competition
    relabelled = replace(data, target=data.target.with_truth(targets))
    experiment = replace(first.experiment, competition=relabelled)
    return replace(candidates, members=(replace(first, experiment=experiment), *candidates.members[1:]))


def test_greed_keeps_whom_the_log_loss_falls_with(kitchen: Path) -> None:
    candidates = pot_of("a", "a-s1", "slow")
    helps = {(0,): 0.5, (1,): 1, (2,): 1.5, (1, 2): 4, (0, 1, 2): 3, (0, 1): 9, (0, 2): 9}
    comparison = soup_selection.compare_soups(invented(candidates, helps))
    assert comparison.greedy.chosen == (1, 2), "from the best (2) on: 1 helps, 0 does not"
    assert comparison.best.chosen == (2,)
    assert comparison.uniform.chosen == (0, 1, 2)
    assert comparison.soup is comparison.greedy
    assert comparison.greedy.gain.is_real
    assert comparison.greedy.loss < comparison.uniform.loss < comparison.best.loss
    hurts = {(0,): 2, (1,): 3, (2,): 4, (1, 2): 1, (0, 1, 2): 0, (0, 1): 0, (0, 2): 1}
    lost = soup_selection.compare_soups(invented(candidates, hurts))
    assert lost.greedy.chosen == (2,)
    assert lost.apart
    assert lost.soup is None


def test_a_fold_has_no_say_in_its_own_choice(kitchen: Path) -> None:
    """With other labels in fold 0 its own predictions stay, though the best experiment and soup become others."""
    candidates = pot_of("a", "a-s1", "slow")
    everything = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    even = invented(candidates, dict.fromkeys(everything, 1.5))
    targets = candidates.experiment.competition.targets
    own = candidates.experiment.folds.fold == 0
    best_there = even.predicted((0,), [0]).argmin(1)  # all labels of the fold such that what is chosen changes
    lied_to = targets.copy()
    lied_to[candidates.experiment.folds.valid_rows(0)] = best_there
    first = candidates.rows(candidates.folds) < 0
    first[: own.sum()] = True
    for choose in (soup_selection._Judge.best, soup_selection._Judge.greedy):
        made = [nested(some, choose) for some in (even, with_labels(even, lied_to))]
        np.testing.assert_array_equal(made[0][first], made[1][first])
        assert np.abs(made[0][~first] - made[1][~first]).max() > 0.01


def nested(
    candidates: SoupCandidates, choose: Callable[[soup_selection._Judge, Sequence[int]], tuple[int, ...]]
) -> np.ndarray:
    judge = soup_selection._Judge(candidates)
    return judge.nested(lambda seen: judge.predicts(choose(judge, seen)))


def test_a_gain_is_real_above_two_standard_errors() -> None:
    assert SoupGain(Gain(0.03, 0.01), Gain(-0.01, 0.01)).is_real
    assert SoupGain(Gain(0.0, 0.0), Gain(0.03, 0.01)).is_real
    assert SoupGain(Gain(0.01, 0.0), Gain(0.0, 0.0)).is_real, "better wherever one looks"
    assert not SoupGain(Gain(0.019, 0.01), Gain(0.019, 0.01)).is_real
    assert not SoupGain(Gain(0.03, 0.01), Gain(-0.03, 0.01)).is_real, "bought with the other"
    assert not SoupGain(Gain(0.0, 0.0), Gain(0.0, 0.0)).is_real


# A soup is an experiment like any other


@pytest.mark.slow
def test_a_soup_lives_as_any_experiment(kitchen: Path, command: Command) -> None:
    done = command("infer", "--soup", "--config", *files("a", "a-s1", "slow"), "--keep", "--name", "broth")
    assert done.code == 0, done.err
    assert "wrote configs/broth.yaml" in done.out
    text = Path("configs/broth.yaml").read_text()
    words = "--soup --config configs/a.yaml configs/a-s1.yaml configs/slow.yaml --keep --name broth"
    assert f"#   python src/infer.py {words}\n" in text
    made = config_file.load(Path("configs/broth.yaml"))
    assert made.experiment == "broth"
    made_of = lineage.soup_members(made)
    members = list(made_of)
    assert 2 <= len(members) <= 3
    for name in members:
        assert made_of[name] == config_file.load(Path(f"configs/{name}.yaml")).training_fingerprint()
    for fold in range(3):
        folder = RUNS / "broth" / f"fold{fold}"
        there = {file.name for file in folder.iterdir() if not file.name.startswith(".")}
        assert there == {"config.yaml", "model.safetensors", "oof.parquet", "test.parquet", "manifest.json"}
        states = [
            checkpoint.load_model(RUNS / name / folder.name / "model.safetensors")[0].state_dict() for name in members
        ]
        net = checkpoint.load_model(folder / "model.safetensors")[0]
        for name, value in net.state_dict().items():
            torch.testing.assert_close(value, mean_of(states)[name])
        manifest = json.loads((folder / "manifest.json").read_text())
        kept = {name: json.loads((RUNS / name / folder.name / "manifest.json").read_text()) for name in members}
        assert manifest["soup"] == {name: one["fingerprints"]["model"] for name, one in kept.items()}
        assert [entry["experiment"] for entry in manifest["teachers"]] == members, "whom it comes from"
    oof = store.read(RUNS / "broth" / "fold1" / "oof.parquet")
    (RUNS / "broth" / "fold1" / "oof.parquet").unlink()

    alone = command("infer", "--config", "configs/broth.yaml")
    assert alone.code == 0, alone.err
    anew = store.read(RUNS / "broth" / "fold1" / "oof.parquet")
    assert anew.origin == oof.origin
    np.testing.assert_allclose(np.exp(anew.predicted), np.exp(oof.predicted), atol=1e-5)
    both = command("infer", "--config", *files("broth", "a"), "tta.views=[identity,vflip]")
    assert both.code == 0, both.err
    assert len(pd.read_csv("submissions/shapes_broth_a.csv")) == 12

    again = command("infer", "--soup", "--config", *files("a", "a-s1", "slow"), "--keep", "--name", "broth")
    assert again.code == 0, again.err
    assert command("train", "--config", "configs/broth.yaml", "--fold", "0").out.count("done before") == 1
    shutil.rmtree(RUNS / "broth" / "fold0")
    refused = command("train", "--config", "configs/broth.yaml", "--fold", "0")
    assert refused.code == 2
    assert "broth: is the mean of other experiments' weights, which is not trained" in refused.err
    assert "is a soup itself" in command("infer", "--soup", "--config", *files("a", "broth"), "--name", "more").err
    less = [name for name in ("a", "a-s1", "slow") if name != members[-1]]
    other = command("infer", "--soup", "--config", *files(*less), "--keep", "--name", "broth")
    assert (other.code, "holds another soup" in other.err) == (2, True), other


def test_nothing_is_written_where_the_gain_is_not_real(
    kitchen: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gain, "REALLY", 1e9)
    done = command("infer", "--soup", "--config", "configs/a.yaml", "--seeds", "0,1")
    assert done.code == 0, done.err
    assert "no soup is written" in done.out
    assert "a-s1" in done.out
    assert not Path("configs/soup.yaml").exists()
    assert not (RUNS / "soup").exists()


def in_another_basin(net: nn.Module) -> dict[str, torch.Tensor]:
    """Weights of a net that computes the same, with all signs of its first convolution turned."""
    conv, norm = (
        next(name for name, module in net.named_modules() if isinstance(module, kind))
        for kind in (nn.Conv2d, nn.BatchNorm2d)
    )
    turned = (f"{conv}.weight", f"{norm}.weight", f"{norm}.running_mean")
    return {name: -value if name in turned else value for name, value in net.state_dict().items()}


def test_weights_of_different_basins_are_no_soup(kitchen: Path, command: Command) -> None:
    before = pot_of("a", "a-s1")
    for fold in range(3):
        file = RUNS / "a-s1" / f"fold{fold}" / "model.safetensors"
        net, blueprint, about = checkpoint.load_model(file)
        checkpoint.save_model(file, in_another_basin(net), blueprint, about)
    after = pot_of("a", "a-s1")
    np.testing.assert_allclose(np.exp(after._predict((1,), 0)), np.exp(before.in_views((1,), 0)), atol=1e-4)

    done = command("infer", "--soup", "--config", *files("a", "a-s1"), "--keep")

    assert done.code == 0, done.err
    assert "their weights lie in different basins" in done.out
    assert "no soup is written: every mean of weights is worse than the best single experiment" in done.out
    assert not (RUNS / "soup").exists()


# Mistakes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["backbone.name=test_vit"], "backbone.name is 'start' and 'test_vit'"),
        (["backbone.drop=0.1"], "backbone.drop is 0.0 and 0.1"),
        (["finetune.head_init=random"], "finetune.head_init is 'probe' and 'random'"),
        (["finetune.batchnorm=adapted"], "finetune.batchnorm is 'frozen' and 'adapted'"),
        (["finetune.mode=norm"], "finetune.mode is 'full' and 'norm'"),
        (["images.size=24"], "images.size is 16 and 24"),
        (["competition.name=dots"], "competition.name is 'shapes' and 'dots'"),
        (["finetune.mode=linear_probe"], "a: trains nothing"),
    ],
)
def test_what_does_not_go_together_is_refused(kitchen: Path, words: list[str], said: str) -> None:
    plain = config_file.load(Path("configs/a.yaml"))
    with pytest.raises(FoldcraftError, match=said):
        soup_ingredients.check(plain, config_file.load(Path("configs/a.yaml"), words))
    free = ["seed=9", "optim.lr=0.1", "augment.preset=heavy", "distill.teachers=[b]", "probe.views=[identity]"]
    free += ["regularize.rdrop=0.1", "machine.workers=1"]
    soup_ingredients.check(plain, config_file.load(Path("configs/a.yaml"), free))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["configs/a.yaml"], "a soup needs two experiments at the least"),
        (["configs/a.yaml", "configs/a.yaml"], "an experiment is named twice"),
        (["configs/a.yaml", "--seeds", "0,9"], "runs/shapes/a-s9: no fold is trained yet"),
        (["configs/a.yaml", "--seeds", "0"], "a soup needs two experiments at the least"),
        (["configs/a.yaml", "--seeds", "0,x"], "'0,x' are no seeds"),
        ([*files("a", "a-s1"), "--seeds", "0,1"], "goes with one config"),
        ([*files("a", "a-s1"), "--name", "slow"], "configs/slow.yaml: is there already, and no soup"),
        ([*files("a", "a-s1"), "--name", "a/b"], "experiment=a/b"),
    ],
)
def test_mistakes_at_the_command(kitchen: Path, command: Command, words: list[str], said: str) -> None:
    done = command("infer", "--soup", "--config", *words)
    assert (done.code, len(done.err.splitlines())) == (2, 1), done
    assert said in done.err


def test_what_lies_on_disk_is_looked_at(kitchen: Path, command: Command) -> None:
    Path("configs/slow.yaml").rename("configs/slower.yaml")
    taken = command("infer", "--soup", "--config", *files("a", "a-s1"), "--name", "slow")
    assert "runs/shapes/slow/fold0: holds an experiment that was trained" in taken.err
    manifest = RUNS / "a-s1" / "fold1" / "manifest.json"
    about = checksums.read_json(manifest)
    for what, said in (("images", "different images"), ("pretrained", "different pretrained weights")):
        spoiled = {**about, "fingerprints": {**about["fingerprints"], what: "other"}}
        manifest.write_text(json.dumps(spoiled))
        assert (
            f"were made from {said}: a (fold 0), a-s1 (fold 1)"
            in command("infer", "--soup", "--config", *files("a", "a-s1")).err
        )
    manifest.unlink()
    done = command("infer", "--soup", "--config", *files("a", "a-s1"))
    assert "warning: fold 1 is not finished by all" in done.out
    assert "OOF of folds 0, 2" in done.out
    (RUNS / "a-s1" / "fold0" / "manifest.json").unlink()
    assert "1 folds are finished by all of a, a-s1" in command("infer", "--soup", "--config", *files("a", "a-s1")).err


def test_what_a_soup_is_the_mean_of_lies_beside_its_folds(kitchen: Path) -> None:
    plain = config_file.load(Path("configs/a.yaml"))
    digests = {"a": "1234567890123456", "b": "12e4567890123456", "c.d": "0000000000000000"}
    made = plain.model_copy(update={"experiment": "mean"})
    lineage.write_soup_members(made, digests)
    assert lineage.soup_members(made) == digests
    assert lineage.soup_members(plain) == {}
    assert Experiment.open(made).identity.settings == made.training_fingerprint(digests)
    assert Experiment.open(plain).identity.settings == plain.training_fingerprint()
    assert made.training_fingerprint(digests) != plain.training_fingerprint()
    with pytest.raises(FoldcraftError, match="mean: is a soup itself"):
        soup_ingredients.check(plain, made)
    (RUNS / "mean" / "soup.json").write_text('{"members": {"a": "other"}, "checksum": "0"}')
    with pytest.raises(FoldcraftError, match=r"soup\.json: damaged"):
        lineage.soup_members(made)


def test_a_soup_whose_settings_have_a_key_for_it_is_one_still(kitchen: Path, command: Command) -> None:
    """So they were written once: in the folds' settings, and in the config that the other commands took."""
    made = config_file.load(Path("configs/a.yaml"), ["experiment=old"])
    members = {"a": "1234567890123456", "a-s1": "12e4567890123456"}
    text = f"{made.to_yaml()}soup: {json.dumps(members)}\n"
    Path("configs/old.yaml").write_text(text)
    (RUNS / "old" / "fold0").mkdir(parents=True)
    (RUNS / "old" / "fold0" / "config.yaml").write_text(checksums.seal_text(text))
    assert lineage.soup_members(config_file.load(Path("configs/old.yaml"))) == members
    refused = command("train", "--config", "configs/old.yaml", "--fold", "0")
    assert (refused.code, "old: is the mean of other experiments' weights" in refused.err) == (2, True), refused.err
