"""What reaches a terminal and what reaches a pipe, byte by byte."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from conftest import ROOT
from pseudo_terminal import ESCAPE, Screen, screen

from foldcraft.views.terminal import Terminal

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38;[0-9;]+)m")
COMMANDS = sorted(file.stem for file in (ROOT / "src").glob("*.py"))


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def train(config: Path, *more: str) -> int:
    import split
    import train as the_command

    with redirect_stdout(io.StringIO()):
        split.main(["--config", str(config)])
    return the_command.main(["--config", str(config), "--fold", "0,1", *more])


@pytest.mark.integration
@pytest.mark.parametrize("width", [40, 72, 120])
def test_a_training_on_a_terminal_shows_a_bar_that_fits(shapes: Path, width: int) -> None:
    with screen(width) as seen:
        assert train(shapes) == 0
    notes = ("fold 0: ", "fold 1: ", "submission: ", "shapes: ")  # lines of text, which a terminal breaks where it ends
    assert [line for line in seen.lines if len(line) > width and not line.startswith(notes)] == []
    bars = [line for line in seen.lines if line.startswith("fold 0 ") and "epoch 2/2" in line]
    assert bars
    assert max(map(len, bars)) <= width
    assert any(re.search(r"\d:\d\d", line) for line in bars), "the time that is left"
    if width >= 72:
        assert any("images/s" in line and "score 0." in line for line in bars)
        assert "\x1b[2K" in seen.text
    if width == 120:
        assert any("loss " in line for line in bars)
    assert not any("valid loss" in line for line in seen.lines), "the line an epoch is for logs"
    assert seen.text.rindex("\x1b[?25h") > seen.text.rindex("\x1b[?25l"), "the cursor is shown again"
    last = [line.split() for line in seen.lines if line][-5:]
    assert [words[0] for words in last] == ["fold", "fold", "mean", "sd", "in"]


@pytest.mark.parametrize("width", [60, 160])
def test_a_pinned_table_stays_above_the_bars_until_it_is_taken_down(width: int) -> None:
    with screen(width) as seen:
        shown = Terminal()
        columns, row = ["", "action", "time", "gain", "why"], ["running", "probe", "0:01", "+5.0%", "because " * 8]
        shown.pin(lambda: "macro F1 0.9; 0:10 left", columns, [row])
        with shown.progress("decoding", 2) as advance:
            advance(1)
            shown.pin(lambda: "macro F1 0.9; 0:09 left", columns, [row])
            advance(1)
        shown.unpin()
        shown.say("the end")
    lines = [line.rstrip() for line in seen.lines]
    titles = [place for place, line in enumerate(lines) if line == "macro F1 0.9; 0:09 left"]
    bars = [place for place, line in enumerate(lines) if line.startswith("decoding ")]
    assert titles[0] < bars[-1]
    assert any(line.split()[:4] == ["running", "probe", "0:01", "+5.0%"] for line in lines)
    assert any("because" in line for line in lines) == (width == 160), "what does not fit is left out"
    assert max(map(len, lines)) <= width
    assert [line for line in lines if line][-1] == "the end"
    assert shown._bars is None


@pytest.mark.integration
def test_a_training_in_a_pipe_is_plain_lines_one_an_epoch(
    shapes: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert train(shapes) == 0
    out = capfdbinary.readouterr().out.decode()
    assert not CONTROL.search(out)
    epochs = re.findall(r"^fold \d  epoch \d/2  loss \S+  valid loss \S+  score \S+  \d+ images/s.*$", out, re.M)
    assert len(epochs) == 4
    assert [line.endswith("left") for line in epochs] == [True, False] * 2
    assert re.search(r"^fold 1 +0\.\d{4} +2 +0:00:\d\d", out, re.M), "the table at the end"


@pytest.mark.parametrize("on_terminal", [True, False])
def test_quiet_leaves_results_and_errors(
    shapes: Path, on_terminal: bool, capfd: pytest.CaptureFixture[str], command: Callable
) -> None:
    if on_terminal:
        with screen(100) as seen:
            assert train(shapes, "--quiet") == 0
        out = seen.text
        assert "\x1b[?25l" not in out
    else:
        assert train(shapes, "--quiet") == 0
        out = capfd.readouterr().out
    assert re.search(r"^mean +0\.\d{4}", out, re.M)
    assert not re.search("epoch [0-9]|decoding|predictions|done", out)
    failed = command("train", "--config", shapes, "--quiet", "train.epochs=3", "--fold", "0")
    assert failed.code == 2
    assert failed.err.startswith("error: ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_quiet(name: str, command: Callable) -> None:
    assert "--quiet" in command(name, "--help").out


def test_commands_ask_cli_for_their_terminal() -> None:
    """Else --quiet would be theirs to remember."""
    assert [
        name for name in COMMANDS if re.search(r"\bTerminal\(|\bprint\(", (ROOT / f"src/{name}.py").read_text())
    ] == []


def shown(width: int, draw: Callable[[Terminal], object]) -> Screen:
    with screen(width) as seen:
        draw(Terminal())
    return seen


def test_no_color_takes_the_colours_and_force_color_brings_them_into_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def draw(terminal: Terminal) -> None:
        with terminal.progress("counting", 3) as advance:
            advance(1)
            terminal.say("warning: all is yellow")

    assert COLOUR.search(shown(80, draw).text)
    monkeypatch.setenv("NO_COLOR", "1")
    without = shown(80, draw).text
    assert "counting" in without
    assert not COLOUR.search(without)
    monkeypatch.delenv("NO_COLOR")
    draw(Terminal())
    assert not CONTROL.search(capfd.readouterr().out)
    monkeypatch.setenv("FORCE_COLOR", "1")
    draw(Terminal())
    forced = capfd.readouterr().out
    assert COLOUR.search(forced)
    assert {found[1] for found in ESCAPE.finditer(forced)} == {"m"}, "colours, but no bar that moves the cursor"


def test_a_dumb_terminal_gets_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")

    def draw(terminal: Terminal) -> None:
        with terminal.progress("counting", 3) as advance:
            advance(3)

    assert shown(80, draw).bytes == b"counting: 3\r\n"


COLUMNS = ("experiment", "macro_f1", "95 % interval of it", "the rows that were judged", "verdict")
ROWS = [("convnet", "0.9812", "0.9701–0.9899", 1797, "best"), ("vit [small]", "0.9", "", 12, "cannot be told")]


@pytest.mark.parametrize(("width", "form"), [(120, "table"), (66, "folded"), (50, "stacked"), (40, "stacked")])
def test_a_table_fits_and_loses_nothing(width: int, form: str) -> None:
    lines = shown(width, lambda terminal: terminal.table("how they do", COLUMNS, ROWS)).lines
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for word in {str(cell) for row in ROWS for cell in row} | {word for name in COLUMNS[1:] for word in name.split()}:
        assert word in text
    assert any("─" in line for line in lines) == (form != "stacked")
    assert any("95 % interval of it" in line for line in lines) == (form != "folded")


def test_a_table_in_a_pipe_is_as_wide_as_it_is(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    Terminal().table("wide", ["name", *map(str, range(60))], [["x" * 50, *range(1000, 1060)]])
    assert "1059" in capfd.readouterr().out.splitlines()[-1]


def test_texts_are_shown_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    """No word of a user's is markup or an emoji."""
    Terminal().say("class [bold]:dog: is rare, see /a/b")
    Terminal().table("[red]", ["[x]"], [["[/x] :cat:"]])
    out = capfd.readouterr().out
    assert "class [bold]:dog: is rare, see /a/b\n" in out
    assert "[red]" in out
    assert "[/x] :cat:" in out


