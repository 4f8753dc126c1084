"""What a stream costs at the size of LAION-Styles, and whether that grows with the data: start, memory, speed, resume.

`python benchmarks/stream_scale.py` makes an index of 511,921 images with 3,840 tags in 512 shards of 1,000, and the
same at 1/8 and 8 times the size, and measures each in a process of its own.

What is simulated: six real shards of 1,000 StyleCross images, made 384 px JPEGs, stand under 512 names (hard links),
the last of them listed with 921 images; the tags are drawn from 3,840 with frequencies that fall as 1 / rank. Every
shard of the index can be read and is read as in training. That a name's bytes stand elsewhere too changes the disk, and
the cache of the operating system, which holds all of them: no metric here says how fast a disk or a network is.

- start_s, start_mib:  from a data module to a loader: index read and compared, vocabulary, plan; and the memory of it
- order_mib:           the largest memory that the order of one reader took while it was gone through to the end
- first_s, resume_s:   until the first batch is there, from step 0 and after a resume at step 70,000
- opened:              shards that one worker opens for its first batch after the resume
- sought_cpu_s, through_cpu_s: CPU time of that batch, undecoded; and if the opened shards were read through
- steps_per_s:         batches of 64 (two views of 224 px), without a model
- rank_mib, worker_mib: memory that only the rank, and only one of its workers, has while it reads
- shards_per_batch:    different shards in a batch; `_permuted`: in a full permutation of the epoch
- gap, gap_permuted:   how many images of the epoch stand between two neighbours of a shard, on average
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
from record import REPOSITORY, start_workers_as_training_does, write_table

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
"""Real shards of 1,000 images that stand under all names."""


def write_real(folder: Path, side: int) -> Path:
    """`REAL` shards of 1,000 images of `side` px, with their index."""
    if (folder / INDEX).exists():
        return folder
    rng = np.random.default_rng(0)
    frequency = 1 / np.arange(1, TAGS + 1)
    frequency /= frequency.sum()
    pictures = list(read_shards(REPOSITORY / "data/stylecross/train"))
    with ShardWriter(folder, size=SHARD) as writer:
        for number in range(REAL * SHARD):
            out = io.BytesIO()
            item = pictures[number % len(pictures)]
            assert item.image is not None
            open_image(item.image).resize((side, side)).save(out, "JPEG", quality=90)
            tags = rng.choice(TAGS, rng.integers(1, 5), replace=False, p=frequency).tolist()
            writer.write(f"{number:09d}", out.getvalue(), {"tags": [f"artist:{tag}" for tag in tags]})
    index_shards(folder, show=False)
    return folder


def write_root(folder: Path, images: int, side: int) -> Path:
    """A root of `images` images in shards of 1,000, which are links to real ones."""
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
    # Every tag is in the vocabulary, as in the true index, whether a real shard has it or not.
    tags = {f"artist:{tag}": index.tags.get(f"artist:{tag}", 0) * shards // REAL for tag in range(TAGS)}
    (folder / INDEX).write_text(json.dumps({"format": 1, "count": images, "shards": entries, "tags": tags}, indent=1))
    return folder


def module_of(root: Path, given: argparse.Namespace) -> ShardDataModule:
    return ShardDataModule(
        str(root),
        batch_size=given.batch_size,
        workers=given.workers,
        shuffle_buffer=given.buffer,
        views=TwoViews(224),
    )


def start(root: Path, given: argparse.Namespace) -> dict[str, float]:
    """Time and memory until a loader is there, and of the order of one reader."""
    tracemalloc.start()
    begun = time.perf_counter()
    module = module_of(root, given)
    module.train_dataloader()
    seconds, (used, _) = time.perf_counter() - begun, tracemalloc.get_traced_memory()
    [line] = module.planned_sources(1)
    tracemalloc.reset_peak()
    assert sum(1 for _ in line.plan.order(0, 0, 0)[1]) == line.plan.batch_size * len(line.plan.micro_batches(0, 0))
    order = tracemalloc.get_traced_memory()[1] - used
    return {"start_s": round(seconds, 3), "start_mib": round(used / 2**20, 2), "order_mib": round(order / 2**20, 2)}


def stream(root: Path, given: argparse.Namespace, position: int) -> dict[str, float]:
    """Time to the first batch from `position`, and from there steps per second and memory."""
    loader = module_of(root, given).train_dataloader()
    loader.stream.start, loader.stream.stop = position, 1 << 40
    begun = time.perf_counter()
    batches = iter(loader)
    next(batches)
    first = time.perf_counter() - begun
    if position:
        return {"resume_s": round(first, 2)}
    for _ in range(given.warm_up):
        next(batches)
    begun = time.perf_counter()
    for _ in range(given.steps):
        assert not next(batches).damaged
    rate = given.steps / (time.perf_counter() - begun)
    workers = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    memory = max(private_mib(int(worker)) for worker in workers)
    return {
        "first_s": round(first, 2),
        "steps_per_s": round(rate, 2),
        "rank_mib": round(private_mib(os.getpid())),
        "worker_mib": round(memory),
    }


def private_mib(process: int) -> float:
    """Memory that a process shares with no other."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def passed_over(root: Path, given: argparse.Namespace) -> dict[str, float]:
    """Shards that one reader opens for its first batch after a resume, and what that costs, beside reading these
    through, as a compressed or remote shard has to be."""
    [line] = module_of(root, given).planned_sources(1)
    plan = line.plan
    epoch, inside = divmod(given.resume, plan.steps)
    found: dict[str, float] = {}
    through = Through(line.source)
    for name, source in (("sought", line.source), ("through", through)):
        samples = read_in_order(PlannedSource(source, plan), epoch, 0, 0, plan.batch_size * (inside // plan.workers))
        begun = time.process_time()
        for _ in range(plan.batch_size):
            next(samples)
        found[f"{name}_cpu_s"] = round(time.process_time() - begun, 2)
    return found | {"opened": through.opened}


class Through:
    """A source of which everything before what is wanted is read as well."""

    def __init__(self, source: Source) -> None:
        self.source, self.counts, self.opened = source, source.counts, 0

    def read(self, number: int, places: Sequence[int]) -> Iterator[Sample]:
        self.opened += 1
        wanted = set(places)
        samples = self.source.read(number, range(places[-1] + 1))
        return (sample for place, sample in enumerate(samples) if place in wanted)


def shuffling(plan: Plan) -> dict[str, float]:
    """How well an epoch of one rank is shuffled, beside a full permutation of it."""
    place = np.full(sum(plan.counts), -1, np.int64)
    firsts = np.cumsum([0, *plan.counts])
    for worker in range(plan.workers):
        line = np.concatenate([np.arange(a, b) + firsts[n] for n, a, b in plan.segments(0, 0, worker)])
        order = line[np.fromiter(plan.order(0, 0, worker)[1], np.int64)].reshape(-1, plan.batch_size)
        for batch, number in zip(order, plan.micro_batches(0, worker), strict=True):
            place[batch] = np.arange(plan.batch_size) + number * plan.batch_size
    shard = np.repeat(np.arange(len(plan.counts)), plan.counts)
    permuted = np.where(place < 0, -1, np.random.default_rng(0).permutation(len(place)))
    found: dict[str, float] = {}
    for suffix, where in (("", place), ("_permuted", permuted)):
        shown = where >= 0
        batches = Counter(zip((where[shown] // plan.batch_size).tolist(), shard[shown].tolist(), strict=True))
        neighbours = shown[1:] & shown[:-1] & (shard[1:] == shard[:-1])
        found[f"shards_per_batch{suffix}"] = round(len(batches) / plan.steps, 1)
        found[f"gap{suffix}"] = round(float(np.abs(np.diff(where))[neighbours].mean()))
    return found


def measure(root: Path, given: argparse.Namespace) -> dict[str, object]:
    """A row for one root: each metric in a fresh process, the median of the rounds for those in seconds."""
    row: dict[str, object] = {"index_kib": round((root / INDEX).stat().st_size / 1024)}
    rounds: dict[str, list[float]] = {}
    jobs: list[tuple[Callable[..., dict[str, float]], tuple[int, ...]]]
    jobs = [(start, ()), (stream, (0,)), (stream, (given.resume,)), (passed_over, ())]
    for _ in range(given.rounds):
        for job, more in jobs:
            with ProcessPoolExecutor(1, get_context("spawn"), start_workers_as_training_does) as pool:
                found = pool.submit(job, root, given, *more).result()
            print(root.name, found, flush=True)
            for name, value in found.items():
                rounds.setdefault(name, []).append(value)
    row |= {name: float(np.median(values)) for name, values in rounds.items()}
    return row | shuffling(module_of(root, given).planned_sources(1)[0].plan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keeps the shards for another time (default: a temporary one)")
    parser.add_argument("--sizes", nargs="+", type=float, default=[1 / 8, 1, 8], help="times the true size")
    parser.add_argument("--side", type=int, default=384, help="of the images, in px (default: 384)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--buffer", type=int, default=5000, help="shuffle buffer of a worker (default: 5000)")
    parser.add_argument("--resume", type=int, default=70_000, help="step of the resume (default: 70000)")
    parser.add_argument("--warm-up", type=int, default=20)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for size in given.sizes:
            images = round(IMAGES * size)
            root = write_root(folder / f"{images}-{given.side}", images, given.side)
            about = {"images": images, "shards": -(-images // SHARD), "tags": TAGS}
            rows.append(about | measure(root, given))
    setting = {name: getattr(given, name) for name in ("side", "batch_size", "workers", "buffer", "resume", "rounds")}
    write_table("stream_scale", rows, setting, ("torch", "numpy", "simplejpeg", "webdataset"))


if __name__ == "__main__":
    sys.exit(main())
