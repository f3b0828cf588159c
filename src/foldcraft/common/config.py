"""The settings of an experiment: every key, with its unit, range and default, in this one file.

`config_file` reads them, `config_renames` knows how keys were called before, `config_reference` writes the docs.
"""

import math
import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from foldcraft.common import config_renames, fingerprint

try:
    from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
except ImportError:  # a packed blend is read where it may be missing, and was validated when it was packed
    from foldcraft.common.plain_settings import (
        AfterValidator,
        BaseModel,
        BeforeValidator,
        ConfigDict,
        Field,
        model_validator,
    )

Probability = Annotated[float, Field(ge=0, le=1)]
FilePath = Annotated[Path, AfterValidator(lambda path: Path(os.path.expanduser(path)))]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=100)]


class Section(BaseModel):
    """A part of the settings: unknown keys are refused, nothing can be changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


def _once(names: list[Any]) -> list[Any]:
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"named more than once: {', '.join(map(str, repeated))}")
    return names


def _files(names: list[str]) -> list[str]:
    if not names or {"auto", "none"} & set(names):
        raise ValueError("name at least one file, and neither auto nor none among files")
    return names


def _as_text(labels: Any) -> Any:
    """Labels as the table has them; YAML takes 10 for a number, and no for false."""
    if not isinstance(labels, list):
        return labels
    if any(label is None or isinstance(label, bool) for label in labels):
        raise ValueError("put quotes around no, yes, on, off, true, false and null")
    return [str(label) for label in labels]


def _word_as_text(label: Any) -> Any:
    """As `_as_text`, of one label."""
    return label if label is None else _as_text([label])[0]


def _is_no_list(target: Any) -> Any:
    if isinstance(target, list):
        raise ValueError("several columns are {columns: [a, b], kind: multilabel}, or multioutput, regression, soft")
    return target


def _names_a_row(template: str) -> str:
    if "{@id}" not in template or "{@target}" not in template:
        raise ValueError("must hold {@id} and {@target}, as in {@id}__{@target}")
    return template


def _listed(names: Any) -> Any:
    """A name alone as a list of one."""
    return [names] if isinstance(names, str) else names


def _mapped(values: Any) -> Any:
    """Patterns and what they stand for, as text."""
    if not isinstance(values, dict):
        return values
    patterns, words = _as_text(list(values)), _as_text(list(values.values()))
    return dict(zip(patterns, words, strict=True))


def _rising(edges: list[float]) -> list[float]:
    if any(low >= high for low, high in pairwise(edges)):
        raise ValueError("write each above the one before")
    return edges


def _number_as_text(value: Any) -> Any:
    """An expression that YAML takes for a number."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


class TargetConfig(Section):
    """What is predicted, where it is more than one column with a label."""

    column: str | None = Field(None, description="the one column that it is read from")
    columns: list[str] | str | None = Field(
        None, description='several columns, by name or by a pattern: "*_vote"; in place of `column`'
    )
    kind: Literal["single", "ordinal", "multilabel", "soft", "regression", "multioutput"] | None = Field(
        None,
        description="single: one label a row; ordinal: grades; multilabel: labels, each there or not; soft: votes for "
        "classes; regression: values; multioutput: several labels, each scored; left out: what the metric is made for, "
        "else single",
    )
    separator: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="multilabel: what stands between the labels of a cell"
    )
    order: Annotated[list[str], BeforeValidator(_as_text), AfterValidator(_once)] | None = Field(
        None, description="as `competition.order`"
    )
    cumulative: bool = Field(
        True, description="ordinal: learn for each grade whether a row lies above it; false: learn the classes"
    )
    heads: Annotated[list[str], AfterValidator(_once)] = Field(
        [], description="single: columns that together fix the label; each gets a head, and the heads are joined"
    )
    auxiliary: Annotated[list[str], AfterValidator(_once)] = Field(
        [], description="columns of classes that are learned beside the target and not predicted"
    )
    range: tuple[float, float] | None = Field(None, description="regression: least and largest value of an answer")
    prior: float = Field(0.0, ge=0, le=1e6, description="soft: votes that each class is given beforehand")
    weight_by_votes: bool = Field(False, description="soft: a row counts as much as it has votes")


