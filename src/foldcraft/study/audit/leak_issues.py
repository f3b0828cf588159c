"""What gives labels or the test set away, and groups that nobody named, as findings."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from foldcraft.data.competition import Competition
from foldcraft.study.audit import leaks
from foldcraft.study.audit.finding import SEVERITIES, Finding, ImageRef, Severity
from foldcraft.study.audit.hidden_groups import Proposal

TABLE = "leaks.csv"
GROUPS_TABLE = "groups.csv"
SURE, CLEAR = 0.9, 0.65  # AUC from which a leak is serious, and from which it is worth a warning
CONTENT, ORDER = "look", "order"
PACKED = 0.05  # AUC that a file's size may tell more than the looks of its image, and be but due to them
MOST_GROUPS = 12


@dataclass(frozen=True)
class _Kind:
    """What is said of one kind of leak.

    Attributes:
        most: the most serious that it can be.
    """

    name: str
    what: str
    hint: str
    most: Severity = "serious"


LABEL_BY_FILE = _Kind(
    "label_leak",
    "the label can be told without looking at the image",
    "see whether it holds in new data; a net may learn it in place of what is meant, sizes too",
)
LABEL_BY_ORDER = _Kind(
    "label_order",
    "the order of the rows, or the ids, tell the label",
    "see whether test ids continue it: then it is a leak, and no score says what new data will",
    most="warning",
)
LABEL_BY_LOOK = _Kind(
    "label_by_colour",
    "the label goes with brightness, colour or sharpness",
    "as it should where these are what the classes differ in; else let augmentation change them",
    most="info",
)
TEST_BY_FILE = _Kind(
    "train_test_files",
    "test images can be told from training images by their files",
    "see how the two sets were made; OOF scores may not hold on the test set",
)
TEST_BY_LOOK = _Kind(
    "train_test_look",
    "test images can be told from training images by what they show",
    "look at the images that give it away; OOF scores may not hold on the test set",
)
TEST_BY_ORDER = _Kind(
    "train_test_order",
    "ids of test images differ from those of training images",
    "nothing, if one was numbered after the other; groups may be cut by it",
    most="info",
)


def find(found: pd.DataFrame, data: Competition) -> list[Finding]:
    """What the rows of `leaks.of_metadata` and `leaks.of_features` say that are above chance."""
    real = found[found["found"].astype(bool)]
    about_label = real["question"] == leaks.LABEL
    content, order, by_features = real["kind"] == CONTENT, real["kind"] == ORDER, real["by"] == leaks.FEATURES
    content |= about_label & (real["by"] == "bytes") & _shows_in(real, about_label & content)
    whole = real["by"].isin([leaks.EVERYTHING, leaks.FILES])  # they hold the single fields
    files = ~content & ~order & ~by_features & ~whole
    rows_of = {
        LABEL_BY_FILE: about_label & files,
        LABEL_BY_ORDER: about_label & order,
        LABEL_BY_LOOK: about_label & content,
        TEST_BY_FILE: ~about_label & files,
        TEST_BY_LOOK: ~about_label & (content | by_features),
        TEST_BY_ORDER: ~about_label & order,
    }
    findings = [_finding(kind, real[rows], data) for kind, rows in rows_of.items()]
    return [finding for finding in findings if finding]


def _shows_in(real: pd.DataFrame, content: pd.Series) -> bool:
    """Do the looks of an image tell about as much as its file's size? Busy images are packed less well."""
    by_look, by_size = (
        real[content]["auc"].max(),
        real[(real["question"] == leaks.LABEL) & (real["by"] == "bytes")]["auc"].max(),
    )
    return bool(by_look > by_size - PACKED)


def _finding(kind: _Kind, rows: pd.DataFrame, data: Competition) -> Finding | None:
    if rows.empty:
        return None
    rows = rows.sort_values("auc", ascending=False)
    best = float(rows["auc"].iloc[0])
    severity: Severity = "serious" if best >= SURE else "warning" if best >= CLEAR else "info"
    told = ", ".join(
        f"{row.by} {row.auc:.2f} ({row.low:.2f}–{row.high:.2f}, chance {row.chance:.2f})" for row in rows.itertuples()
    )
    image_rows = [_strip(row.ids, row.by, data) for row in rows.itertuples()]
    severity = max(severity, kind.most, key=SEVERITIES.index)
    sentence = f"{kind.what}: AUC by {told}"
    return Finding(kind.name, severity, len(rows), sentence, kind.hint, TABLE, [strip for strip in image_rows if strip])


def _strip(ids: str, by: str, data: Competition) -> list[ImageRef]:
    """The images that give it away most; ids that both sets have are shown as training images."""
    labels = dict(zip(data.train_ids.tolist(), data.target.in_words(data.targets), strict=True))
    tests = set(data.test_ids.tolist())
    known = [name for name in ids.split(" ") if name in labels or name in tests]
    return [
        ImageRef("train", name, f"{by}: {labels[name]}") if name in labels else ImageRef("test", name, by)
        for name in known
    ]


def find_groups(proposal: Proposal, data: Competition) -> list[Finding]:
    """What a proposal of groups says."""
    if proposal.table.empty:
        return []
    groups = proposal.table["group"].nunique()
    certain = (proposal.table["evidence"] == "ids").any()
    severity: Severity = "warning" if certain and data.groups is None else "info"
    hint = (
        "look at them; where a group is one subject, make the folds with them: `python src/split.py --config C "
        "folds.groups=audit`; or name a column of your own as competition.group; else OOF scores will be too good"
    )
    return [
        Finding(
            "hidden_groups",
            severity,
            groups,
            f"images may be of hidden groups: {proposal.says}",
            hint,
            GROUPS_TABLE,
            list(_group_strips(proposal.table)),
        )
    ]


def _group_strips(table: pd.DataFrame) -> Iterator[list[ImageRef]]:
    sizes = table["group"].value_counts()
    for group in sizes.index[:MOST_GROUPS]:
        rows = table[table["group"] == group]
        yield [ImageRef("train", row.id, f"{group} ({row.evidence})") for row in rows.head(8).itertuples()]
