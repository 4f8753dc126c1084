"""Ranks that torchrun starts, on one host and on two: real commands, gloo on the CPU."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from conftest import overrides_for
from processes import children_of
from safetensors.torch import load_file

STEPS = 30


def torchrun(shards: Path, *flags: str, more: tuple[str, ...] = ()) -> list[str]:
    overrides = overrides_for(
        shards,
        "trainer=ddp_cpu",
        f"trainer.max_steps={STEPS}",
        "data.workers=1",
        "data.batch_size=3",
        "data.probes.validation.every_n_steps=null",
        "callbacks.checkpoints.monitor=null",
        "callbacks.checkpoints.every_n_steps=3",
        "hydra.run.dir=run",
        *more,
    )
    return [sys.executable, "-m", "torch.distributed.run", *flags, "-m", "stylesim.train", *overrides]


def samples_seen(folder: Path) -> list[int]:
    rows = csv.DictReader((folder / "run/metrics.csv").open())
    return [int(float(row["samples_seen"])) for row in rows if row["train/loss"]]


@pytest.mark.slow
def test_torchrun_on_one_host(shards: Path, tmp_path: Path) -> None:
    subprocess.run(
        torchrun(shards, "--standalone", "--nproc-per-node=2", more=("trainer.max_steps=4",)),
        cwd=tmp_path,
        check=True,
        timeout=900,
    )
    assert samples_seen(tmp_path) == [6, 12, 18, 24], "two ranks of three images"
    assert (tmp_path / "run/report.html").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.fixture
def hosts() -> Iterator[dict[str, str]]:
    """Two network namespaces and a cable between them: the address of each by its name."""
    names = {f"stylesim{os.getpid()}{end}": f"10.213.7.{end}" for end in (1, 2)}
    ends = [f"cable{end}" for end in (1, 2)]
    first, second = names
    cable = ["link", "add", ends[0], "type", "veth", "peer", "name", ends[1], "netns", second]
    commands = [["netns", "add", second], ["-n", first, *cable]]
    for (name, address), end in zip(names.items(), ends, strict=True):
        commands.append(["-n", name, "addr", "add", f"{address}/24", "dev", end])
        commands += [["-n", name, "link", "set", device, "up"] for device in (end, "lo")]
    try:
        for probe in (["netns", "add", first], ["netns", "exec", first, "true"]):
            try:
                subprocess.run(["ip", *probe], check=True, capture_output=True, text=True)
            except (OSError, subprocess.CalledProcessError) as error:
                pytest.skip(f"no network namespaces here: {error} {getattr(error, 'stderr', '')}")
        for command in commands:
            subprocess.run(["ip", *command], check=True)
        yield names
    finally:
        for name in names:
            with suppress(OSError):
                subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.mark.slow
def test_two_hosts_with_their_own_network_give_the_weights_of_one(
    hosts: dict[str, str], shards: Path, tmp_path: Path
) -> None:
    nodes = []
    for node, name in enumerate(hosts):
        flags = [
            "--nnodes=2",
            "--nproc-per-node=1",
            f"--node-rank={node}",
            f"--master-addr={next(iter(hosts.values()))}",
        ]
        command = torchrun(shards, *flags, more=("trainer.max_steps=4", "trainer.num_nodes=2", "trainer.devices=1"))
        environ = os.environ | {"GLOO_SOCKET_IFNAME": f"cable{node + 1}"}
        log = (tmp_path / f"stderr{node}").open("w")
        command = ["ip", "netns", "exec", name, *command]
        nodes.append(subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=log, start_new_session=True))
        log.close()
    try:
        codes = [node.wait(900) for node in nodes]
    finally:
        for node in nodes:
            with suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)
    assert codes == [0, 0], [(tmp_path / f"stderr{node}").read_text() for node in range(2)]
    alone = torchrun(shards, "--standalone", "--nproc-per-node=2", more=("trainer.max_steps=4", "hydra.run.dir=alone"))
    subprocess.run(alone, cwd=tmp_path, check=True, timeout=900)
    two, one = (load_file(tmp_path / run / "checkpoints/last.safetensors") for run in ("run", "alone"))
    assert all(torch.equal(two[name], one[name]) for name in one)


@pytest.mark.slow
def test_a_host_that_loses_its_rank_ends_the_other_and_both_resume(shards: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    flags = ("--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", "--rdzv-id=run")
    more = ("trainer.num_nodes=2", "trainer.devices=1")

    def start(node: int, *also: str) -> subprocess.Popen:
        command = torchrun(shards, *flags, "--local-addr=127.0.0.1", more=(*more, *also))
        with (tmp_path / f"stderr{node}").open("w") as log:
            return subprocess.Popen(command, cwd=tmp_path, stderr=log, start_new_session=True)

    agents = [start(node) for node in range(2)]
    while not (tmp_path / "run/checkpoints/last.ckpt").exists():
        assert all(agent.poll() is None for agent in agents), [(tmp_path / f"stderr{n}").read_text() for n in range(2)]
        time.sleep(0.01)
    ranks = {pid: node for node, agent in enumerate(agents) for pid in children_of(agent.pid)}
    [victim] = [pid for agent in agents for pid, environ in children_of(agent.pid).items() if b"\0RANK=1\0" in environ]
    os.kill(victim, signal.SIGKILL)
    for agent in agents:
        assert agent.wait(60) != 0
    stderr, other = ((tmp_path / f"stderr{n}").read_text() for n in (ranks[victim], 1 - ranks[victim]))
    assert f"Signal 9 (SIGKILL) received by PID {victim}" in stderr
    # The rendezvous may end with its agent; the other agent can then be faster than the rank that it ends.
    assert "rank 0 stops because it has lost another rank" in other or "RendezvousConnectionError" in other
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
    agents = [start(node, "resume=true") for node in range(2)]
    assert [agent.wait(900) for agent in agents] == [0, 0], [(tmp_path / f"stderr{n}").read_text() for n in range(2)]
    assert samples_seen(tmp_path) == list(range(6, 6 * STEPS + 1, 6)), "each step once"
