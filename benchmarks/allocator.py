"""Ways to keep the C library from mapping and clearing fresh pages for every large activation, side by side.

Every way and job is a process of its own, with one thread, in turns. Printed are images per second of processor time
(user and system), the part of it that the kernel takes, page faults an image and the most memory that the process had
(libraries included): medians over the rounds, for the speed with its range.

  python benchmarks/allocator.py
  python benchmarks/allocator.py --jobs vit-train32 --ways system project batch8 --rounds 5

jemalloc and tcmalloc are preloaded where they are installed (Debian: libjemalloc2, libtcmalloc-minimal4).
"""

import argparse
import ctypes
import ctypes.util
import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from foldcraft.common import allocator

SIZE, CLASSES = 160, 6
TRIM, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4  # of mallopt
NEVER = -1


@dataclass(frozen=True)
class Way:
    """How memory is handed out.

    Attributes:
        mallopt: parameters of glibc's malloc and their values, set before torch is imported.
        environment: variables that the process starts with.
        preload: name of the library that takes malloc's place.
        part: images in one pass; a training step adds up the gradients of its parts. Left out: the whole batch.
        project: whether the process sets what Foldcraft's commands set.
    """

    mallopt: tuple[tuple[int, int], ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    preload: str = ""
    part: int | None = None
    project: bool = False


@dataclass(frozen=True)
class Job:
    """What is computed: a backbone, "train" or "infer", and the images of a batch."""

    backbone: str
    what: str
    batch: int


HUGE = "glibc.malloc.hugetlb=1"  # malloc asks for transparent huge pages
NO_MMAP = ((MMAP_MAX, 0), (TRIM, NEVER))
WAYS = {
    "system": Way(),
    "project": Way(project=True),
    "thresholds": Way(((MMAP_THRESHOLD, 2**30), (TRIM, NEVER))),
    "mmap_max_only": Way(((MMAP_MAX, 0),)),
    "top_pad": Way(((MMAP_MAX, 0), (TOP_PAD, 2**29))),
    "huge": Way(environment={"GLIBC_TUNABLES": HUGE}),
    "huge+mmap_max": Way(NO_MMAP, {"GLIBC_TUNABLES": HUGE}),
    "torch_huge": Way(environment={"THP_MEM_ALLOC_ENABLE": "1"}),  # torch's own switch
    "torch_huge+project": Way(environment={"THP_MEM_ALLOC_ENABLE": "1"}, project=True),
    "jemalloc": Way(preload="jemalloc"),
    "jemalloc_kept": Way(preload="jemalloc", environment={"MALLOC_CONF": "dirty_decay_ms:-1"}),
    "tcmalloc": Way(preload="tcmalloc_minimal"),
    "batch16": Way(part=16),
    "batch8": Way(part=8),
    "project+batch8": Way(project=True, part=8),
}
JOBS = {
    "mobilenet-infer64": Job("mobilenetv2_100", "infer", 64),
    "mobilenet-infer32": Job("mobilenetv2_100", "infer", 32),
    "mobilenet-train32": Job("mobilenetv2_100", "train", 32),
    "lite0-train32": Job("tf_efficientnet_lite0", "train", 32),
    "vit-infer64": Job("vit_tiny_patch16_224", "infer", 64),
    "vit-train32": Job("vit_tiny_patch16_224", "train", 32),
}
Measured = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of the processor, that a process is measured")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        way, job = args.child
        print(json.dumps(measure(WAYS[way], JOBS[job], args.seconds)))
        return
    there = [name for name in args.ways if not WAYS[name].preload or library(WAYS[name].preload)]
    for name in set(args.ways) - set(there):
        print(f"{name}: left out, lib{WAYS[name].preload} is not installed")
    for job in args.jobs:
        found: dict[str, list[Measured]] = {name: [] for name in there}
        for _ in range(args.rounds):
            for name in there:
                found[name].append(in_child(name, job, args.seconds))
                print(job, name, found[name][-1], file=sys.stderr, flush=True)
        show(job, found)


def library(name: str) -> str | None:
    """The file name of a library, as the loader finds it."""
    return ctypes.util.find_library(name)


def in_child(way: str, job: str, seconds: float) -> Measured:
    """Measure in a process of its own, which starts with none of the variables that are tried here."""
    tried = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "THP_MEM_ALLOC_ENABLE", allocator.SWITCH)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(tried)}
    environment = {**plain, **WAYS[way].environment, "OMP_NUM_THREADS": "1"}
    if WAYS[way].preload:
        environment["LD_PRELOAD"] = library(WAYS[way].preload) or ""
    command = [sys.executable, os.path.abspath(__file__), "--child", way, job, "--seconds", str(seconds)]
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout)


def measure(way: Way, job: Job, seconds: float) -> Measured:
    """Images per processor second, the kernel's share of it, page faults an image, and the peak in bytes."""
    for parameter, value in way.mallopt:
        if ctypes.CDLL(None).mallopt(parameter, value) != 1:
            raise SystemExit(f"mallopt({parameter}, {value}) was refused")
    if way.project and not allocator.keep_freed_memory():
        raise SystemExit("nothing was set")

    import torch

    from foldcraft.common.config import BackboneConfig
    from foldcraft.models import backbones, finetune

    torch.set_num_threads(1)
    model, _ = backbones.build(BackboneConfig(name=job.backbone, weights="none"), CLASSES, SIZE)
    layout = torch.contiguous_format if finetune.is_transformer(model) else torch.channels_last
    model = model.to(memory_format=layout).train(job.what == "train")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images = torch.randn(job.batch, 3, SIZE, SIZE).contiguous(memory_format=layout)
    targets = torch.arange(job.batch) % CLASSES
    parts = list(zip(images.split(way.part or job.batch), targets.split(way.part or job.batch), strict=True))

    def infer() -> None:
        with torch.inference_mode():
            for some, _ in parts:
                model(some)

    def train() -> None:
        for some, wanted in parts:
            (torch.nn.functional.cross_entropy(model(some), wanted) / len(parts)).backward()
        optimizer.step()
        optimizer.zero_grad()

    step = train if job.what == "train" else infer
    for _ in range(2):
        step()
    before, done = resource.getrusage(resource.RUSAGE_SELF), 0
    while True:
        step()
        done += job.batch
        now = resource.getrusage(resource.RUSAGE_SELF)
        kernel = now.ru_stime - before.ru_stime
        used = kernel + now.ru_utime - before.ru_utime
        if used >= seconds:
            break
    faults = (now.ru_minflt - before.ru_minflt) / done
    return {"rate": done / used, "kernel": kernel / used, "faults": faults, "peak": now.ru_maxrss * 1024}


def show(job: str, found: dict[str, list[Measured]]) -> None:
    """The ways of one job, each beside the first."""
    print(f"\n| {job} | images/s (range) | ratio | kernel | faults an image | peak |\n|---|---|---|---|---|---|")
    first = next(iter(found.values()))
    for name, rounds in found.items():
        rates, (rate, kernel, faults, peak) = (
            [one["rate"] for one in rounds],
            (median(one[key] for one in rounds) for key in ("rate", "kernel", "faults", "peak")),
        )
        ratio = median(one["rate"] / other["rate"] for one, other in zip(rounds, first, strict=True))
        spread = f"{rate:.1f} ({min(rates):.1f}–{max(rates):.1f})"
        print(
            f"| {name} | {spread} | {ratio:.2f} | {kernel:.0%} | {faults:,.0f} | {peak / 2**20:,.0f} MiB |", flush=True
        )


if __name__ == "__main__":
    main()
