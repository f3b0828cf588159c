"""Augmentation; the only room that touches albumentations.

The library (2.0.8) is unmaintained and has two habits that make a net worse in silence: every DataLoader worker and
every epoch gets the same draws, and an argument that it does not know is dropped with a warning. Here each image is
drawn from its own seed, and such an argument is an error.
"""

import os
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it asks the network for a newer version when imported

import albumentations as A
import cv2
import numpy as np

from foldcraft.common.config import AugmentConfig, ImagesConfig
from foldcraft.common.errors import FoldcraftError, counted, listing, suggest
from foldcraft.common.notices import tell_once
from foldcraft.data.images.inference_size import resized

cv2.setNumThreads(0)  # images are spread over processes; threads inside one image only get in their way

Spec = Mapping[str, Mapping[str, Any] | None] | str
AXIS = {"hflip": 1, "vflip": 0}
WORDS = {"hflip": "HorizontalFlip", "vflip": "VerticalFlip"}
REFLECT = cv2.BORDER_REFLECT_101


def _crop(low: float) -> Spec:
    """A random part of the image; "size" stands for the net's input side."""
    return {"RandomResizedCrop": {"size": "size", "scale": (low, 1.0), "ratio": (0.8, 1.25), "p": 0.8}}


def _affine(turn: float, shear: float, zoom: float, p: float) -> Spec:
    args = {"rotate": (-turn, turn), "shear": (-shear, shear), "scale": (1 - zoom, 1 + zoom)}
    return {"Affine": {**args, "translate_percent": (-0.06, 0.06), "border_mode": REFLECT, "p": p}}


def _light(amount: float, p: float) -> Spec:
    return {"RandomBrightnessContrast": {"brightness_limit": amount, "contrast_limit": amount, "p": p}}


# The library's own ranges for blur and noise leave little to recognise of a small image.
_SOFTEN = [
    {"GaussianBlur": {"sigma_limit": (0.3, 1.5)}},
    {"GaussNoise": {"std_range": (0.02, 0.1)}},
    {"ImageCompression": {"quality_range": (50, 95)}},
]
_HOLES = {"num_holes_range": (1, 4), "hole_height_range": (0.1, 0.25), "hole_width_range": (0.1, 0.25)}
_COLOUR = {"hue_shift_limit": 10, "sat_shift_limit": 25, "val_shift_limit": 0, "p": 0.3}

PRESETS: dict[str, list[Spec]] = {
    "none": [],
    "light": [_affine(10, 0, 0.1, p=0.7), _light(0.1, p=0.5)],
    "medium": [
        _crop(0.7),
        _affine(15, 5, 0.1, p=0.5),
        _light(0.2, p=0.5),
        {"OneOf": {"transforms": _SOFTEN, "p": 0.2}},
    ],
    "heavy": [
        _crop(0.5),
        _affine(25, 10, 0.15, p=0.7),
        _light(0.3, p=0.7),
        {"HueSaturationValue": _COLOUR},
        {"OneOf": {"transforms": ["RandomGamma", "CLAHE", "Sharpen"], "p": 0.3}},
        {"OneOf": {"transforms": _SOFTEN, "p": 0.3}},
        {"CoarseDropout": {**_HOLES, "p": 0.5}},
    ],
}


class Augment:
    """Turns a cached image into what the net sees in training.

    Args:
        cache_side: side of the cached images in pixels.

    Raises:
        FoldcraftError: an unknown transform, an argument it does not know, a value it does not take.
    """

    def __init__(self, config: AugmentConfig, images: ImagesConfig, cache_side: int) -> None:
        steps = [*(config.transforms if config.transforms is not None else _preset(config)), *_erase(config)]
        channels = images.bands
        steps = steps if channels == 3 else _for_channels(steps, channels, images.size)
        self.size = images.size
        self.transforms = _build_all([*_fit(images, cache_side, bool(steps)), *steps], images.size)
        self.compose = A.Compose(self.transforms)
        self.config = config
        blank = np.zeros((cache_side, cache_side, channels), np.uint8)
        for step in self.transforms:
            blank = _tried(step, blank)

    @property
    def steps(self) -> list[tuple[str, float]]:
        """What may become of an image, in this order, and how likely each of it is."""
        first = [(WORDS[flip], self.config.chance(flip)) for flip in self.config.swaps]
        return [*first, *((_words(step), float(step.p)) for step in self.transforms)]

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        """One draw: uint8 (side, side, C) to uint8 (size, size, C). The same seed always gives the same pixels."""
        for flip in flips_of(self.config, seed):
            image = np.flip(image, AXIS[flip])
        # One stream for all transforms. Compose.set_random_seed would start every transform on the same numbers.
        self.compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        pixels = self.compose(image=np.ascontiguousarray(image))["image"]
        pixels = pixels.reshape(*pixels.shape[:2], -1)  # some transforms forget that there is one channel
        if pixels.shape[:2] != (self.size, self.size):  # a free composition may leave another size
            pixels = resized(pixels, self.size)
        return np.ascontiguousarray(pixels)


def flips_of(config: AugmentConfig, seed: int) -> tuple[str, ...]:
    """The flips that change the label in the draw of that seed; drawn by themselves, so that they are known."""
    if not config.swaps:
        return ()
    rng = np.random.default_rng([seed, 1])
    return tuple(flip for flip in config.swaps if rng.random() < config.chance(flip))


