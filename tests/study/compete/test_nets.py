"""Nets are timed once a machine, and in a part of the budget."""

from pathlib import Path

import pytest

from foldcraft.common import config_file
from foldcraft.common.callbacks import Callback
from foldcraft.common.errors import FoldcraftError
from foldcraft.study.compete import nets

NAMES = ["test_resnet", "test_nothing", "test_efficientnet"]


class Told(Callback):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_nets_without_time_are_named_and_timed_by_the_next_run(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, told, timed = config_file.load(shapes), Told(), []
    measure = nets._measure

    def counted(own, outputs):
        timed.append(own.backbone.name)
        return measure(own, outputs)

    monkeypatch.setattr(nets, "SECONDS", 0.01)
    monkeypatch.setattr(nets, "_measure", counted)
    (first,) = nets.known_or_measured(config, 3, NAMES, 0.0, Path("nets.json"), told)
    assert (first.name, told.lines) == (
        "test_resnet",
        [
            "warning: no time to try test_nothing, test_efficientnet: timing nets may take 0 s; they are timed when "
            "the command goes on"
        ],
    )
    found = nets.known_or_measured(config, 3, NAMES, 600.0, Path("nets.json"), told)
    assert {net.name for net in found} == {"test_resnet", "test_efficientnet"}
    assert [net.rate for net in found] == sorted((net.rate for net in found), reverse=True)
    assert "warning: test_nothing is left out: " in told.lines[1]
    assert timed == ["test_resnet", "test_nothing", "test_efficientnet"], "what is known is not timed again"
    with pytest.raises(FoldcraftError, match="test_nothing"):
        nets.known_or_measured(config, 3, ["test_nothing"], 600.0, Path("nets.json"), told)
