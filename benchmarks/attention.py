"""A training step with torch's fused attention, beside one with attention in plain steps, on one core.

Forward and backward of a net with random weights; processor seconds, the two in turn, best of the repeats.

  python benchmarks/attention.py --backbone vit_tiny_patch16_224 --sizes 128 224 384
"""

import argparse
import itertools
import sys
import time
from pathlib import Path

import pandas as pd
import timm
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldcraft.models.hardware import Hardware, try_step

BATCH = 16


def seconds(net: nn.Module, images: torch.Tensor, hardware: Hardware, fused: bool) -> float:
    """Processor seconds of one step, after one that does not count."""
    for module in net.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused
    try_step(net, images, hardware)
    start = time.process_time()
    try_step(net, images, hardware)
    return time.process_time() - start


def compare(backbone: str, size: int, precision: str, repeats: int) -> dict[str, object]:
    hardware = Hardware("cpu", precision, "contiguous", "")
    net = timm.create_model(backbone, img_size=size)
    images = torch.randn(BATCH, 3, size, size)
    pairs = [tuple(seconds(net, images, hardware, fused) for fused in (True, False)) for _ in range(repeats)]
    fused, plain = map(min, zip(*pairs, strict=True))
    return {"size": size, "precision": precision, "fused": fused, "plain": plain, "ratio": plain / fused}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vit_tiny_patch16_224", help="a transformer of timm's")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 224, 384])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    kinds = itertools.product(args.sizes, ("32-true", "bf16-mixed"))
    table = [compare(args.backbone, size, precision, args.repeats) for size, precision in kinds]
    print(pd.DataFrame(table).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
