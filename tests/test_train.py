from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import wandb
from conftest import overrides_for
from filelock import FileLock
from omegaconf import DictConfig
from safetensors.torch import load_file
from wandb.errors import UsageError

from stylesim import train
from stylesim.core.errors import StylesimError
from stylesim.core.files import sha256_of_text
from stylesim.curation.deduplicate.contamination_note import write_note
from stylesim.encoders import load_checkpoint
from stylesim.encoders.weights.checkpoint import save_weights

STEPS = 24
LEARNING = ["learning.clip_norm=0.5", "optim.head_lr=1.0", "optim.backbone_lr=0.1"]
SHARDED = ["trainer=fsdp", "trainer.devices=2", *LEARNING]
"""Two ranks with half of each weight, gradient and momentum."""


def command(shards: Path, *more: str) -> list[str]:
    overrides = overrides_for(
        shards,
        f"trainer.max_steps={STEPS}",
        "trainer.accumulate_grad_batches=2",
        "data.workers=2",
        "data.probes.validation.every_n_steps=12",
        "callbacks.checkpoints.every_n_steps=3",
        *more,
    )
    return [sys.executable, "-m", "stylesim.train", *overrides]


@pytest.fixture(scope="module")
def uninterrupted(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of an uninterrupted run with these overrides; each is run once, by one of pytest-xdist's workers."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def run(*more: str) -> Path:
        folder = shared / f"uninterrupted_{sha256_of_text(' '.join(more))}"
        folder.mkdir(exist_ok=True)
        with FileLock(folder / "lock"):
            if not (folder / "whole" / "metrics.json").exists():
                subprocess.run(command(shards, "hydra.run.dir=whole", *more), cwd=folder, check=True, timeout=300)
        return folder / "whole"

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "code", "more"),
    [
        (signal.SIGKILL, -9, []),
        (signal.SIGTERM, 143, []),
        # Ctrl-C reaches every process of a terminal: here two ranks, which also average their weights, embed their
        # batches in chunks and balance them by tags.
        (
            signal.SIGINT,
            130,
            ["trainer=ddp_cpu", "callbacks=ema", "optim=adamw", "learning.grad_cache=4", "data.balance=3x2"],
        ),
        (signal.SIGTERM, 143, SHARDED),
    ],
)
def test_stopped_and_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    signum: signal.Signals,
    code: int,
    more: list[str],
    shards: Path,
    uninterrupted: Callable[..., Path],
    tmp_path: Path,
) -> None:
    process = subprocess.Popen(
        command(shards, *more), cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (found := list(tmp_path.glob("outputs/*/*/checkpoints/last.ckpt"))):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
    os.killpg(process.pid, signum)
    stderr = process.communicate(timeout=120)[1]
    assert process.returncode == code
    run = found[0].parents[1]
    assert not (run / "metrics.json").exists(), "the run was over before it could be stopped"
    if signum != signal.SIGKILL:
        assert "stopped by a signal after step" in stderr
        assert "resume=true" in stderr
    subprocess.run([*command(shards, *more), "resume=true"], cwd=tmp_path, check=True, timeout=300)
    assert [p.parent for p in tmp_path.glob("outputs/**/metrics.json")] == [run], "it goes on in its own folder"
    whole, resumed = (load_file(r / "checkpoints" / "last.safetensors") for r in (uninterrupted(*more), run))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    metrics, again = (json.loads((r / "metrics.json").read_text()) for r in (uninterrupted(*more), run))
    assert metrics == again
    steps = [int(row["step"]) for row in csv.DictReader((run / "metrics.csv").open()) if row["train/loss"]]
    assert steps == list(range(STEPS)), "the log has every step once"


@pytest.mark.slow
def test_fsdp_ends_with_the_weights_of_ddp(uninterrupted: Callable[..., Path]) -> None:
    runs = uninterrupted("trainer=ddp_cpu", *LEARNING), uninterrupted(*SHARDED)
    whole, divided = (load_file(run / "checkpoints" / "last.safetensors") for run in runs)
    torch.testing.assert_close(divided, whole, atol=1e-5, rtol=1e-5)
    states = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in runs]
    for kept in (lambda state: state["state_dict"], lambda state: state["optimizer_states"][0]["state"]):
        torch.testing.assert_close(kept(states[1]), kept(states[0]), atol=1e-5, rtol=1e-5)
    metrics = [json.loads((run / "metrics.json").read_text()) for run in runs]
    assert metrics[0] == metrics[1]


