"""The one LightningModule: any `StyleEncoder`, with a loss where it trains and without one where it only describes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import lightning
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from stylesim.core.errors import StylesimError
from stylesim.data.batch import Batch
from stylesim.encoders import StyleEncoder
from stylesim.learning.fsdp import shard, whole_weights
from stylesim.learning.gather import gather_batch, sum_shares
from stylesim.learning.grad_clip import clip_gradients
from stylesim.learning.losses import content_loss, reversal_strength


class StyleModule(lightning.LightningModule):
    """A style encoder under a contrastive loss (arXiv 2404.01292, section 4).

    Optimisation is Lightning's automatic one. Gradient accumulation adds gradients and *does not enlarge the set of
    negatives*: each micro-batch is contrasted within itself (and across ranks). What enlarges it in the same memory is
    `grad_cache`.

    The encoder stays in `eval()` while it trains, as in the published code: no dropout, frozen batch statistics. That
    is also what makes a micro-batch's gradient independent of how it is cut over ranks.

    Args:
        encoder: Images to descriptors.
        loss: `(views [v n d], tags [n t], anchors=) -> (total, parts)`: the share of the images `anchors` in the loss
            of the global batch (see `losses.csd_loss`); None for an encoder that only describes.
        optim: `(encoder, global_batch=, max_steps=) -> (optimizer, scheduler)`.
        gather: Gradient across ranks, `exact`, or `reference` (the published code's: divided by the world size).
        clip_norm: Largest gradient norm; None does not clip.
        clip_mode: `global`, one norm over all parameters, or `per_tensor`, one for each (the published code's).
        content_weight: Weight of the adversarial content path (the paper's lambda_c); needs an encoder with a content
            head. It contrasts the style views; the published code gives it views of its own, one changed in colour.
        grad_checkpointing: Recompute activations in the backward pass: less memory, about a third more time.
        grad_cache: Images whose activations the encoder holds at once; None is the whole batch. The batch is described
            chunk by chunk, compared as a whole, and each chunk described again when its gradient is due: about a third
            more time, for a batch as large as its descriptors allow (GradCache, arXiv 2101.06983).
        compile: `torch.compile` the encoder in place (checkpoint keys keep their names).
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
        content_weight: float = 0.0,
        grad_checkpointing: bool = False,
        grad_cache: int | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.loss, self.optim = loss, optim
        self.gather: Literal["exact", "reference"] = gather
        self.clip_norm = clip_norm
        self.clip_mode: Literal["global", "per_tensor"] = clip_mode
        self.content_weight = content_weight
        self.grad_cache = grad_cache
        self.samples_seen = 0
        if content_weight and getattr(encoder, "content_head", None) is None:
            raise StylesimError(
                f"learning.content_weight={content_weight} needs a content head, which {encoder.provenance.name}"
                " has not: add model.content_head=true, or set learning.content_weight=0."
            )
        if grad_cache is not None and grad_cache < 1:
            raise StylesimError(f"learning.grad_cache={grad_cache} images at once are none: give 1 at least, or null.")
        if grad_checkpointing:
            encoder.set_grad_checkpointing(True)
        # Convolutions on a CPU are nearly twice as fast in this order, and no slower on a GPU.
        encoder.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if compile:  # the backbone alone: training calls it through heads(), describing through forward()
            encoder.get_submodule("backbone").compile()

    def configure_model(self) -> None:
        if self.device_mesh is not None:  # trainer.strategy=fsdp
            shard(self.encoder, self.device_mesh)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Descriptors of normalised images."""
        return self.encoder(images)

    def train(self, mode: bool = True) -> StyleModule:
        """Switches gradients' bookkeeping only: the encoder stays in `eval()` (see the class)."""
        super().train(mode)
        self.encoder.eval()
        return self

    def on_fit_start(self) -> None:
        views, wanted = self.trainer.datamodule.views.size, self.encoder.preprocessing.size  # type: ignore[attr-defined]
        if views == wanted:
            return
        # A network of convolutions may learn from smaller views than it describes; one with positions may not.
        try:
            with torch.no_grad(), whole_weights(self.encoder):
                self.encoder(torch.zeros(1, 3, views, views, device=self.device))
        except Exception as error:  # every backbone refuses a wrong size in its own way
            raise StylesimError(
                f"The views are {views} px and {self.encoder.provenance.name} takes {wanted} px alone:"
                f" set views.size={wanted} (its default follows model.image_size)."
            ) from error

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        assert self.loss is not None
        n_views = len(batch.views)
        alpha = reversal_strength(self.trainer.global_step / max(1, self.trainer.max_steps))
        # One gather: the content head's views, if there are any, travel behind the style head's.
        views, tags, mine = gather_batch(self.describe_views(batch.views, alpha), batch.tags)
        total, parts = self.loss(views[:n_views], tags, anchors=mine)
        if self.content_weight:
            settings = {k: v for k, v in self.loss.keywords.items() if k in ("temperature", "reference")}  # type: ignore[attr-defined]
            parts["content"] = content_loss(views[n_views:], anchors=mine, **settings)
            total = total + self.content_weight * parts["content"]
        total, *shown = sum_shares(torch.stack([total, *(part.detach() for part in parts.values())]), self.gather)
        self._refuse_non_finite(total, batch)
        # The loss is that of the global batch, the same on every rank; so is this count.
        self.samples_seen += len(tags)
        metrics = zip(["loss", *parts], (total, *shown), strict=True)
        self.log_dict({f"train/{name}": metric.detach() for name, metric in metrics})
        self.log("train/loss_shown", total.detach(), prog_bar=True, logger=False)
        self.log("samples_seen", float(self.samples_seen))
        return total

    def describe_views(self, views: UInt8[Tensor, "v b 3 h w"], alpha: float) -> Float[Tensor, "w b d"]:
        """Style descriptors of raw views, and behind them the content descriptors of those with such a head."""

        def describe(some: UInt8[Tensor, "v c 3 h w"]) -> Float[Tensor, "w c d"]:
            images = self.encoder.preprocessing.normalise(some.flatten(0, 1)).to(self.encoder.dtype)
            heads = self.encoder.heads(images.contiguous(memory_format=torch.channels_last), alpha=alpha)
            return torch.cat([head.unflatten(0, some.shape[:2]) for head in heads if head is not None])

        if self.grad_cache is None:
            return describe(views)
        # Backward recomputes one chunk after the other, and a parameter's gradient is whole when they are through:
        # DDP, clipping and accumulation see an ordinary step. Nothing in an encoder that is in eval() is random.
        chunks = views.split(self.grad_cache, dim=1)
        if self.device_mesh is not None:
            # Every process puts divided weights together as often as the others: where its batch is short, for nothing.
            whole = self.trainer.datamodule.batch_size  # type: ignore[attr-defined]
            chunks += (views[:, :0],) * (-(-whole // self.grad_cache) - len(chunks))
        return torch.cat(
            [checkpoint(describe, c, use_reentrant=False, preserve_rng_state=False) for c in chunks], dim=1
        )

    def _refuse_non_finite(self, total: Tensor, batch: Batch) -> None:
        if torch.isfinite(total):
            return
        shown = ", ".join(batch.keys[:8]) + (f" and {len(batch.keys) - 8} more" if len(batch.keys) > 8 else "")
        raise StylesimError(
            f"The loss is {float(total)} at step {self.trainer.global_step}, so the run is stopped; its last good"
            f" checkpoint is kept. Images of this batch on rank {self.global_rank}: {shown}."
            " Look at them, lower optim.head_lr and optim.backbone_lr, or use trainer.precision=32-true."
        )

    def configure_optimizers(self) -> Any:
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
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        limit = float("inf") if self.clip_norm is None else self.clip_norm
        norm = clip_gradients(parameters, limit, self.clip_mode)
        if self.trainer.precision != "16-mixed" and not torch.isfinite(norm):  # fp16's scaler skips such a step itself
            raise StylesimError(
                f"The gradient's norm is {float(norm)} at step {self.trainer.global_step}, so the run is stopped"
                " before the step is taken. Lower optim.head_lr and optim.backbone_lr, or set learning.clip_norm."
            )
        self.log("train/grad_norm", norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["samples_seen"] = self.samples_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.samples_seen = checkpoint["samples_seen"]
