"""Time and memory of the loss at large global batches: one process's anchors against everybody's descriptors.

`python benchmarks/loss.py` takes what this machine can: on a GPU up to 32,768 images of 768-d descriptors with 3,840
tags, on a CPU up to 8,192 on one thread. `--world 8` is the work of one of eight processes. `--how whole` is the
formula as it is usually written, with all pairs in memory and autograd's own backward, to compare with.

Each row is measured in a process of its own, value and gradient together, after one small run to warm up. Memory is
what the measured run adds to the peak: torch's on a GPU, the resident set's on a CPU.
"""

from __future__ import annotations

import argparse
import platform
import resource
import subprocess
import sys
import time
from itertools import product

import torch
from record import write_table
from torch import Tensor
from torch.nn.functional import normalize

from stylesim.learning.losses import csd_loss

TEMPERATURE, SUPERVISED, SSL = 0.1, 1.0, 0.2


def batch(images: int, given: argparse.Namespace, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random descriptors of two views, and about two tags an image."""
    torch.manual_seed(0)
    views = normalize(torch.randn(2, images, given.dim, device=device), dim=-1)
    tags = torch.zeros(images, given.tags, dtype=torch.bool, device=device)
    tags.scatter_(1, torch.randint(given.tags, (images, 2), device=device), True)
    return views.requires_grad_(), tags


def whole(views: Tensor, tags: Tensor) -> Tensor:
    """The exact loss, every pair at once."""

    def contrast(descriptors: Tensor, labels: Tensor) -> Tensor:
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        positive = (labels @ labels.T).masked_fill(itself, 0) > 0
        logits = (descriptors @ descriptors.T / TEMPERATURE).masked_fill(itself, torch.finfo(torch.float32).min)
        terms = logits.log_softmax(dim=1).where(positive, 0).sum(dim=1) / positive.sum(dim=1).clamp(min=1)
        return -terms.mean()

    identity = torch.eye(len(tags), device=tags.device).repeat(len(views), 1)
    return SUPERVISED * contrast(views[0], tags.float()) + SSL * contrast(views.flatten(0, 1), identity)


def once(images: int, given: argparse.Namespace, device: torch.device) -> tuple[float, float]:
    """Value, and seconds of forward and backward."""
    views, tags = batch(images, given, device)
    start = now(device)
    if given.how == ["whole"]:
        total = whole(views, tags)
    else:
        anchors = slice(0, images // given.world)
        total, _ = csd_loss(views, tags, TEMPERATURE, SUPERVISED, SSL, anchors=anchors)
    total.backward()
    return total.item(), now(device) - start


def measure(given: argparse.Namespace, device: torch.device) -> None:
    """Print the row of one size."""
    (images,) = given.images
    once(256, given, device)
    before = peak(device)
    value, seconds = once(images, given, device)
    added = (peak(device) - before) / 2**20
    print(f"{images},{given.dim},{given.tags},{given.world},{given.how[0]},{value:.6f},{seconds:.3f},{added:.0f}")


def now(device: torch.device) -> float:
    """Seconds: of the wall on a GPU, of this process alone on a CPU, which others may be using."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def peak(device: torch.device) -> float:
    """Bytes that this process has held at most."""
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
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    device = torch.device("cuda" if gpu else "cpu")
    if not gpu:
        torch.set_num_threads(1)
    if given.row:
        measure(given, device)
        return
    fields = ("images", "dim", "tags", "world", "how", "loss", "seconds", "memory_mib")
    rows = []
    for images, how in product(given.images, given.how):
        options = ["--dim", given.dim, "--tags", given.tags, "--world", given.world, "--how", how, "--row"]
        command = [sys.executable, __file__, "--images", images, *options]
        row = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True).stdout
        print(row.strip(), flush=True)
        rows.append(dict(zip(fields, row.strip().split(","), strict=True)))
    threads = {} if gpu else {"threads": 1}
    write_table("loss", rows, threads, ("torch",), torch.cuda.get_device_name() if gpu else None)


if __name__ == "__main__":
    main()
