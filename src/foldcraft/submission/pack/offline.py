"""`predict.py` of a pack: reads the test rows as training did, answers them, writes the host's file.

python predict.py --data /kaggle/input/COMPETITION --out submission.csv
"""

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, counted
from foldcraft.common.files import write_atomic
from foldcraft.data import competition
from foldcraft.data.competition import Competition
from foldcraft.submission import contents, form_inference
from foldcraft.submission.pack import stored
from foldcraft.submission.pack.answering import Answered, Engine, answer
from foldcraft.submission.pack.clock import Clock
from foldcraft.submission.pack.packed import FORMAT, MODELS, ONNX, TORCH, Packed

MISTAKE = 2
ENGINES = {
    TORCH: ("torch_engine", "TorchEngine", ("torch", "timm")),
    ONNX: ("onnx_engine", "OnnxEngine", ("onnxruntime",)),
}


def run(folder: Path, arguments: Sequence[str]) -> int:
    """Answer the test rows by the pack in a folder; the exit code."""
    try:
        return predict(folder, parser().parse_args(arguments))
    except FoldcraftError as error:
        print(f"error: {error}", file=sys.stderr)
        return MISTAKE


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say it in one line, as all else that is wrong.

        Raises:
            FoldcraftError: always.
        """
        raise FoldcraftError(message, "predict.py", "--help shows the options")


def parser() -> argparse.ArgumentParser:
    """The command line of `predict.py`."""
    made = _Parser(prog="predict.py", description="Answers the test rows of a competition by a blend.")
    made.add_argument("--data", type=Path, help="the competition's folder; left out: where it lay when this was packed")
    made.add_argument("--out", type=Path, default=Path("submission.csv"), help="file to write (default submission.csv)")
    made.add_argument("--minutes", type=float, help="from then on cheaper members answer the rest; left out: no limit")
    made.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return made


def predict(folder: Path, args: argparse.Namespace) -> int:
    """Read, answer, write.

    Raises:
        FoldcraftError: the pack is damaged, a package or file is missing, test rows are not as the settings say.
    """
    packed = load(folder)
    if args.minutes is not None and not args.minutes > 0:
        raise FoldcraftError("must be more than 0", "--minutes", "leave it out for no limit")
    models = [len(member.models) for member in packed.members]
    seconds = None if args.minutes is None else 60 * args.minutes
    clock = Clock(packed.tiers, models, seconds, [member.seconds for member in packed.members])
    readings = read(packed, args.data)
    files = form_inference.files(readings[0])
    _check_models(packed, folder / MODELS)
    engine = engine_of(packed, folder, readings[0], args.device)
    rows, members = counted(len(readings[0].test_ids), "test row"), counted(len(packed.used), "member")
    print(f"{rows} in {readings[0].tables.folder}, {members}, {engine}", flush=True)
    found = answer(packed, readings, engine, clock, lambda done, total: print(f"{done} of {total}", flush=True))
    data, suffix = contents.of(files.filled(readings[0].answers.test_ids, found.predicted))
    if args.out.suffix.lower() != suffix:
        raise FoldcraftError(f"the host wants a {suffix[1:]}", "--out", f"write --out submission{suffix}")
    write_atomic(args.out, data)
    for line in said_of(found, packed):
        print(line)
    print(f"wrote {args.out}")
    return 0


def load(folder: Path) -> Packed:
    """The pack in a folder.

    Raises:
        FoldcraftError: it is missing, damaged, or of another version.
    """
    if not (folder / stored.TABLE).is_file():
        raise FoldcraftError(f"no {stored.TABLE}", folder, "upload the whole folder that src/pack.py wrote")
    packed = stored.read(folder)
    if not isinstance(packed, Packed) or packed.format != FORMAT:
        raise FoldcraftError("a pack of another version", folder, "pack the blend again")
    return packed


def _check_models(packed: Packed, folder: Path) -> None:
    """See that all models are there and as large as they were, before the first has answered for hours."""
    for member in packed.members:
        files = [folder / model.file for model in member.models]
        if missing := [file for file in files if not file.is_file()]:
            raise FoldcraftError("is missing", missing[0], "copy the pack again, whole")
        if member.bytes not in (0, sum(file.stat().st_size for file in files)):
            raise FoldcraftError(
                f"models of {member.name} are not as large as they were", folder, "copy the pack again"
            )


def read(packed: Packed, data: Path | None) -> list[Competition]:
    """The competition by each of the pack's settings, with the test rows that are there.

    Raises:
        FoldcraftError: as `competition.read`; two settings find different test rows.
    """
    where = data or packed.readings[0].config.competition.folder
    if where is not None and not Path(where).is_dir():
        raise FoldcraftError("no such folder", where, "name the one of the competition's files: --data FOLDER")
    found = [competition.read(_here(reading.config, data), ("test",), reading.rows) for reading in packed.readings]
    for other in found[1:]:
        if other.test_ids.tolist() != found[0].test_ids.tolist():
            raise FoldcraftError("members read different test rows", found[0].tables.folder, "pack them one by one")
    return found


def _here(config: Config, data: Path | None) -> Config:
    """The settings with the folder where the files are; a test image that cannot be read stops nothing."""
    images = config.images.model_copy(update={"on_error": "baseline"})
    names = config.competition.model_copy(update={"folder": data} if data is not None else {})
    return config.model_copy(update={"competition": names, "images": images})


def engine_of(packed: Packed, folder: Path, data: Competition, device: str) -> Engine:
    """What asks the nets.

    Raises:
        FoldcraftError: its packages are not installed.
    """
    module, name, needed = ENGINES[packed.engine]
    if missing := [one for one in needed if importlib.util.find_spec(one) is None]:
        raise FoldcraftError(
            f"{missing[0]} is not installed", folder, f"run `pip install {missing[0]}`, or pack with another --engine"
        )
    made = getattr(importlib.import_module(f"foldcraft.submission.pack.{module}"), name)
    return made(folder / MODELS, data.target, device)


def said_of(found: Answered, packed: Packed) -> list[str]:
    """What there is to say of answers that are not the whole blend's."""
    lines = []
    if found.unreadable:
        lines.append(
            f"warning: {counted(found.unreadable, 'test image')} cannot be read ({found.example}, for one); "
            f"{counted(found.blind, 'answer')} by the baseline"
        )
    for tier, count in list(zip(packed.tiers, found.by_tier, strict=True))[1:]:
        if count:
            names = ", ".join(packed.members[k].name for k in tier.members)
            lines.append(f"{count} answers by {names} alone, {tier.folds} models each, for want of time")
    if found.late:
        lines.append(f"warning: no time was left for {found.late} answers, which are the baseline's")
    return lines
