"""An experiment that lacks folds, mixed into a blend by `src/infer.py --mix-in`."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CONFIG

from foldcraft.common import config_file
from foldcraft.ensemble import blend, unfinished
from foldcraft.predictions.finished import open_finished

PROBE = Path("configs/probe.yaml")
LEARNING = "{epochs: 8, batch: 8}"


@pytest.fixture
def probed(shapes: Path, command) -> Path:
    """A finished probe beside the config of a training that has fold 0 alone."""
    PROBE.write_text(f"{CONFIG}finetune: {{mode: linear_probe}}\n")
    shapes.write_text(CONFIG.replace("{epochs: 2, batch: 8}", LEARNING))
    assert command("split", "--config", shapes).code == 0
    assert command("train", "--config", PROBE, "--fold", "all").code == 0
    assert command("train", "--config", shapes, "--fold", "0").code == 0
    return shapes


def test_a_first_fold_is_mixed_evenly_into_a_blend_that_keeps_all_its_rows(probed: Path, command) -> None:
    done = command("infer", "--config", PROBE, "--mix-in", probed)
    assert done.code == 0, done.err
    probe, part = open_finished([config_file.load(PROBE), config_file.load(probed)])
    alone = blend.combine([probe])
    gain = unfinished.gain(part, alone.rows, alone.selection.undecided)
    size = f"{abs(gain.value):.1%} ± {gain.error:.1%}"
    does = f"takes {size} off" if gain.value >= 0 else f"adds {size} to"
    words = f"tiny, fold 0, is mixed in evenly: it {does} the log-loss"
    assert f"{words} of its 16 rows; the scores above are of the blend without it" in done.out
    (row,) = pd.read_csv("submissions/ledger.csv", dtype=str).to_dict("records")
    assert (row["experiments"], row["weights"], row["rows"]) == ("probe +tiny", "0.500 0.500", "48")
    assert float(row["nested"]) == pytest.approx(alone.selection.chosen.score.value, abs=1e-5), "of all rows"
    answers = pd.read_csv("submissions/shapes_probe_tiny-mixed.csv", dtype=str)["label"]
    names = probe.experiment.competition.classes.names
    mixed = unfinished.mixed(alone, part)
    assert answers.tolist() == [names[k] for k in mixed.test.argmax(1)]
    assert not np.allclose(mixed.undecided, alone.undecided)


def test_what_cannot_be_mixed_in_is_told(probed: Path, command) -> None:
    both = command("infer", "--config", PROBE, "--mix-in", PROBE)
    assert (both.code, "--mix-in: probe is in the blend" in both.err) == (2, True), both.err
    two = command("infer", "--config", PROBE, "--mix-in", probed, PROBE)
    assert (two.code, "--mix-in: takes one experiment, and has 2" in two.err) == (2, True), two.err
    none = command("infer", "--config", PROBE, "--mix-in", "seed=0")
    assert (none.code, "--mix-in: takes one experiment, and has 0" in none.err) == (2, True), none.err
    twice = command("infer", "--config", PROBE, "--mix-in", probed, "--mix-in", probed)
    assert (twice.code, "--mix-in is given twice" in twice.err) == (2, True), twice.err
    strange = PROBE.with_name("strange.yaml")
    strange.write_text(CONFIG.replace("name: shapes", "name: others"))
    apart = command("infer", "--config", PROBE, "--mix-in", strange)
    said = "--mix-in: strange is of competition others, and the blend of shapes"
    assert (apart.code, said in apart.err) == (2, True), apart.err
    other = PROBE.with_name("other.yaml")
    other.write_text(PROBE.read_text())
    assert command("train", "--config", other, "--fold", "all").code == 0
    whole = command("infer", "--config", PROBE, "--mix-in", other)
    said = "--mix-in: other has all folds; name it with the others after --config"
    assert (whole.code, said in whole.err) == (2, True), whole.err
    later = PROBE.with_name("later.yaml")
    later.write_text(f"extends: {probed.name}\n")
    assert command("train", "--config", later, "--fold", "1").code == 0
    lacking = command("infer", "--config", probed, "--mix-in", later)
    said = "--mix-in: later has fold 1, which the blend has not; train this fold of all experiments after --config"
    assert (lacking.code, said in lacking.err) == (2, True), lacking.err
    for option in ("--store", "--soup"):
        words = ("--store", "kept") if option == "--store" else ("--soup",)
        refused = command("infer", "--config", PROBE, "--mix-in", probed, *words)
        assert (refused.code, "--mix-in: is for submissions" in refused.err) == (2, True), refused.err
    assert not Path("submissions/ledger.csv").exists()


def test_a_worse_one_is_mixed_in_with_a_warning(probed: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foldcraft.ensemble.unfinished.gain", lambda *_: unfinished.Gain(-0.5, 0.1))
    done = command("infer", "--config", PROBE, "--mix-in", probed)
    assert done.code == 0, done.err
    assert "warning: tiny, fold 0, is mixed in evenly: it adds 50.0% ± 10.0% to the log-loss" in done.out
    assert "; leave --mix-in out" in done.out
