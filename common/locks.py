"""One process at a time works in a folder: a lock file beside it names the holder. Works on network file systems too."""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from common.errors import UserError

BEAT = 15.0  # seconds between two touches of the lock file by its holder
SILENT = 300.0  # seconds without a touch after which a holder on another machine counts as dead
POLL = 0.5  # seconds between two checks of a waiting process


@contextlib.contextmanager
def hold(folder: str | Path, patience: float | None = None) -> Iterator[None]:
    """Hold `folder` for the length of the block. If another process holds it, wait, and print once which one it is.

    The lock is the file `.NAME.lock` beside the folder, created with O_EXCL, which is atomic on local disks and on NFS
    (version 3 and later). It records host, pid and start time of the process. A stale lock is taken over. On the same
    machine a lock is stale when no process has this pid and start time (so a reused pid does not count as alive). On another
    machine it is stale when it was not touched for SILENT seconds, compared with a file that is touched now, so that the
    clocks of the two machines do not matter. `patience`: seconds to wait, None without limit; UserError after that.

    Where no file can be created beside the folder (it is read-only), nothing is locked.
    """
    folder = Path(folder).resolve()
    path = folder.with_name(f".{folder.name}.lock")
    own = {
        **_process(),
        "token": secrets.token_hex(8),
        "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200],
    }
    taken = False  # stays False where this process holds the folder already: the inner block needs no lock
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        taken = _acquire(path, own, folder, patience)
    if not taken:
        yield
        return
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, own["token"], stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        if _read(path).get("token") == own["token"]:
            path.unlink(missing_ok=True)


def _acquire(path: Path, own: dict[str, Any], folder: Path, patience: float | None) -> bool:
    """Create the lock file, waiting while another process holds it; False if this process holds it already."""
    begun, said = time.monotonic(), False
    while True:
        try:
            with open(path, "x", encoding="utf-8") as file:  # O_CREAT | O_EXCL
                json.dump(own, file, ensure_ascii=False)
            return True
        except FileExistsError:
            holder = _read(path)
        if all(holder.get(key) == own[key] for key in _IDENTITY):
            return False
        if _stale(path, holder):
            _remove_stale(path, holder)
            continue
        who = (
            f"process {holder.get('pid', '?')} on {holder.get('host', '?')} (since {holder.get('since', '?')}: "
            f"{holder.get('command', '?')})"
        )
        if patience is not None and time.monotonic() - begun >= patience:
            raise UserError(
                f"{folder}: in use by {who}. Wait until it has ended, give this run another name=..., or, if that machine "
                f"is gone, remove {path}."
            )
        if holder and not said:
            print(f"{folder}: in use by {who}; waiting until it has ended (Ctrl-C to give up)", file=sys.stderr, flush=True)
            said = True
        time.sleep(POLL)


_IDENTITY = ("machine", "pid", "start")


def _process() -> dict[str, Any]:
    """What identifies this process: the running system with its process table, pid and start time."""
    return {"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(), "start": start_of(os.getpid())}


def _machine() -> str:
    """An identifier shared by all processes that see each other's pids: the kernel's boot and, on Linux, the pid namespace."""
    words = [socket.gethostname()]
    with contextlib.suppress(OSError):
        words = [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(words)


def start_of(pid: int) -> str | None:
    """Start time of a process of this machine, as the system writes it; None if there is no such process."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]  # 22nd of proc(5): clock ticks since boot; a zombie does not count
    if Path("/proc/self/stat").exists():
        return None
    found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def _read(path: Path) -> dict[str, Any]:
    """The contents of a lock; {} if it is gone or is being written."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return values if isinstance(values, dict) else {}
    except (OSError, ValueError):
        return {}


def _stale(path: Path, holder: dict[str, Any]) -> bool:
    if holder.get("machine") == _machine():
        return start_of(holder["pid"]) != holder["start"]
    try:
        with open(path, "rb"), tempfile.NamedTemporaryFile(dir=path.parent, prefix=".clock-") as now:  # NFS: opening asks anew
            return os.fstat(now.fileno()).st_mtime - path.stat().st_mtime > SILENT
    except FileNotFoundError:
        return False  # released in the meantime


def _remove_stale(path: Path, holder: dict[str, Any]) -> None:
    """Remove the lock that `holder` left. If several processes find it stale, only one gets to remove it."""
    right = path.with_name(f"{path.name}.{holder.get('token', 'unreadable')}")
    try:
        os.close(os.open(right, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):
            if time.time() - right.stat().st_mtime > 2 * SILENT:  # its process died in the lines below
                right.unlink()
        time.sleep(POLL)
        return
    try:
        if _read(path).get("token") == holder.get("token"):  # otherwise another process was faster, and this is its new lock
            path.unlink(missing_ok=True)
    finally:
        right.unlink(missing_ok=True)


def _beat(path: Path, token: str, stop: threading.Event) -> None:
    """Touch the lock until `stop` is set, so that other machines see that its holder is alive."""
    while not stop.wait(BEAT):
        try:
            if _read(path).get("token") != token:
                print(f"warning: {path} was removed or taken over; another process may work in this folder", file=sys.stderr)
                return
            os.utime(path)
        except OSError:  # a file system that is temporarily unavailable
            continue
