"""What is wrong, or odd, with image files; every threshold looks at the data set's own distribution.

The list of what to look for is that of cleanvision, whose code is not used.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from foldcraft.common.errors import listing
from foldcraft.data.host_files.tables import Tables
from foldcraft.data.images.image_kinds import IMAGE_SUFFIXES
from foldcraft.data.images.sources import all_files
from foldcraft.study.audit.finding import Finding, ImageRef, Severity

TABLE = "files.csv"
FAR = 6.0  # robust standard deviations beyond which a size is extreme
UNLIKELY = 4.0  # and beyond which a brightness or a sharpness is
TIMES_AREA, TIMES_ASPECT, TIMES_SHARP = 16, 3, 16  # and at least so many times the usual one
FLAT = 2.0  # standard deviation of the grey values of an image that shows nothing
FAINT, FAINTISH = 15.0, 80.0  # grey values from black, or from white, that are little in any data set, or may be
SMALLEST = 8  # pixels a side
COMMON_MODES = ("RGB", "L")
DEEP = "look at it with `src/check.py --show`; where it does not suit, set images.min_value and images.max_value"


def find(facts: pd.DataFrame, tables: Tables, scale: Sequence[str] = ()) -> list[Finding]:
    """All that the facts of the files (`image_stats.collect`) say.

    Args:
        scale: what there is to say of how images of more than 8 bits are scaled.
    """
    sound = facts[facts["problem"] == ""]
    found = [*_broken(facts), *_odd_kinds(sound), *_odd_sizes(sound), *_odd_pixels(sound), _unlisted(tables)]
    found += [Finding("deep", "info", int(sound["deep"].sum()), words, DEEP, TABLE) for words in scale]
    return [finding for finding in found if finding]


def table(facts: pd.DataFrame, findings: Sequence[Finding], folder: Path) -> pd.DataFrame:
    """The facts, and the names of the findings that an image is one of."""
    of_row: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        for strip in finding.image_rows if finding.table == TABLE else ():
            for shown in strip:
                of_row.setdefault((shown.part, shown.id), []).append(finding.name)
    names = [";".join(of_row.get(key, [])) for key in zip(facts["part"], facts["id"], strict=True)]
    root = folder.absolute()
    paths = [
        str(path.relative_to(root)) if path.is_relative_to(root) else str(path) for path in map(Path, facts["path"])
    ]
    made = facts.assign(path=paths)
    made.insert(2, "findings", names)
    return made


def robust_distance(values: np.ndarray, least: float = 1e-6) -> np.ndarray:
    """Distances (N,) from the median, in standard deviations as the quartiles have them, each `least` or more."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]) if len(values) else (0.0, 0.0, 0.0)
    return (values - middle) / max((high - low) / 1.349, least)


def _finding(
    name: str,
    severity: Severity,
    rows: pd.DataFrame,
    what: str,
    hint: str,
    note: Callable[[pd.Series], object] = lambda row: "",
) -> Finding | None:
    """A finding about `rows`; None where there are none."""
    if rows.empty:
        return None
    image_rows = [[ImageRef(row["part"], row["id"], str(note(row)))] for _, row in rows.iterrows()]
    parts = [f"{n} of {part}" for part in ("train", "test") if (n := int((rows["part"] == part).sum()))]
    return Finding(
        name, severity, len(rows), f"{len(rows)} images {what} ({', '.join(parts)})", hint, TABLE, image_rows
    )


def _broken(facts: pd.DataFrame) -> Iterator[Finding | None]:
    problem = facts["problem"].str.lower()
    missing, cut = problem == "missing", problem.str.contains("truncated")
    hint = "fetch them again, or drop their rows; training refuses them"
    yield _finding(
        "missing", "serious", facts[missing], "are missing", "fetch them, mend competition.image, or drop rows"
    )
    yield _finding("truncated", "serious", facts[cut], "end too early", hint, lambda row: row["problem"])
    rest = facts[(problem != "") & ~missing & ~cut]
    yield _finding("unreadable", "serious", rest, "cannot be read", hint, lambda row: row["problem"])


