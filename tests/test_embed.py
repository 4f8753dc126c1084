from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import STYLES, draw
from omegaconf import DictConfig

from stylesim import embed
from stylesim.core.errors import StylesimError
from stylesim.encoders.controls import color_histogram
from stylesim.retrieval.descriptor_set import DescriptorSet

HISTOGRAM = ("model=color_histogram", "model.image_size=48", "device=cpu")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of three styles with three images each, one more at the top, and one that is damaged."""
    folder = tmp_path / "mine"
    for style in STYLES:
        (folder / style).mkdir(parents=True)
        for content in range(3):
            (folder / style / f"{content}.png").write_bytes(draw(style, content))
    (folder / "loose.png").write_bytes(draw("red", 9))
    (folder / "red" / "broken.jpg").write_bytes(b"\xff\xd8 not an image")
    return folder


def test_folder_becomes_a_descriptor_set_and_a_table(
    images: Path, composed: Callable[..., DictConfig], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, table = tmp_path / "set", tmp_path / "new" / "set.parquet"
    cfg = composed(f"images={images}", f"out={out}", f"parquet={table}", *HISTOGRAM, config="embed")
    assert embed.main(cfg) == {"images": 10, "damaged": 1, "dim": 512}
    assert "left out mine/red/broken.jpg" in caplog.text
    descriptors = DescriptorSet.load(out)
    paths = [images / name.removeprefix("mine/") for name in descriptors.ids]
    np.testing.assert_allclose(
        descriptors.descriptors, color_histogram(bins=8, image_size=48).encode(paths).numpy(), atol=1e-6
    )
    assert dict(zip(descriptors.ids, descriptors.items["tags"], strict=True))["mine/green/1.png"] == ["green"]
    frame = pd.read_parquet(table)
    assert frame["id"].tolist() == descriptors.ids
    np.testing.assert_array_equal(np.stack(frame["descriptor"].tolist()), descriptors.descriptors)


def test_shards_and_folders_are_embedded(images: Path, shards: Path, composed: Callable[..., DictConfig]) -> None:
    cfg = composed(f"images=[{images},{shards / 'validation'}]", *HISTOGRAM, config="embed")
    assert embed.main(cfg)["images"] == 10 + 18
    descriptors = DescriptorSet.load(Path(cfg.run_dir) / "descriptors")
    assert {name.split("/")[0] for name in descriptors.ids} == {"mine", "validation"}


def test_interrupted_command_continues(
    images: Path, composed: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = composed(f"images={images}", f"out={tmp_path / 'set'}", *HISTOGRAM, "batch_size=2", config="embed")
    whole = composed(f"images={images}", f"out={tmp_path / 'whole'}", *HISTOGRAM, "batch_size=2", config="embed")
    embed.main(whole)
    import stylesim.evaluation.embed
    from stylesim.retrieval.descriptor_writer import DescriptorWriter

    class Interrupted(DescriptorWriter):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, piece=4)  # type: ignore[arg-type]

        def add(self, *batch: object) -> None:
            super().add(*batch)  # type: ignore[arg-type]
            if len(self.done) == 6:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stylesim.evaluation.embed, "DescriptorWriter", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            embed.main(cfg)
    assert embed.main(cfg)["images"] == 10
    done = DescriptorSet.load(tmp_path / "set")
    assert done.ids == DescriptorSet.load(tmp_path / "whole").ids
    np.testing.assert_array_equal(done.descriptors, DescriptorSet.load(tmp_path / "whole").descriptors)
    with pytest.raises(StylesimError, match="exists already"):
        embed.main(cfg)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["images=/no/such/place"], "images must exist, got /no/such/place"),
        (["checkpoint=/no/such/file"], "Runs write checkpoints/best.safetensors"),
        (["model=csd_lite0", "model.weights=random", "model.image_size=32"], "allow_untrained=true"),
    ],
)
def test_users_error_is_told_in_a_sentence(
    overrides: list[str], message: str, images: Path, composed: Callable[..., DictConfig]
) -> None:
    with pytest.raises(StylesimError, match=message):
        embed.main(composed(f"images={images}", *overrides, config="embed"))


@pytest.mark.parametrize(
    ("folder", "message"),
    [("gone", "generated must exist, got {folder}"), ("texts", "There is no image in {folder}: .* found 1 .txt")],
)
def test_a_folder_without_images_is_refused_before_torch_is_imported(folder: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "note.txt").write_text("no image")
    program = (
        "import sys, stylesim.runtime.launch as launch\n"
        f"sys.argv = ['score', 'generated={tmp_path / folder}', 'reference=/no/other']\n"
        "try:\n    launch.run('score')\nexcept SystemExit as stop:\n    code = stop.code\n"
        "print('CODE', code, 'TORCH', 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "CODE 2 TORCH False" in done.stdout, done.stderr
    assert re.search(message.format(folder=re.escape(str(tmp_path / folder))), done.stderr)
