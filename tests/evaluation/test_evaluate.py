from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image
from processes import preload_in_forkserver

from stylesim.core.errors import StylesimError
from stylesim.encoders.controls import palette
from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.style_encoder import Provenance, StyleEncoder
from stylesim.evaluation.evaluate import evaluate
from stylesim.evaluation.retrieval_spec import RetrievalSpec
from stylesim.retrieval.readouts import Csls


class Counting(StyleEncoder):
    """Counts the images that it embeds."""

    def __init__(self, seed: int = 0, name: str = "counting") -> None:
        super().__init__(6, Preprocessing(8), Provenance(name, "random"))
        torch.manual_seed(seed)
        self.linear = torch.nn.Linear(3 * 8 * 8, 6, bias=False)
        self.seen = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return torch.nn.functional.normalize(self.linear(images.flatten(1)))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two labels of four one-coloured images."""
    for label in ("warm", "cold"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(4):
            colour = (200 + 9 * i, 30, 20 * i) if label == "warm" else (20 * i, 40, 200 + 9 * i)
            Image.new("RGB", (12, 10), colour).save(tmp_path / "images" / label / f"{i}.png")
    return tmp_path / "images"


def metrics_of(encoder: StyleEncoder | None, root: Path, folder: Path | None = None, **options) -> dict[str, float]:
    specs = {"all": RetrievalSpec([str(root)], ks=(1, 3)), "grey": RetrievalSpec([str(root)], ks=(1,), greyscale=True)}
    embed_options = {} if encoder is None else {"device": "cpu", "progress": False}
    results = evaluate(encoder, specs, folder, **embed_options, **options)
    return {f"{name}/{key}": value for name, r in results.items() for key, value in r.metrics.items()}


def test_recoloured_copies_have_descriptors_of_their_own(images: Path, tmp_path: Path) -> None:
    specs = {
        name: RetrievalSpec([str(images)], ks=(1,), recoloured=recoloured)
        for name, recoloured in (("plain", False), ("recoloured", True))
    }
    encoder = Counting()
    results = evaluate(encoder, specs, tmp_path / "out", cache=tmp_path / "cache", device="cpu", progress=False)
    assert encoder.seen == 16
    plain, recoloured = (results[name].queries for name in ("plain", "recoloured"))
    assert recoloured.meta["recoloured"]
    assert "recoloured" not in plain.meta
    assert not np.allclose(plain.descriptors, recoloured.descriptors, atol=1e-3)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"images", "images-recoloured"}


@pytest.mark.slow
def test_a_palette_finds_almost_no_style_in_recoloured_images() -> None:
    root = str(Path(__file__).parents[2] / "data" / "stylecross" / "validation")
    specs = {
        name: RetrievalSpec([root], relevant="set:*", distinct="content", ks=(1,), recoloured=recoloured, limit=400)
        for name, recoloured in (("plain", False), ("recoloured", True))
    }
    results = evaluate(palette(), specs, device="cpu", progress=False)
    plain, recoloured = (results[name].metrics["recall@1"] for name in specs)
    assert plain > 0.8
    assert recoloured < 0.3, "what is left is the amount of ink; chance is .07"


def test_a_second_run_with_the_same_encoder_and_images_embeds_nothing(images: Path, tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    metrics = metrics_of(first, images, cache=tmp_path / "cache")
    assert first.seen == 16  # eight images, in colour and without
    assert metrics_of(second, images, cache=tmp_path / "cache") == metrics == metrics_of(Counting(), images)
    assert second.seen == 0


def test_run_folders_link_to_the_cached_sets(images: Path, tmp_path: Path) -> None:
    metrics = metrics_of(Counting(), images, tmp_path / "one", cache=tmp_path / "cache")
    assert metrics_of(Counting(), images, tmp_path / "two", cache=tmp_path / "cache") == metrics
    assert metrics_of(Counting(), images, tmp_path / "two", cache=tmp_path / "cache") == metrics  # the same run again
    for run in ("one", "two"):
        assert metrics_of(None, images, tmp_path / run) == metrics
    with pytest.raises(StylesimError, match="has no descriptors of"):
        metrics_of(None, images, tmp_path / "three")


def test_other_weights_settings_images_or_labels_are_embedded_again(images: Path, tmp_path: Path) -> None:
    def embedded(encoder: Counting, **options) -> int:
        metrics_of(encoder, images, cache=tmp_path / "cache", **options)
        return encoder.seen

    assert embedded(Counting()) == 16
    assert embedded(Counting(seed=1)) == 16
    assert embedded(Counting(), precision="bf16") == 16
    assert embedded(Counting(), flips=True) == 32
    configured = Counting()
    configured.config = {"_target_": "a factory", "layer": "another"}
    assert embedded(configured) == 16
    assert embedded(Counting()) == 0
    image = images / "warm/0.png"
    os.utime(image, ns=(1, 1))
    assert embedded(Counting()) == 16
    image.rename(images / "cold/9.png")
    assert embedded(Counting()) == 16
    assert embedded(Counting()) == 0


def test_shards_with_the_same_names_but_other_images_are_embedded_again(shards: Path, tmp_path: Path) -> None:
    encoders = [Counting() for _ in range(3)]
    for encoder, root in zip(encoders, ("train", "validation", "train"), strict=True):
        spec = RetrievalSpec([str(shards / root)], relevant="set:*", ks=(1,))
        evaluate(encoder, {"set": spec}, cache=tmp_path / "cache", device="cpu", progress=False)
    assert [encoder.seen for encoder in encoders] == [72, 18, 0]


def test_the_readout_is_applied_before_the_search(images: Path) -> None:
    spec = {"all": RetrievalSpec([str(images)], ks=(1, 3))}
    options = {"device": "cpu", "progress": False}
    plain = evaluate(Counting(), spec, **options)["all"]
    scaled = evaluate(Counting(), spec, readout=Csls(k=2), **options)["all"]
    assert plain.neighbours.similarities.max() <= 1.0001
    assert not torch.equal(plain.neighbours.similarities, scaled.neighbours.similarities)


def _evaluate_on_a_rank(rank: int, world: int, root: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world)
    share = {"rank": rank, "world": world, "cache": folder / "cache"}
    metrics = metrics_of(Counting(), root, folder / "run", **share)
    again = Counting()
    assert metrics_of(again, root, folder / "run", **share) == metrics
    assert again.seen == 0
    torch.distributed.destroy_process_group()
    torch.save(metrics, folder / f"{rank}.pt")


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_metrics_and_cache_are_the_same_for_every_world_size(images: Path, tmp_path: Path, world: int) -> None:
    preload_in_forkserver()
    mp.start_processes(_evaluate_on_a_rank, (world, images, tmp_path), world, start_method="forkserver")
    alone = metrics_of(Counting(), images, tmp_path / "run", cache=tmp_path / "cache")
    for rank in range(world):
        assert torch.load(tmp_path / f"{rank}.pt") == alone == metrics_of(Counting(), images)


def test_two_sets_with_the_same_folder_name_are_refused(images: Path, tmp_path: Path) -> None:
    grey = tmp_path / f"{images.name}-grey"
    shutil.copytree(images, grey)
    specs = {
        "one": RetrievalSpec(query=[str(images)], greyscale=True),
        "other": RetrievalSpec(query=[str(grey)]),
    }
    with pytest.raises(StylesimError, match="would both be saved as"):
        evaluate(Counting(), specs, tmp_path / "out", progress=False)
