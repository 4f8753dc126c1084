from __future__ import annotations

from functools import partial
from io import BytesIO
from pathlib import Path

import image_files
import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image
from processes import preload_in_forkserver

from stylesim.core.errors import StylesimError
from stylesim.data.sample import Sample
from stylesim.encoders.controls import color_histogram
from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.style_encoder import Provenance, StyleEncoder
from stylesim.evaluation.embed import embed, gather_descriptor_set
from stylesim.evaluation.evaluate_descriptors import evaluate_descriptors
from stylesim.evaluation.retrieval_spec import RetrievalSpec
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.retrieval.descriptor_writer import DescriptorWriter


class Projection(StyleEncoder):
    """A small random network whose output depends on the batch only as far as the hardware's does."""

    def __init__(self, blind: bool = False) -> None:
        super().__init__(8, Preprocessing(16), Provenance("projection", "random"))
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(3 * 16 * 16, 8, bias=False)
        self.dropout = torch.nn.Dropout(0.5)
        self.blind = blind
        self.seen = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        x = self.linear(self.dropout(images.flatten(1)))
        return x * 0 if self.blind else torch.nn.functional.normalize(x)


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def items(n: int = 23) -> list[Sample]:
    """Return samples of which every tenth is broken and the ninth is repeated."""
    made = [Sample(f"r/{i}", jpeg(i), [f"set:{i % 3}"], f"c{i % 5}", "r") for i in range(n)]
    broken = [one._replace(image=jpeg(i)[:40]) if i % 10 == 4 else one for i, one in enumerate(made)]
    return broken + made[8:9]


def quiet(encoder: StyleEncoder, source, out: Path | None = None, **options):
    return embed(encoder, source, out, batch_size=4, device="cpu", progress=False, **options)


def test_images_are_embedded_in_order_as_the_encoder_does():
    encoder, source = Projection(), [Sample(f"r/{i}", jpeg(i), ["t"], None, "r") for i in range(9)]
    made = quiet(encoder, source)

    assert made.ids == [f"r/{i}" for i in range(9)]
    expected = encoder.encode([item.image for item in source if item.image], batch_size=4)
    np.testing.assert_array_equal(made.descriptors, expected.numpy())
    assert made.meta["encoder"]["name"] == "projection"
    assert made.damaged == []


def test_modules_keep_their_training_modes():
    encoder = Projection()
    encoder.train()
    encoder.linear.eval()
    quiet(encoder, items())
    assert (encoder.training, encoder.dropout.training, encoder.linear.training) == (True, True, False)


def test_damaged_and_repeated_images_are_left_out_and_listed():
    made = quiet(Projection(), items())
    reasons = dict(made.damaged)
    assert set(reasons) == {"r/4", "r/14", "r/8"}
    assert "cannot be decoded" in reasons["r/4"]
    assert reasons["r/8"] == "another image has the same id"
    assert len(made) == 21
    assert made.items["position"].tolist() == [i for i in range(23) if i not in (4, 14)]


def test_greyscale_removes_the_colour():
    red, green = (Image.new("RGB", (20, 20), colour) for colour in ((255, 0, 0), (0, 130, 0)))
    source = [Sample("red", red, [], None, "r"), Sample("green", green, [], None, "r")]
    grey = quiet(Projection(), source, greyscale=True).descriptors
    assert grey[0] @ grey[1] > 0.999 > quiet(Projection(), source).descriptors.prod(axis=0).sum()


def test_flips_average_the_descriptors_of_an_image_and_its_mirror_image():
    image = Image.open(BytesIO(jpeg(3))).convert("RGB").resize((16, 16))  # so that the crop is symmetric
    mirror = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    source = [Sample("image", image, [], None, "r"), Sample("mirror", mirror, [], None, "r")]
    plain, flipped = (quiet(Projection(), source, flips=flips).descriptors for flips in (False, True))
    mean = plain.sum(axis=0) / np.linalg.norm(plain.sum(axis=0))
    assert plain[0] @ plain[1] < 0.99
    np.testing.assert_allclose(flipped, [mean, mean], atol=1e-6)


