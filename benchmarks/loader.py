"""Measures how fast training images are loaded, compared with the published loader in one run on the same cores.

`python benchmarks/loader.py --images 600 --short-side 384 --workers 2` makes a corpus of JPEGs, once as loose files and
once as shards of the same bytes, and reads both with the same number of workers, into views of the same size under the
same augmentations:

- decode:             read and decode the shards and nothing else: the upper bound for a loader of these shards
- published:          loose files, PIL, torchvision's transforms on PIL, a shuffling DataLoader: how CSD was trained
- stylesim:           ShardDataModule: uint8 views, which the model normalises on its device
- stylesim_reduced:   the same, JPEGs decoded at 1/2, 1/4 or 1/8 where the crops allow it (`views.reduced`)
- stylesim_on_device: the same, returning whole images to be cropped on the training device (`views.on_device`), which
                      is not done here: this is what the workers alone can do
- stylesim_float:     stylesim, normalised on the CPU by the consumer, as the published loader does in its workers
- stylecross:         stylesim, on the embedded data set (128 px WebP)

Rates are two-view samples per second, median over the rounds; `per_core` divides by the cores that the workers can use,
`per_cpu_second` by the CPU time of workers and consumer, which does not depend on other load. First the pixels of both
loaders are compared, for the same crops and flips.
"""

from __future__ import annotations

import argparse
import io
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from record import REPOSITORY, cores, write_table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import hflip, resized_crop, vflip

from stylesim.core.images import decode_rgb
from stylesim.data.modules import ShardDataModule
from stylesim.data.shards.indexing import index_shards
from stylesim.data.shards.shard_writer import ShardWriter
from stylesim.data.views import DecodedImage, TwoViews

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
TOLERANCE = 2.0
"""Largest mean difference of a view from PIL's, in grey levels; single pixels at a steep edge differ by more."""
WARM_UP = 4
"""Batches per worker that are read before timing starts."""