@pytest.mark.slow
@pytest.mark.parametrize("fsdp_first", [True, False])
def test_run_continues_with_another_strategy(
    fsdp_first: bool, uninterrupted: Callable[..., Path], shards: Path, tmp_path: Path
) -> None:
    whole = ["trainer=ddp_cpu", *LEARNING]
    before, after = (SHARDED, whole) if fsdp_first else (whole, SHARDED)
    half = ["hydra.run.dir=it's [run]", "trainer.max_steps=4"]
    subprocess.run(command(shards, *before, *half), cwd=tmp_path, check=True, timeout=300)
    rest = [*after, f"trainer.max_steps={STEPS}", "resume=it's [run]", "hydra.run.dir=unused"]
    subprocess.run(command(shards, *rest), cwd=tmp_path, check=True, timeout=300)
    resumed = load_file(tmp_path / "it's [run]" / "checkpoints" / "last.safetensors")
    expected = load_file(uninterrupted(*whole) / "checkpoints" / "last.safetensors")
    torch.testing.assert_close(resumed, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_views_cut_on_the_device_give_the_same_weights(uninterrupted: Callable[..., Path]) -> None:
    runs = uninterrupted(), uninterrupted("views.on_device=true")
    plain, late = (load_file(run / "checkpoints" / "last.safetensors") for run in runs)
    assert all(torch.equal(plain[name], late[name]) for name in plain)


def test_resume_without_a_matching_run_is_refused(shards: Path, tmp_path: Path) -> None:
    done = subprocess.run([*command(shards), "resume=true"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "no run folder with this configuration" in done.stderr


@pytest.mark.slow
def test_run_leaves_weights_metrics_and_a_report(composed: Callable[..., DictConfig]) -> None:
    cfg = composed("+model@controls.colour=color_histogram", "controls.colour.image_size=32")
    metrics = train.main(cfg)
    run = Path(cfg.run_dir)
    assert 0 <= metrics["validation/recall@1"] <= 1
    assert "validation/content_recall@1" in metrics
    assert "colour/validation/recall@1" in metrics
    for name in ("report.html", "table.csv", "metrics.csv", "galleries/validation.png"):
        assert (run / name).stat().st_size > 0
    best = load_checkpoint(run / "checkpoints" / "best.safetensors")
    assert best.provenance.trained_head
    assert best.provenance.trained_on == f"{cfg.data.root} (cleared of no evaluation set)"
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    seen = [float(row["samples_seen"]) for row in rows if row.get("train/loss")]
    assert seen == [6.0 * (i + 1) for i in range(6)]
    assert all(0 <= float(row["throughput/waiting"]) <= 1 for row in rows if row.get("throughput/waiting"))


def test_weights_state_what_their_training_images_were_cleared_of(
    composed: Callable[..., DictConfig], shards: Path, tmp_path: Path
) -> None:
    root = tmp_path / "cleared"
    shutil.copytree(shards / "train", root)
    write_note(
        root,
        {"name": "SSCD", "weights": "official", "preprocessing": {"size": 288}},
        0.8,
        {"wikiart": {"images": 80096, "dropped": 3}},
    )
    module, _ = train.build(composed(f"data.root={root}"))
    path = tmp_path / "weights.safetensors"
    save_weights(module.encoder, path)
    told = load_checkpoint(path).provenance.trained_on
    assert told is not None
    assert told.startswith(f"{root} (cleared of wikiart: 3 images within 0.8 (inner product of SSCD")


def test_infinite_loss_stops_the_run_names_its_images_and_keeps_good_weights(
    composed: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylesim.learning.style_module import StyleModule

    def set_to_nan(module: StyleModule, batch: object, batch_idx: int) -> None:
        if batch_idx == 3:
            for parameter in module.parameters():
                parameter.data.fill_(float("nan"))

    monkeypatch.setattr(StyleModule, "on_train_batch_start", set_to_nan)
    cfg = composed("callbacks.checkpoints.every_n_steps=1")
    with pytest.raises(StylesimError) as error:
        train.main(cfg)
    assert "at step 3" in str(error.value)
    assert "train/0000" in str(error.value)
    kept = torch.load(Path(cfg.run_dir) / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 2, "the last state with a finite loss"
    cfg.resume = True
    with pytest.raises(StylesimError, match="at step 3"):
        train.main(cfg)
    again = torch.load(Path(cfg.run_dir) / "checkpoints" / "last.ckpt", weights_only=True)
    assert again["global_step"] == 2, "a state that was never checked does not become the last one"
    assert all(torch.isfinite(value).all() for value in kept["state_dict"].values())


def test_running_out_of_memory_names_a_batch_size(
    composed: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylesim.encoders.csd_encoder import CSDEncoder

    def exhausted(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(CSDEncoder, "heads", exhausted)
    with pytest.raises(StylesimError, match=r"data\.batch_size=3"):
        train.main(composed())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("views.size=64", "set views.size=32"),
        ("data.root=/no/such/folder", "/no/such/folder"),
        ("loss.content_weight=0.1", "model.content_head=true"),
        ("data.tags=['artist:*']", "artist:"),
        ("data.batch_size=500", "500"),
        ("model.image_size=30", "30"),
        ("trainer.max_steps=0", "trainer.max_steps must be a positive integer, got 0."),
    ],
)
def test_impossible_settings_are_refused_in_a_sentence(
    override: str, message: str, composed: Callable[..., DictConfig]
) -> None:
    from stylesim.runtime.hydra_errors import explain

    with pytest.raises(Exception) as error:  # noqa: PT011  (Hydra wraps what a constructor raises)
        train.main(composed(override))
    assert message in str(explain(error.value))


def test_evaluation_sets_are_refused_as_training_data(shards: Path, composed: Callable[..., DictConfig]) -> None:
    cfg = composed("data=shards", f"data.root={shards / 'train'}", config="evaluate")
    training = composed()
    training.data = cfg.data
    with pytest.raises(StylesimError, match="got TaggedSets, which is for evaluation only"):
        train.main(training)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["model.content_head=true", "loss.content_weight=0.1"],
        [
            "loss=csd_reference",
            "learning.gather=reference",
            "learning.clip_norm=3.0",
            "learning.clip_mode=per_tensor",
        ],
        ["callbacks=ema", "optim=adamw"],
        ["learning.grad_checkpointing=true", "trainer.precision=bf16-mixed"],
        ["debug=overfit", "trainer.max_steps=4"],
        ["debug=fast_dev_run"],
    ],
    ids=lambda o: o[0],
)
def test_every_way_of_training_runs(overrides: list[str], composed: Callable[..., DictConfig]) -> None:
    assert train.main(composed(*overrides))["validation/queries"] == 18


def test_profiler_prints_and_writes_its_table(
    composed: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = composed("debug=profiler", "trainer.max_steps=2")
    train.main(cfg)
    assert "run_training_epoch" in capsys.readouterr().out
    assert "run_training_epoch" in (Path(cfg.run_dir) / "fit-profile.txt").read_text()


@pytest.mark.slow
def test_new_run_refuses_the_folder_of_another_one(composed: Callable[..., DictConfig]) -> None:
    cfg = composed("trainer.max_steps=2")
    train.main(cfg)
    run = Path(cfg.run_dir)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with pytest.raises(StylesimError, match=r"run holds the results of another run .*best|checkpoints") as error:
        train.main(composed("trainer.max_steps=4", "seed=1", "~data.probes.validation"))
    assert "hydra.run.dir=PATH" in str(error.value)
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


@pytest.mark.slow
def test_resuming_warns_of_no_deleted_files(
    composed: Callable[..., DictConfig], recwarn: pytest.WarningsRecorder
) -> None:
    train.main(composed("trainer.max_steps=2"))
    train.main(composed("trainer.max_steps=4", "resume=true"))
    assert not [str(w.message) for w in recwarn if "log files" in str(w.message)]


def test_training_without_a_retrieval_set_keeps_the_last_weights(
    composed: Callable[..., DictConfig],
) -> None:
    cfg = composed("~data.probes.validation")
    assert train.main(cfg) == {}
    best, last = (load_file(Path(cfg.run_dir) / "checkpoints" / f"{name}.safetensors") for name in ("best", "last"))
    assert all(torch.equal(best[name], last[name]) for name in last)


@pytest.mark.slow
def test_wandb_run_has_an_id_of_its_own_which_a_resumed_run_keeps(composed: Callable[..., DictConfig]) -> None:
    cfg = composed("logger=wandb", "logger.wandb.offline=true", "trainer.max_steps=2")
    ids = []
    for steps, resume in ((2, False), (4, True), (2, False)):
        if not resume:
            shutil.rmtree(cfg.run_dir, ignore_errors=True)
        cfg.trainer.max_steps, cfg.resume = steps, resume
        train.main(cfg)
        runs = list((Path(cfg.run_dir) / "wandb").glob("offline-run-*"))
        assert len(runs) == (2 if resume else 1)
        assert all(any(f.stat().st_size > 0 for f in run.glob("*.wandb")) for run in runs)
        # The folders are called offline-run-TIME-ID, with -1 behind if two of them began in the same second.
        [identity] = {run.name.split("-")[3] for run in runs}
        ids.append(identity)
    assert ids[0] == ids[1] != ids[2], "another run in the same path is another run"


def test_wandb_without_a_key_is_refused_in_a_sentence(
    composed: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_key(**_: object) -> None:
        raise UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", without_key)
    with pytest.raises(StylesimError, match=r"No API key configured.*logger\.wandb\.offline=true"):
        train.main(composed("logger=wandb"))
