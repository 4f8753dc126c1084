"""Measures how fast alternative loaders read the same JPEGs into the same views, with the same number of workers.

`python benchmarks/alternatives.py --workers 2` writes one corpus of JPEGs in the format of each loader, and reads each
in turn in a separate process, for the given number of rounds:

- imagefolder: a folder per label, torchvision's ImageFolder, a shuffling DataLoader
- webdataset:  tars, webdataset's own pipeline with a shuffle buffer
- litdata:     chunks of litdata, StreamingDataset and StreamingDataLoader, shuffled
- streaming:   shards of mosaicml-streaming, StreamingDataset, shuffled
- stylesim:    tars, ShardDataModule

All make both views of an image with the same function (`TwoViews`, decoding with simplejpeg), in batches of uint8. They
differ in how the bytes are read, in which order, and how batches reach the consumer. Litdata, streaming and stylesim
can resume in the middle of an epoch; only stylesim then produces the same views of the same images. Loaders
that are not installed are skipped with a message; neither litdata nor streaming is a dependency of stylesim:

    uv pip install --target /tmp/alternatives --no-deps litdata mosaicml-streaming lightning-utilities xxhash zstd \\
        python-snappy cramjam Brotli obstore tifffile catalogue
    PYTHONPATH=/tmp/alternatives python benchmarks/alternatives.py

Rates are two-view samples per second, median over the rounds; `per_cpu_second` divides by the CPU time of workers and
consumer, which does not depend on other load. `of_stylesim` divides by the rate of stylesim.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader import WARM_UP, photograph, rates
from record import cores, fork_workers, write_table
from torch import Tensor
from torch.utils.data import DataLoader

from stylesim.data.modules import ShardDataModule
from stylesim.data.shards.indexing import index_shards
from stylesim.data.shards.shard_writer import ShardWriter
from stylesim.data.views import TwoViews

LABELS = 50
BUFFER = 1000
"""Shuffle buffer of webdataset, streaming and stylesim, in samples; ImageFolder and litdata permute all samples."""
Sample = tuple[Tensor, int]


class Views:
    """Makes both views of an encoded image, with a random generator for each process."""

    def __init__(self, size: int) -> None:
        self.views, self.rng = TwoViews(size), None

    def __call__(self, data: bytes) -> Tensor:
        self.rng = self.rng or np.random.default_rng()
        return self.views.cut_both(self.views.draw_of_file(data, self.rng))


def collate(samples: list[Sample]) -> tuple[Tensor, Tensor]:
    views, labels = zip(*samples, strict=True)
    return torch.stack(views, 1), torch.tensor(labels)


def collate_encoded(samples: list[dict[str, Any]], views: Views) -> tuple[Tensor, Tensor]:
    return collate([views_and_label(sample, views) for sample in samples])


def read_bytes(path: str) -> bytes:
    return Path(path).read_bytes()


def write_loose(folder: Path, images: list[bytes]) -> None:
    for number, image in enumerate(images):
        path = folder / f"{number % LABELS:02d}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)


def imagefolder(folder: Path, args: argparse.Namespace) -> Iterator[Any]:
    from torchvision.datasets import ImageFolder

    data = ImageFolder(str(folder), Views(args.size), loader=read_bytes)
    return iter(DataLoader(data, args.batch_size, shuffle=True, num_workers=args.workers, collate_fn=collate))


def write_tars(folder: Path, images: list[bytes]) -> None:
    with ShardWriter(folder, size=max(1, len(images) // 16)) as writer:
        for number, image in enumerate(images):
            writer.write(f"{number:06d}", image, {"tags": [f"artist:{number % LABELS}"]})
    index_shards(folder, show=False)


def label_of(data: bytes) -> int:
    return int(json.loads(data)["tags"][0].partition(":")[2])


def webdataset(folder: Path, args: argparse.Namespace) -> Iterator[Any]:
    import webdataset as wds

    tars = sorted(str(path) for path in folder.glob("*.tar"))
    data = wds.WebDataset(tars, shardshuffle=len(tars)).shuffle(BUFFER).to_tuple("jpg", "json")  # pyright: ignore[reportAttributeAccessIssue]
    data = data.map_tuple(Views(args.size), label_of).batched(args.batch_size, collation_fn=collate, partial=False)
    return iter(wds.WebLoader(data, batch_size=None, num_workers=args.workers))  # pyright: ignore[reportAttributeAccessIssue]


def stylesim(folder: Path, args: argparse.Namespace) -> Iterator[Any]:
    module = ShardDataModule(
        str(folder),
        batch_size=args.batch_size,
        workers=args.workers,
        shuffle_buffer=BUFFER,
        views=TwoViews(args.size),
    )
    return ((batch.views, batch.tags) for batch in module.train_dataloader())


def identity(sample: dict[str, Any]) -> dict[str, Any]:
    return sample


def write_litdata(folder: Path, images: list[bytes]) -> None:
    from litdata import optimize  # pyright: ignore[reportMissingImports]

    samples = [{"image": image, "label": number % LABELS} for number, image in enumerate(images)]
    optimize(identity, samples, str(folder), chunk_bytes="32MB", num_workers=1)


def views_and_label(sample: dict[str, Any], views: Views) -> Sample:
    return views(sample["image"]), sample["label"]


def litdata(folder: Path, args: argparse.Namespace) -> Iterator[Any]:
    from litdata import StreamingDataLoader, StreamingDataset  # pyright: ignore[reportMissingImports]

    data = StreamingDataset(str(folder), shuffle=True, transform=partial(views_and_label, views=Views(args.size)))
    return iter(StreamingDataLoader(data, batch_size=args.batch_size, num_workers=args.workers, collate_fn=collate))


def write_streaming(folder: Path, images: list[bytes]) -> None:
    from streaming import MDSWriter  # pyright: ignore[reportMissingImports]

    with MDSWriter(out=str(folder), columns={"image": "bytes", "label": "int"}) as writer:
        for number, image in enumerate(images):
            writer.write({"image": image, "label": number % LABELS})


def streaming(folder: Path, args: argparse.Namespace) -> Iterator[Any]:
    from streaming import StreamingDataset  # pyright: ignore[reportMissingImports]

    data = StreamingDataset(local=str(folder), shuffle=True, batch_size=args.batch_size, shuffle_block_size=BUFFER)
    collate_fn = partial(collate_encoded, views=Views(args.size))
    return iter(DataLoader(data, args.batch_size, num_workers=args.workers, collate_fn=collate_fn))


LOADERS: dict[str, tuple[Callable[..., Iterator[Any]], Callable[..., None], str]] = {
    "imagefolder": (imagefolder, write_loose, "torchvision"),
    "webdataset": (webdataset, write_tars, "webdataset"),
    "litdata": (litdata, write_litdata, "litdata"),
    "streaming": (streaming, write_streaming, "mosaicml-streaming"),
    "stylesim": (stylesim, write_tars, "stylesim"),
}


def write(loader: str, folder: Path, distinct: list[bytes], images: int) -> None:
    """Write the corpus in the format of a loader; it repeats a few images, because generating one is slow."""
    LOADERS[loader][1](folder / loader, [distinct[number % len(distinct)] for number in range(images)])


def read(loader: str, folder: Path, args: argparse.Namespace) -> tuple[float, float]:
    """Return (samples per second, samples per CPU second), reading epochs until enough samples have been timed."""
    torch.set_num_threads(1)
    warm_up = WARM_UP * max(args.workers, 1)

    def sizes() -> Iterator[int]:
        batches_left = warm_up + args.samples // args.batch_size
        while batches_left:
            for views, labels in islice(LOADERS[loader][0](folder / loader, args), batches_left):
                assert views.shape[:2] == (2, len(labels))
                batches_left -= 1
                yield len(labels)

    return rates(sizes(), warm_up)


def in_process(job: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, get_context("spawn"), fork_workers) as pool:
        return pool.submit(job, *arguments).result()


def measure(args: argparse.Namespace, folder: Path) -> list[dict[str, object]]:
    """Return a row for each loader that is installed."""
    versions: dict[str, str] = {}
    distinct = [photograph(number, args.short_side) for number in range(args.distinct)]
    for loader in args.loaders:
        try:
            versions[loader] = version(LOADERS[loader][2])
        except PackageNotFoundError:
            print(f"{loader} is not installed and is skipped")
            continue
        in_process(write, loader, folder, distinct, args.images)
    results: dict[str, list[tuple[float, float]]] = {loader: [] for loader in versions}
    for number in range(args.rounds):
        for loader in versions:
            results[loader].append(in_process(read, loader, folder, args))
            print(f"round {number + 1}: {loader} {results[loader][-1][0]:,.0f}/s", flush=True)
    medians = {
        loader: [statistics.median(column) for column in zip(*pairs, strict=True)] for loader, pairs in results.items()
    }
    used = min(max(args.workers, 1), cores())
    return [
        {
            "loader": loader,
            "version": versions[loader],
            "samples_per_s": round(rate, 1),
            "per_core": round(rate / used, 1),
            "per_cpu_second": round(per_cpu, 1),
            "of_stylesim": round(rate / medians["stylesim"][0], 2) if "stylesim" in medians else "",
            "of_stylesim_cpu": round(per_cpu / medians["stylesim"][1], 2) if "stylesim" in medians else "",
        }
        for loader, (rate, per_cpu) in medians.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loaders", nargs="+", choices=list(LOADERS), default=list(LOADERS))
    parser.add_argument("--images", type=int, default=4000, help="images in the corpus (default: 4000)")
    parser.add_argument("--distinct", type=int, default=400, help="distinct images among them (default: 400)")
    parser.add_argument("--short-side", type=int, default=384, help="short side of the images in px (default: 384)")
    parser.add_argument("--size", type=int, default=224, help="size of the views in px (default: 224)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--samples", type=int, default=3200, help="samples timed in each round (default: 3200)")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args, Path(folder))
    names = ("images", "distinct", "short_side", "size", "workers", "batch_size", "samples", "rounds")
    write_table("alternatives", rows, {name: getattr(args, name) for name in names}, ("torch", "simplejpeg"))


if __name__ == "__main__":
    sys.exit(main())
