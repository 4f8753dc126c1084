"""Load an encoder by the name of its configuration, or from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from stylesim.core.conf import conf_dir
from stylesim.core.errors import ConfigError, StylesimError, WeightsError
from stylesim.core.targets import check_targets
from stylesim.core.wording import suggest
from stylesim.encoders.weights.weight_keywords import check_model_weights

if TYPE_CHECKING:
    import torch

    from stylesim.core.images import Colour
    from stylesim.encoders.style_encoder import StyleEncoder


def load_encoder(
    name_or_path: str | Path,
    *,
    weights: str | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    colour: Colour | None = None,
    **options: Any,
) -> StyleEncoder:
    """Load an encoder in evaluation mode.

    `load_encoder("csd_vitl")` is the released CSD model. Its README states that these weights do not reproduce the
    numbers of Table 1 of the paper. `csd_vitb` was never released and needs a checkpoint. `list_models()` lists all
    names.

    Args:
        name_or_path: Name of a configuration in conf/model, or a checkpoint: a .safetensors file of a training run.
        weights: Keyword or file of weights, instead of the configured ones. By default the CSD models on CLIP use the
            official weights.
        device: Device; "auto" is CUDA, MPS or CPU.
        dtype: Dtype of weights and arithmetic, such as "bfloat16". Descriptors are float32 in any case.
        colour: What to do with embedded colour profiles: `srgb` converts them, `raw` ignores them. None keeps the
            encoder's own setting.
        **options: Further options of the configuration, such as `image_size=336` or `preset="reference"`.

    Raises:
        ConfigError: If the name, an option or the dtype is unknown, or the device is not available.
        WeightsError: If the weights cannot be obtained or do not fit, or the style head has not been trained and
            `weights` is not given.

    Example:
        >>> encoder = load_encoder("csd_vitl")
        >>> descriptors = encoder.encode(["a.jpg", "b.jpg"])  # [2 768], L2-normalised
        >>> similarity = descriptors[0] @ descriptors[1]
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        if weights or options:
            raise ConfigError(f"{name_or_path} is a checkpoint, so weights and options cannot be changed.")
        from stylesim.encoders.weights.checkpoint import load_checkpoint

        encoder = load_checkpoint(path)
    else:
        encoder = _build(str(name_or_path), {"weights": weights, **options} if weights else options)
        if not (weights or encoder.provenance.trained_head):
            raise WeightsError(
                f"The style head of {name_or_path} has not been trained: pass the checkpoint of a run instead of the "
                f"name, or weights={encoder.provenance.weights!r} to use the model anyway."
            )
    encoder.use_colour(colour)
    return _move(encoder, device, dtype)


def model_config(name: str) -> DictConfig:
    """Return conf/model/<name>.yaml, merged with the files that its defaults list names.

    Raises:
        ConfigError: If there is no such file.
    """
    folder = conf_dir() / "model"
    if not (path := folder / f"{name}.yaml").is_file():
        if Path(name).expanduser().is_dir():
            raise ConfigError(
                f"{name} is a folder: name the file in it, such as checkpoints/best.safetensors of a run."
            )
        known = sorted(file.stem for file in folder.glob("*.yaml"))
        raise ConfigError(f"There is no file and no model named {name!r}.{suggest(name, known)}")
    own = OmegaConf.load(path)
    assert isinstance(own, DictConfig)
    bases = [model_config(base) for base in own.pop("defaults", []) if base != "_self_"]
    return OmegaConf.merge(*bases, own)  # type: ignore[return-value]


def _build(name: str, options: dict[str, Any]) -> StyleEncoder:
    model = OmegaConf.merge(model_config(name), options)
    cfg = OmegaConf.create({"model": model, "csd_weights": "official"})
    check_targets(cfg)
    check_model_weights(cfg.model)
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(cfg.model)
    except InstantiationException as error:  # Hydra wraps the error of a factory
        if isinstance(error.__cause__, StylesimError):
            raise error.__cause__ from None
        raise


def _move(encoder: StyleEncoder, device: str | torch.device, dtype: str | torch.dtype | None) -> StyleEncoder:
    import torch

    from stylesim.core.devices import find_device

    if isinstance(dtype, str):
        named = getattr(torch, dtype, None)
        if not (isinstance(named, torch.dtype) and named.is_floating_point):
            raise ConfigError(f"dtype must be one of float32, bfloat16, float16, got {dtype!r}.")
        dtype = named
    return encoder.to(find_device(device), dtype).eval()
