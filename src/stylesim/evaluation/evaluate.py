"""evaluate(encoder, specs): from an encoder and retrieval sets to their metrics, each image described once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from stylesim.core.errors import StylesimError
from stylesim.data.open_samples import Samples, open_samples
from stylesim.data.roots import Root, name_roots
from stylesim.data.shards.shard_samples import ShardSamples
from stylesim.evaluation.embed import embed, gather_descriptor_set
from stylesim.evaluation.evaluate_descriptors import RetrievalResult, evaluate_descriptors
from stylesim.evaluation.retrieval_spec import RetrievalSpec
from stylesim.retrieval.descriptor_set import DescriptorSet, concatenate
from stylesim.retrieval.readouts import Readout

if TYPE_CHECKING:
    from stylesim.encoders import StyleEncoder


def evaluate(
    encoder: StyleEncoder | None,
    specs: Mapping[str, RetrievalSpec],
    folder: Path | None = None,
    *,
    readout: Readout | None = None,
    cache: Path | str | None = None,
    rank: int = 0,
    world: int = 1,
    **describing: Any,
) -> dict[str, RetrievalResult]:
    """Describe the images of every retrieval set, and evaluate it.

    Sets that share images share their descriptors. The metrics of a set with `distinct` hold its content score as well
    (`content_recall@1`, ...): same content, other styles only.

    Args:
        encoder: None reads the descriptors that an earlier call left in `folder`, and needs no model.
        folder: Where the DescriptorSets are kept; None keeps them in memory.
        readout: What is done to the descriptors before they are compared; None compares them as they are.
        cache: A folder that keeps DescriptorSets across runs: the same encoder, images and settings are described
            once. `folder` then holds links to them.
        rank, world: This process's share of the describing and of the search; every process gets all metrics.
        describing: Further arguments of `describe` (batch size, device, precision, flips, progress).

    Raises:
        StylesimError: If there is no encoder and no DescriptorSet for a retrieval set.
    """
    roots = dict.fromkeys(root for spec in specs.values() for root in (*spec.query, *(spec.gallery or ())))
    # Named together, so that an image has one id in every set and different images have different ones.
    named = dict(zip(roots, name_roots(list(roots)), strict=True))
    described: dict[str, DescriptorSet] = {}
    owners: dict[str, tuple[str, bool]] = {}
    digest = encoder.digest() if encoder is not None and cache is not None else ""

    def descriptors(locations: Sequence[str], greyscale: bool) -> DescriptorSet:
        names = [set_name(named[location], greyscale) for location in locations]
        for location, name in zip(locations, names, strict=True):
            if owners.setdefault(name, (location, greyscale)) != (location, greyscale):
                raise StylesimError(
                    f"The descriptors of {location} and of {owners[name][0]} would both be kept as {name}: rename one."
                )
            if name not in described:
                path, root = folder / name if folder else None, named[location]
                if encoder is None:
                    described[name] = _load(path, root)
                elif cache is None:
                    described[name] = _describe(encoder, open_samples([root]), greyscale, path, rank, world, describing)
                else:
                    items = open_samples([root])
                    settings = [greyscale, describing.get("precision"), describing.get("flips", False)]
                    key = _key(encoder, digest, root, items, settings)
                    kept = Path(cache).absolute() / f"{name}-{key}"
                    described[name] = _cached(encoder, items, greyscale, kept, rank, world, describing)
                    if path is not None and rank == 0:
                        _link(path, kept)
        return concatenate([described[name] for name in names])

    results, comparing = {}, {"readout": readout, "rank": rank, "world": world}
    for name, spec in specs.items():
        queries = descriptors(spec.query, spec.greyscale)
        gallery = descriptors(spec.gallery, spec.greyscale) if spec.gallery else None
        results[name] = evaluate_descriptors(queries, gallery, spec, **comparing)
        if spec.distinct is not None:
            content = evaluate_descriptors(queries, gallery, spec.swapped(), **comparing).metrics
            results[name].metrics.update({f"content_{k}": v for k, v in content.items() if "@" in k})
    return results


def set_name(root: Root, greyscale: bool) -> str:
    """The folder name of the DescriptorSet of a root."""
    return root.name.replace("/", "-") + ("-grey" if greyscale else "")


def _load(folder: Path | None, root: Root) -> DescriptorSet:
    if folder is None or not folder.is_dir():
        raise StylesimError(f"There are no descriptors of {root.location} in {folder}: evaluate with a model first.")
    return DescriptorSet.load(folder)


def _describe(
    encoder: StyleEncoder,
    items: Samples,
    greyscale: bool,
    folder: Path | None,
    rank: int,
    world: int,
    describing: dict[str, Any],
) -> DescriptorSet:
    out = folder if world == 1 else None
    share = embed(encoder, items, out, greyscale=greyscale, rank=rank, world=world, **describing)
    whole = gather_descriptor_set(share)
    if folder is not None and out is None and rank == 0:
        DescriptorSet(whole.descriptors, whole.items, whole.meta | {"encoder_digest": encoder.digest()}).save(folder)
    return whole


def _cached(
    encoder: StyleEncoder,
    items: Samples,
    greyscale: bool,
    kept: Path,
    rank: int,
    world: int,
    describing: dict[str, Any],
) -> DescriptorSet:
    """The set that is kept there, or is now described and kept."""
    with _alone(kept, rank):
        there = [kept.is_dir()] * world
        if world > 1:  # all go the same way: a disk that only some of them see is of no use
            dist.all_gather_object(there, kept.is_dir())
        if all(there):
            return DescriptorSet.load(kept)
        return _describe(encoder, items, greyscale, None if there[0] else kept, rank, world, describing)


@contextmanager
def _alone(kept: Path, rank: int) -> Iterator[None]:
    """Jobs of a sweep that need the same set wait for the first one to describe it."""
    import fcntl

    if rank:
        yield
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.with_name(f".{kept.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _link(path: Path, kept: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        raise StylesimError(f"{path} exists already: choose another run folder.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(kept, target_is_directory=True)


def _key(encoder: StyleEncoder, digest: str, root: Root, items: Samples, settings: list[Any]) -> str:
    """16 hex digits of everything that a set of descriptors depends on, without opening an image.

    Shards count by the SHA-256 of their index, files by path, size and time of change, both with their labels.
    """
    images: list[Any] = []
    for part in items.parts:
        if isinstance(part, ShardSamples):
            images += [(shard.name, shard.count, shard.sha256) for index in part.indices for shard in index.shards]
        else:
            images += [(item.id, _stamp(Path(str(item.image))), item.tags, item.content) for item in part]
    # The factory's arguments choose the layer, say, which neither weights nor preprocessing tell. (A class of the
    # user's own has no factory: its name, in the provenance, has to tell its arguments.)
    made = [version("stylesim"), type(encoder).__qualname__, digest, encoder.config]
    made += [asdict(encoder.preprocessing), *settings]
    return hashlib.sha256(json.dumps([made, root.name, images]).encode()).hexdigest()[:16]


def _stamp(file: Path) -> tuple[str, int, int, int]:
    try:
        found = file.stat()
    except OSError:  # described as damaged
        return str(file.absolute()), -1, -1, -1
    # The third changes when a file is replaced by one of the same age, and when its permissions are mended.
    return str(file.absolute()), found.st_size, found.st_mtime_ns, found.st_ctime_ns
