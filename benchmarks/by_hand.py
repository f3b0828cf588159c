"""A fine-tuning as it is written by hand with timm and torchvision, model after model, as long as the time lasts.

It runs in a folder with `input/<competition>/{train.csv,test.csv,train/,test/}` and appends a line to history.jsonl for
each answer: the seconds of processor time of this process until then, and the file of the submission, which has the
class of the highest mean probability over the models so far. A model is one fold of five, stratified, groups whole, the
next seed after the fifth. While the first model trains its answers so far are written as well; what these cost is not
counted. Images are decoded once, and precision, attention and allocator are those that Foldcraft would choose.

bare     new head, all of the net by AdamW, cosine, crops, flips where the config has them, the best epoch is kept
heavy    RandAugment, random erasing, mixup and cutmix, label smoothing, EMA of the weights, drop path, thrice as long

  python benchmarks/by_hand.py --config configs/signdigits/vit_tiny.yaml --recipe bare --minutes 10 images.size=160
"""

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold
from timm.data import Mixup, create_transform
from timm.loss import SoftTargetCrossEntropy
from timm.utils import ModelEmaV3
from torch import nn
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldcraft.common import allocator, config_file
from foldcraft.common.config import Config
from foldcraft.models import backbones, hardware

FOLDS, BATCH, WEIGHT_DECAY, WARMUP = 5, 32, 0.05, 0.1
BETWEEN, SHARE = 10.0, 0.1  # between two answers of a model in training: seconds, or that share of the time so far
Transform = Callable[[Image.Image], torch.Tensor]


@dataclass(frozen=True)
class Recipe:
    """What differs between the two.

    Attributes:
        epochs, steps: a training has so many epochs, and at least so many steps.
        heavy: strong augmentation, mixing, smoothing and EMA, and no choice of an epoch?
    """

    epochs: int
    steps: int
    lr: float
    drop_path: float
    heavy: bool

    def epochs_of(self, steps_an_epoch: int) -> int:
        """Epochs of a training."""
        return max(self.epochs, math.ceil(self.steps / steps_an_epoch))


RECIPES = {
    "bare": Recipe(epochs=8, steps=300, lr=3e-4, drop_path=0.0, heavy=False),
    "heavy": Recipe(epochs=24, steps=900, lr=5e-4, drop_path=0.1, heavy=True),
}


class TimeIsUp(Exception):
    """The budget is used."""


class Clock:
    """Processor time of this process, its start included, without what is not to be counted."""

    def __init__(self, budget: float) -> None:
        self.budget, self.uncounted = budget, 0.0
        self.stopped_at: float | None = None

    @property
    def used(self) -> float:
        """Seconds."""
        return (time.process_time() if self.stopped_at is None else self.stopped_at) - self.uncounted

    def check(self) -> None:
        """Raises TimeIsUp where the budget is used."""
        if self.used >= self.budget:
            raise TimeIsUp

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What is done in here is not counted; the clock stands still."""
        self.stopped_at = time.process_time()
        yield
        self.uncounted += time.process_time() - self.stopped_at
        self.stopped_at = None


class Data:
    """The competition's rows, its images in memory.

    Attributes:
        targets: class index of each training row (N,).
        units: the group of each training row (N,).
        train, test: images, RGB.
    """

    def __init__(self, config: Config) -> None:
        folder = Path("input") / config.competition.name
        rows, test = (pd.read_csv(folder / name, dtype=str) for name in ("train.csv", "test.csv"))
        self.classes, self.targets = np.unique(rows["label"], return_inverse=True)
        group = config.competition.group
        self.units = rows[group].to_numpy() if isinstance(group, str) else np.arange(len(rows))
        self.ids = test["id"]
        self.train = [Image.open(folder / "train" / name).convert("RGB") for name in rows["id"]]
        self.test = [Image.open(folder / "test" / name).convert("RGB") for name in test["id"]]

    def split(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows that model `number` learns from, and those that it holds out."""
        splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=number // FOLDS)
        return list(splitter.split(self.targets, self.targets, self.units))[number % FOLDS]


