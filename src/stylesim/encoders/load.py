"""load_encoder: an encoder by the name of its configuration, or from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from stylesim.core.conf import conf_dir
from stylesim.core.errors import StylesimError
from stylesim.core.targets import check_targets
from stylesim.core.wording import suggest
from stylesim.encoders.weights.locate import check_model_weights

if TYPE_CHECKING:
    import torch

    from stylesim.encoders.style_encoder import StyleEncoder


def load_encoder(
    name_or_path: str | Path,
    *,
    weights: str | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    **options: Any,
) -> StyleEncoder:
    """An encoder in evaluation mode: `load_encoder("csd_vitl").encode(["a.jpg", "b.jpg"])`.

    The name is that of a configuration of conf/model; `weights` and further `options` (`image_size=336`,
    `preset="reference"`) replace what stands there. Without `weights` the CSD models on CLIP take the official
    ones. A path is a checkpoint of ours, the .safetensors that training leaves. `device`: "auto" is CUDA, MPS or
    CPU. `dtype`: of weights and arithmetic, such as "bfloat16"; descriptors come out as float32.

    Raises StylesimError for an unknown name or option, weights that are not to be had, and a model whose head has
    never been trained, unless `weights` ask for it.
    """
    if Path(name_or_path).is_file():
        if weights or options:
            raise StylesimError(f"{name_or_path} is a checkpoint: its weights and options cannot be chosen again.")
        from stylesim.encoders.weights.checkpoint import load_checkpoint

        encoder = load_checkpoint(name_or_path)
    else:
        encoder = _build(str(name_or_path), {"weights": weights, **options} if weights else options)
        if not (weights or encoder.provenance.trained_head):
            raise StylesimError(
                f"The head of {name_or_path} is random or a copy of CLIP's until it is trained: pass the checkpoint of "
                f"a run instead of the name, or ask for it all the same with weights={encoder.provenance.weights!r}."
            )
    return _place(encoder, device, dtype)


def model_config(name: str) -> DictConfig:
    """conf/model/<name>.yaml on top of those that its defaults list names; StylesimError for an unknown name."""
    folder = conf_dir() / "model"
    if not (path := folder / f"{name}.yaml").is_file():
        known = sorted(file.stem for file in folder.glob("*.yaml"))
        raise StylesimError(f"There is no file and no model named {name!r}.{suggest(name, known)}")
    own = OmegaConf.load(path)
    assert isinstance(own, DictConfig)
    bases = [model_config(base) for base in own.pop("defaults", []) if base != "_self_"]
    return OmegaConf.merge(*bases, own)  # type: ignore[return-value]


def _build(name: str, options: dict[str, Any]) -> StyleEncoder:
    model = OmegaConf.merge(model_config(name), options)
    cfg = OmegaConf.create({"model": model, "controls": {}, "csd_weights": "official"})
    check_targets(cfg)
    check_model_weights(cfg.model)
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(cfg.model)
    except InstantiationException as error:  # Hydra wraps what a factory says
        if isinstance(error.__cause__, StylesimError):
            raise error.__cause__ from None
        raise


def _place(encoder: StyleEncoder, device: str | torch.device, dtype: str | torch.dtype | None) -> StyleEncoder:
    import torch

    from stylesim.core.devices import pick_device

    if isinstance(dtype, str):
        wanted = getattr(torch, dtype, None)
        if not (isinstance(wanted, torch.dtype) and wanted.is_floating_point):
            raise StylesimError(f"dtype={dtype} is none of float32, bfloat16, float16.")
        dtype = wanted
    return encoder.to(pick_device() if device == "auto" else device, dtype).eval()