def photograph(seed: int, short_side: int) -> bytes:
    """Return a JPEG (quality 90) with detail at every scale, as in a photograph: the sum of octaves of noise."""
    rng = np.random.default_rng(seed)
    width, height = short_side, round(short_side * rng.uniform(1, 1.6))
    if rng.random() < 0.6:
        width, height = height, width
    image = np.zeros((height, width, 3), np.float32)
    for scale in (1, 2, 4, 8, 16, 32, 64, 128):
        small = rng.normal(size=(3, height // scale + 2, width // scale + 2)).astype(np.float32) * scale**0.7
        octave = [Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR) for noise in small]
        image += np.stack([np.asarray(channel) for channel in octave], 2)
    pixels = (128 + 50 * (image - image.mean()) / image.std()).clip(0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90)
    return out.getvalue()


def write_corpus(folder: Path, images: int, short_side: int) -> list[Path]:
    """Write the same images into `folder/shards` and `folder/loose`; return the loose files."""
    loose = folder / "loose"
    loose.mkdir()
    paths = []
    with ShardWriter(folder / "shards", size=max(1, images // 8)) as writer:
        for number in range(images):
            image = photograph(number, short_side)
            paths.append(loose / f"{number:05d}.jpg")
            paths[-1].write_bytes(image)
            writer.write(f"{number:05d}", image, {"tags": [f"artist:{number % 50}"]})
    index_shards(folder / "shards", show=False)
    return paths


class LooseFiles(Dataset):
    """The published loader: every file is opened with PIL and transformed twice."""

    def __init__(self, paths: list[Path], size: int) -> None:
        self.paths = paths
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(size, interpolation=InterpolationMode.BICUBIC),
                transforms.RandomHorizontalFlip(0.5),
                transforms.RandomVerticalFlip(0.3),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, int]:
        with Image.open(self.paths[number]) as file:
            image = file.convert("RGB")
        return self.transform(image), self.transform(image), number % 50  # type: ignore[return-value]


class DecodeOnly(TwoViews):
    """Decodes the image and returns empty views."""

    def cut_both(self, drawn: DecodedImage) -> Tensor:
        return torch.empty(2, 3, 1, 1, dtype=torch.uint8)


def published(paths: list[Path], size: int, batch: int, workers: int, steps: int) -> Iterator[int]:
    """Yield the sizes of the batches of the published loader, epoch after epoch."""
    repeated = (paths * (1 + steps * batch // len(paths)))[: steps * batch]
    for views, _, _ in DataLoader(LooseFiles(repeated, size), batch, shuffle=True, num_workers=workers):
        yield len(views)


def stylesim(
    root: str, views: TwoViews, batch: int, workers: int, steps: int, *, as_float: bool = False
) -> Iterator[int]:
    """Yield the sizes of the batches of ShardDataModule."""
    module = ShardDataModule(root, batch_size=batch, workers=workers, shuffle_buffer=200, views=views)
    loader = module.train_dataloader()
    loader.stream.stop = steps
    mean, std = (torch.tensor(values).mul(255).view(3, 1, 1) for values in (MEAN, STD))
    for loaded in loader:
        if as_float:
            loaded.views.float().sub_(mean).div_(std)
        yield len(loaded.keys)


def rates(batches: Iterable[int], warm_up: int) -> tuple[float, float]:
    """Return the samples per second after the first batches, and the samples per CPU second of all batches."""
    cpu, start, samples, all_samples = cpu_seconds(), 0.0, 0, 0
    for number, size in enumerate(batches):
        all_samples += size
        if number < warm_up:
            start = time.perf_counter()
        else:
            samples += size
    elapsed = time.perf_counter() - start
    return samples / elapsed, all_samples / (cpu_seconds() - cpu)


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its workers that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def pixel_difference(paths: list[Path], size: int) -> tuple[float, float]:
    """Return the mean and the largest difference in grey levels from PIL's views, for the same crops and flips."""
    views, rng = TwoViews(size, quarter_turns=False), np.random.default_rng(0)
    differences = []
    for path in paths:
        pixels = decode_rgb(path.read_bytes())
        view = views.draw(pixels.shape[0], pixels.shape[1], rng)
        image: Any = Image.open(path).convert("RGB")  # torchvision's annotations allow tensors only
        image = resized_crop(image, *view[:4], [size, size], InterpolationMode.BICUBIC)
        image = hflip(image) if view.mirrored else image
        image = vflip(image) if view.upside_down else image
        view_pixels = views.cut(torch.from_numpy(pixels), view).permute(1, 2, 0).numpy().astype(int)
        differences.append(np.abs(view_pixels - np.asarray(image).astype(int)))
    return float(np.mean(differences)), float(np.max(differences))


def measure(args: argparse.Namespace, folder: Path) -> list[dict[str, object]]:
    """Run every method in turn, `rounds` times; return a row for each."""
    paths = write_corpus(folder, args.images, args.short_side)
    mean, largest = pixel_difference(paths[:64], args.size)
    print(f"difference from PIL's pixels: {mean:.3f} grey levels on average, {largest:.0f} at most")
    if mean > TOLERANCE:
        raise SystemExit(f"The views differ from the published ones by more than {TOLERANCE} grey levels on average.")
    shards, common = str(folder / "shards"), (args.batch_size, args.workers)
    views, decode_only = TwoViews(args.size, quarter_turns=False), DecodeOnly(args.size)
    warm_up = WARM_UP * max(args.workers, 1)
    steps = warm_up + args.samples // args.batch_size
    methods: dict[str, Callable[[], Iterator[int]]] = {
        "decode": lambda: stylesim(shards, decode_only, *common, steps),
        "published": lambda: published(paths, args.size, *common, steps),
        "stylesim": lambda: stylesim(shards, views, *common, steps),
        "stylesim_reduced": lambda: stylesim(shards, replace(views, reduced=True), *common, steps),
        "stylesim_on_device": lambda: stylesim(shards, replace(views, on_device=True), *common, steps),
        "stylesim_float": lambda: stylesim(shards, views, *common, steps, as_float=True),
    }
    embedded = REPOSITORY / "data/stylecross/train"
    if (embedded / "index.json").exists():
        small = TwoViews(min(args.size, 96), scale=(0.6, 1.0))
        methods["stylecross"] = lambda: stylesim(str(embedded), small, *common, steps)
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for number in range(args.rounds):
        for name, method in methods.items():
            results[name].append(rates(method(), warm_up))
            print(f"round {number + 1}: {name} {results[name][-1][0]:,.0f}/s", flush=True)
    used = min(max(args.workers, 1), cores())
    medians = {
        name: [statistics.median(column) for column in zip(*pairs, strict=True)] for name, pairs in results.items()
    }
    return [
        {
            "method": name,
            "samples_per_s": round(rate, 1),
            "per_core": round(rate / used, 1),
            "per_cpu_second": round(per_cpu, 1),
            "of_decode": round(rate / medians["decode"][0], 3) if name != "stylecross" else "",
            "of_published": round(rate / medians["published"][0], 2) if name != "stylecross" else "",
            "of_published_cpu": round(per_cpu / medians["published"][1], 2) if name != "stylecross" else "",
            "mean_pixel_difference": round(mean, 3) if name.startswith("stylesim") else "",
        }
        for name, (rate, per_cpu) in medians.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400, help="images in the corpus (default: 400)")
    parser.add_argument("--short-side", type=int, default=384, help="short side of the images in px (default: 384)")
    parser.add_argument("--size", type=int, default=224, help="size of the views in px (default: 224)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--samples", type=int, default=1600, help="samples timed in each round (default: 1600)")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args, Path(folder))
    settings = {name: getattr(args, name) for name in ("images", "short_side", "size", "workers", "batch_size")}
    write_table("loader", rows, settings, ("torch", "torchvision", "pillow", "simplejpeg", "webdataset"))


if __name__ == "__main__":
    sys.exit(main())