class SubmissionConfig(Section):
    """What the sample submission does not tell of the file that the host wants."""

    form: Literal["auto", "labels", "probabilities", "values", "long", "top_k", "lists"] = Field(
        "auto", description="what the answers are, see docs/submissions.md; auto: what sample, target and metric say"
    )
    positive: Annotated[str | None, BeforeValidator(_word_as_text)] = Field(
        None, description="class of two whose probability the one answer column holds"
    )
    row: Annotated[str, AfterValidator(_names_a_row)] | None = Field(
        None, description='long: how the sample\'s ids are made: "{@id}__{@target}"'
    )
    k: int | None = Field(None, ge=1, le=1000, description="top_k: labels a row; left out: the k of the metric")
    unknown: Annotated[str | None, BeforeValidator(_word_as_text)] = Field(
        None, description="top_k: label that no training row has; the second guess where none is likelier than not"
    )
    separator: Annotated[str, Field(min_length=1, max_length=20)] | None = Field(
        None, description="top_k, lists: what stands between labels; left out: that of the target, else a space"
    )


class MetadataConfig(Section):
    """Columns of the tables that say something of a row beside its image; cells may be missing."""

    numeric: Annotated[list[str], AfterValidator(_once)] = Field([], description="columns of numbers")
    category: Annotated[list[str], AfterValidator(_once)] = Field([], description="columns of words, or of codes")
    drop: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="dropout of metadata where they enter a net that is fine-tuned"
    )

    @model_validator(mode="after")
    def _names_columns(self) -> "MetadataConfig":
        if not self.names:
            raise ValueError("names no column: {numeric: [age], category: [sex]}")
        return self

    @property
    def names(self) -> list[str]:
        """All columns; a code may be a number and a category."""
        return list(dict.fromkeys([*self.numeric, *self.category]))


class ImageConfig(Section):
    """How the image of a row is read, where it is more, or less, than a file."""

    file: str | Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="template of its path, or several, of which the first that is there is taken"
    )
    tiff_level: int | None = Field(None, ge=0, le=64, description="level of a TIFF that holds several; 0: the largest")
    box: Annotated[list[str | float], Field(min_length=4, max_length=4)] | None = Field(
        None, description="part of the upright image: [left, top, width, height] in pixels, columns or numbers"
    )
    tiles: tuple[Annotated[int, Field(ge=1, le=64)], Annotated[int, Field(ge=1, le=64)]] | None = Field(
        None, description="[rows, columns] of a grid; each tile is an image, and all of them have one answer"
    )
    pixels: str | None = Field(None, description='columns that hold the pixels, by a pattern: "pixel*"')
    shape: Annotated[list[Annotated[int, Field(ge=1, le=65536)]], Field(min_length=2, max_length=3)] | None = Field(
        None, description="pixels: [height, width], or [height, width, channels]"
    )
    hdf5: str | None = Field(None, description="path of an HDF5 file that holds the images")
    key: str | None = Field(None, description='hdf5: template of an image\'s dataset: "{id}"')
    channels: Annotated[list[str], Field(min_length=1, max_length=64)] | None = Field(
        None, description="templates of grey files, each a channel of the image"
    )

    @model_validator(mode="after")
    def _is_one_way(self) -> "ImageConfig":
        ways = {"file": "", "pixels": "shape", "hdf5": "key", "channels": ""}
        given = [way for way in ways if getattr(self, way) is not None]
        if len(given) != 1:
            raise ValueError(f"wants one of {', '.join(ways)}")
        for way, beside in ways.items():
            if beside and (getattr(self, beside) is None) == (way in given):
                raise ValueError(f"{way} and {beside} go together")
        if self.tiff_level is not None and self.file is None:
            raise ValueError("tiff_level is of a file")
        if self.box is not None and self.tiles is not None:
            raise ValueError("a box or tiles, not both")
        if self.pixels and (self.box or self.tiles):
            raise ValueError("box and tiles are of files")
        return self


ImageSetting = str | Annotated[list[str], Field(min_length=1)] | ImageConfig


Columns = Annotated[list[str], BeforeValidator(_listed), AfterValidator(_once), Field(min_length=1)]


class AnswerColumns(Section):
    """What an answer is named by, where training and test table call it otherwise."""

    train: Columns = Field(description="columns of the training table")
    test: Columns = Field(description="columns of the test table")


class AnswerConfig(Section):
    """Several images that make one answer."""

    by: Columns | AnswerColumns = Field(
        description="columns whose rows make one answer; where they are called otherwise in the test table "
        "{train: [patient, side], test: prediction_id}"
    )
    combine: Literal["mean", "max", "log_mean", "top_k_mean", "auto"] = Field(
        "mean",
        description="how its images' predictions become one, see docs/answers.md; auto: chosen on OOF, nested",
    )
    k: int = Field(3, ge=1, le=1000, description="top_k_mean: how many images it is the mean of")

    @property
    def columns(self) -> tuple[list[str], list[str]]:
        """Of the training and of the test table."""
        return (self.by.train, self.by.test) if isinstance(self.by, AnswerColumns) else (self.by, self.by)


