"""The result of an audit: CSVs, a contact sheet a finding, a summary, and a table for the terminal."""

import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.common.files import locked, write_atomic
from foldcraft.common.paths import audit_folder
from foldcraft.data.host_files.tables import Tables
from foldcraft.data.images import contact_sheet
from foldcraft.data.images.contact_sheet import SheetTile
from foldcraft.data.images.sources import Source, is_there
from foldcraft.study.audit import run
from foldcraft.study.audit.finding import Finding, ImageRef
from foldcraft.study.audit.run import Audit
from foldcraft.views.terminal import Terminal

MOST_TILES = 48  # on a sheet
COLUMNS = 8
Paths = Mapping[tuple[str, str], Source]


def audit(config: Config, tables: Tables, terminal: Terminal) -> Audit:
    """Audit a competition, whose tables have been read, write what is found, and show it.

    Raises:
        FoldcraftError: what `run.run` and `write` raise; another audit is at work.
    """
    folder = audit_folder(config)
    with locked(folder / ".lock", wait=False, busy="another audit is at work"):
        found = run.run(config, tables, terminal)
        write(found, folder, terminal)
    show(found, folder, terminal)
    return found


def write(audit: Audit, folder: Path, callback: Callback) -> None:
    """Write all of it; the summary comes last, and sheets of what is found no more go.

    Raises:
        FoldcraftError: the disk is full, or the folder cannot be written to.
    """
    for name, frame in audit.csvs.items():
        write_atomic(folder / name, frame.to_csv(index=False, lineterminator="\n"))
    for old in set(folder.glob("*.csv")) - {folder / name for name in audit.csvs}:
        old.unlink()  # of an earlier audit, which could look at more
    paths = _paths(audit)
    drawn = [finding for finding in audit.findings if any(_path_exists(strip, paths) for strip in finding.image_rows)]
    with callback.progress("drawing contact sheets", len(drawn)) as advance:
        for finding in drawn:
            contact_sheet.save(draw(finding, paths, audit.bounds), sheet_file(folder, finding))
            advance(1)
    for old in set((folder / "sheets").glob("*.png")) - {sheet_file(folder, finding) for finding in drawn}:
        old.unlink()
    write_atomic(folder / "summary.json", _summary(audit, folder, drawn))


def sheet_file(folder: Path, finding: Finding) -> Path:
    """Where the images of a finding are shown."""
    return folder / "sheets" / f"{finding.name}.png"


def draw(finding: Finding, paths: Paths, bounds: tuple[float, float]) -> Image.Image:
    """The images of a finding, the worst first; what belongs together stands in a row, pairs four a row."""
    image_rows, left = [], MOST_TILES
    for strip in finding.image_rows:
        if left <= 0:
            break
        image_rows.append([_tile(shown, paths, bounds) for shown in strip[: min(left, 2 * COLUMNS)]])
        left -= len(image_rows[-1])
    if len({len(strip) for strip in image_rows}) == 1 and COLUMNS % len(image_rows[0]) == 0:  # single images, or pairs
        return contact_sheet.sheet(contact_sheet.in_rows([tile for strip in image_rows for tile in strip], COLUMNS))
    return contact_sheet.sheet([row for strip in image_rows for row in contact_sheet.in_rows(strip, COLUMNS)])


def show(audit: Audit, folder: Path, terminal: Terminal) -> None:
    """A table that leads with what is serious, and what to do about each."""
    counts = {
        severity: sum(f.severity == severity for f in audit.findings) for severity in ("serious", "warning", "info")
    }
    rows = [(finding.severity, finding.name, finding.count, finding.table) for finding in audit.findings]
    title = ", ".join(f"{count} {severity}" for severity, count in counts.items())
    terminal.table(f"audit of {audit.tables.names.name}: {title}", ["", "finding", "count", "all of it in"], rows)
    for finding in audit.findings:
        terminal.say(f"{finding.severity}: {finding.name}: {finding.sentence}")
        if finding.severity != "info":
            terminal.say(f"    {finding.hint}")
    for reason in audit.skipped:
        terminal.say(f"not looked at: {reason}")
    terminal.say(f"images of each finding: {folder / 'sheets'}; all numbers: {folder / 'summary.json'}")


def _summary(audit: Audit, folder: Path, drawn: list[Finding]) -> str:
    names = {finding.name for finding in drawn}
    findings = [
        {**finding.as_json(), "sheet": f"sheets/{finding.name}.png" if finding.name in names else None}
        for finding in audit.findings
    ]
    about = {"competition": audit.tables.names.name, "train": len(audit.tables.train), "test": len(audit.tables.test)}
    return json.dumps(
        {**about, "findings": findings, "notes": audit.notes, "not_looked_at": audit.skipped},
        indent=1,
        ensure_ascii=False,
    )


def _paths(audit: Audit) -> Paths:
    tables = audit.tables
    parts = [("train", tables.train_ids, tables.train_paths), ("test", tables.test_ids, tables.test_paths)]
    found = {(part, row): path for part, ids, paths in parts for row, path in zip(ids.tolist(), paths, strict=True)}
    if tables.answers:  # an answer is shown by the first of its images
        for answer, path in zip(tables.answers.train.tolist(), tables.train_paths, strict=True):
            found.setdefault(("train", answer), path)
    return found


def _path_exists(strip: list[ImageRef], paths: Paths) -> bool:
    return any(is_there(paths[shown.part, shown.id]) for shown in strip)


def _tile(shown: ImageRef, paths: Paths, bounds: tuple[float, float]) -> SheetTile:
    name = shown.id if shown.part == "train" else f"test {shown.id}"
    return SheetTile(
        contact_sheet.thumbnail(paths[shown.part, shown.id], bounds), [name, shown.note] if shown.note else [name]
    )
