"""Export a checkpoint in the published CSD format, which the published code can load.

stylesim export checkpoint=outputs/.../checkpoints/best.safetensors out=csd.pth
"""

from __future__ import annotations

from omegaconf import DictConfig
from pydantic import Field

from stylesim.runtime.existence_checks import check_checkpoint
from stylesim.runtime.launch import run
from stylesim.runtime.settings import CommandSettings


class Settings(CommandSettings):
    """The keys of `stylesim export`."""

    checkpoint: str = Field(
        description="The .safetensors of a run; its backbone must be CLIP's, as the format requires."
    )
    out: str = Field(description="The file to write.")


def main(cfg: DictConfig) -> dict[str, float]:
    """Write `cfg.checkpoint` as `cfg.out`.

    Raises:
        ConfigError: If there is no such checkpoint.
        WeightsError: If stylesim did not write the checkpoint, or its backbone is not CLIP's.
    """
    check_checkpoint(cfg.checkpoint)
    from stylesim.encoders.weights.checkpoint import export_csd, load_checkpoint

    export_csd(load_checkpoint(cfg.checkpoint), cfg.out)
    print(f"{cfg.out}: CSD checkpoint of {cfg.checkpoint}")
    return {}


if __name__ == "__main__":
    run("export")