def _words(step: A.BasicTransform | A.BaseCompose) -> str:
    """The names that a config gives it."""
    name = type(step).__name__
    return f"{name} ({', '.join(map(_words, step.transforms))})" if isinstance(step, A.BaseCompose) else name


def _tried(step: A.BasicTransform | A.BaseCompose, image: np.ndarray) -> np.ndarray:
    """What a transform makes of an image, whatever its chance; each of those that it holds is tried too.

    Raises:
        FoldcraftError: it fails, or makes anything but an image in bytes of as many channels; better heard now than
            mid-training.
    """
    if isinstance(step, A.BaseCompose):
        made = [_tried(inner, image) for inner in step.transforms]
        return made[-1] if made else image
    name = type(step).__name__
    try:
        made = step(image=image, force_apply=True)["image"]
    except Exception as error:
        raise FoldcraftError(f"{name}: {type(error).__name__}: {error}", "augment.transforms") from None
    channels = image.shape[2]
    if made.dtype != np.uint8 or made.reshape(*made.shape[:2], -1).shape[2:] != (channels,):
        kind = "an RGB image" if channels == 3 else f"an image of {channels} channels"
        raise FoldcraftError(
            f"{name} makes {made.dtype} {made.shape} of {kind} in bytes",
            "augment.transforms",
            "leave it out; the weights' own normalisation comes after",
        )
    return made.reshape(*made.shape[:2], -1)


def _for_channels(steps: Sequence[Spec], channels: int, size: int) -> list[Spec]:
    """The steps without those that images must have three channels for; these are told, once."""
    kept, left_out = [], []
    for step in steps:
        fitting = _fitting(step, channels, size, left_out)
        kept += [] if fitting is None else [fitting]
    if left_out:
        names = listing(list(dict.fromkeys(left_out)), 8)
        tell_once(f"of images with {counted(channels, 'channel')}, augmentation leaves out what wants three: {names}")
    return kept


def _fitting(step: Spec, channels: int, size: int, left_out: list[str]) -> Spec | None:
    """A step as far as it takes so many channels; None where nothing of it does."""
    if isinstance(step, Mapping) and len(step) == 1:
        ((name, given),) = step.items()
        if isinstance(given, Mapping) and isinstance(given.get("transforms"), list | tuple):
            inner = [_fitting(one, channels, size, left_out) for one in given["transforms"]]
            inner = [one for one in inner if one is not None]
            return {name: {**given, "transforms": inner}} if inner else None
    transform = _build(step, size)
    side = 2 * size
    _tried(transform, np.zeros((side, side, 3), np.uint8))  # what fails on three as well is a mistake
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _tried(transform, np.zeros((side, side, channels), np.uint8))
    except (FoldcraftError, ValueError):
        left_out.append(type(transform).__name__)
        return None
    return step


def _preset(config: AugmentConfig) -> list[Spec]:
    turns = {WORDS[flip]: config.chance(flip) for flip in WORDS if flip not in config.swaps}
    turns["RandomRotate90"] = config.rot90
    return [{name: {"p": p}} for name, p in turns.items() if p] + PRESETS[config.preset]


def _erase(config: AugmentConfig) -> list[Spec]:
    """Random erasing (arXiv 1708.04896): noise over 2 to 30 % of the image, last, so that nothing smooths it."""
    return [{"Erasing": {"scale": (0.02, 0.3), "fill": "random", "p": config.erase}}] if config.erase else []


def _fit(images: ImagesConfig, cache_side: int, augmented: bool) -> list[Spec]:
    """What brings a cached image to the net's size, where they differ."""
    side = {"height": images.size, "width": images.size}
    if cache_side == images.size:
        return []
    if images.resize != "crop":
        return [{"Resize": {**side, "interpolation": cv2.INTER_AREA}}]
    return [{"RandomCrop" if augmented else "CenterCrop": side}]


def _build_all(specs: Sequence[Spec], size: int) -> list[A.BasicTransform | A.BaseCompose]:
    return [_build(spec, size) for spec in specs]


def _build(spec: Spec, size: int) -> A.BasicTransform | A.BaseCompose:
    if not isinstance(spec, str) and not (isinstance(spec, Mapping) and len(spec) == 1):
        raise FoldcraftError(f"{spec} is not one transform", "augment.transforms", "write '- Name: {argument: value}'")
    name, given = (spec, None) if isinstance(spec, str) else next(iter(spec.items()))
    if not isinstance(given, Mapping | None):
        raise FoldcraftError(
            f"{name}: {given!r} is not a list of arguments", "augment.transforms", "write {name: value}"
        )
    args = dict(given or {})
    if name not in _known():
        raise FoldcraftError(f"no transform {name!r} in albumentations", "augment.transforms", suggest(name, _known()))
    if isinstance(args.get("transforms"), list | tuple):
        args["transforms"] = _build_all(args["transforms"], size)
    if args.get("size") == "size":
        args["size"] = (size, size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            return getattr(A, name)(**args)
    except (UserWarning, ValueError, TypeError) as error:
        reason = " ".join(str(error).split("For further information")[0].split())
        raise FoldcraftError(f"{name}: {reason}", "augment.transforms") from None


def _known() -> list[str]:
    kinds = (A.BasicTransform, A.BaseCompose)
    return sorted(name for name, item in vars(A).items() if isinstance(item, type) and issubclass(item, kinds))
