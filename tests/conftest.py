"""Small shards on disk, and training runs of seconds, for every test."""

from __future__ import annotations

import io
import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_MODE"] = "offline"
os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, settings
from omegaconf import DictConfig
from PIL import Image, ImageDraw

from stylesim.core.conf import conf_dir
from stylesim.data.shards.indexing import index_shards
from stylesim.data.shards.shard_writer import ShardWriter
from stylesim.runtime.settings import register_settings

# Under a shell that runs in the background, Ctrl-C is ignored, also by the processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

for command in conf_dir().glob("*.yaml"):  # each of them refers to the settings of its command
    register_settings(command.stem)

# A test does not fail because the machine is busy: the first example of a property may import torch.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Escape output that is not UTF-8, such as odd file names in a log: pytest-xdist cannot send it."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


STYLES = {"red": (220, 40, 40), "green": (40, 160, 60), "blue": (40, 60, 200)}


def draw(style: str, content: int, size: int = 48) -> bytes:
    """Draw an image as PNG bytes: the content decides where the shapes are, the style how they are drawn."""
    rng = np.random.default_rng(content)
    image = Image.new("RGB", (size, size), "white")
    pen = ImageDraw.Draw(image)
    for _ in range(4):
        x, y = rng.integers(0, size - 16, 2).tolist()
        box = (x, y, x + 12, y + 12)
        if style == "red":
            pen.ellipse(box, fill=STYLES[style])
        elif style == "green":
            pen.rectangle(box, outline=STYLES[style], width=2)
        else:
            pen.line(box, fill=STYLES[style], width=4)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def write_shards(folder: Path, contents: Sequence[int], *, size: int = 16) -> Path:
    """Write indexed shards with an image of every content in every style."""
    with ShardWriter(folder, size=size) as writer:
        for content in contents:
            for style in STYLES:
                labels = {"tags": [f"set:{style}"], "content": f"c{content}"}
                writer.write(f"{style}_{content}", draw(style, content), labels, extension="png")
    index_shards(folder, processes=1, show=False)
    return folder


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train/` (3 styles x 24 contents in 5 shards) and `validation/` (3 x 6 other contents)."""
    root = tmp_path_factory.mktemp("shards")
    write_shards(root / "train", range(24))
    write_shards(root / "validation", range(24, 30))
    return root


def overrides_for(shards: Path, *more: str) -> list[str]:
    """Return the overrides of a training run of seconds: a small ViT, small shards, a probe every two steps."""
    spec = (
        "{_target_: stylesim.evaluation.retrieval_spec.RetrievalSpec, query: ['%s'], relevant: 'set:*',"
        " distinct: content, every_n_steps: 2, ks: [1, 5]}" % (shards / "validation")
    )
    return [
        "model=csd_vitb",
        "model.architecture=ViT-test",
        "model.image_size=32",
        "model.weights=random",
        "data=laion_styles",
        f"data.root={shards / 'train'}",
        f"+data.probes.validation={spec}",
        "data.batch_size=6",
        "data.workers=0",
        "trainer.max_steps=6",
        "trainer.accelerator=cpu",
        "trainer.log_every_n_steps=1",
        "~callbacks.bar",
        "callbacks.checkpoints.every_n_steps=2",
        *more,
    ]


@pytest.fixture
def composed(shards: Path, tmp_path: Path) -> Callable[..., DictConfig]:
    """Compose `train` on the small shards, or another command, with its own run folder."""

    def make(*more: str, config: str = "train") -> DictConfig:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose(config, overrides_for(shards, *more) if config == "train" else list(more))
        cfg.run_dir = str(tmp_path / "run")
        return cfg

    return make
