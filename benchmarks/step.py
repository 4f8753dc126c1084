"""Measures the parts of a training step: data, forward, loss (with mask and gather), backward, optimiser.

`python benchmarks/step.py` uses models that fit the machine: on a GPU ViT-B/16 and ViT-L/14 in bf16, compiled, with the
model FLOPs utilisation; on a CPU EfficientNet-Lite0, and one step of a full-size ViT-B/16. Weights are random,
which takes the same time. Data comes from the embedded shards through the real loader, at the image size of the model.

On a CPU each row is measured in two processes, one that keeps freed memory as every command of stylesim does
(`core.allocator`), and one with the defaults of the C library.

`--loss-batch 4096` also times mask, gather and loss separately at that global batch, as a fraction of a step of that
many images.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import product

import torch
from record import REPOSITORY, fork_workers, write_table

from stylesim.core.allocator import keep_freed_memory
from stylesim.data.modules import ShardDataModule
from stylesim.data.views import TwoViews
from stylesim.encoders import CSDEncoder, csd_clip, csd_lite0
from stylesim.learning.flops import forward_flops, peak_flops
from stylesim.learning.gather import gather_batch
from stylesim.learning.losses import csd_loss
from stylesim.learning.optim import sgd

MODELS: dict[str, Callable[[], CSDEncoder]] = {
    "csd_lite0": lambda: csd_lite0(weights="random", palette=64),
    "csd_vitb": lambda: csd_clip(architecture="ViT-B-16", weights="random"),
    "csd_vitl": lambda: csd_clip(architecture="ViT-L-14", weights="random"),
}
ALLOCATORS = ("defaults", "freed memory kept")
PARTS = ("data", "forward", "loss", "backward", "optimiser")


class Clock:
    """Adds up the seconds of each part of a step, synchronising with the device at each boundary."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = self.now()
        yield
        self.seconds[name] += self.now() - start

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def measure(name: str, batch: int, args: argparse.Namespace, device: torch.device) -> dict[str, object]:
    """Return a row for one model and batch size: rates, shares, memory, utilisation."""
    steps = args.steps
    if device.type == "cuda":
        torch.compiler.reset()  # forget what was compiled for another row
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    encoder = MODELS[name]().to(device, memory_format=torch.channels_last)
    size = encoder.preprocessing.size
    flops = forward_flops(encoder, torch.zeros(1, 3, size, size, device=device))
    if args.compile:
        encoder.backbone.compile()
    optimizer, _ = sgd(encoder, global_batch=batch, max_steps=1)
    module = ShardDataModule(
        str(REPOSITORY / "data/stylecross/train"),
        batch_size=batch,
        workers=args.workers,
        views=TwoViews(size),
        tags=["set:*"],
    )
    loader = module.train_dataloader()
    loader.stream.stop = steps + args.warm_up
    clock, batches = Clock(device), iter(loader)
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    for step in range(steps + args.warm_up):
        if step == args.warm_up:
            clock.seconds = dict.fromkeys(PARTS, 0.0)
        with clock.part("data"):
            loaded = next(batches)
            views, tags = loaded.views.to(device, non_blocking=True), loaded.tags.to(device)
        with clock.part("forward"), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            images = encoder.preprocessing.normalise(views.flatten(0, 1)).contiguous(memory_format=torch.channels_last)
            descriptors = encoder(images).unflatten(0, views.shape[:2])
        with clock.part("loss"):
            gathered, all_tags, anchors = gather_batch(descriptors, tags)
            total, _ = csd_loss(gathered, all_tags, 0.1, 1.0, 0.2, anchors=anchors)
        with clock.part("backward"):
            total.backward()
        with clock.part("optimiser"):
            optimizer.step()
            optimizer.zero_grad()
    total_s = sum(clock.seconds.values())
    rate = 2 * batch * steps / total_s
    peak = peak_flops(device, dtype)
    memory = round(torch.cuda.max_memory_allocated() / 2**30, 2) if device.type == "cuda" else ""
    busy_s = total_s - clock.seconds["data"]
    row: dict[str, object] = {
        "model": name,
        "batch": batch,
        "precision": args.precision,
        "compiled": args.compile,
    }
    row |= {"views_per_s": round(rate, 1), "step_s": round(total_s / steps, 4)}
    row |= {f"{part}_share": round(clock.seconds[part] / total_s, 4) for part in PARTS}
    row["mfu"] = round(3 * flops * 2 * batch * steps / busy_s / peak, 4) if peak else ""
    row["loss_share_at_large_batch"] = round(loss_share(encoder, args, device, rate), 5) if args.loss_batch else ""
    row["memory_gib"] = memory
    return row


def measure_allocators(name: str, batch: int, args: argparse.Namespace) -> list[dict[str, object]]:
    """Return a row for each allocator, measured on the CPU in a process of its own."""
    rows = []
    for allocator in ALLOCATORS:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context, initializer=fork_workers) as pool:
            row = pool.submit(measure_with_allocator, allocator, name, batch, args).result()
        rows.append(row | {"allocator": allocator})
    return rows


def measure_with_allocator(allocator: str, name: str, batch: int, args: argparse.Namespace) -> dict[str, object]:
    if allocator == "freed memory kept" and not keep_freed_memory():
        raise SystemExit("The C library has no thresholds to raise, or MALLOC_* is set in the environment.")
    torch.set_float32_matmul_precision("high")
    return measure(name, batch, args, torch.device("cpu"))


def loss_share(encoder: CSDEncoder, args: argparse.Namespace, device: torch.device, rate: float) -> float:
    """Return the time of mask, gather and loss at a large global batch, as a fraction of a step at `rate` views/s."""
    images = args.loss_batch
    descriptors = torch.nn.functional.normalize(
        torch.randn(2, images, encoder.dim, device=device), dim=-1
    ).requires_grad_()
    tags = torch.rand(images, 3840, device=device) < 1e-3
    clock = Clock(device)
    for _ in range(2):  # the first one warms up
        start = clock.now()
        csd_loss(descriptors, tags, 0.1, 1.0, 0.2)[0].backward()
        seconds = clock.now() - start
    return seconds / (seconds + 2 * images / rate)


def main() -> None:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models",
        nargs="+",
        choices=list(MODELS),
        default=["csd_vitb", "csd_vitl"] if gpu else ["csd_lite0", "csd_vitb"],
    )
    parser.add_argument(
        "--batch-size", type=int, nargs="+", default=[128] if gpu else [16], help="images per step, each with two views"
    )
    parser.add_argument("--steps", type=int, default=20 if gpu else 3)
    parser.add_argument("--warm-up", type=int, default=5 if gpu else 1)
    parser.add_argument("--workers", type=int, default=12 if gpu else 1)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16" if gpu else "fp32")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=gpu)
    parser.add_argument(
        "--loss-batch", type=int, default=4096, help="global batch for the share of the loss; 0 skips it"
    )
    args = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if gpu else "cpu")
    rows = []
    for name, batch in product(args.models, args.batch_size):
        try:
            rows += [measure(name, batch, args, device)] if gpu else measure_allocators(name, batch, args)
        except torch.OutOfMemoryError:
            print(f"model={name}  batch={batch}  out of memory", flush=True)
            continue
        for row in rows[-1 if gpu else -len(ALLOCATORS) :]:
            print("  ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    write_table("step", rows, {}, ("torch", "lightning"), torch.cuda.get_device_name() if gpu else None)


if __name__ == "__main__":
    main()
