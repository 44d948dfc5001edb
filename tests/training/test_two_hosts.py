"""One run on two hosts: one dies in the middle, comes back, and the run ends as if nothing had happened.

The hosts are two network namespaces joined by a pair of virtual interfaces; like a cluster's nodes they share a disk.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, run_script, training_words

WORDS = ["model.dropout=0.1", "checkpoint_every=5", "batch_tokens=2048", "budget.steps=40"]
HOSTS = {"a": "10.213.77.1", "b": "10.213.77.2"}


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[dict[str, str]]:
    """Names of two namespaces, each with an interface of the same name that leads to the other."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("needs root and iproute2 to make two network namespaces on this machine")
    names = {host: f"enc-{os.getpid()}-{host}" for host in HOSTS}
    with contextlib.ExitStack() as stack:
        try:
            for name in names.values():
                ip("netns", "add", name)
                stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
            ip("link", "add", "veth0", "netns", names["a"], "type", "veth", "peer", "name", "veth0", "netns", names["b"])
            for host, name in names.items():
                ip("-n", name, "address", "add", f"{HOSTS[host]}/24", "dev", "veth0")
                ip("-n", name, "link", "set", "veth0", "up")
                ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this machine does not allow network namespaces: {error.stderr.decode().strip()}")
        for name in names.values():
            stack.callback(kill_host, name)
        yield names


def kill_host(name: str) -> int:
    """SIGKILL to every process inside the namespace, agent and worker; returns their number."""
    pids = subprocess.run(["ip", "netns", "pids", name], check=False, capture_output=True, text=True).stdout.split()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    return len(pids)


def start_host(host: str, name: str, words: list[str], log: Path) -> subprocess.Popen:
    """The command that README gives for each machine, run inside one namespace."""
    command = [
        "ip",
        "netns",
        "exec",
        name,
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nnodes=2",
        "--nproc-per-node=1",
        "--max-restarts=5",
        "--rdzv-backend=c10d",
        "--rdzv-id=encoder",
        f"--rdzv-endpoint={HOSTS['a']}:29400",
        f"--rdzv-conf=is_host={int(host == 'a')}",
        f"--local-addr={HOSTS[host]}",
        *words,
    ]
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "veth0"}
    # With its default 0, torch (2.13 at least) lets a surviving agent keep the address of its store to itself, and the
    # returning one waits for it until both give up (dynamic_rendezvous.py, next_rendezvous).
    env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    with open(log, "ab") as out:
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT)


def lines(run: Path) -> list[dict]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []


@pytest.mark.slow
def test_a_host_that_dies_and_returns_does_not_change_the_result(prepared, hosts, tmp_path):
    alone, run = tmp_path / "alone", tmp_path / "run"
    result = run_script(*training_words(prepared, alone, *WORDS))
    assert result.returncode == 0, result.stderr
    words = training_words(prepared, run, *WORDS)
    agents = {host: start_host(host, name, words, tmp_path / f"{host}.log") for host, name in hosts.items()}
    said = lambda: "\n".join((tmp_path / f"{host}.log").read_text()[-3000:] for host in hosts)  # noqa: E731
    begun = time.time()
    while not any(line["step"] >= 12 for line in lines(run)):
        assert time.time() - begun < 180 and all(agent.poll() is None for agent in agents.values()), said()
        time.sleep(0.02)
    assert kill_host(hosts["b"]) >= 2
    agents["b"].wait()
    assert not (run / "summary.json").exists(), "the host must die in the middle"
    time.sleep(2)
    assert agents["a"].poll() is None, said()
    agents["b"] = start_host("b", hosts["b"], words, tmp_path / "b.log")
    assert [agent.wait(timeout=240) for agent in agents.values()] == [0, 0], said()
    assert (tmp_path / "a.log").read_text().count("going on from step") + (tmp_path / "b.log").read_text().count(
        "going on from step"
    ) == 1
    ours, theirs = ([(line["step"], line["loss"]) for line in lines(r) if "loss" in line] for r in (run, alone))
    assert [step for step, _ in ours] == [step for step, _ in theirs] == list(range(1, 41))
    torch.testing.assert_close(torch.tensor([x for _, x in ours]), torch.tensor([x for _, x in theirs]), atol=1e-6, rtol=1e-6)
    summaries = [json.loads((r / "summary.json").read_text()) for r in (run, alone)]
    assert summaries[0]["ranks"] == 2
    for key in ("steps", "tokens", "masked", "epochs"):
        assert summaries[0][key] == summaries[1][key]
    assert summaries[0]["heldout"]["loss"] == pytest.approx(summaries[1]["heldout"]["loss"], rel=1e-5)
