"""A member as it is being packed: its files written, and compared with what was trained."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from foldcraft.common.callbacks import Callback
from foldcraft.common.errors import FoldcraftError
from foldcraft.models import checkpoint
from foldcraft.models.backbones import Blueprint
from foldcraft.predictions.finished import FinishedExperiment
from foldcraft.submission.pack import nets, parity
from foldcraft.submission.pack.offline import engine_of
from foldcraft.submission.pack.outcome import Wanted
from foldcraft.submission.pack.packed import MODELS, Packed, PackedMember, PackedModel
from foldcraft.submission.pack.parity import Parity


@dataclass
class Draft:
    """A member as it is being packed."""

    member: FinishedExperiment
    wanted: Wanted
    folder: Path
    blueprint: Blueprint
    packed: PackedMember
    half: bool = False
    parity: Parity = field(default_factory=Parity)

    @classmethod
    def of(cls, member: FinishedExperiment, place: int, wanted: Wanted, folder: Path) -> "Draft":
        experiment, models, blueprint = member.experiment, [], None
        for fold in member.done_folds:
            _, blueprint, _ = checkpoint.load_model(member.folder(fold).model)
            encoder = None if blueprint.metadata is None else blueprint.metadata["encoder"]
            file = f"{member.name}-fold{fold}{nets.SUFFIXES[wanted.engine]}"
            models.append(PackedModel(fold, file, blueprint.mean, blueprint.std, encoder))
        spec = experiment.image_spec(blueprint)
        about = (member.name, place, experiment.config, member.views, spec, experiment.swaps, tuple(models))
        return cls(member, wanted, folder, blueprint, PackedMember(*about))

    @property
    def bytes(self) -> int:
        """Of its models."""
        return sum((self.folder / MODELS / model.file).stat().st_size for model in self.packed.models)

    def write(self, half: bool, callback: Callback, advance: Callable[[int], object] = lambda done: None) -> None:
        """Write its models, in 16 bits where that changes no answer, and compare them with the trained ones.

        Raises:
            FoldcraftError: in 32 bits they say something else.
        """
        for model in self.packed.models:
            source = self.member.folder(model.fold).model
            size = self.member.experiment.config.images.size
            nets.write(source, self.folder / MODELS / model.file, self.wanted.engine, size, half)
            advance(1)
        packed = Packed(self.wanted.engine, (), (), ())
        engine = engine_of(packed, self.folder, self.member.experiment.competition, "auto")
        self.parity = parity.check(self.member, self.packed, engine, callback)
        self.half = half
        if half and (self.parity.changed or self.parity.off > parity.CLOSE_IN_HALF):
            callback.say(f"{self.member.name} keeps 32 bits: in 16, {self.parity}")
            self.write(False, callback)
        elif not half and self.parity.off > parity.CLOSE:
            what = f"packed models of {self.member.name} differ from the trained ones: {self.parity}"
            raise FoldcraftError(what, f"--engine {self.wanted.engine}", "use the other engine")

    def drop(self) -> None:
        """Delete its models."""
        for model in self.packed.models:
            (self.folder / MODELS / model.file).unlink()
