"""python -m stylesim.export: a checkpoint of ours in the published CSD format, for the code of others."""

from __future__ import annotations

from omegaconf import DictConfig

from stylesim.runtime.launch import run


def main(cfg: DictConfig) -> dict[str, float]:
    """Write `cfg.checkpoint` as `cfg.out`.

    Raises:
        StylesimError: If the checkpoint is none of ours, or its backbone is not CLIP's.
    """
    from stylesim.encoders.weights.checkpoint import export_csd, load_checkpoint

    export_csd(load_checkpoint(cfg.checkpoint), cfg.out)
    print(f"{cfg.out}: CSD checkpoint of {cfg.checkpoint}")
    return {}


if __name__ == "__main__":
    run("export")