class Loop:
    """A net, and how it is trained and asked."""

    def __init__(self, config: Config, recipe: Recipe, data: Data, clock: Clock) -> None:
        self.config, self.recipe, self.data, self.clock = config, recipe, data, clock
        self.hardware = None
        size, flips = config.images.size, (config.augment.chance("hflip"), config.augment.chance("vflip"))
        _, self.blueprint = self._net()
        normalise = {"mean": self.blueprint.mean, "std": self.blueprint.std}
        if recipe.heavy:
            self.transform: Transform = create_transform(
                size,
                is_training=True,
                scale=(0.35, 1.0),
                hflip=flips[0],
                vflip=flips[1],
                auto_augment="rand-m7-mstd0.5-inc1",
                re_prob=0.25,
                interpolation="bicubic",
                **normalise,
            )
        else:
            self.transform = v2.Compose(
                [
                    v2.RandomResizedCrop(size, scale=(0.6, 1.0)),
                    v2.RandomHorizontalFlip(flips[0]),
                    v2.RandomVerticalFlip(flips[1]),
                    *_to_tensor(normalise),
                ]
            )
        self.plain: Transform = v2.Compose([v2.Resize((size, size)), *_to_tensor(normalise)])
        self.test = torch.stack([self.plain(image) for image in data.test])

    def _net(self) -> tuple[nn.Module, backbones.Blueprint]:
        backbone = self.config.backbone.model_copy(update={"drop_path": self.recipe.drop_path})
        return backbones.build(backbone, len(self.data.classes), self.config.images.size)

    def placed_net(self) -> nn.Module:
        """A new net from the pretrained weights, where and how it computes."""
        net, _ = self._net()
        if self.hardware is None:
            memory = Path("hardware.json").resolve()
            self.hardware = hardware.choose(self.config.machine, net, self.config.images.size, BATCH, memory)
        return self.hardware.place(net)

    @torch.inference_mode()
    def predict(self, net: nn.Module, images: torch.Tensor) -> np.ndarray:
        """Probabilities (N, K) of images (N, 3, S, S)."""
        net.eval()
        parts = []
        for batch in images.split(64):
            with self.hardware.autocast():
                parts.append(net(batch).float().softmax(1))
        return torch.cat(parts).numpy()

    def trained(self, number: int, answer: Callable[[nn.Module], None]) -> nn.Module:
        """Model `number`.

        Args:
            answer: is called after epochs that made a better model, with that.

        Raises:
            TimeIsUp: before it was done.
        """
        torch.manual_seed(number)
        np.random.seed(number)
        known, held = self.data.split(number)
        held_images = torch.stack([self.plain(self.data.train[row]) for row in held])
        net, best, best_score = self.placed_net(), {}, -1.0
        batch = min(BATCH, len(known) // 2 * 2)  # timm mixes pairs
        steps_an_epoch = len(known) // batch
        epochs = self.recipe.epochs_of(steps_an_epoch)
        optimizer = torch.optim.AdamW(net.parameters(), lr=self.recipe.lr, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.recipe.lr, total_steps=epochs * steps_an_epoch, pct_start=WARMUP, cycle_momentum=False
        )
        average = ModelEmaV3(net, decay=0.999, use_warmup=True) if self.recipe.heavy else None
        for _ in range(epochs):
            net.train()
            order = torch.randperm(len(known))[: steps_an_epoch * batch].view(-1, batch)
            for rows in order:
                self._step(net, optimizer, known[rows.numpy()])
                schedule.step()
                if average:
                    average.update(net)
                self.clock.check()
            if average:
                answer(average.module)
                continue
            score = f1_score(self.data.targets[held], self.predict(net, held_images).argmax(1), average="macro")
            if score >= best_score:  # of equals the later one, which has learned more
                best, best_score = {name: value.clone() for name, value in net.state_dict().items()}, score
                answer(net)
        if average:
            return average.module
        net.load_state_dict(best)
        return net

    def _step(self, net: nn.Module, optimizer: torch.optim.Optimizer, rows: np.ndarray) -> None:
        images = torch.stack([self.transform(self.data.train[row]) for row in rows])
        targets = torch.from_numpy(self.data.targets[rows])
        loss_of: nn.Module = nn.CrossEntropyLoss()
        if self.recipe.heavy:
            mix = Mixup(0.2, 1.0, label_smoothing=0.1, num_classes=len(self.data.classes))
            images, targets = mix(images, targets)
            loss_of = SoftTargetCrossEntropy()
        with self.hardware.autocast():
            loss = loss_of(net(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _to_tensor(normalise: dict[str, tuple[float, ...]]) -> list[nn.Module]:
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(**normalise)]


class Answers:
    """Submissions, and the history that names them."""

    def __init__(self, data: Data, clock: Clock) -> None:
        self.data, self.clock, self.written = data, clock, itertools.count()
        Path("submissions").mkdir(exist_ok=True)

    def write(self, probabilities: np.ndarray) -> None:
        """One more."""
        file = Path("submissions") / f"{next(self.written)}.csv"
        label = self.data.classes[probabilities.argmax(1)]
        pd.DataFrame({"id": self.data.ids, "label": label}).to_csv(file, index=False)
        with open("history.jsonl", "a") as history:
            history.write(json.dumps({"seconds": self.clock.used, "submission": str(file)}) + "\n")


def train_on(loop: Loop, answers: Answers) -> None:
    """Model after model, until the time is up."""
    mean, last = np.zeros((len(loop.data.test), len(loop.data.classes))), 0.0

    def first_answer(net: nn.Module) -> None:
        nonlocal last
        if loop.clock.used - last >= max(BETWEEN, SHARE * loop.clock.used):
            last = loop.clock.used
            with loop.clock.stopped():
                answers.write(loop.predict(net, loop.test))

    for number in itertools.count():
        net = loop.trained(number, (lambda _: None) if number else first_answer)
        mean += (loop.predict(net, loop.test) - mean) / (number + 1)
        loop.clock.check()
        answers.write(mean)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--recipe", choices=RECIPES, required=True)
    parser.add_argument("--minutes", type=float, required=True, help="of processor time")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the config's")
    args = parser.parse_intermixed_args()
    allocator.keep_freed_memory()
    torch.set_num_threads(1)
    config, clock = config_file.load(args.config, args.overrides), Clock(60 * args.minutes)
    data = Data(config)
    try:
        train_on(Loop(config, RECIPES[args.recipe], data, clock), Answers(data, clock))
    except TimeIsUp:
        return


if __name__ == "__main__":
    main()
