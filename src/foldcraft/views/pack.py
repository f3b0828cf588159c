"""A pack as it is made: the blend as tables, what was left out, what was compared, how large it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foldcraft.submission.pack import make
from foldcraft.submission.pack.outcome import megabytes
from foldcraft.views import blend

if TYPE_CHECKING:
    from foldcraft.ensemble.methods import Method
    from foldcraft.predictions.finished import FinishedExperiment
    from foldcraft.submission.pack.outcome import Made, Wanted
    from foldcraft.views.terminal import Terminal


def write(
    members: Sequence[FinishedExperiment],
    wanted: Wanted,
    terminal: Terminal,
    methods: Sequence[Method] | None = None,
) -> Made:
    """Write the pack and show all there is to say of it."""
    made = make.pack(members, wanted, terminal, methods)
    blend.show(made.combined, terminal)
    for line in made.left_out:
        terminal.say(f"--most: {line}")
    for member, parity in zip(made.packed.members, made.parities, strict=True):
        terminal.say(f"{member.name}: {megabytes(member.bytes)}, {len(member.models)} models; {parity}")
    score = made.whole.score
    terminal.say(f"nested {score.value:.4f} ({score.low:.4f} to {score.high:.4f}, 95 %)")
    size = megabytes(made.bytes)
    terminal.say(f"wrote {wanted.out}: {size}; python {wanted.out}/predict.py --data FOLDER answers; see docs/pack.md")
    return made