def _odd_kinds(sound: pd.DataFrame) -> Iterator[Finding | None]:
    kind_of = Image.registered_extensions()
    said = sound["path"].map(lambda path: kind_of.get(Path(path).suffix.lower(), ""))
    real = sound["format"].replace({"MPO": "JPEG"})
    yield _finding(
        "wrong_extension",
        "info",
        sound[(said != "") & (real != "") & (said != real)],
        "are of another kind than their extension says",
        "nothing here, files are read by their content; other programs may stumble",
        lambda row: row["format"],
    )
    yield _finding(
        "animated",
        "warning",
        sound[(sound["frames"] > 1) & (sound["format"] != "MPO")],
        "have several frames or pages",
        "only the first is used; write out the one that is meant",
        lambda row: f"{row['frames']} frames",
    )
    modes = sound["mode"].value_counts()
    main = modes.index[0] if len(modes) else ""
    others = sound[sound["mode"] != main]
    yield _finding(
        "mixed_modes",
        "info" if set(others["mode"]) <= set(COMMON_MODES) else "warning",
        others,
        f"are {listing(modes.index[1:].tolist())} where most are {main}",
        "all become RGB; look whether that is right (alpha turns white), and whether the mode goes with the label",
        lambda row: row["mode"],
    )
    yield _finding(
        "bands_left_out",
        "warning",
        sound[sound["bands_left_out"]],
        "have bands that the file calls neither colour nor opacity",
        "only the first three are used (of two the first); write out those that are meant as RGB",
        lambda row: row["mode"],
    )
    yield _finding(
        "exif_rotated",
        "info",
        sound[sound["exif_orientation"].between(2, 8)],
        "are stored turned, with a note in their EXIF data",
        "nothing here, they are turned upright; bounding boxes and other programs may not know of it",
        lambda row: f"orientation {row['exif_orientation']}",
    )


def _odd_sizes(sound: pd.DataFrame) -> Iterator[Finding | None]:
    width, height = sound["width"].to_numpy(dtype=float), sound["height"].to_numpy(dtype=float)
    area, aspect = np.log2(width * height), np.log2(width / height)
    tiny = np.minimum(width, height) < SMALLEST
    odd = tiny | (np.abs(robust_distance(area, np.log2(TIMES_AREA) / FAR)) > FAR)
    yield _finding(
        "extreme_size",
        "info",
        _by(sound, np.abs(area - np.median(area)) if len(area) else area, odd),
        "are far larger or smaller than most",
        "look at them: thumbnails, scans or crops of another source",
        _size,
    )
    yield _finding(
        "extreme_aspect",
        "info",
        _by(
            sound,
            np.abs(aspect - np.median(aspect)) if len(aspect) else aspect,
            np.abs(robust_distance(aspect, np.log2(TIMES_ASPECT) / FAR)) > FAR,
        ),
        "are far longer or wider than most",
        "squash bends them; try images.resize=pad",
        _size,
    )


def _odd_pixels(sound: pd.DataFrame) -> Iterator[Finding | None]:
    grey = sound[["mean_r", "mean_g", "mean_b"]].to_numpy() @ [0.299, 0.587, 0.114]
    spread = sound["std"].to_numpy()
    flat = spread < FLAT
    look = "look at them; drop training rows that show nothing"
    yield _finding("constant", "warning", sound[flat], "show one even colour", look)
    # What a face in the dark, or on white paper, is not: dark or bright up to where little of the image lies beyond.
    for name, edge, what in (
        ("very_dark", grey + 2 * spread, "are very dark all over"),
        ("very_bright", 255 - grey + 2 * spread, "are very bright all over"),
    ):
        unlike_others = (edge < FAINTISH) & (robust_distance(edge, FAINT) < -UNLIKELY)
        hint = f"{look}; if all images of more than 8 bits are dark, lower images.max_value"
        yield _finding(name, "info", _by(sound, -edge, ((edge < FAINT) | unlike_others) & ~flat), what, hint)
    # Of an image of little contrast all edges are low, however sharp they are.
    sharpness = sound["sharpness"].to_numpy()
    far = robust_distance(np.log2(sharpness + 1e-4), np.log2(TIMES_SHARP) / UNLIKELY)
    beside_contrast = robust_distance(np.log2(sharpness / np.maximum(spread, FLAT) ** 2 + 1e-4), 1.0)
    blurred = (far < -UNLIKELY) & (beside_contrast < -UNLIKELY / 2) & ~flat
    yield _finding("very_blurred", "info", _by(sound, -far, blurred), "are far less sharp than most", look)


def _by(sound: pd.DataFrame, badness: np.ndarray, chosen: np.ndarray) -> pd.DataFrame:
    """The chosen rows, the worst first."""
    return sound.iloc[[row for row in np.argsort(-badness, kind="stable") if chosen[row]]]


def _size(row: pd.Series) -> str:
    return f"{row['width']}x{row['height']}"


def _unlisted(tables: Tables) -> Finding | None:
    used = {path.absolute() for path in all_files([*tables.train_paths, *tables.test_paths])}
    spare = [
        path
        for folder in sorted({path.parent for path in used})
        for path in (sorted(folder.iterdir()) if folder.is_dir() else [])
        if path.suffix.lower() in IMAGE_SUFFIXES and path not in used
    ]
    if not spare:
        return None
    names = listing([path.name for path in spare], 5)
    sentence = f"{len(spare)} image files belong to no row ({names})"
    return Finding("unlisted", "info", len(spare), sentence, "see whether rows are missing from the CSVs", TABLE)
