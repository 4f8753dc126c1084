"""Checks of a composed configuration against what is on this machine, before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from stylesim.core.errors import StylesimError


def check_encoders(cfg: DictConfig) -> None:
    """Raise `StylesimError` if the weights of the model or of a control are not there and cannot be had.

    A `checkpoint` in the configuration takes the model's place.
    """
    from stylesim.encoders.weights.locate import check_model_weights

    checkpoint, controls = cfg.get("checkpoint"), list(cfg.get("controls", {}).values())
    if checkpoint and not Path(checkpoint).is_file():
        raise StylesimError(f"checkpoint={checkpoint}: there is no such file. Runs leave checkpoints/best.safetensors.")
    for name, node in cfg.get("controls", {}).items():
        if not (OmegaConf.is_dict(node) and "_target_" in node):
            raise StylesimError(
                f"controls.{name} is no encoder: say +model@controls.{name}=NAME, a file of conf/model."
            )
        untrained = node._target_.endswith(".csd_clip") and node.get("weights") in ("clip", "random")
        if untrained and not cfg.get("allow_untrained"):
            raise StylesimError(
                f"controls.{name}: with weights={node.weights} its style head has never been trained, so its score says"
                f" nothing. Add controls.{name}.weights=official (ViT-L only), or the path of a checkpoint."
            )
    for node in controls if checkpoint else [cfg.model, *controls]:
        check_model_weights(node)


def check_roots(cfg: DictConfig) -> None:
    """Raise `StylesimError` if a local root of the training data is not there."""
    given = OmegaConf.to_container(cfg.data, resolve=True)["root"]  # type: ignore[index, call-overload]
    for root in [given] if isinstance(given, str) else list(given):
        if "://" not in root and not root.startswith("pipe:") and not Path(root).expanduser().exists():
            raise StylesimError(
                f"data.root={root}: there is nothing at {Path(root).absolute()}. Name a folder of shards (of"
                " LAION-Styles: what img2dataset has written, indexed by `python -m stylesim.index folder=...`),"
                " or pack a folder of images into shards with `python -m stylesim.pack source=... out=...`."
            )
