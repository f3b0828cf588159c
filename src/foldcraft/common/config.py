"""The settings of an experiment: every key, with its unit, range and default, in this one file."""

import io
import os
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from yaml import YAMLError

from foldcraft.common import checksums, fingerprint, safe_yaml
from foldcraft.common.errors import FoldcraftError, shorten, suggest
from foldcraft.common.files import check_readable

GENERATIONS = 20  # of files that extend each other
MOST_TOLD = 10  # mistakes of a config, in one line
Probability = Annotated[float, Field(ge=0, le=1)]
FilePath = Annotated[Path, AfterValidator(lambda path: Path(os.path.expanduser(path)))]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


class Section(BaseModel):
    """A part of the settings: unknown keys are refused, nothing can be changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


def _once(names: list[str]) -> list[str]:
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"named more than once: {', '.join(repeated)}")
    return names


def _as_text(labels: Any) -> Any:
    """Labels as the table has them; YAML takes 10 for a number, and no for false."""
    if not isinstance(labels, list):
        return labels
    if any(label is None or isinstance(label, bool) for label in labels):
        raise ValueError("put quotes around no, yes, on, off, true, false and null")
    return [str(label) for label in labels]


class CompetitionConfig(Section):
    name: Name = Field(description="name of the competition; names its folds, runs and submissions")
    folder: FilePath | None = Field(None, description="folder with the CSVs and images; left out: `input/<name>`")
    bundled: Literal["digits", "masks"] | None = Field(
        None, description="a data set that needs no download, written to the folder when that is missing"
    )
    train: str = Field("train.csv", description="CSV of training rows: id, target, perhaps group")
    test: str = Field("test.csv", description="CSV of test rows; only the id column is needed")
    sample: str = Field("sample_submission.csv", description="the host's sample submission: ids, order, columns, types")
    id: str = Field("id", description="column that names a row; read as text")
    target: str = Field("label", description="column with the label of a training row; read as text")
    order: Annotated[list[str], BeforeValidator(_as_text), AfterValidator(_once)] | None = Field(
        None,
        description="all labels from the least to the most, as qwk needs them; the last of two is the positive one; "
        "left out: numbers by value, else words by alphabet",
    )
    group: str | None = Field(None, description="column whose rows must stay in one fold (person, photo, patient)")
    image: str = Field("train/{id}", description="path of a training image; any column in braces, extension optional")
    test_image: str = Field("test/{id}", description="path of a test image; any column in braces, extension optional")
    follow_links: bool = Field(
        False, description="use files that symbolic links in the folder lead to; the folder itself may always be one"
    )
    metric: str = Field(
        "macro_f1",
        description="accuracy, balanced_accuracy, f1 (of the last of two classes in order), log_loss, "
        "macro_f1, qwk, roc_auc or weighted_f1",
    )


class FoldsConfig(Section):
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

    on_error: Literal["stop", "baseline"] = Field(
        "stop",
        description="what becomes of test images that cannot be read: stop, or baseline (they get the frequencies of "
        "the classes in training, and are listed); training images always stop",
    )

    @property
    def bounds(self) -> tuple[float, float]:
        """What becomes black and what white in images of more than 8 bits; where it is not found yet, all 16 bits."""
        return self.min_value or 0.0, 65535.0 if self.max_value == "auto" else self.max_value


class AugmentConfig(Section):
    preset: Literal["none", "light", "medium", "heavy"] = Field("medium", description="how strongly images are changed")
    hflip: Probability = Field(0.5, description="chance of a left-right flip; 0 where it would change the label")
    vflip: Probability = Field(0.0, description="chance of an up-down flip")
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
        return [*(["hflip"] if self.hflip else []), *(["vflip"] if self.vflip else []), *turns]


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
        "`augment.hflip` is not 0",
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
    epochs: Annotated[int, Field(ge=1, le=10000)] | Literal["auto"] = Field(
        12,
        description="passes over the training rows; auto: as many as make the steps that such an amount of data needs",
    )
    batch: int = Field(32, ge=1, le=65536, description="images a step, over all devices")
    accumulate: int = Field(1, ge=1, le=1024, description="parts in which a batch goes through the net, to save memory")
    lr: Annotated[float, Field(gt=0, le=10)] | Literal["auto"] = Field(
        1e-3,
        description="peak learning rate (of the head, where layers decay); auto: the best of three, tried on one fold",
    )
    min_lr: float = Field(1e-6, ge=0, le=10, description="learning rate at the end of the cosine")
    warmup: Probability = Field(0.1, description="first share of the steps, in which the learning rate rises")
    weight_decay: float = Field(0.05, ge=0, le=10, description="AdamW's decoupled weight decay")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="probability mass spread evenly over the classes")
    imbalance: Literal["none", "weighted", "sampler", "focal", "logit_adjusted"] = Field(
        "none",
        description="what is done about rare classes: weighted (loss), sampler (rare classes drawn more often), focal "
        "(hard images count more), logit_adjusted (the prior is taken out of the logits)",
    )
    rdrop: float = Field(0.0, ge=0, le=100, description="weight of R-Drop's agreement of two dropout draws; 0: off")
    sam: float = Field(0.0, ge=0, le=10, description="radius of sharpness-aware minimisation (twice the time); 0: off")
    swa: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="last share of the epochs whose weights are averaged evenly (SWA), in place of the EMA; 0: off"
    )
    clip: float = Field(1.0, ge=0, description="largest norm of the gradient; 0: off")
    ema: bool = Field(True, description="predict with a moving average of the weights")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="decay a step of that average; left out: a window of one epoch"
    )
    validate_every: int = Field(
        1, ge=1, description="epochs between looks at the held-out images; the last epoch always ends with one"
    )
    patience: int = Field(0, ge=0, description="stop after so many epochs without a better score; 0: never")
    workers: int | None = Field(
        None, ge=0, le=256, description="processes that augment; left out: chosen for the machine"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto: measured")
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field("auto", description="auto: measured")
    memory_format: Literal["auto", "contiguous", "channels_last"] = Field("auto", description="auto: measured")


class DistillConfig(Section):
    teachers: Annotated[list[Name], AfterValidator(_once)] = Field(
        [],
        description="finished experiments to learn from as well, each fold from their models of that fold; of the same "
        "competition and runs folder",
    )
    share: Probability | None = Field(
        None,
        description="weight of the teachers' answer against the label of a training row; left out: 0.3 where there are "
        "teachers, else 0",
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
        description="views that are predicted; which of them are averaged is chosen on OOF: identity, hflip, vflip, "
        "rot90, rot180, rot270, scale1.25 (zoom); joined by +: hflip+scale1.25; left out: identity, the flips of "
        "`augment`, scale1.25",
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
    distill: DistillConfig = DistillConfig()
    tta: TTAConfig = TTAConfig()
    tracking: TrackingConfig = TrackingConfig()
    soup: dict[str, str] = Field(
        {},
        description="trained experiments whose weights this one is the mean of, with the digests of their settings; "
        "`src/infer.py --soup` writes it",
    )

    @property
    def folder(self) -> Path:
        """Where the competition's data lie."""
        return self.competition.folder or Path("input") / self.competition.name

    @property
    def folds_file(self) -> Path:
        """Where the competition's frozen folds lie."""
        return Path("folds") / f"{self.competition.name}.csv"

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
        mirror = self.is_probe and (bool(self.augment.hflip) if self.probe.mirror == "auto" else self.probe.mirror)
        flips = [view for view in self.augment.flips if not (mirror and view == "hflip")]
        views = self.probe.views if self.probe.views is not None else ["identity", *flips]
        changed["probe"] = self.probe.model_copy(update={"views": views, "mirror": mirror})
        if self.tta.views is None:  # views that training does not show may change the label
            views = ["identity", *flips, "scale1.25"]
            changed["tta"] = self.tta.model_copy(update={"views": views})
        if self.distill.share is None:
            changed["distill"] = self.distill.model_copy(update={"share": 0.3 if self.distill.teachers else 0.0})
        return self.model_copy(update=changed)

    def training_settings(self) -> dict[str, Any]:
        """The settings that decide what a trained fold is, as plain values; where and how it runs is left out."""
        apart = {"experiment", "runs", "scratch", "folds", "tta", "tracking"} | (set() if self.soup else {"soup"})
        settings = self.model_dump(mode="json", exclude=apart)
        settings["competition"] = {"name": self.competition.name}
        if self.images.max_value == "auto":  # of images of 8 bits nothing depends on it; said as it always was
            settings["images"]["max_value"] = 65535.0
        if self.images.min_value is None:
            del settings["images"]["min_value"]
        del settings["images"]["on_error"]  # it is about test images
        for machine in ("workers", "device", "precision", "memory_format"):
            del settings["train"][machine]
        if not self.train.patience:  # then nothing depends on what is seen on the way
            del settings["train"]["validate_every"]
        if not self.is_probe:  # what is trained does not depend on it; said as in version 0.1, so that folds stay valid
            later = {"nets", "sizes", "mirror"}
            settings["probe"] = {key: value for key, value in settings["probe"].items() if key not in later}
            before = {"stages": "all", "augmented": 0}
            settings["probe"] |= {key: value for key, value in before.items() if settings["probe"][key] == "auto"}
        return settings

    def training_fingerprint(self) -> str:
        """Digest of `training_settings`; without teachers, of those of the settings that then count."""
        settings = self.training_settings()
        if not self.distill.teachers:
            del settings["distill"]
        return fingerprint.of_values(settings)

    def as_trial(self) -> "Config":
        """The same as an experiment of its own, named by what is trained: equal settings share a folder."""
        return self.model_copy(update={"experiment": f"{self.experiment}-{self.training_fingerprint()[:8]}"})

    def to_yaml(self) -> str:
        """The resolved settings as YAML."""
        return OmegaConf.to_yaml(OmegaConf.create(self.model_dump(mode="json")))


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file with all that it extends, then the `key=value` overrides, and validate.

    Raises:
        FoldcraftError: no such file, broken YAML, an unknown key, a value of the wrong type or out of range, settings
            of `distill` that do not go together.
    """
    try:
        path = Path(os.path.expanduser(path))
        settings = OmegaConf.merge(_read(path, (), {}), _read_overrides(overrides))
        values = OmegaConf.to_container(settings)
    except (OmegaConfBaseException, RecursionError) as error:
        raise FoldcraftError(str(error), path) from None
    values.setdefault("experiment", path.stem)
    try:
        made = Config.model_validate(values).settled()
    except ValidationError as error:
        raise FoldcraftError(*_explain(error), where=path) from None
    _check_images(made.images)
    _check_distill(made)
    _check_probe(made)
    return made


def _check_images(images: ImagesConfig) -> None:
    """See that white is brighter than black."""
    black, white = images.bounds
    if images.max_value != "auto" and white <= black:
        raise FoldcraftError(f"{white:g} is not above images.min_value = {black:g}", "images.max_value")


def _check_probe(config: Config) -> None:
    """See that the nets and sizes of a linear probe go together with the rest."""
    if config.is_probe and max(config.probe_sizes) > config.images.size:
        raise FoldcraftError(
            f"{max(config.probe_sizes)} is larger than images.size = {config.images.size}",
            "probe.sizes",
            "raise images.size: images are kept at it, and reduced to the other sizes",
        )
    if config.backbone.name in config.probe_nets:
        raise FoldcraftError(f"{config.backbone.name} is the backbone itself", "probe.nets", "name other nets")


def _check_distill(config: Config) -> None:
    """See that what is to be learned from teachers goes together."""
    wanted = config.distill
    off = dict(DistillConfig(share=0.0))
    idle = [key for key, value in wanted if key != "teachers" and value != off[key]]
    teaches = bool(wanted.share or wanted.pseudo)
    rules: list[tuple[object, str, str, str]] = [
        (
            not wanted.teachers and idle,
            "teachers",
            f"none, so {', '.join(idle)} cannot be",
            "name finished experiments",
        ),
        (config.experiment in wanted.teachers, "teachers", "an experiment cannot teach itself", "set experiment=NAME"),
        (
            wanted.teachers and config.finetune.mode == "linear_probe",
            "teachers",
            "a closed-form head is solved for labels and takes no probabilities",
            "use another finetune.mode; a linear probe may be a teacher",
        ),
        (wanted.teachers and not teaches, "teachers", "nothing is learned from them", "set distill.share or pseudo"),
        (wanted.confidence and not wanted.pseudo, "confidence", "chooses test images, and none is used", "set pseudo"),
        (
            wanted.hard and wanted.temperature != 1,
            "temperature",
            "changes nothing in a hard answer",
            "drop one of both",
        ),
        (
            wanted.pseudo and config.train.imbalance == "sampler",
            "pseudo",
            "the sampler draws classes alike by their labels, and test images have none",
            "use pseudo=0 or another train.imbalance",
        ),
    ]
    for wrong, key, what, hint in rules:
        if wrong:
            raise FoldcraftError(what, f"distill.{key}", hint)


def _read(path: Path, seen: tuple[Path, ...], known: dict[Path, DictConfig]) -> DictConfig:
    """A file with all that it extends; `known` are those that have been read, each of which is read once."""
    place = Path(os.path.realpath(path))
    if place in seen:
        raise FoldcraftError("extends itself", path, "break the circle of 'extends'")
    if len(seen) > GENERATIONS:
        raise FoldcraftError(f"more than {GENERATIONS} files extend each other", path, "put some of them into one")
    if place not in known:
        known[place] = _read_anew(path, (*seen, place), known)
    return known[place]


def _read_anew(path: Path, seen: tuple[Path, ...], known: dict[Path, DictConfig]) -> DictConfig:
    own = read_mapping(path)
    parents = own.pop("extends", None) or []
    parents = [parents] if isinstance(parents, str) else parents
    if not isinstance(parents, Sequence) or not all(isinstance(parent, str) for parent in parents):
        raise FoldcraftError("'extends' is neither a path nor a list of paths", path)
    merged = OmegaConf.create({})
    for parent in parents:
        merged = OmegaConf.merge(merged, _read(path.parent / os.path.expanduser(str(parent)), seen, known))
    try:
        return OmegaConf.merge(merged, own)
    except (OmegaConfBaseException, RecursionError) as error:
        raise FoldcraftError(f"does not fit what it extends: {error}", path) from None


def read_mapping(path: Path) -> DictConfig:
    """The 'key: value' lines of a YAML file, unchecked otherwise, without what it extends.

    Raises:
        FoldcraftError: no such file, broken YAML, anything else in it.
    """
    if not os.path.isfile(path):
        raise FoldcraftError("no such config", path, "name a YAML file with --config, seen from the current folder")
    check_readable(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        checksums.check_text(text)
        safe_yaml.check(text, path)
        own = OmegaConf.load(io.StringIO(text), max_yaml_expanded_nodes=safe_yaml.MOST_NODES)
    except FoldcraftError:
        raise
    except checksums.ChecksumMismatch as error:
        hint = "delete its first line if you have edited it; else `python src/train.py` with its config writes it again"
        raise FoldcraftError(str(error), path, hint) from None
    except Exception as error:  # YAML's readers of numbers, dates and tags raise errors of every kind
        raise FoldcraftError(f"not a readable YAML file: {error}", path) from None
    if not isinstance(own, DictConfig):
        raise FoldcraftError("should hold 'key: value' lines", path)
    return own


def _read_overrides(overrides: Sequence[str]) -> DictConfig:
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise FoldcraftError(f"{override!r} is not key=value", "command line", "for instance train.lr=0.0005")
        safe_yaml.check_characters(key, "command line")
        try:
            safe_yaml.check(value, "command line")
        except YAMLError as error:
            raise FoldcraftError(f"{override!r} cannot be read: {error}", "command line") from None
    try:
        return OmegaConf.from_dotlist(list(overrides))
    except Exception as error:
        raise FoldcraftError(f"cannot be read: {error}", "command line") from None


def _explain(error: ValidationError) -> tuple[str]:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"] if not _is_union_tag(part))
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key {key!r}, {_suggest_key(key)}")
        elif problem["type"] == "missing":
            lines.append(f"{key!r} is missing")
        else:
            lines.append(f"{key} = {_shown(problem['input'])}: {problem['msg'].lower()}")
    told = list(dict.fromkeys(lines))
    more = f" | and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
    return (" | ".join(told[:MOST_TOLD]) + more,)


def _shown(value: object) -> str:
    try:
        return shorten(repr(value), 200)
    except ValueError:  # a whole number of thousands of digits
        return "a huge number"


def _is_union_tag(part: object) -> bool:
    """Pydantic adds the branch of a union it tried ('constrained-float', "literal['auto']") to the place."""
    return isinstance(part, str) and ("[" in part or part in {"float", "int", "str", "constrained-float"})


# What other tools call them.
ALIASES = {"learning_rate": "lr", "batch_size": "batch", "image_size": "size", "img_size": "size", "n_splits": "count"}


def _suggest_key(key: str) -> str:
    known = [name for name, *_ in describe()]
    sections = list(dict.fromkeys(name.rpartition(".")[0] for name in known if "." in name))
    leaf = key.split(".")[-1]
    same_leaf = [name for name in known if name.split(".")[-1] == ALIASES.get(leaf, leaf)]
    if same_leaf:
        return f"did you mean {same_leaf[0]!r}?"
    section = key.rpartition(".")[0]
    siblings = [name for name in known if name.rpartition(".")[0] == section]
    close = suggest(key, known if "." in key else [*sections, *known])
    return close if close.startswith("did") else suggest(key, siblings or known)


def describe(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Every key as (name, type and range, default, description), in the order of this file."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from describe(field.annotation, f"{prefix}{name}.")
            continue
        default = "required" if field.is_required() else _show(field.default)
        yield f"{prefix}{name}", _type_of(field.annotation, field.metadata), default, field.description or ""


def _show(value: object) -> str:
    if value is None:
        return "–"
    return str(value).lower() if isinstance(value, bool) else str(value)


_BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}


def _type_of(annotation: Any, metadata: Sequence[object]) -> str:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        inner, *extra = typing.get_args(annotation)
        return _type_of(inner, [*extra, *metadata])
    if origin is Literal:
        return ", ".join(str(choice) for choice in typing.get_args(annotation))
    if origin in (types.UnionType, typing.Union):
        parts = [_type_of(part, metadata) for part in typing.get_args(annotation) if part is not type(None)]
        return " or ".join(parts)
    if origin in (list, dict):
        return origin.__name__
    bounds = []
    for constraint in metadata:
        for part in getattr(constraint, "metadata", [constraint]):
            bounds += [text.format(getattr(part, key)) for key, text in _BOUNDS.items() if hasattr(part, key)]
    base = {"str": "text", "Path": "path", "bool": "true or false"}.get(annotation.__name__, annotation.__name__)
    return " ".join([base, ", ".join(bounds)]).strip()


def json_schema() -> dict[str, Any]:
    """A JSON schema for editors: as `Config`, but a file may hold a part of it, and may extend others."""
    schema = Config.model_json_schema()
    for part in [schema, *schema.get("$defs", {}).values()]:
        part.pop("required", None)
    path = {"type": "string"}
    schema["properties"]["extends"] = {
        "description": "one or more YAML files, relative to this one, that it builds on; later ones win",
        "anyOf": [path, {"type": "array", "items": path}],
    }
    return schema
