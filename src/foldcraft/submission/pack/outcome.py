"""What is asked of a pack, and what came of it."""

from dataclasses import dataclass, field
from pathlib import Path

from foldcraft.ensemble.blend import Combined
from foldcraft.models.backbones import Blueprint
from foldcraft.submission.pack.packed import TORCH, Packed
from foldcraft.submission.pack.parity import Parity
from foldcraft.submission.pack.tiers import SmallerBlend

OWNER = "YOUR-NAME"  # on Kaggle, where nobody says


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes:
        out: folder that is written; an earlier pack there is replaced.
        most: bytes that it may take; None: as many as it needs.
        half: keep weights in 16 bits where no answer changes.
        owner: name of the user on Kaggle; competition: the competition's there.
        command: as it was typed.
    """

    out: Path
    engine: str = TORCH
    most: int | None = None
    half: bool = False
    owner: str = OWNER
    competition: str = ""
    command: str = ""


@dataclass
class Made:
    """A pack that was written.

    Attributes:
        combined: the blend as infer has it.
        whole: the blend that is packed; it has fewer members where the size is bounded.
        left_out: each step of what bounding the size left out, in words.
        parities: of each packed member.
        bytes: of the folder.
    """

    wanted: Wanted
    combined: Combined
    whole: SmallerBlend
    packed: Packed
    parities: list[Parity]
    blueprints: list[Blueprint]
    left_out: list[str] = field(default_factory=list)
    bytes: int = 0


def megabytes(count: float) -> str:
    """Bytes for people."""
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"
