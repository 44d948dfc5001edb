"""A Slurm cluster of one node in a folder: its own munge, controller and node, with ports and a key of its own.

Nothing of the machine's own Slurm is read or changed, so several copies may run at once. Debian's slurm-wlm and munge.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "sinfo", "scontrol")
PATIENCE = 30  # seconds until the node must be idle
# cred_expire is how long a requeued job waits at least: two minutes by default, and below five seconds it is refused. The node
# claims more than it has: cores, memory and GPUs are only counted, nothing binds to them. config_overrides lets it.
CONF = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPort={controller}
SlurmdPort={node}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
GresTypes=gpu
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=128 RealMemory=1000000 Gres=gpu:16 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class NotHere(Exception):
    """Why no cluster can be started on this machine."""


def lacking() -> str | None:
    """Why this machine cannot start one, before anything is tried; None if it may."""
    if missing := [name for name in PROGRAMS if shutil.which(name, path=path()) is None]:
        return f"{', '.join(missing)} not installed (Debian: apt-get install slurm-wlm munge)"
    if os.geteuid():
        return "slurmd starts jobs as their users, so it must be started by root"
    return None


def path() -> str:
    """PATH with the folders of daemons, which some shells leave out."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which Slurm's commands reach a cluster that lives as long as the block. NotHere if it cannot start."""
    if why := lacking():
        raise NotHere(why)
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(128))
    for number in range(16):
        (folder / f"gpu{number}").touch()
    controller, node = free_ports(2)
    conf = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    conf.write_text(CONF.format(folder=folder, controller=controller, node=node, host=host))
    (folder / "gres.conf").write_text(f"NodeName=localhost Name=gpu File={folder}/gpu[0-15]\n")
    environment = os.environ | {"SLURM_CONF": str(conf), "PATH": path()}
    own = [f"--{name}={folder}/munge.{end}" for name, end in (("key-file", "key"), ("socket", "socket"), ("pid-file", "pid"))]
    munged = ["munged", "--foreground", "--force", *own, f"--seed-file={folder}/munge.seed", f"--log-file={folder}/munge.log"]
    daemons = []
    try:
        for words in (munged, ["slurmctld", "-D", "-i"], ["slurmd", "-D", "-N", "localhost"]):
            with open(folder / f"{words[0]}.out", "wb") as log:
                pipes = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
                # Safe beside threads: one call of the C library between fork and exec.
                daemons.append(subprocess.Popen(words, env=environment, preexec_fn=end_with_the_tests, **pipes))  # noqa: PLW1509
            wait_for(lambda words=words: words[0] != "munged" or (folder / "munge.socket").exists(), daemons, folder)
        wait_for(lambda: state(environment) == "idle", daemons, folder)
        yield environment
    finally:
        # Jobs first, so that the node ends their processes; then the daemons, the last one first.
        subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True, check=False, timeout=30)
        with contextlib.suppress(NotHere):
            wait_for(lambda: not answer(environment, "squeue", "--noheader"), daemons, folder)
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def end_with_the_tests() -> None:
    """Linux's PR_SET_PDEATHSIG: a daemon ends also if the tests are killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def answer(environment: dict[str, str], *words: str) -> str:
    """What a command of Slurm prints; nothing if it fails."""
    result = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=30)
    return result.stdout.strip()


def state(environment: dict[str, str]) -> str:
    """The node's state in sinfo's word."""
    return answer(environment, "sinfo", "--noheader", "--format=%t")


def wait_for(is_so, daemons: list[subprocess.Popen], folder: Path) -> None:
    """Until `is_so()`; NotHere with the end of its log if a daemon ends, or if PATIENCE is over."""
    begun = time.monotonic()
    while not is_so():
        for daemon in daemons:
            if daemon.poll() is not None:
                name = daemon.args[0]
                raise NotHere(f"{name} ended: {' '.join((folder / f'{name}.out').read_text().split()[-30:])}")
        if time.monotonic() - begun > PATIENCE:
            raise NotHere(f"the node did not come up in {PATIENCE} s; see {folder}")
        time.sleep(0.1)
