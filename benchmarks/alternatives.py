"""How fast the loaders that one could use instead read the same JPEGs into the same views, with as many workers.

`python benchmarks/alternatives.py --workers 2` writes one corpus of JPEGs in the format of each, and reads each
in turn, in a process of its own, as many rounds as asked for:

- imagefolder: a folder per label, torchvision's ImageFolder, a shuffling DataLoader
- webdataset:  tars, webdataset's own pipeline with a shuffle buffer
- litdata:     chunks of litdata, StreamingDataset and StreamingDataLoader, shuffled
- streaming:   shards of mosaicml-streaming, StreamingDataset, shuffled
- ours:        tars, ShardDataModule

All make both views of an image by the same function (`TwoViews`, of bytes decoded by simplejpeg), in batches of uint8;
what differs is how the bytes come, in which order, and how batches reach the consumer. Litdata, streaming and ours can
start again in mid-epoch; ours shows the same views of the same images then. What is not installed is left
out and named; neither litdata nor streaming is a dependency of stylesim:

    uv pip install --target /tmp/alternatives --no-deps litdata mosaicml-streaming lightning-utilities xxhash zstd \\
        python-snappy cramjam Brotli obstore tifffile catalogue
    PYTHONPATH=/tmp/alternatives python benchmarks/alternatives.py

Rates are two-view samples per second, median over the rounds; `per_cpu_second` divides by the CPU time of workers and
consumer, which other people's load does not change.
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
from record import cores, start_workers_as_training_does, write_table
from torch import Tensor
from torch.utils.data import DataLoader

from stylesim.data.modules import ShardDataModule
from stylesim.data.shards.indexing import index_shards
from stylesim.data.shards.shard_writer import ShardWriter
from stylesim.data.views import TwoViews

LABELS = 50
BUFFER = 1000
"""Samples among which webdataset, streaming and ours shuffle; ImageFolder and litdata permute all they have."""
Sample = tuple[Tensor, int]


class Views:
    """Both views of an encoded image, drawn anew in each process."""

    def __init__(self, size: int) -> None:
        self.views, self.rng = TwoViews(size), None

    def __call__(self, data: bytes) -> Tensor:
        self.rng = self.rng or np.random.default_rng()
        return self.views.cut_both(self.views.draw_of_file(data, self.rng))


def collate(samples: list[Sample]) -> tuple[Tensor, Tensor]:
    views, labels = zip(*samples, strict=True)
    return torch.stack(views, 1), torch.tensor(labels)


def collate_encoded(samples: list[dict[str, Any]], views: Views) -> tuple[Tensor, Tensor]:
    return collate([pair(sample, views) for sample in samples])


def read_bytes(path: str) -> bytes:
    return Path(path).read_bytes()


def write_loose(folder: Path, images: list[bytes]) -> None:
    for number, image in enumerate(images):
        path = folder / f"{number % LABELS:02d}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)


def imagefolder(folder: Path, given: argparse.Namespace) -> Iterator[Any]:
    from torchvision.datasets import ImageFolder

    data = ImageFolder(str(folder), Views(given.size), loader=read_bytes)
    return iter(DataLoader(data, given.batch_size, shuffle=True, num_workers=given.workers, collate_fn=collate))


def write_tars(folder: Path, images: list[bytes]) -> None:
    with ShardWriter(folder, size=max(1, len(images) // 16)) as writer:
        for number, image in enumerate(images):
            writer.write(f"{number:06d}", image, {"tags": [f"artist:{number % LABELS}"]})
    index_shards(folder, show=False)


def label_of(data: bytes) -> int:
    return int(json.loads(data)["tags"][0].partition(":")[2])


def webdataset(folder: Path, given: argparse.Namespace) -> Iterator[Any]:
    import webdataset as wds

    tars = sorted(str(path) for path in folder.glob("*.tar"))
    data = wds.WebDataset(tars, shardshuffle=len(tars)).shuffle(BUFFER).to_tuple("jpg", "json")  # pyright: ignore[reportAttributeAccessIssue]
    data = data.map_tuple(Views(given.size), label_of).batched(given.batch_size, collation_fn=collate, partial=False)
    return iter(wds.WebLoader(data, batch_size=None, num_workers=given.workers))  # pyright: ignore[reportAttributeAccessIssue]


def ours(folder: Path, given: argparse.Namespace) -> Iterator[Any]:
    module = ShardDataModule(
        str(folder),
        batch_size=given.batch_size,
        workers=given.workers,
        shuffle_buffer=BUFFER,
        views=TwoViews(given.size),
    )
    return ((batch.views, batch.tags) for batch in module.train_dataloader())


def keep_as_is(sample: dict[str, Any]) -> dict[str, Any]:
    return sample


def write_litdata(folder: Path, images: list[bytes]) -> None:
    from litdata import optimize  # pyright: ignore[reportMissingImports]

    samples = [{"image": image, "label": number % LABELS} for number, image in enumerate(images)]
    optimize(keep_as_is, samples, str(folder), chunk_bytes="32MB", num_workers=1)


def pair(sample: dict[str, Any], views: Views) -> Sample:
    return views(sample["image"]), sample["label"]


def litdata(folder: Path, given: argparse.Namespace) -> Iterator[Any]:
    from litdata import StreamingDataLoader, StreamingDataset  # pyright: ignore[reportMissingImports]

    data = StreamingDataset(str(folder), shuffle=True, transform=partial(pair, views=Views(given.size)))
    return iter(StreamingDataLoader(data, batch_size=given.batch_size, num_workers=given.workers, collate_fn=collate))


def write_streaming(folder: Path, images: list[bytes]) -> None:
    from streaming import MDSWriter  # pyright: ignore[reportMissingImports]

    with MDSWriter(out=str(folder), columns={"image": "bytes", "label": "int"}) as writer:
        for number, image in enumerate(images):
            writer.write({"image": image, "label": number % LABELS})


def streaming(folder: Path, given: argparse.Namespace) -> Iterator[Any]:
    from streaming import StreamingDataset  # pyright: ignore[reportMissingImports]

    data = StreamingDataset(local=str(folder), shuffle=True, batch_size=given.batch_size, shuffle_block_size=BUFFER)
    together = partial(collate_encoded, views=Views(given.size))
    return iter(DataLoader(data, given.batch_size, num_workers=given.workers, collate_fn=together))


WAYS: dict[str, tuple[Callable[..., Iterator[Any]], Callable[..., None], str]] = {
    "imagefolder": (imagefolder, write_loose, "torchvision"),
    "webdataset": (webdataset, write_tars, "webdataset"),
    "litdata": (litdata, write_litdata, "litdata"),
    "streaming": (streaming, write_streaming, "mosaicml-streaming"),
    "ours": (ours, write_tars, "stylesim"),
}


def write(way: str, folder: Path, pictures: list[bytes], images: int) -> None:
    """The corpus in the format of this way; a few pictures stand in it again and again, for to make one takes long."""
    WAYS[way][1](folder / way, [pictures[number % len(pictures)] for number in range(images)])


def read(way: str, folder: Path, given: argparse.Namespace) -> tuple[float, float]:
    """(samples per second, samples per CPU second), epoch after epoch until enough have been timed."""
    torch.set_num_threads(1)
    warm_up = WARM_UP * max(given.workers, 1)

    def sizes() -> Iterator[int]:
        left = warm_up + given.samples // given.batch_size
        while left:
            for views, labels in islice(WAYS[way][0](folder / way, given), left):
                assert views.shape[:2] == (2, len(labels))
                left -= 1
                yield len(labels)

    return rates(sizes(), warm_up)


def in_a_process(job: Callable[..., Any], *given: Any) -> Any:
    with ProcessPoolExecutor(1, get_context("spawn"), start_workers_as_training_does) as pool:
        return pool.submit(job, *given).result()


def measure(given: argparse.Namespace, folder: Path) -> list[dict[str, object]]:
    """A row for each way that is installed."""
    ways: dict[str, str] = {}
    pictures = [photograph(number, given.short_side) for number in range(given.pictures)]
    for way in given.ways:
        try:
            ways[way] = version(WAYS[way][2])
        except PackageNotFoundError:
            print(f"{way} is not installed, and left out")
            continue
        in_a_process(write, way, folder, pictures, given.images)
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for number in range(given.rounds):
        for way in ways:
            found[way].append(in_a_process(read, way, folder, given))
            print(f"round {number + 1}: {way} {found[way][-1][0]:,.0f}/s", flush=True)
    medians = {way: [statistics.median(column) for column in zip(*pairs, strict=True)] for way, pairs in found.items()}
    used = min(max(given.workers, 1), cores())
    return [
        {
            "way": way,
            "version": ways[way],
            "samples_per_s": round(rate, 1),
            "per_core": round(rate / used, 1),
            "per_cpu_second": round(per_cpu, 1),
            "of_ours": round(rate / medians["ours"][0], 2) if "ours" in medians else "",
            "of_ours_cpu": round(per_cpu / medians["ours"][1], 2) if "ours" in medians else "",
        }
        for way, (rate, per_cpu) in medians.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--images", type=int, default=4000, help="images of the corpus (default: 4000)")
    parser.add_argument("--pictures", type=int, default=400, help="different ones among them (default: 400)")
    parser.add_argument("--short-side", type=int, default=384, help="of the images, in px (default: 384)")
    parser.add_argument("--size", type=int, default=224, help="of the views, in px (default: 224)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--samples", type=int, default=3200, help="samples timed in each round (default: 3200)")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(given, Path(folder))
    names = ("images", "pictures", "short_side", "size", "workers", "batch_size", "samples", "rounds")
    write_table("alternatives", rows, {name: getattr(given, name) for name in names}, ("torch", "simplejpeg"))


if __name__ == "__main__":
    sys.exit(main())
