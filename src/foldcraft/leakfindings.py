"""What gives labels or the test set away, and groups that nobody named, as findings."""

from collections.abc import Iterator

import pandas as pd

from foldcraft import leaks
from foldcraft.competition import Competition
from foldcraft.findings import Finding, Severity, Shown
from foldcraft.subjects import Proposal

TABLE = "leaks.csv"
GROUPS_TABLE = "groups.csv"
SURE, CLEAR = 0.9, 0.65  # AUC from which a leak is serious, and from which it is worth a warning
CONTENT = "look"
MOST_GROUPS = 12


def find(found: pd.DataFrame, data: Competition) -> list[Finding]:
    """What the rows of `leaks.of_metadata` and `leaks.of_features` say that are above chance."""
    real = found[found["found"].astype(bool)]
    about_label = real["question"] == leaks.LABEL
    content = real["kind"] == CONTENT
    by_features = real["by"] == leaks.FEATURES
    whole = real["by"].isin([leaks.EVERYTHING, leaks.FILES])  # they hold the single fields
    findings = [
        _finding(
            "label_leak",
            real[about_label & ~content & ~whole],
            data,
            "the label can be told without looking at the image",
            "see whether it holds in new data; a net may learn it in place of what is meant, sizes too",
        ),
        _finding(
            "label_by_colour",
            real[about_label & content],
            data,
            "the label goes with brightness, colour or sharpness",
            "as it should where these are what the classes differ in; else let augmentation change them",
            most="info",
        ),
        _finding(
            "train_test_files",
            real[~about_label & ~by_features & ~whole],
            data,
            "test images can be told from training images by their files",
            "see how the two sets were made; OOF scores may not hold on the test set",
        ),
        _finding(
            "train_test_shift",
            real[~about_label & by_features],
            data,
            "test images can be told from training images by what they show",
            "look at the images that give it away; OOF scores may not hold on the test set",
        ),
    ]
    return [finding for finding in findings if finding]


def _finding(
    name: str, rows: pd.DataFrame, data: Competition, what: str, mend: str, most: Severity = "serious"
) -> Finding | None:
    if rows.empty:
        return None
    rows = rows.sort_values("auc", ascending=False)
    best = float(rows["auc"].iloc[0])
    severity: Severity = "serious" if best >= SURE else "warning" if best >= CLEAR else "info"
    told = ", ".join(
        f"{row.by} {row.auc:.2f} ({row.low:.2f}–{row.high:.2f}, chance {row.chance:.2f})" for row in rows.itertuples()
    )
    strips = [_strip(row.ids, row.by, data) for row in rows.itertuples()]
    severity = most if most == "info" else severity
    return Finding(
        name, severity, len(rows), f"{what}: AUC by {told}", mend, TABLE, [strip for strip in strips if strip]
    )


def _strip(ids: str, by: str, data: Competition) -> list[Shown]:
    """The images that give it away most; ids that both sets have are shown as training images."""
    labels = dict(zip(data.train_ids.tolist(), data.classes.decode(data.targets), strict=True))
    tests = set(data.test_ids.tolist())
    known = [name for name in ids.split(" ") if name in labels or name in tests]
    return [
        Shown("train", name, f"{by}: {labels[name]}") if name in labels else Shown("test", name, by) for name in known
    ]


def find_groups(proposal: Proposal, data: Competition) -> list[Finding]:
    """What a proposal of groups says."""
    if proposal.table.empty:
        return []
    rows, groups = len(proposal.table), proposal.table["group"].nunique()
    severity: Severity = "warning" if data.groups is None else "info"
    mend = (
        "look at them; where a group is one subject, put the column into the CSV and name it as competition.group, or "
        "OOF scores will be too good"
    )
    return [
        Finding(
            "hidden_groups",
            severity,
            groups,
            f"{rows} images may be of {groups} groups: {proposal.says}",
            mend,
            GROUPS_TABLE,
            list(_group_strips(proposal.table)),
        )
    ]


def _group_strips(table: pd.DataFrame) -> Iterator[list[Shown]]:
    sizes = table["group"].value_counts()
    for group in sizes.index[:MOST_GROUPS]:
        rows = table[table["group"] == group]
        yield [Shown("train", row.id, f"{group} ({row.evidence})") for row in rows.head(8).itertuples()]