def broken_pipe() -> io.TextIOWrapper:
    """A stream whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w", encoding="utf-8")


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["latin-1", "cp932", "ascii", "closed", "left"])
def test_no_stdout_stops_a_submission(
    shapes: Path, kind: str, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("split", "--config", shapes)
    command("train", "--config", shapes, "--fold", "0", "finetune.mode=linear_probe")
    printed = io.BytesIO()
    stream = {"closed": lambda: None, "left": broken_pipe}.get(kind, lambda: io.TextIOWrapper(printed, encoding=kind))
    for words in (["compare"], ["infer", "finetune.mode=linear_probe"]):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream())
            done = command(words[0], "--config", shapes, *words[1:])
            if kind not in ("closed", "left"):
                sys.stdout.detach()
        assert (done.code, done.err) == (0, "")
    assert Path("submissions/shapes_tiny.csv").is_file()
    if kind == "ascii":
        assert re.search(r"0\.\d{4}-[01]\.\d{4} ", printed.getvalue().decode("ascii")), "an interval, its dash replaced"


@pytest.mark.parametrize("closed", ["1", "2", "0 1 2"])
def test_a_file_never_takes_the_place_of_a_closed_stdout(tmp_path: Path, closed: str) -> None:
    """What a library prints would land in it."""
    code = (
        "import os; from foldcraft.common import output_streams; output_streams.make_robust(); "
        f"file = open({str(tmp_path / 'kept')!r}, 'wb', 0); os.write(1, b'noise'); os.write(2, b'noise'); print('x')"
    )
    shut = " ".join(f"{number}>&-" for number in closed.split())
    subprocess.run(["sh", "-c", f'exec "$0" -c "$1" {shut}', sys.executable, code], cwd=ROOT / "src", check=True)
    assert (tmp_path / "kept").read_bytes() == b""


@pytest.mark.slow
@pytest.mark.integration
def test_a_command_of_its_own_process_knows_a_pipe_from_a_terminal(shapes: Path) -> None:
    words = [sys.executable, str(ROOT / "src" / "split.py"), "--config", str(shapes)]
    piped = subprocess.run(words, capture_output=True, timeout=120)
    assert piped.returncode == 0, piped.stderr
    assert not CONTROL.search(piped.stdout.decode())
    with screen(40) as seen:
        assert subprocess.run(words, stderr=subprocess.PIPE, timeout=120).returncode == 0
    assert "\x1b[1m" in seen.text
    assert [line.split() for line in seen.lines if line.startswith("cross")] == [
        ["cross", *["5"] * 2, "6"]
    ] or seen.lines
