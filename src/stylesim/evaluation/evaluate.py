"""Evaluate an encoder on retrieval sets, embedding each image once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stylesim.core.errors import ConfigError, DataError
from stylesim.data.open_samples import Samples, open_samples
from stylesim.data.roots import Root, name_roots
from stylesim.evaluation.descriptor_cache import cache_key, get_or_embed, link
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
    **embed_options: Any,
) -> dict[str, RetrievalResult]:
    """Embed the images of every retrieval set and evaluate it.

    Sets that share images share their descriptors. For a set with `distinct`, the metrics include its content score
    (`content_recall@1`, ...), for which the same content in other styles is relevant (see `RetrievalSpec.swapped`).

    Args:
        encoder: The encoder. None reads the descriptors that an earlier call has left in `folder`.
        specs: The retrieval sets by name.
        folder: Where the descriptor sets are saved. None keeps them in memory.
        readout: Transformation of the descriptors before they are compared. None compares them unchanged.
        cache: A folder in which descriptor sets are shared between runs, so that images are embedded only once per
            encoder and settings. `folder` then contains links to them.
        rank: This process's rank. Embedding and search are divided among the ranks; every rank gets all metrics.
        world: The world size.
        embed_options: Further arguments of `embed`: batch_size, device, precision, flips, accept_damaged, progress.

    Returns:
        The results by the names of the sets.

    Raises:
        DataError: If some images have no descriptor set in `folder` and there is no encoder, or if no image can be
            embedded.
        ConfigError: If two roots would be saved under the same name.
    """
    roots = list(dict.fromkeys(root for spec in specs.values() for root in (*spec.query, *(spec.gallery or ()))))
    descriptor_sets = _DescriptorSets(encoder, roots, folder, cache, rank, world, embed_options)
    results = {}
    for name, spec in specs.items():
        queries = descriptor_sets.get(spec.query, _Colours.of(spec))
        gallery = descriptor_sets.get(spec.gallery, _Colours.of(spec)) if spec.gallery else None
        results[name] = evaluate_descriptors(queries, gallery, spec, readout=readout, rank=rank, world=world)
        if spec.distinct is not None:
            swapped = evaluate_descriptors(queries, gallery, spec.swapped(), readout=readout, rank=rank, world=world)
            results[name].metrics.update({f"content_{k}": v for k, v in swapped.metrics.items() if "@" in k})
    return results


class _Colours(NamedTuple):
    """In which colours the images of a retrieval set are embedded."""

    greyscale: bool
    recoloured: bool

    @classmethod
    def of(cls, spec: RetrievalSpec) -> _Colours:
        return cls(spec.greyscale, spec.recoloured)

    def suffix(self) -> str:
        """Return what the name of a descriptor set in these colours ends with."""
        return ("-recoloured" if self.recoloured else "") + ("-grey" if self.greyscale else "")


class _DescriptorSets:
    """The descriptor sets of all roots of an evaluation. Each one is made or loaded when it is first needed."""

    def __init__(
        self,
        encoder: StyleEncoder | None,
        locations: list[str],
        folder: Path | None,
        cache: Path | str | None,
        rank: int,
        world: int,
        embed_options: dict[str, Any],
    ) -> None:
        self.encoder, self.folder, self.rank, self.world = encoder, folder, rank, world
        self.cache = None if cache is None else Path(cache).absolute()
        self.embed_options = embed_options
        # Named together, so that an image has one id in all sets and different images have different ids.
        self.roots = dict(zip(locations, name_roots(locations), strict=True))
        self.digest = encoder.digest() if encoder is not None and cache is not None else ""
        self.sets: dict[str, DescriptorSet] = {}
        self.owners: dict[str, tuple[str, _Colours]] = {}

    def get(self, locations: Sequence[str], colours: _Colours) -> DescriptorSet:
        """Return the descriptors of several roots as one set."""
        return concatenate([self._get_one(location, colours) for location in locations])

    def _get_one(self, location: str, colours: _Colours) -> DescriptorSet:
        root = self.roots[location]
        name = root.name.replace("/", "-") + colours.suffix()
        owner = self.owners.setdefault(name, (location, colours))
        if owner != (location, colours):
            raise ConfigError(
                f"The descriptors of {location} and of {owner[0]} would both be saved as {name}. Rename one of them."
            )
        if name not in self.sets:
            self.sets[name] = self._make(root, name, colours)
        return self.sets[name]

    def _make(self, root: Root, name: str, colours: _Colours) -> DescriptorSet:
        path = self.folder / name if self.folder else None
        if self.encoder is None:
            if path is None or not path.is_dir():
                raise DataError(
                    f"{self.folder} has no descriptors of {root.location}. Evaluate with a model first, and keep its"
                    " descriptors."
                )
            return DescriptorSet.load(path)
        samples = open_samples([root])
        if self.cache is None:
            return self._embed(samples, colours, path)
        settings = [*colours, self.embed_options.get("precision"), self.embed_options.get("flips", False)]
        settings.append(self.embed_options.get("accept_damaged", False))
        key = cache_key(self.encoder, self.digest, root, samples, settings)
        cached = self.cache / f"{name}-{key}"
        made = get_or_embed(cached, lambda out: self._embed(samples, colours, out), self.rank, self.world)
        if path is not None and self.rank == 0:
            link(path, cached)
        return made

    def _embed(self, samples: Samples, colours: _Colours, folder: Path | None) -> DescriptorSet:
        """Embed on all ranks. If there are several, rank 0 saves the whole set."""
        assert self.encoder is not None
        out = folder if self.world == 1 else None
        part = embed(
            self.encoder, samples, out, **colours._asdict(), rank=self.rank, world=self.world, **self.embed_options
        )
        whole = gather_descriptor_set(part)
        if folder is not None and out is None and self.rank == 0:
            meta = whole.meta | {"encoder_digest": self.encoder.digest()}
            DescriptorSet(whole.descriptors, whole.items, meta).save(folder)
        return whole
