"""Ridge heads of all strengths: from products of features and from products of rows, beside the principal axes.

Principal axes would serve all strengths at once; a Cholesky factor for each takes less time. Products of rows serve all
folds; for those of features the time is that of one fold.

Rows of noise with a signal, as wide as the features of backbones; processor seconds of one core, best of the repeats.

  python benchmarks/heads.py --rows 1400 2260 4520 --widths 1728 4864
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldcraft.common.config import ProbeConfig
from foldcraft.models import kernel_ridge, linear_heads

CLASSES = 6


def seconds(experiment: Callable[[], object], repeats: int) -> float:
    """Processor seconds of the fastest repeat."""
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        experiment()
        spent.append(time.process_time() - start)
    return min(spent)


def compare(rows: int, width: int, repeats: int) -> dict[str, float]:
    targets = torch.arange(rows) % CLASSES
    onehot = torch.nn.functional.one_hot(targets, CLASSES).float()
    features = torch.randn(rows, width) + torch.randn(CLASSES, width)[targets] / 5
    scaling = linear_heads.Scaling.of(features, [width], [1.0])
    centred = scaling(features)
    factors = seconds(lambda: linear_heads.fit(features, onehot, ProbeConfig().strengths, "ridge", scaling), repeats)
    axes = seconds(lambda: linear_heads._Basis.of(centred, None), repeats)
    made = kernel_ridge.Products.none(rows, 0)
    products = seconds(lambda: made.add(centred, centred[:0]), 1)
    onehot, every = torch.nn.functional.one_hot(targets, CLASSES).float(), torch.arange(rows)
    by_rows = seconds(lambda: kernel_ridge.fit(made.learned, every, onehot, ProbeConfig().strengths), repeats)
    return {
        "rows": rows,
        "width": width,
        "by features": factors,
        "products of rows": products,
        "by rows, then": by_rows,
        "axes alone": axes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1400, 2260, 4520])
    parser.add_argument("--widths", type=int, nargs="+", default=[1728, 4864])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    table = [compare(rows, width, args.repeats) for width in args.widths for rows in args.rows]
    print(pd.DataFrame(table).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
