"""StyleModule, the only LightningModule: a `StyleEncoder` that trains with a loss, or only embeds without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import lightning
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stylesim.core.errors import ConfigError, StylesimError
from stylesim.data.batch import Batch
from stylesim.encoders import StyleEncoder
from stylesim.learning.fsdp import shard_encoder, unsharded_weights
from stylesim.learning.gather import gather_batch, sum_shares
from stylesim.learning.grad_clip import clip_gradients
from stylesim.learning.losses import reversal_strength

KEYS_SHOWN = 8
"""How many images of a batch an error message names."""


class StyleModule(lightning.LightningModule):
    """A style encoder trained with a contrastive loss (arXiv 2404.01292, section 4).

    Lightning's automatic optimisation is used. Gradient accumulation adds gradients but *does not add negatives*: the
    images of a micro-batch are contrasted only with each other (on all ranks). `grad_cache` adds negatives without
    using more memory.

    The encoder stays in `eval()` during training, as in the published code: no dropout, frozen batch statistics. This
    also makes the gradient of a micro-batch independent of how it is divided among ranks.

    Args:
        encoder: Images to descriptors.
        loss: `CSDLoss`, or any other module or function without trainable parameters that is called in the same way:
            `loss(views, tags, anchors=anchors)` with the L2-normalised descriptors `[v n d]` of the global batch, its
            multi-hot tags `[n t]` and a slice of its images. Returns the share of these anchors in the loss (the shares
            of all ranks are added up) and a dict of detached scalars to log. If the encoder has a content head, its
            descriptors `[v n d]` are passed as `content=`. None for an encoder that only embeds.
        optim: Called as `optim(encoder, global_batch=..., max_steps=...)`; returns an optimiser and a scheduler.
        gather: Gradient across ranks: `exact`, or `reference` (the published code's, divided by the world size).
        clip_norm: Largest gradient norm; None does not clip.
        clip_mode: `global`, one norm over all parameters, or `per_tensor`, one for each (the published code's).
        grad_checkpointing: Recompute activations in the backward pass: less memory, about a third more time.
        grad_cache: Number of images whose activations are in memory at a time; None is the whole batch. The batch is
            embedded in chunks and compared as a whole, and each chunk is embedded again for the backward pass. This
            takes about a third more time, and only descriptors limit the batch size (GradCache, arXiv 2101.06983).
        compile: Apply `torch.compile` to the backbone in place (the keys of checkpoints do not change).

    Raises:
        ConfigError: If `grad_cache` is not positive, the loss has trainable parameters, or its `content_weight` is
            above 0 and the encoder has no content head.
    """

    def __init__(
        self,
        encoder: StyleEncoder,
        loss: Callable[..., tuple[Tensor, dict[str, Tensor]]] | None = None,
        optim: Callable[..., tuple[Any, Any]] | None = None,
        *,
        gather: Literal["exact", "reference"] = "exact",
        clip_norm: float | None = None,
        clip_mode: Literal["global", "per_tensor"] = "global",
        grad_checkpointing: bool = False,
        grad_cache: int | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        _check_loss(loss, encoder)
        if grad_cache is not None and grad_cache < 1:
            raise ConfigError(f"learning.grad_cache must be a positive integer or null, got {grad_cache}.")
        self.encoder = encoder
        self.loss, self.optim = loss, optim
        self.gather: Literal["exact", "reference"] = gather
        self.clip_norm = clip_norm
        self.clip_mode: Literal["global", "per_tensor"] = clip_mode
        self.grad_cache = grad_cache
        self.samples_seen = 0
        if grad_checkpointing:
            encoder.set_grad_checkpointing(True)
        # Convolutions on a CPU are nearly twice as fast in this memory format, and no slower on a GPU.
        encoder.to(memory_format=torch.channels_last)
        if compile:  # only the backbone: training calls it through heads(), embedding through forward()
            encoder.get_submodule("backbone").compile()

    def configure_model(self) -> None:
        """Shard the encoder among the processes of `trainer.strategy=fsdp`."""
        if self.device_mesh is not None:  # trainer.strategy=fsdp
            shard_encoder(self.encoder, self.device_mesh)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the L2-normalised descriptors of normalised images."""
        return self.encoder(images)

    def train(self, mode: bool = True) -> StyleModule:
        """Set the training mode of all parts but the encoder, which stays in `eval()` (see the class)."""
        super().train(mode)
        self.encoder.eval()
        return self

    def on_fit_start(self) -> None:
        """Check that the encoder accepts images of the size of the training views.

        Raises:
            ConfigError: If it does not.
        """
        size, expected = self.trainer.datamodule.views.size, self.encoder.preprocessing.size  # type: ignore[attr-defined]
        if size == expected:
            return
        # A convolutional network can train on smaller views than it embeds; one with position embeddings cannot.
        try:
            with torch.no_grad(), unsharded_weights(self.encoder):
                self.encoder(torch.zeros(1, 3, size, size, device=self.device))
        except Exception as error:  # each backbone raises its own kind of error for a wrong size
            raise ConfigError(
                f"views.size must be {expected} px, the only size that {self.encoder.provenance.name} accepts, got"
                f" {size}: set views.size={expected} (by default it follows model.image_size)."
            ) from error

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of the global batch, the same on every rank."""
        assert self.loss is not None
        n_views = len(batch.views)
        alpha = reversal_strength(self.trainer.global_step / max(1, self.trainer.max_steps))
        # One gather for both heads: descriptors of the content head, if there is one, follow those of the style head.
        views, tags, anchors = gather_batch(self.embed_views(batch.views, alpha), batch.tags)
        content = {"content": views[n_views:]} if len(views) > n_views else {}
        total, parts = self.loss(views[:n_views], tags, anchors=anchors, **content)
        total, *sums = sum_shares(torch.stack([total, *(part.detach() for part in parts.values())]), self.gather)
        self._check_finite(total, batch)
        self.samples_seen += len(tags)
        metrics = zip(["loss", *parts], (total, *sums), strict=True)
        self.log_dict({f"train/{name}": metric.detach() for name, metric in metrics})
        self.log("train/loss_shown", total.detach(), prog_bar=True, logger=False)
        self.log("samples_seen", float(self.samples_seen))
        return total

    def embed_views(self, views: UInt8[Tensor, "v b 3 h w"], alpha: float) -> Float[Tensor, "w b d"]:
        """Return the style descriptors of raw views, followed by their content descriptors if there is such a head.

        Args:
            views: Pixels in [0, 255], not normalised.
            alpha: Strength of the gradient reversal before the content head, in [0, 1].

        Returns:
            `w` is `v`, or `2v` with a content head.
        """

        def embed(chunk: UInt8[Tensor, "v c 3 h w"]) -> Float[Tensor, "w c d"]:
            images = self.encoder.preprocessing.normalise(chunk.flatten(0, 1)).to(self.encoder.dtype)
            heads = self.encoder.heads(images.contiguous(memory_format=torch.channels_last), alpha=alpha)
            return torch.cat([head.unflatten(0, chunk.shape[:2]) for head in heads if head is not None])

        if self.grad_cache is None:
            return embed(views)
        # The backward pass recomputes one chunk after another, and gradients are complete after the last one, so
        # DDP, clipping and accumulation work as usual. RNG state is not kept, because eval() draws no random numbers.
        chunks = views.split(self.grad_cache, dim=1)
        if self.device_mesh is not None:
            # Each call gathers the sharded weights, which is a collective, so all ranks must make equally many calls. A
            # rank with a short batch adds calls without images.
            batch_size = self.trainer.datamodule.batch_size  # type: ignore[attr-defined]
            chunks += (views[:, :0],) * (-(-batch_size // self.grad_cache) - len(chunks))
        embedded = [checkpoint(embed, chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]
        return torch.cat(embedded, dim=1)

    def _check_finite(self, total: Tensor, batch: Batch) -> None:
        if torch.isfinite(total):
            return
        more = f" and {len(batch.keys) - KEYS_SHOWN} more" if len(batch.keys) > KEYS_SHOWN else ""
        raise StylesimError(
            f"The loss is {float(total)} at step {self.trainer.global_step}, so the run stops; its last good"
            f" checkpoint is kept. Images of this batch on rank {self.global_rank}:"
            f" {', '.join(batch.keys[:KEYS_SHOWN])}{more}."
            " Check these images, lower optim.head_lr and optim.backbone_lr, or use trainer.precision=32-true."
        )

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its schedule, whose learning rates are scaled to the global batch."""
        assert self.optim is not None
        trainer = self.trainer
        batch_size = trainer.datamodule.batch_size  # type: ignore[attr-defined]
        optimizer, scheduler = self.optim(
            self.encoder,
            global_batch=batch_size * trainer.world_size * trainer.accumulate_grad_batches,
            max_steps=trainer.max_steps,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip the gradients as `clip_norm` and `clip_mode` say, and log their norm.

        Raises:
            StylesimError: If the norm is not finite.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        max_norm = float("inf") if self.clip_norm is None else self.clip_norm
        norm = clip_gradients(parameters, max_norm, self.clip_mode)
        # Under fp16 the gradient scaler skips such a step itself.
        if self.trainer.precision != "16-mixed" and not torch.isfinite(norm):
            raise StylesimError(
                f"The gradient norm is {float(norm)} at step {self.trainer.global_step}, so the run stops before this"
                " step is taken. Lower optim.head_lr and optim.backbone_lr, or set learning.clip_norm."
            )
        self.log("train/grad_norm", norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the number of samples seen and the encoder's configuration to a checkpoint."""
        checkpoint["samples_seen"] = self.samples_seen
        checkpoint["encoder_config"] = self.encoder.config  # the activation of a CLIP tower is not in its tensors

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the number of samples seen."""
        self.samples_seen = checkpoint["samples_seen"]


def _check_loss(loss: Any, encoder: StyleEncoder) -> None:
    if isinstance(loss, nn.Module) and any(parameter.requires_grad for parameter in loss.parameters()):
        raise ConfigError(
            f"The loss {type(loss).__name__} has trainable parameters, which would not be trained, because optimisers"
            " get only the parameters of the encoder. Set requires_grad=False, or make them part of the encoder."
        )
    content_weight = getattr(loss, "content_weight", 0)
    if content_weight and getattr(encoder, "content_head", None) is None:
        raise ConfigError(
            f"loss.content_weight={content_weight} needs a content head, but {encoder.provenance.name} has none."
            " Set model.content_head=true, or loss.content_weight=0."
        )
