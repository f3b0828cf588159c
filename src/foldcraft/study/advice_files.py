"""A diagnosis and its advice on disk: diagnosis.json, and a config for each experiment that is advised."""

import json
from dataclasses import asdict
from pathlib import Path

from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.files import write_atomic
from foldcraft.common.paths import diagnosis_file
from foldcraft.study.advice import MARK, Advice
from foldcraft.study.diagnose import Diagnosis


def write_diagnosis(diagnosis: Diagnosis, advice: Advice, config: Config) -> Path:
    """Write everything that was measured, and what follows from it; where it is."""
    nets = [{key: value for key, value in asdict(net).items() if key != "predicted"} for net in diagnosis.nets]
    path = diagnosis_file(config)
    write_atomic(path, json.dumps({**asdict(diagnosis), "nets": nets, "advice": asdict(advice)}, indent=1))
    return path


def write_configs(advice: Advice, folder: Path) -> tuple[list[Path], list[Path]]:
    """Write the configs of the pool, and those of the fine-tunings that are to be tried; where they are.

    Raises:
        FoldcraftError: a config of that name was written by somebody else.
    """
    pool, fine_tunings = (
        {folder / f"{advised.name}.yaml": advised.text for advised in some} for some in (advice.pool, advice.tried)
    )
    for path in (*pool, *fine_tunings):
        _check_ours(path, MARK)
    for path, text in {**pool, **fine_tunings}.items():
        write_atomic(path, text)
    return list(pool), list(fine_tunings)


def write_config(path: Path, text: str, mark: str) -> None:
    """Write a config; `mark` begins each that may be written again.

    Raises:
        FoldcraftError: what lies there was written by somebody else.
    """
    _check_ours(path, mark)
    write_atomic(path, text)


def _check_ours(path: Path, mark: str) -> None:
    if path.is_file() and not path.read_text().startswith(mark):
        maker = mark.removeprefix("# Written by ")
        raise FoldcraftError(f"is not of {maker}'s making", path, "rename it, or name a folder with --configs")
