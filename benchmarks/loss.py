"""Measures time and memory of the loss at large global batches.

`python benchmarks/loss.py` uses sizes that fit the machine: on a GPU up to 32,768 images with 768-d descriptors and
3,840 tags, on a CPU up to 8,192 on one thread. With `--world 8` it measures the work of one of eight processes, whose
anchors are compared with the descriptors of all. `--how whole` measures, for comparison, the formula as it is usually
written, with all pairs in memory and autograd's own backward pass.

Each row is measured in a separate process, value and gradient together, after one small run to warm up. Memory is what
the measured run adds to the peak: that of torch's allocator on a GPU, of the resident set on a CPU.
"""

from __future__ import annotations

import argparse
import platform
import resource
import subprocess
import sys
import time
from itertools import product
from statistics import median

import torch
from record import write_table
from torch import Tensor
from torch.nn.functional import normalize

from stylesim.learning.losses import csd_loss

TEMPERATURE, SUPERVISED, SSL = 0.1, 1.0, 0.2


def batch(images: int, args: argparse.Namespace, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return random descriptors of two views, and about two tags per image."""
    torch.manual_seed(0)
    views = normalize(torch.randn(2, images, args.dim, device=device), dim=-1)
    tags = torch.zeros(images, args.tags, dtype=torch.bool, device=device)
    tags.scatter_(1, torch.randint(args.tags, (images, 2), device=device), True)
    return views.requires_grad_(), tags


def whole_matrix(views: Tensor, tags: Tensor) -> Tensor:
    """Compute the exact loss with all pairs in memory."""

    def contrast(descriptors: Tensor, labels: Tensor) -> Tensor:
        self_pairs = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        positive = (labels @ labels.T).masked_fill(self_pairs, 0) > 0
        logits = (descriptors @ descriptors.T / TEMPERATURE).masked_fill(self_pairs, torch.finfo(torch.float32).min)
        terms = logits.log_softmax(dim=1).where(positive, 0).sum(dim=1) / positive.sum(dim=1).clamp(min=1)
        return -terms.mean()

    identity = torch.eye(len(tags), device=tags.device).repeat(len(views), 1)
    return SUPERVISED * contrast(views[0], tags.float()) + SSL * contrast(views.flatten(0, 1), identity)


def time_loss(images: int, args: argparse.Namespace, device: torch.device) -> tuple[float, float]:
    """Return the loss, and the seconds of its forward and backward pass."""
    views, tags = batch(images, args, device)
    start = now(device)
    if args.how == ["whole"]:
        total = whole_matrix(views, tags)
    else:
        anchors = slice(0, images // args.world)
        total, _ = csd_loss(views, tags, TEMPERATURE, SUPERVISED, SSL, anchors=anchors)
    total.backward()
    return total.item(), now(device) - start


def measure(args: argparse.Namespace, device: torch.device) -> None:
    """Print the row of one size."""
    (images,) = args.images
    time_loss(256, args, device)
    before = peak_memory(device)
    row = f"{images},{args.dim},{args.tags},{args.world},{args.how[0]},{args.matmul_precision}"
    try:
        # On a GPU the first run of a size chooses kernels and allocates memory.
        runs = [time_loss(images, args, device) for _ in range(6 if device.type == "cuda" else 1)]
    except torch.OutOfMemoryError:
        print(f"{row},out of memory,,")
        return
    value, seconds = runs[-1][0], median(seconds for _, seconds in runs[-5:])
    added = (peak_memory(device) - before) / 2**20
    print(f"{row},{value:.6f},{seconds:.4f},{added:.0f}")


def now(device: torch.device) -> float:
    """Return wall-clock seconds on a GPU, and CPU seconds of this process on a CPU, which others may be using."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def peak_memory(device: torch.device) -> float:
    """Return the largest number of bytes that this process has held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def main() -> None:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = [4096, 8192, 16384, 32768] if gpu else [2048, 4096, 8192]
    parser.add_argument("--images", type=int, nargs="+", default=sizes, help="global batch; each image has two views")
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--tags", type=int, default=3840)
    parser.add_argument("--world", type=int, default=1, help="processes that share the anchors")
    parser.add_argument("--how", nargs="+", choices=["chunks", "whole"], default=["chunks", "whole"])
    parser.add_argument(
        "--matmul-precision",
        choices=["highest", "high"],
        default="high" if gpu else "highest",
        help="high is TF32 on a GPU, as trainer.matmul_precision has it",
    )
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    device = torch.device("cuda" if gpu else "cpu")
    torch.set_float32_matmul_precision(args.matmul_precision)
    if not gpu:
        torch.set_num_threads(1)
    if args.row:
        measure(args, device)
        return
    fields = ("images", "dim", "tags", "world", "how", "matmul_precision", "loss", "seconds", "memory_mib")
    rows = []
    for images, how in product(args.images, args.how):
        options = ["--dim", args.dim, "--tags", args.tags, "--world", args.world, "--how", how]
        options += ["--matmul-precision", args.matmul_precision, "--row"]
        command = [sys.executable, __file__, "--images", images, *options]
        row = subprocess.run(
            [str(argument) for argument in command], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        print(row.strip(), flush=True)
        rows.append(dict(zip(fields, row.strip().split(","), strict=True)))
    threads = {} if gpu else {"threads": 1}
    write_table("loss", rows, threads, ("torch",), torch.cuda.get_device_name() if gpu else None)


if __name__ == "__main__":
    main()
