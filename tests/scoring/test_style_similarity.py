from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image
from processes import preload_in_forkserver
from torch import Tensor, nn

from stylesim.core.errors import StylesimError
from stylesim.data.sample import Sample
from stylesim.encoders.controls import color_histogram
from stylesim.evaluation.embed import embed
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.scoring.style_score import score_sets
from stylesim.scoring.style_similarity import StyleSimilarity


def batch(seed: int, n: int, height: int = 40, width: int = 56) -> Tensor:
    """Return smooth random colours, uint8 `[n 3 h w]`."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(n, 3, 4, 5, generator=generator)
    return (nn.functional.interpolate(small, (height, width), mode="bilinear") * 255).round().byte()


def metric(**options) -> StyleSimilarity:
    return StyleSimilarity(color_histogram(bins=4, image_size=32), **options)


def computed(generated: list[Tensor], real: list[Tensor], **options) -> dict[str, float]:
    similarity = metric(**options)
    for images in generated:
        similarity.update(images, real=False)
    for images in real:
        similarity.update(images, real=True)
    return {name: value.item() for name, value in similarity.compute().items()}


def embedded(images: Tensor, folder: Path) -> DescriptorSet:
    """Save the images as files and embed those."""
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
    items = [Sample(f"{folder.name}/{i}", folder / f"{i}.png", [], None, "") for i in range(len(images))]
    return embed(color_histogram(bins=4, image_size=32), items, device="cpu", progress=False)


def test_the_metrics_match_score_sets_on_the_same_images_as_files(tmp_path: Path) -> None:
    generated, real = batch(0, 12), batch(1, 15)
    found = computed([generated[:5], generated[5:]], [real], readout="csls")
    files = score_sets(embedded(generated, tmp_path / "g"), embedded(real, tmp_path / "r")).metrics
    assert found == {name: pytest.approx(files[name], abs=1e-6) for name in found}
    assert set(found) == {"gss", "gss_unit_prototype", "gss_renormalised", "csls"}


def test_floats_match_bytes_divided_by_255() -> None:
    small, large = batch(2, 3, 20, 90), batch(3, 2, 64, 64)
    as_floats = computed([small / 255, large / 255], [large.double() / 255])
    assert as_floats == pytest.approx(computed([small, large], [large]), abs=1e-6)
    with pytest.raises(StylesimError, match="divide it by 255"):
        metric().update(small.float(), real=True)


def test_the_encoder_is_not_part_of_the_module_that_holds_the_metric() -> None:
    class Generator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.similarity = StyleSimilarity(trainable)

    trainable = color_histogram(bins=4, image_size=32)
    trainable.scale = nn.Parameter(torch.ones(1))
    trainable.train()
    module = Generator()
    assert {name for name, _ in module.named_parameters()} == {"layer.weight", "layer.bias"}
    assert set(module.state_dict()) == {"layer.weight", "layer.bias"}
    module.similarity.update(batch(0, 2), real=True)
    assert trainable.training, "its mode is unchanged"


def test_reset_can_keep_the_real_works() -> None:
    for readout in ("cosine", "csls"):
        kept = metric(readout=readout, reset_real_features=False)
        kept.update(batch(1, 4), real=True)
        kept.update(batch(5, 3), real=False)
        kept.reset()
        kept.update(batch(0, 4), real=False)
        found = {name: value.item() for name, value in kept.compute().items()}
        assert found == pytest.approx(computed([batch(0, 4)], [batch(1, 4)], readout=readout), abs=1e-6)


@pytest.mark.parametrize("real", [True, False])
def test_a_side_without_images_is_refused(real: bool) -> None:
    similarity = metric()
    similarity.update(batch(0, 2), real=real)
    with pytest.raises(StylesimError, match=f"Call update\\(images, real={not real}\\)"):
        similarity.compute()


def test_an_unknown_readout_is_refused() -> None:
    with pytest.raises(StylesimError, match="must be 'cosine' or 'csls', got 'whitened'"):
        metric(readout="whitened")


SHARES = [slice(0, 5), slice(5, 7)]  # of unequal sizes


def _on_a_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", 2), rank=rank, world_size=2)
    found = {}
    for readout in ("cosine", "csls"):
        # In the second case only the first rank has generated images.
        for name, generated in (("both", batch(0, 7)[SHARES[rank]]), ("one", batch(0, 7)[: 7 * (1 - rank)])):
            found[readout, name] = computed([generated], [batch(1, 7)[SHARES[rank]]], readout=readout)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    preload_in_forkserver()
    mp.start_processes(_on_a_rank, args=(str(tmp_path),), nprocs=2, start_method="forkserver")
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert len(found) == 4
        for (readout, _), metrics in found.items():
            assert metrics == pytest.approx(computed([batch(0, 7)], [batch(1, 7)], readout=readout), abs=1e-6)
    assert np.isfinite(list(metrics.values())).all()
