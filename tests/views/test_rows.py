"""A competition as it is read, shown before anything is trained: rows, derived columns, counts, a line to submit."""

from collections.abc import Callable
from pathlib import Path

from conftest import Outcome


def test_the_first_rows_are_shown_as_they_are_read(shapes: Path, command: Callable[..., Outcome]) -> None:
    words = ['competition.derive={place: {from: id, regex: "^(..)"}}', "competition.group=place"]
    words.append("competition.metadata={category: [place], numeric: [row]}")
    done = command("split", "--show", "--config", shapes, *words)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("the first of") and "training" in line)
    assert lines[head + 1].split() == ["id", "label", "place", "(derived)", "row", "image"]
    first = Path("input/shapes/train.csv").read_text().splitlines()[1].split(",")
    assert lines[head + 3].split()[:3] == [*first[:2], first[0][:2]]
    assert sum(line.endswith(".png") for line in lines[head:]) == 7  # five of the training rows, two of the test rows
    sample = Path("input/shapes/sample_submission.csv").read_text().splitlines()[1].split(",")
    assert any(line.startswith(f"a line of it, filled without the image: id={sample[0]}, label=") for line in lines)


def test_a_training_begins_with_what_it_trains_on(shapes: Path, command: Callable[..., Outcome]) -> None:
    done = command("train", "--config", shapes, "--fold", "0", "train.epochs=1")
    assert done.code == 0, done.err
    first = next(line for line in done.out.splitlines() if line.startswith("shapes: "))
    rows = Path("input/shapes/train.csv").read_text().splitlines()[1:]
    assert f"shapes: {len(rows)} rows; " in first
    assert "bar 16, cross 16, dot 16" in first
    assert "submission: column 'label' holds labels; without the image: id=" in done.out
    assert "submission" not in command("train", "--config", shapes, "--fold", "1", "--quiet", "train.epochs=1").out