class IdConfig(Section):
    """What the ids are called, where training and test table call them otherwise."""

    train: str = Field(description="column of the training rows")
    test: str = Field(description="column of the test rows")


class SampleConfig(Section):
    """A sample submission that is matched with the test rows otherwise than by ids."""

    file: str = Field("auto", description="as `competition.sample`")
    by: Literal["id", "order"] = Field("id", description="order: its rows are the test rows, in their order")


class DeriveConfig(Section):
    """How a new column is made of those that are there."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    source: str | None = Field(None, alias="from", description="column that map, regex or bins look at; alone: copied")
    map: Annotated[dict[str, str], BeforeValidator(_mapped), Field(min_length=1)] | None = Field(
        None, description='value by shell pattern, the first that fits a cell: {"mask*": 0, "*": 1}'
    )
    regex: str | None = Field(None, description='the first group of a regular expression, found anywhere: "^(.+)_"')
    bins: Annotated[list[float], AfterValidator(_rising), Field(min_length=1)] | None = Field(
        None, description="[30, 60]: 0 below 30, 1 below 60, 2 for the rest"
    )
    value: Annotated[str | None, BeforeValidator(_number_as_text)] = Field(
        None, description="arithmetic and comparison over columns: \"3*(sex == 'female') + band\""
    )
    format: str | None = Field(None, description='text with columns in braces: "{path}/{stem}"')
    default: Annotated[str | None, BeforeValidator(_word_as_text)] = Field(
        None, description="what a row gets for which nothing fits; left out: such rows are refused"
    )


class PivotConfig(Section):
    """A table with a row for each target becomes one with a row for each image."""

    rows: Annotated[list[str], BeforeValidator(_listed), AfterValidator(_once), Field(min_length=1)] = Field(
        description="column, or columns, whose equal cells become one row"
    )
    columns: str = Field(description="column that names the target of a row; each becomes a column")
    values: str = Field(description="column that holds its value")


class CompetitionConfig(Section):
    name: Name = Field(description="name of the competition; names its folds, runs and submissions")
    folder: FilePath | None = Field(None, description="folder with the CSVs and images; left out: `input/<name>`")
    bundled: Literal["digits", "masks"] | None = Field(
        None, description="a data set that needs no download, written to the folder when that is missing"
    )
    train: str = Field(
        "train.csv",
        description="table of training rows: id, target, perhaps group; or a pattern of image files, train/*/*.jpg, "
        "one row a file; none: src/infer.py takes the rows that trained folds keep; see docs/competitions.md",
    )
    test: str = Field(
        "auto",
        description="table of test rows, or a pattern of image files; auto: test.csv, else the ids of the sample, else "
        "the files of test/",
    )
    sample: str | Annotated[list[str], AfterValidator(_files), AfterValidator(_once)] | SampleConfig = Field(
        "auto",
        description="the host's sample submission: ids, order, columns, types; auto: sample_submission.csv, else the "
        "one file that looks like it; none: id and answers are written plainly; or {file: sample.csv, by: order}; or "
        "several files, each of which asks for a part: [a.csv, b.csv]",
    )
    join: Annotated[list[str], BeforeValidator(_listed), AfterValidator(_once)] = Field(
        [], description="tables that are joined to the rows by the columns that they share: [labels.csv]"
    )
    files: str | None = Field(
        None, description='a training row becomes as many rows as files fit a pattern: "train/images/{path}/*"'
    )
    test_files: str | None = Field(None, description="the same of a test row")
    derive: dict[str, DeriveConfig] = Field(
        {}, description="new columns by their names, in order, see docs/competitions.md"
    )
    pivot: PivotConfig | None = Field(
        None,
        description="a long table, one row a target, becomes one row an image: {rows: a, columns: b, values: y}",
    )
    id: str | IdConfig = Field(
        "id", description="column that names a row; read as text; or {train: file, test: ImageID}"
    )
    target: Annotated[str | TargetConfig, BeforeValidator(_is_no_list)] = Field(
        "label", description="column with the label of a training row; or what else is predicted, see docs/targets.md"
    )
    order: Annotated[list[str], BeforeValidator(_as_text), AfterValidator(_once)] | None = Field(
        None,
        description="all labels from the least to the most, as qwk needs them; the last of two is the positive one; "
        "left out: numbers by value, else words by alphabet",
    )
    group: str | list[str] | None = Field(
        None,
        description="column whose rows must stay in one fold (person, photo, patient); or a list: rows that are alike "
        "in all of these columns",
    )
    image: ImageSetting = Field(
        "auto",
        description="path of a training image; any column in braces, extension optional; auto: `{file}` where rows "
        "come from files, else `train/{@id}`; or several, of which the first that is there is taken; or how it is "
        'read, see docs/images.md: {hdf5: train.hdf5, key: "{id}"}',
    )
    test_image: ImageSetting = Field("auto", description="the same of a test image; auto: `{file}`, else `test/{@id}`")
    answer: AnswerConfig | None = Field(
        None, description="several images make one answer: {by: [patient, side], combine: mean}, see docs/answers.md"
    )
    follow_links: bool = Field(
        False, description="use files that symbolic links in the folder lead to; the folder itself may always be one"
    )
    metric: str | dict[str, Any] = Field(
        "macro_f1",
        description="how predictions are judged, by its name in docs/metrics.md; with options: {name: map_at_k, k: 5}; "
        "or the host's own: {code: metric.py:score, greater_is_better: true}",
    )
    submission: Literal["auto"] | SubmissionConfig = Field(
        "auto",
        description="form of the submission; auto: what sample, target and metric say, see docs/submissions.md; or "
        "{form: top_k, k: 5}, {positive: FAKE}",
    )
    weight: str | None = Field(None, description="column that says how much a training row counts in training")
    metric_weight: bool = Field(False, description="rows count by `weight` in the score as well")
    metadata: MetadataConfig | None = Field(
        None,
        description="columns that enter beside the image, {numeric: [age], category: [sex, site]}; cells may be "
        "missing; see docs/metadata.md",
    )
    constraints: list[str] = Field(
        [],
        description='what answers obey: values "total = a + 2*b", labels "none excludes all", "A excludes B, C", '
        '"A implies B"; used where that gains',
    )
    test_prior: Literal["keep", "auto"] = Field(
        "keep",
        description="how frequent classes are taken to be in the test set; keep: as in the training rows; auto: as the "
        "predictions of the whole test set say, where they say that it is otherwise; see docs/ensemble.md",
    )

    @property
    def train_id(self) -> str:
        """Column that names a training row."""
        return self.id if isinstance(self.id, str) else self.id.train

    @property
    def test_id(self) -> str:
        """Column that names a test row."""
        return self.id if isinstance(self.id, str) else self.id.test

    @property
    def sample_file(self) -> str:
        """The sample submission, or the first of several."""
        return self.sample_files[0]

    @property
    def sample_files(self) -> list[str]:
        """All samples, where the host wants several files."""
        if isinstance(self.sample, list):
            return self.sample
        return [self.sample if isinstance(self.sample, str) else self.sample.file]

    @property
    def groups(self) -> list[str]:
        """Columns that tell the group of a row."""
        return [self.group] if isinstance(self.group, str) else list(self.group or [])

    @property
    def group_name(self) -> str:
        """What they are called in words."""
        return " and ".join(self.groups)


class FoldsConfig(Section):
    column: str | None = Field(None, description="column of the training rows that holds the host's own folds")
    count: int = Field(5, ge=2, le=50, description="number of folds")
    scheme: Literal["auto", "stratified", "stratified_group", "plain"] = Field(
        "auto",
        description="auto, stratified: classes in equal shares; plain: classes play no part; groups and merged copies "
        "stay whole under each",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of the split")
    merge_duplicates: Literal["auto"] | bool = Field(
        "auto",
        description="keep the copies that `src/audit.py` found in one fold; auto: where it has been run",
    )
    groups: Literal["audit"] | None = Field(
        None, description="audit: the hidden groups that `src/audit.py` found stay in one fold, as copies do"
    )


class ImagesConfig(Section):
    size: int = Field(160, ge=8, le=2048, description="side of the square that enters the net, in pixels")
    cache_size: int | None = Field(
        None, ge=8, le=4096, description="side of the decoded images kept on disk, in pixels; left out: what size needs"
    )
    resize: Literal["squash", "pad", "crop"] = Field(
        "squash",
        description="how an image becomes square: squash (whole image, new aspect), pad (whole image, black bars), "
        "crop (centre only, by the weights' own crop_pct)",
    )
    min_value: float | None = Field(
        None,
        description="value that becomes black in images of more than 8 bits; left out: 0, or the least where there are "
        "negative ones",
    )
    max_value: float | Literal["auto"] = Field(
        "auto",
        description="value that becomes white in images of more than 8 bits (4095 for 12 bits); auto: found once, by "
        "looking at all images of the competition, and kept in the run",
    )

    channels: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] = Field(
        "auto",
        description="channels that enter the net; auto: 3, or all bands of images that have bands beside grey, colours "
        "and opacity; kept in the run",
    )
    on_error: Literal["stop", "baseline"] = Field(
        "stop",
        description="what becomes of test images that cannot be read: stop, or baseline (they get the frequencies of "
        "the classes in training, and are listed); training images always stop",
    )

    @property
    def bands(self) -> int:
        """Channels that enter the net; where that is not found yet, three."""
        return 3 if self.channels == "auto" else self.channels

    @property
    def bounds(self) -> tuple[float, float]:
        """What becomes black and what white in images of more than 8 bits; where it is not found yet, all 16 bits."""
        return self.min_value or 0.0, 65535.0 if self.max_value == "auto" else self.max_value


def _pairs(swap: Any) -> Any:
    """Names as the table has them; each stands in one pair."""
    if not isinstance(swap, dict):
        return swap
    if any(name is None or isinstance(name, bool) for pair in swap.items() for name in pair):
        raise ValueError("put quotes around no, yes, on, off, true, false and null")
    pairs = {tuple(sorted((str(a), str(b)))) for a, b in swap.items()}
    named = [name for pair in pairs for name in pair]
    if repeated := sorted({name for name in named if named.count(name) > 1}):
        raise ValueError(f"is to be swapped with more than one: {', '.join(repeated)}")
    return dict(sorted(pairs))


class FlipConfig(Section):
    """A flip that changes the label."""

    p: Probability = Field(0.5, description="chance of the flip")
    swap: Annotated[dict[str, str], BeforeValidator(_pairs), Field(min_length=1)] = Field(
        description="classes, labels or columns that change places with each other in a flipped image: {left: right}"
    )


class AugmentConfig(Section):
    preset: Literal["none", "light", "medium", "heavy"] = Field("medium", description="how strongly images are changed")
    hflip: Probability | FlipConfig = Field(
        0.5,
        description="chance of a left-right flip; where it changes the label 0, or what changes places: "
        "{p: 0.5, swap: {left: right}}",
    )
    vflip: Probability | FlipConfig = Field(0.0, description="chance of an up-down flip; or as `augment.hflip`")
    rot90: Probability = Field(0.0, description="chance of a turn by 0, 90, 180 or 270 degrees, each as likely")
    transforms: list[dict[str, dict[str, Any] | None] | str] | None = Field(
        None, description="albumentations classes with their arguments, in place of preset, hflip, vflip and rot90"
    )
    mixup: float = Field(0.0, ge=0, le=10, description="alpha of mixup's Beta distribution; 0: off")
    cutmix: float = Field(0.0, ge=0, le=10, description="alpha of cutmix's Beta distribution; 0: off")
    mix_prob: Probability = Field(1.0, description="chance that a batch is mixed at all")
    erase: Probability = Field(0.0, description="chance that random erasing puts noise over a part of an image")
    mix_off: Probability = Field(0.2, description="last share of the epochs that is trained without mixing")

    @property
    def flips(self) -> list[str]:
        """Views that training shows as well, by the names that `tta.views` has for them."""
        turns = ["rot90", "rot180", "rot270"] if self.rot90 else []
        return [*(flip for flip in ("hflip", "vflip") if self.chance(flip)), *turns]

    def chance(self, flip: Literal["hflip", "vflip"]) -> float:
        """How likely a flip is."""
        set_to = getattr(self, flip)
        return set_to.p if isinstance(set_to, FlipConfig) else set_to

    @property
    def swaps(self) -> dict[str, dict[str, str]]:
        """What changes places under a flip, by its name, where it changes the label."""
        both = {"hflip": self.hflip, "vflip": self.vflip}
        return {flip: set_to.swap for flip, set_to in both.items() if isinstance(set_to, FlipConfig)}


class BackboneConfig(Section):
    name: Name = Field(description="model name in timm or torchvision, or a folder in `weights/`")
    source: Literal["timm", "torchvision"] = Field("timm", description="library that the model comes from")
    weights: Literal["pretrained", "none"] = Field(
        "pretrained",
        description="pretrained: from `weights/<name>/`, else an installed package, else the hub; none: random",
    )
    drop: Probability = Field(0.0, description="dropout before the classifier")
    drop_path: Probability = Field(0.0, description="stochastic depth, where the model has it")
    patch_drop: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="share of an image's patches that training leaves out, at about that share of its time less, where "
        "the model is a plain transformer",
    )
    args: dict[str, Any] = Field({}, description="more arguments for the model's constructor")


class FinetuneConfig(Section):
    mode: Literal["full", "norm", "lora", "linear_probe"] = Field(
        "full",
        description="what of the backbone is trained: full (all), norm (scales of norms and all biases), lora "
        "(low-rank changes), linear_probe (nothing: a closed-form head on its frozen features)",
    )
    head_init: Literal["auto", "probe", "random"] = Field(
        "auto",
        description="where the head starts: probe (a closed-form head; LP-FT), random; auto: probe where weights are "
        "pretrained",
    )
    freeze_until: str | None = Field(
        None,
        description="module before which nothing is trained, as `src/check.py --show net` names it; layer2 or blocks.3",
    )
    unfreeze_epochs: int = Field(
        0, ge=0, le=1000, description="epochs over which layers are set free one by one, head first; 0: all at once"
    )
    lora_rank: int = Field(8, ge=1, le=1024, description="rank of the low-rank changes of mode lora")
    interpolate: bool = Field(
        False,
        description="predict with a point between the start and the end of the training, chosen on held-out rows",
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = Field(
        "auto",
        description="learning rate of a layer over that of the next; auto: 0.85 transformer, 0.9 CNN, 1 from scratch",
    )
    batchnorm: Literal["auto", "train", "frozen", "adapted"] = Field(
        "auto",
        description="statistics of BatchNorm: train (of the batch), frozen (the pretrained ones), adapted (measured "
        "once on the training images, then frozen); auto: frozen where the weights are pretrained, else train",
    )


class ProbeConfig(Section):
    solver: Literal["ridge", "logistic"] = Field(
        "ridge", description="closed-form head: ridge regression on one-hot labels, or multinomial logistic regression"
    )
    stages: Literal["auto", "all", "coarse", "last"] | list[str] = Field(
        "auto",
        description="features a linear probe sees: of all blocks, of a few that stand for all (coarse), the last (what "
        "the classifier sees), or named ones; auto: all, but coarse above 6,000 rows; a head that fine-tuning starts "
        "from always sees the last",
    )
    nets: Annotated[list[Name], AfterValidator(_once)] = Field(
        [], description="more backbones, the features of which a linear probe's head sees as well"
    )
    sizes: Annotated[list[Annotated[int, Field(ge=8, le=2048)]], AfterValidator(_once)] | None = Field(
        None,
        min_length=1,
        description="sides at which a linear probe's nets see an image, in pixels, none above `images.size`; left out: "
        "`images.size`",
    )
    mirror: Literal["auto"] | bool = Field(
        "auto",
        description="average the features of a linear probe with those of the mirror image; auto: where "
        "`augment.hflip` is not 0 and swaps nothing",
    )
    stage_weights: dict[str, Annotated[float, Field(ge=0, le=1000)]] = Field(
        {}, description="how strongly a stage counts beside the others, by its name; left out: 1"
    )
    strengths: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = Field(
        [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
        description="regularisation strengths to choose from, on the rows of the other folds",
    )
    views: Annotated[list[str], AfterValidator(_once)] | None = Field(
        None,
        min_length=1,
        description="views of the training images to learn from; left out: identity and the flips of `augment`, but "
        "for one that `mirror` has averaged in",
    )
    augmented: Annotated[int, Field(ge=0, le=100)] | Literal["auto"] = Field(
        "auto",
        description="augmented copies of each training image to learn from as well; auto: two, fewer where that would "
        "be more than 6,000 rows",
    )


class TrainConfig(Section):
    """How long is trained, in which batches, and what the steps count."""

    epochs: Annotated[int, Field(ge=1, le=10000)] | Literal["auto"] = Field(
        12,
        description="passes over the training rows; auto: as many as make the steps that such an amount of data needs",
    )
    batch: int = Field(32, ge=1, le=65536, description="images a step, over all devices")
    accumulate: int = Field(1, ge=1, le=1024, description="parts in which a batch goes through the net, to save memory")
    imbalance: Literal["none", "weighted", "sampler", "focal", "logit_adjusted"] = Field(
        "none",
        description="what is done about rare classes: weighted (loss), sampler (rare classes drawn more often), focal "
        "(hard images count more), logit_adjusted (the prior is taken out of the logits)",
    )
    validate_every: int = Field(
        1, ge=1, description="epochs between looks at the held-out images; the last epoch always ends with one"
    )
    patience: int = Field(0, ge=0, description="stop after so many epochs without a better score; 0: never")

    @property
    def part(self) -> int:
        """Images that go through the net at once."""
        return math.ceil(self.batch / self.accumulate)


class OptimConfig(Section):
    """What moves the weights, and what averages them."""

    lr: Annotated[float, Field(gt=0, le=10)] | Literal["auto"] = Field(
        1e-3,
        description="peak learning rate (of the head, where layers decay); auto: the best of three, tried on one fold",
    )
    min_lr: float = Field(1e-6, ge=0, le=10, description="learning rate at the end of the cosine")
    warmup: Probability = Field(0.1, description="first share of the steps, in which the learning rate rises")
    weight_decay: float = Field(0.05, ge=0, le=10, description="AdamW's decoupled weight decay")
    clip: float = Field(1.0, ge=0, description="largest norm of the gradient; 0: off")
    ema: bool = Field(True, description="predict with a moving average of the weights")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="decay a step of that average; left out: a window of one epoch"
    )
    swa: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="last share of the epochs whose weights are averaged evenly (SWA), in place of the EMA; 0: off"
    )


class RegularizeConfig(Section):
    """What keeps the net from learning its training rows by heart, beside augmentation and dropout."""

    label_smoothing: float = Field(0.1, ge=0, lt=1, description="probability mass spread evenly over the classes")
    rdrop: float = Field(0.0, ge=0, le=100, description="weight of R-Drop's agreement of two dropout draws; 0: off")


class MachineConfig(Section):
    """Where and how it is computed; it does not count for what an experiment is."""

    workers: int | None = Field(
        None, ge=0, le=256, description="processes that augment; left out: chosen for the machine"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto: measured")
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field("auto", description="auto: measured")
    memory_format: Literal["auto", "contiguous", "channels_last"] = Field("auto", description="auto: measured")
    cache: FilePath | None = Field(
        None,
        description="folder on a disk of the machine itself, where it keeps copies of caches and features that lie in "
        "`runs` on a network file system; a machine that has no such folder reads those",
    )


class DistillConfig(Section):
    teachers: Annotated[list[Name], AfterValidator(_once)] = Field(
        [],
        description="finished experiments to learn from as well, each fold from their models of that fold; of the same "
        "competition and runs folder",
    )
    share: Probability | None = Field(
        None,
        description="weight of the teachers' answer against the label of a training row; left out: 0.3 where there are "
        "teachers, else 0, and 0 where all teachers are stored blends",
    )
    pseudo: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of an epoch's images that are test images, with the teachers' answer for a label"
    )
    confidence: Probability = Field(
        0.0, description="only test images whose likeliest class the teachers give at least this probability"
    )
    hard: bool = Field(False, description="take the teachers' likeliest class in place of their probabilities")
    temperature: float = Field(
        1.0, gt=0, le=100, description="the teachers' log-probabilities are divided by it; above 1: softer"
    )


class TTAConfig(Section):
    views: Annotated[list[str], AfterValidator(_once)] | None = Field(
        None,
        min_length=1,
        description="views that are predicted, by their names in docs/guide.md; which are averaged is chosen on OOF; "
        "left out: identity, the flips of `augment`, scale1.25",
    )


def _off(value: object) -> object:
    return "off" if value is False else value  # YAML reads a bare off as false


class TrackingConfig(Section):
    wandb: Annotated[Literal["auto", "online", "offline", "off"], BeforeValidator(_off)] = Field(
        "auto", description="auto: online with a key, else offline"
    )
    project: str | None = Field(None, description="W&B project; left out: `foldcraft-<competition>`")
    entity: str | None = Field(None, description="W&B user or team")
    mistakes: int = Field(
        16,
        ge=0,
        le=100,
        description="worst mistakes that W&B shows with their images; 0: none, and no image goes there",
    )
    artifacts: Annotated[Literal["off", "predictions", "models"], BeforeValidator(_off)] = Field(
        "predictions",
        description="what W&B keeps: predictions (with folds, submissions and code), or models as well",
    )
    alerts: bool = Field(
        False, description="let W&B send a message when a fold, an experiment or a command ends or fails"
    )


class Config(Section):
    """Everything that makes an experiment."""

    experiment: Name = Field(description="name of the experiment; left out: the config file's name")
    runs: FilePath = Field(Path("runs"), description="folder that runs are kept in")
    scratch: FilePath = Field(
        Path("scratch"), description="folder for caches and predictions where `runs` may only be read, as a data set is"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of everything random in training")
    competition: CompetitionConfig
    folds: FoldsConfig = FoldsConfig()
    images: ImagesConfig = ImagesConfig()
    augment: AugmentConfig = AugmentConfig()
    backbone: BackboneConfig
    finetune: FinetuneConfig = FinetuneConfig()
    probe: ProbeConfig = ProbeConfig()
    train: TrainConfig = TrainConfig()
    optim: OptimConfig = OptimConfig()
    regularize: RegularizeConfig = RegularizeConfig()
    machine: MachineConfig = MachineConfig()
    distill: DistillConfig = DistillConfig()
    tta: TTAConfig = TTAConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def folder(self) -> Path:
        """Where the competition's data lie."""
        return self.competition.folder or Path("input") / self.competition.name

    @property
    def folds_file(self) -> Path:
        """Where the competition's frozen folds lie."""
        return Path("folds") / f"{self.competition.name}.csv"

    def blend_file(self, name: str) -> Path:
        """Where a stored blend of that name keeps what it is made of; no experiment has such a file."""
        return self.runs / self.competition.name / name / "blend.json"

    @property
    def is_probe(self) -> bool:
        """Is nothing trained but a closed-form head?"""
        return self.finetune.mode == "linear_probe"

    @property
    def probe_nets(self) -> list[str]:
        """Backbones that a linear probe sees beside that of `backbone.name`."""
        return self.probe.nets if self.is_probe else []

    @property
    def probe_sizes(self) -> list[int]:
        """Sides at which a linear probe's nets see an image, in pixels."""
        return self.probe.sizes or [self.images.size]

    def settled(self) -> "Config":
        """The same with what `auto` means here written out, where only the settings decide it."""
        pretrained = self.backbone.weights == "pretrained"
        meant: dict[str, str] = {}
        if self.finetune.head_init == "auto":
            meant["head_init"] = "probe" if pretrained else "random"
        if self.finetune.batchnorm == "auto":
            meant["batchnorm"] = "frozen" if pretrained else "train"
        changed: dict[str, Section] = {"finetune": self.finetune.model_copy(update=meant)}
        is_same = bool(self.augment.chance("hflip")) and not self.augment.swaps
        mirror = self.is_probe and (is_same if self.probe.mirror == "auto" else self.probe.mirror)
        flips = [view for view in self.augment.flips if not (mirror and view == "hflip")]
        views = self.probe.views if self.probe.views is not None else ["identity", *flips]
        changed["probe"] = self.probe.model_copy(update={"views": views, "mirror": mirror})
        if self.tta.views is None:  # views that training does not show may change the label
            views = ["identity", *flips, "scale1.25"]
            changed["tta"] = self.tta.model_copy(update={"views": views})
        if self.distill.share is None:
            answer = any(not self.blend_file(name).is_file() for name in self.distill.teachers)
            changed["distill"] = self.distill.model_copy(update={"share": 0.3 if answer else 0.0})
        return self.model_copy(update=changed)

    def training_settings(self) -> dict[str, Any]:
        """The settings that decide what a trained fold is, as plain values; where and how it runs is left out."""
        apart = {"experiment", "runs", "scratch", "folds", "machine", "tta", "tracking"}
        settings = self.model_dump(mode="json", exclude=apart)
        settings["competition"] = {"name": self.competition.name}
        if self.images.max_value == "auto":  # of images of 8 bits nothing depends on it; said as it always was
            settings["images"]["max_value"] = 65535.0
        if self.images.min_value is None:
            del settings["images"]["min_value"]
        del settings["images"]["on_error"]  # it is about test images
        if self.images.bands == 3:  # said as before there was another number
            del settings["images"]["channels"]
        if not self.train.patience:  # then nothing depends on what is seen on the way
            del settings["train"]["validate_every"]
        if not self.is_probe:  # what is trained does not depend on it; said as in version 0.1, so that folds stay valid
            later = {"nets", "sizes", "mirror"}
            settings["probe"] = {key: value for key, value in settings["probe"].items() if key not in later}
            before = {"stages": "all", "augmented": 0}
            settings["probe"] |= {key: value for key, value in before.items() if settings["probe"][key] == "auto"}
        return settings

    def training_fingerprint(self, soup: Mapping[str, str] | None = None) -> str:
        """Digest of `training_settings`; without teachers, of those of the settings that then count.

        It is worked out under the oldest names of the keys, so that a renamed key changes no experiment.

        Args:
            soup: the experiments that a soup is the mean of, with the digests of their settings.
        """
        settings = config_renames.canonical(self.training_settings())
        if not self.distill.teachers:
            del settings["distill"]
        if soup:
            settings["soup"] = dict(soup)
        return fingerprint.of_values(settings)

    def as_trial(self) -> "Config":
        """The same as an experiment of its own, named by what is trained: equal settings share a folder."""
        return self.model_copy(update={"experiment": f"{self.experiment}-{self.training_fingerprint()[:8]}"})

    def to_yaml(self) -> str:
        """The resolved settings as YAML."""
        from omegaconf import OmegaConf  # a packed blend, which writes no settings, does without

        return OmegaConf.to_yaml(OmegaConf.create(self.model_dump(mode="json")))
