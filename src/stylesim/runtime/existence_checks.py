"""Check that the images and weights that a configuration names exist, before anything heavy is imported."""

from __future__ import annotations

from os.path import expanduser
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from stylesim.core.errors import ConfigError, WeightsError
from stylesim.data.roots import Root, name_roots


def check_checkpoint(path: str) -> None:
    """Raise ConfigError if there is no such checkpoint."""
    if not Path(path).is_file():
        raise ConfigError(f"checkpoint must be an existing file, got {path}. Runs write checkpoints/best.safetensors.")


def check_encoders(cfg: DictConfig) -> None:
    """Check that the weights of the model and of its controls are here or can be downloaded.

    Args:
        cfg: A configuration with `model`, and optionally `checkpoint` (which takes the model's place), `controls` and
            `allow_untrained`.

    Raises:
        ConfigError: If the checkpoint does not exist, or a control is not an encoder.
        WeightsError: If weights are missing, or a control's style head is untrained.
    """
    checkpoint, controls = cfg.get("checkpoint"), cfg.get("controls", {})
    if checkpoint:
        check_checkpoint(checkpoint)
    for name, node in controls.items():
        if not (OmegaConf.is_dict(node) and "_target_" in node):
            raise ConfigError(f"controls.{name} must be an encoder: add +model@controls.{name}=NAME to the command.")
        untrained = node._target_.endswith(".csd_clip") and node.get("weights") in ("clip", "random")
        if untrained and not cfg.get("allow_untrained"):
            raise WeightsError(
                f"controls.{name}: with weights={node.weights} the style head is untrained, so its metrics mean"
                f" nothing. Set controls.{name}.weights=official (ViT-L only), or to the path of a checkpoint."
            )
    nodes = {} if checkpoint else {"model": cfg.model}
    from stylesim.encoders.weights.weight_keywords import check_model_weights

    for key, node in {**nodes, **{f"controls.{name}": node for name, node in controls.items()}}.items():
        check_model_weights(node, f"{key}.")


def check_training_data(cfg: DictConfig) -> None:
    """Check that the local folders of the training data exist.

    Raises:
        ConfigError: If one does not.
    """
    data = OmegaConf.to_container(cfg.data, resolve=True)
    assert isinstance(data, dict)
    locations = [data["root"]] if isinstance(data["root"], str) else list(data["root"])
    hint = (
        "Name a folder of shards (index those that img2dataset has written with `stylesim index folder=...`), or pack a"
        " folder of images with `stylesim pack source=... out=...`."
    )
    if str(data["_target_"]).endswith("FolderDataModule"):
        hint = "Name a folder with a sub-folder for each label, or a table of paths and tags (.csv, .tsv, .parquet)."
    for location in locations:
        _require_root(Root(location, "data.root"), "data.root", hint)


def check_images(cfg: DictConfig, key: str) -> list[Root]:
    """Return the image sources that a key names.

    Args:
        cfg: The composed configuration.
        key: A key whose value is a location or a list of locations.

    Raises:
        ConfigError: If a local one does not exist.
        DataError: If a folder holds neither images nor shards nor descriptors.
    """
    locations = cfg[key] if OmegaConf.is_list(cfg[key]) else [cfg[key]]
    return require_images(name_roots([expanduser(str(location)) for location in locations]), key)


def require_images(roots: list[Root], key: str) -> list[Root]:
    """Return image sources that a key names, after a check that each local one exists and holds images.

    Raises:
        ConfigError: If a local one does not exist.
        DataError: If a folder holds neither images nor shards nor descriptors.
    """
    for root in roots:
        _require_root(
            root, key, "Name a folder of images, a table of their paths (.csv, .tsv, .parquet), or a folder of shards."
        )
        folder = root.folder
        if folder is not None and folder.is_dir():
            from stylesim.data.datasets.folder import lacks_images, no_image  # imports no torch

            if lacks_images(folder):
                raise no_image(folder)
    return roots


def check_database(location: str) -> None:
    """Check that a style database exists, if it is in a folder.

    Args:
        location: A folder, or the URL of a server, which is not asked.

    Raises:
        ConfigError: If there is none.
    """
    from stylesim.retrieval.database.backends.backend import is_url  # imports no torch
    from stylesim.retrieval.database.backends.lance_backend import ABOUT

    folder = Path(expanduser(location))
    if not is_url(location) and not (folder / ABOUT).is_file():
        reason = f"has no {ABOUT}" if folder.exists() else "does not exist"
        raise ConfigError(f"db must be a style database, got {location}, which {reason}. Build one: stylesim ingest.")


def find_database(location: str | list[str]) -> str | None:
    """Return where a style database is, if the location of a gallery names one; a server is not asked."""
    from stylesim.retrieval.database.backends.backend import is_url  # imports no torch
    from stylesim.retrieval.database.backends.lance_backend import ABOUT

    if not isinstance(location, str):
        return None
    location = expanduser(location)
    return location if is_url(location) or (Path(location) / ABOUT).is_file() else None


def _require_root(root: Root, key: str, hint: str) -> None:
    """Raise ConfigError if a local root does not exist."""
    if root.folder is not None and not root.folder.exists():
        absolute = str(root.folder.absolute())
        shown = root.location if root.location == absolute else f"{root.location} ({absolute})"
        raise ConfigError(f"{key} must exist, got {shown}. {hint}")