def test_an_empty_result_is_refused_with_the_first_reason():
    with pytest.raises(StylesimError, match="There are no images to embed"):
        quiet(Projection(), [])
    with pytest.raises(StylesimError, match=r"None of 1 images could be embedded. The first is x: .*damaged"):
        quiet(Projection(), [Sample("x", b"no image", [], None, "r")])
    with pytest.raises(StylesimError, match="descriptor is not finite, or zero"):
        quiet(Projection(blind=True), items(3))


def interrupt_embedding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the first pieces of an embedding that was interrupted."""
    monkeypatch.setattr("stylesim.evaluation.embed.DescriptorWriter", partial(DescriptorWriter, piece=4))

    def cut():
        yield from items()[:22]  # batches decoded ahead of the model are lost, the first piece is not
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quiet(Projection(), cut(), folder)


def test_an_interrupted_call_continues_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    interrupt_embedding(tmp_path / "set", monkeypatch)
    second = Projection()
    resumed = quiet(second, items(), tmp_path / "set")
    whole = quiet(Projection(), items())

    assert second.seen < 21
    np.testing.assert_array_equal(resumed.descriptors, whole.descriptors)
    assert resumed.items.to_dict("records") == whole.items.to_dict("records")
    assert resumed.damaged == whole.damaged


def test_pieces_of_other_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    interrupt_embedding(tmp_path / "set", monkeypatch)
    with pytest.raises(StylesimError, match="was begun with other images"):
        quiet(Projection(), items()[5:], tmp_path / "set")


def _embed_on_a_rank(rank: int, world: int, folder: Path, n: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world)
    whole = gather_descriptor_set(quiet(Projection(), items(n), rank=rank, world=world))
    torch.distributed.destroy_process_group()
    whole.save(folder / f"rank-{rank}")


@pytest.mark.slow
@pytest.mark.parametrize(("world", "n"), [(2, 23), (3, 23), (3, 3)])  # with 3 images, some ranks have none
def test_every_world_size_makes_the_same_set_to_the_bit(tmp_path: Path, world: int, n: int):
    alone = quiet(Projection(), items(n))
    preload_in_forkserver()
    mp.start_processes(_embed_on_a_rank, (world, tmp_path, n), world, start_method="forkserver")
    for rank in range(world):
        together = DescriptorSet.load(tmp_path / f"rank-{rank}")
        np.testing.assert_array_equal(together.descriptors, alone.descriptors)
        assert together.items.to_dict("records") == alone.items.to_dict("records")
        assert together.meta["data_digest"] == alone.meta["data_digest"]
        assert together.damaged == alone.damaged
        spec = RetrievalSpec(["r"], relevant="set:*", ks=(1, 5))
        assert evaluate_descriptors(together, None, spec).metrics == evaluate_descriptors(alone, None, spec).metrics


def test_colour_profiles_and_damage_are_treated_as_asked_for():
    profile = image_files.rgb_profile(image_files.ADOBE_RGB, image_files.ADOBE_GAMMA)
    data = image_files.encoded(image_files.gradient(), icc_profile=profile)
    half = image_files.encoded(image_files.gradient(300, 400), "JPEG")[:-500]
    samples = [Sample("profile", data), Sample("half", half)]
    encoder = color_histogram(image_size=32)
    found = quiet(encoder, samples)
    assert [name for name, _ in found.damaged] == ["half"]
    assert np.array_equal(found.descriptors, encoder.encode([data]).numpy())
    encoder.use_colour("raw")
    tolerant = quiet(encoder, samples, accept_damaged=True)
    assert tolerant.ids == ["profile", "half"]
    assert np.array_equal(
        tolerant.descriptors, encoder.encode([image_files.gradient(), half], accept_damaged=True).numpy()
    )
    assert tolerant.meta["encoder"]["preprocessing"]["colour"] == "raw"
