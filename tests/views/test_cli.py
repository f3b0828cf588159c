"""What all commands share: their words, and the names that they had."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome

from foldcraft.common.errors import FoldcraftError
from foldcraft.views import cli

Command = Callable[..., Outcome]


def args(**values: object) -> argparse.Namespace:
    return argparse.Namespace(**{"config": [], "overrides": [], **values})


def test_settings_are_told_from_names_wherever_they_stand() -> None:
    assert cli.split_words(["a.yaml", "x=1", "b", "y=="]) == (["a.yaml", "b"], ["x=1", "y=="])
    assert cli.words_of(args(config=["a", "x=1"], overrides=["y=2", "b"])) == (["a", "b"], ["x=1", "y=2"])


def test_an_option_gives_back_the_settings_that_it_took() -> None:
    given = args(only=["gradients", "x=1"], fold="y=2", show=None, overrides=["z=3"])
    cli.give_back_settings(given, "only", "fold", "show")
    assert (given.only, given.fold, given.show) == (["gradients"], None, None)
    assert given.overrides == ["z=3", "x=1", "y=2"]
    kept = args(only=["gradients"], fold="0")
    cli.give_back_settings(kept, "only", "fold")
    assert (kept.only, kept.fold, kept.overrides) == (["gradients"], "0", [])


def test_an_option_that_means_nothing_is_refused() -> None:
    cli.refuse(args(not_behind=False, top=None), ("not-behind", "top"), "why")
    with pytest.raises(FoldcraftError, match="--not-behind: why; leave it out"):
        cli.refuse(args(not_behind=True), ("not-behind",), "why")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train -fold 0", "unknown option '-fold'; did you mean '--fold'? (see --help)"),
        ("train --folds=0", "unknown option '--folds'; did you mean '--fold'? (see --help)"),
        ("train --optim.lr=0.1", "unknown option '--optim.lr'; settings are written without dashes: optim.lr=0.1"),
        ("train --train.epochs 3", "unknown option '--train.epochs'; settings are written without dashes: "),
        (
            "train --learning-rate 0.1",
            "unknown option '--learning-rate'; settings are written without dashes: did",
        ),
        (
            "split -x",
            "unknown option '-x'; known: --help, --quiet, --debug, --config, --allow-code, --show (see --help)",
        ),
        ("train --jobs two", "--jobs must be a whole number, is 'two'; see --help"),
        ("train --jobs", "--jobs needs a word behind it, which does not begin with -; see --help"),
        ("train --config a.yaml --fold 0 --config=b.yaml", "--config is given twice; give it once, with all that it"),
        ("compete --minutes 2 --hours 1", "--hours does not go with --minutes; see --help"),
        ("split --config", "--config needs one or more words behind it; see --help"),
        ("sweep", "--space is missing; see --help"),
        ("sweep --spac x.yaml", "unknown option '--spac'; did you mean '--space'? (see --help)"),
        ("compare --sort best", "--sort is 'best', and must be one of 'score', 'cost', 'name', 'time'; see --help"),
        ("audit --strict=yes", "--strict takes no word, and has 'yes'; see --help"),
        ("compare --to 3", "unknown option '--to'; did you mean '--top'? (see --help)"),
        ("compete --minute 3", "unknown option '--minute'; did you mean '--minutes'? (see --help)"),
        ("infer --ledgr", "unknown option '--ledgr'; did you mean '--ledger'? (see --help)"),
    ],
)
def test_a_wrong_option_is_told_in_a_line(workplace: Path, command: Command, words: str, told: str) -> None:
    done = command(*words.split())
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1), done
    assert done.err.startswith(f"error: command line: {told}"), done.err
    assert len(done.err) < 300


def test_a_folder_in_the_place_of_a_config_is_told_what_writes_one(shapes: Path, command: Command) -> None:
    done = command("compete", "input/shapes")
    said = (
        "error: input/shapes: is a folder, and no config; --config takes a YAML file; python src/start.py input/shapes "
    )
    assert (done.code, done.err[: len(said)]) == (2, said)


OLD = {  # what is said on stderr, with which words, and by which command the same is done
    "board": ("compare.py", ["--fold", "7"], "compare", "no fold 7"),
    "ledger": ("infer.py --ledger", [], "infer --ledger", "no submission yet"),
    "preview": (
        "check.py --show augmentations",
        ["--draws", "0", "optim.lr=-1"],
        "check --show=augmentations",
        "optim.lr",
    ),
    "summary": ("check.py --show net", ["--depth", "-1"], "check --show net", "is not a number of levels"),
    "soup": ("infer.py --soup", ["--seeds", "zero"], "infer --soup", "'zero' are no seeds"),
}


@pytest.mark.parametrize("old", OLD)
def test_an_old_name_says_the_new_one_and_does_the_same(shapes: Path, command: Command, old: str) -> None:
    new, words, by, told = OLD[old]
    assert command("split", "--config", shapes).code == 0
    named = [] if old == "ledger" else ["--config", shapes]
    before, now = command(old, *named, *words), command(*by.split(), *named, *words)
    first, _, rest = before.err.partition("\n")
    assert first == f"note: src/{old}.py is now `python src/{new}`; the old name goes with the next release"
    assert (before.code, before.out, rest) == (now.code, now.out, now.err)
    assert (now.code, told in now.err) == (2, True)


def test_both_things_to_show_are_shown_where_none_is_named(shapes: Path, command: Command) -> None:
    done = command("check", "--config", shapes, "--images", 2, "--draws", 1, "--json", "net.json", "--show", "seed=3")
    assert done.code == 0, done.err
    assert "wrote runs/shapes/tiny/preview.png: left as inference sees it, then 1 draws" in done.out
    assert "wrote net.json" in done.out
    assert json.loads(Path("net.json").read_text())["settings"]["seed"] == 3
    assert not Path("runs/shapes/check").exists(), "nothing was checked"
    assert not Path("folds").exists(), "to look at images needs no folds, and freezes none"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("check --show nets", "--show: cannot show 'nets'; did you mean 'net'?"),
        ("check --show net --draws 3", "--draws: goes with --show augmentations"),
        ("check --show augmentations --depth 1", "--depth: goes with --show net"),
        ("check --show --profile", "--profile: is of the checks"),
        ("check --out a.png", "--out: goes with --show"),
        ("infer --keep", "--keep: goes with --soup"),
        ("infer --take a", "--take: goes with --ledger"),
        ("infer --soup --method mean", "--method: is a way to blend"),
        ("infer --soup --store b", "--store: is for blends"),
        ("infer --ledger --store b", "--store: is not for the ledger"),
        ("infer --store b --name c", "--name: is for submissions"),
        ("infer --ledger --soup", "--soup: is not for the ledger"),
        ("infer --ledger optim.lr=1", "--ledger: takes neither a config nor settings"),
        ("train --on slurm", "--on: 'slurm' is no place"),
        ("train --on ray:foo", "--on: 'ray:foo' is no place"),
        ("diagnose --on ray --cores 0", "--cores: 0 is not a number of cores"),
        ("compete --cores 2", "--cores: goes with --on ray"),
        ("demo --config a.yaml", "--config: the demo has its own configs"),
        ("compare --watch --tried 3", "--tried: needs a baseline"),
    ],
)
def test_options_that_do_not_go_together_are_told(workplace: Path, command: Command, words: str, told: str) -> None:
    done = command(*words.split())
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert told in done.err
