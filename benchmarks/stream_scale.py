"""Measures a training stream at the size of LAION-Styles, and how start, memory, speed and resume grow with the data.

`python benchmarks/stream_scale.py` makes an index of 511,921 images with 3,840 tags in 512 shards of 1,000, and the
same at 1/8 and 8 times the size, and measures each in a separate process.

The data is simulated: 512 shards are hard links to six real shards of 1,000 StyleCross images, converted to 384 px
JPEGs, and the last one is listed with 921 images; the tags are drawn from 3,840 with frequencies proportional to
1 / rank. Every shard of the index can be read, and is read as in training. Because shards share their content, all of
them fit into the cache of the operating system, so nothing here measures a disk or a network.

- start_s, start_mib:  time and memory from a data module to its loader: index read and checked, vocabulary, plan
- order_mib:           peak memory of the sample order of one worker, iterated to the end
- first_s, resume_s:   time to the first batch, from step 0 and after a resume at step 70,000
- opened:              shards that one worker opens for its first batch after the resume
- seek_cpu_s, scan_cpu_s: CPU time of that batch without decoding, by seeking, and by reading the opened shards from
                       their start
- steps_per_s:         batches of 64 (two views of 224 px), without a model
- rank_mib, worker_mib: memory that is private to the rank, and to one of its workers, while they read
- shards_per_batch:    different shards in a batch; `_permuted`: in a full permutation of the epoch
- gap, gap_permuted:   average number of images of the epoch between two neighbours in a shard
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from record import REPOSITORY, fork_workers, write_table

from stylesim.core.images import open_image
from stylesim.data.modules import ShardDataModule
from stylesim.data.roots import Root
from stylesim.data.sample import Sample
from stylesim.data.sampling.plan import Plan
from stylesim.data.sampling.planned_source import PlannedSource, Source, read_in_order
from stylesim.data.shards.indexing import index_shards
from stylesim.data.shards.shard_index import INDEX, load_index
from stylesim.data.shards.shard_samples import read_shards
from stylesim.data.shards.shard_writer import ShardWriter
from stylesim.data.views import TwoViews

IMAGES, TAGS, SHARD = 511_921, 3_840, 1_000
REAL = 6
"""Real shards, to which all others are links."""


def write_real(folder: Path, side: int) -> Path:
    """Write `REAL` shards of 1,000 images of `side` px with their index, unless they exist."""
    if (folder / INDEX).exists():
        return folder
    rng = np.random.default_rng(0)
    frequency = 1 / np.arange(1, TAGS + 1)
    frequency /= frequency.sum()
    samples = list(read_shards(REPOSITORY / "data/stylecross/train"))
    with ShardWriter(folder, size=SHARD) as writer:
        for number in range(REAL * SHARD):
            out = io.BytesIO()
            sample = samples[number % len(samples)]
            assert sample.image is not None
            open_image(sample.image).resize((side, side)).save(out, "JPEG", quality=90)
            tags = rng.choice(TAGS, rng.integers(1, 5), replace=False, p=frequency).tolist()
            writer.write(f"{number:09d}", out.getvalue(), {"tags": [f"artist:{tag}" for tag in tags]})
    index_shards(folder, show=False)
    return folder


def write_root(folder: Path, images: int, side: int) -> Path:
    """Write a root of `images` images in shards of 1,000 that are links to real ones, unless it exists."""
    if (folder / INDEX).exists():
        return folder
    shards = -(-images // SHARD)
    real = write_real(folder.with_name(f"real-{side}"), side)
    index = load_index(Root(str(real), "real"))
    folder.mkdir()
    entries = []
    for number in range(shards):
        shard = index.shards[number % REAL]
        os.link(real / shard.name, folder / f"{number:05d}.tar")
        count = min(SHARD, images - SHARD * number)
        entries.append(asdict(shard) | {"name": f"{number:05d}.tar", "count": count})
    # Every tag is in the vocabulary, as in the real index, even if none of the real shards has it.
    tags = {f"artist:{tag}": index.tags.get(f"artist:{tag}", 0) * shards // REAL for tag in range(TAGS)}
    (folder / INDEX).write_text(json.dumps({"format": 1, "count": images, "shards": entries, "tags": tags}, indent=1))
    return folder


def module_of(root: Path, args: argparse.Namespace) -> ShardDataModule:
    return ShardDataModule(
        str(root),
        batch_size=args.batch_size,
        workers=args.workers,
        shuffle_buffer=args.buffer,
        views=TwoViews(224),
    )


def measure_start(root: Path, args: argparse.Namespace) -> dict[str, float]:
    """Return time and memory from a data module to its loader, and memory of the order of one worker."""
    tracemalloc.start()
    begun = time.perf_counter()
    module = module_of(root, args)
    module.train_dataloader()
    seconds, (used, _) = time.perf_counter() - begun, tracemalloc.get_traced_memory()
    [planned] = module.planned_sources(1)
    tracemalloc.reset_peak()
    assert sum(1 for _ in planned.plan.order(0, 0, 0)[1]) == planned.plan.batch_size * len(
        planned.plan.micro_batches(0, 0)
    )
    order = tracemalloc.get_traced_memory()[1] - used
    return {"start_s": round(seconds, 3), "start_mib": round(used / 2**20, 2), "order_mib": round(order / 2**20, 2)}


def measure_stream(root: Path, args: argparse.Namespace, position: int) -> dict[str, float]:
    """Return the time to the first batch from `position` and, from position 0, steps per second and memory."""
    loader = module_of(root, args).train_dataloader()
    loader.stream.start, loader.stream.stop = position, 1 << 40
    begun = time.perf_counter()
    batches = iter(loader)
    next(batches)
    first = time.perf_counter() - begun
    if position:
        return {"resume_s": round(first, 2)}
    for _ in range(args.warm_up):
        next(batches)
    begun = time.perf_counter()
    for _ in range(args.steps):
        assert not next(batches).damaged
    rate = args.steps / (time.perf_counter() - begun)
    workers = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    memory = max(private_mib(int(worker)) for worker in workers)
    return {
        "first_s": round(first, 2),
        "steps_per_s": round(rate, 2),
        "rank_mib": round(private_mib(os.getpid())),
        "worker_mib": round(memory),
    }


def private_mib(process: int) -> float:
    """Return the memory that a process shares with no other, in MiB."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def measure_skipping(root: Path, args: argparse.Namespace) -> dict[str, float]:
    """Return the shards that a worker opens for its first batch after a resume, and the CPU time of that batch.

    It is compared with reading these shards from their start, as compressed and remote shards have to be.
    """
    [planned] = module_of(root, args).planned_sources(1)
    plan = planned.plan
    epoch, step = divmod(args.resume, plan.steps)
    metrics: dict[str, float] = {}
    scanning = ScanningSource(planned.source)
    for name, source in (("seek", planned.source), ("scan", scanning)):
        samples = read_in_order(PlannedSource(source, plan), epoch, 0, 0, plan.batch_size * (step // plan.workers))
        begun = time.process_time()
        for _ in range(plan.batch_size):
            next(samples)
        metrics[f"{name}_cpu_s"] = round(time.process_time() - begun, 2)
    return metrics | {"opened": scanning.opened}


class ScanningSource:
    """Reads every shard from its start, including the samples that are not wanted."""

    def __init__(self, source: Source) -> None:
        self.source, self.counts, self.opened = source, source.counts, 0

    def read(self, number: int, positions: Sequence[int]) -> Iterator[Sample]:
        self.opened += 1
        wanted = set(positions)
        samples = self.source.read(number, range(positions[-1] + 1))
        return (sample for position, sample in enumerate(samples) if position in wanted)


def shuffling(plan: Plan) -> dict[str, float]:
    """Return how well an epoch of one rank is shuffled, compared with a full permutation of it."""
    place = np.full(sum(plan.counts), -1, np.int64)
    firsts = np.cumsum([0, *plan.counts])
    for worker in range(plan.workers):
        samples = np.concatenate([np.arange(a, b) + firsts[n] for n, a, b in plan.segments(0, 0, worker)])
        order = samples[np.fromiter(plan.order(0, 0, worker)[1], np.int64)].reshape(-1, plan.batch_size)
        for batch, number in zip(order, plan.micro_batches(0, worker), strict=True):
            place[batch] = np.arange(plan.batch_size) + number * plan.batch_size
    shard = np.repeat(np.arange(len(plan.counts)), plan.counts)
    permuted = np.where(place < 0, -1, np.random.default_rng(0).permutation(len(place)))
    metrics: dict[str, float] = {}
    for suffix, order in (("", place), ("_permuted", permuted)):
        used = order >= 0
        batches = Counter(zip((order[used] // plan.batch_size).tolist(), shard[used].tolist(), strict=True))
        neighbours = used[1:] & used[:-1] & (shard[1:] == shard[:-1])
        metrics[f"shards_per_batch{suffix}"] = round(len(batches) / plan.steps, 1)
        metrics[f"gap{suffix}"] = round(float(np.abs(np.diff(order))[neighbours].mean()))
    return metrics


def measure(root: Path, args: argparse.Namespace) -> dict[str, object]:
    """Return a row for one root: each job in a new process, medians over the rounds."""
    row: dict[str, object] = {"index_kib": round((root / INDEX).stat().st_size / 1024)}
    rounds: dict[str, list[float]] = {}
    jobs: list[tuple[Callable[..., dict[str, float]], tuple[int, ...]]]
    jobs = [(measure_start, ()), (measure_stream, (0,)), (measure_stream, (args.resume,)), (measure_skipping, ())]
    for _ in range(args.rounds):
        for job, more in jobs:
            with ProcessPoolExecutor(1, get_context("spawn"), fork_workers) as pool:
                measured = pool.submit(job, root, args, *more).result()
            print(root.name, measured, flush=True)
            for name, value in measured.items():
                rounds.setdefault(name, []).append(value)
    row |= {name: float(np.median(values)) for name, values in rounds.items()}
    return row | shuffling(module_of(root, args).planned_sources(1)[0].plan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, help="folder that keeps the shards for the next run (default: a temporary one)"
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=float,
        default=[1 / 8, 1, 8],
        help="sizes relative to LAION-Styles (default: 1/8, 1 and 8)",
    )
    parser.add_argument("--side", type=int, default=384, help="size of the images in px (default: 384)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--buffer", type=int, default=5000, help="shuffle buffer of a worker (default: 5000)")
    parser.add_argument("--resume", type=int, default=70_000, help="step of the resume (default: 70000)")
    parser.add_argument("--warm-up", type=int, default=20)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for size in args.sizes:
            images = round(IMAGES * size)
            root = write_root(folder / f"{images}-{args.side}", images, args.side)
            about = {"images": images, "shards": -(-images // SHARD), "tags": TAGS}
            rows.append(about | measure(root, args))
    settings = {name: getattr(args, name) for name in ("side", "batch_size", "workers", "buffer", "resume", "rounds")}
    write_table("stream_scale", rows, settings, ("torch", "numpy", "simplejpeg", "webdataset"))


if __name__ == "__main__":
    sys.exit(main())
