"""Two processes never work in one folder: the second waits; a dead holder's lock is taken over, a remote one's is kept."""

import json
import os
import subprocess
import sys
import time

import pytest

from common import locks
from common.errors import UserError
from common.locks import hold, start_of
from tests.conftest import ROOT

WORKER = """
import sys, time
from common.locks import hold
from pathlib import Path
folder, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for _ in range(count):
    with hold(folder):
        with open(folder / "diary", "a") as file:
            file.write(f"{name} in\\n"); file.flush(); time.sleep(0.05); file.write(f"{name} out\\n")
"""


def start(folder, name: str, count: int = 1, code: str = WORKER) -> subprocess.Popen:
    words = [sys.executable, "-c", code, folder, name, str(count)]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lock_of(folder):
    return folder.with_name(f".{folder.name}.lock")


def test_blocks_of_three_processes_never_overlap(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    workers = [start(folder, name, 2) for name in "abc"]
    said = [worker.communicate(timeout=60)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], said
    lines = (folder / "diary").read_text().split("\n")[:-1]
    assert len(lines) == 12
    assert all(lines[i].split()[0] == lines[i + 1].split()[0] for i in range(0, 12, 2)), lines
    assert "in use by process" in "".join(said) and str(folder) in "".join(said)
    assert not lock_of(folder).exists()


def test_lock_of_a_killed_process_is_taken_over_at_once(tmp_path):
    folder = tmp_path / "run"
    holder = start(
        folder,
        "a",
        code="import sys, time\nfrom common.locks import hold\n"
        "with hold(sys.argv[1]):\n    print('held', flush=True)\n    time.sleep(100)",
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=rf"process {holder.pid} on .*Wait until it has ended") as refused, hold(folder, 0):
        pass
    assert str(folder) in str(refused.value)
    holder.kill()
    holder.communicate()
    begun = time.monotonic()
    with hold(folder, 0):
        assert json.loads(lock_of(folder).read_text())["pid"] == os.getpid()
    assert time.monotonic() - begun < 5 and not lock_of(folder).exists()


def written(folder, **changes) -> None:
    lock_of(folder).write_text(json.dumps(locks._process() | {"token": "theirs"} | changes))


def test_a_reused_pid_is_not_the_holder(tmp_path):
    written(tmp_path / "run", pid=os.getppid(), start="1")
    with hold(tmp_path / "run", 0):
        pass
    written(tmp_path / "run", pid=os.getppid(), start=start_of(os.getppid()))
    with pytest.raises(UserError, match="in use"), hold(tmp_path / "run", 0):
        pass


def test_another_machine_is_alive_as_long_as_it_touches_its_lock(tmp_path):
    folder = tmp_path / "run"
    written(folder, machine="another boot", host="node7", pid=1)
    with pytest.raises(UserError, match="node7"), hold(folder, 0):
        pass
    old = time.time() - locks.SILENT - 5
    os.utime(lock_of(folder), (old, old))
    with hold(folder, 0):
        assert json.loads(lock_of(folder).read_text())["host"] != "node7"


def test_the_holder_touches_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.05)
    with hold(tmp_path / "run"):
        os.utime(lock_of(tmp_path / "run"), (1, 1))
        begun = time.monotonic()
        while lock_of(tmp_path / "run").stat().st_mtime < 2 and time.monotonic() - begun < 10:
            time.sleep(0.02)
        assert time.time() - lock_of(tmp_path / "run").stat().st_mtime < 60


def test_two_processes_that_find_a_stale_lock_take_it_once(tmp_path):
    """The second process read the old lock before the first replaced it."""
    path = lock_of(tmp_path / "run")
    written(tmp_path / "run", pid=os.getppid(), start="1")
    stale = json.loads(path.read_text())
    with hold(tmp_path / "run", 0):
        new = path.read_text()
        locks._remove_stale(path, stale)
        assert path.read_text() == new
    assert [entry.name for entry in tmp_path.iterdir()] == []


def test_a_truncated_lock_expires(tmp_path):
    path = lock_of(tmp_path / "run")
    path.write_text("")
    with pytest.raises(UserError, match="in use"), hold(tmp_path / "run", 0):
        pass
    os.utime(path, (1, 1))
    with hold(tmp_path / "run", 0):
        pass


def test_the_same_process_may_hold_a_folder_within_itself(tmp_path):
    with hold(tmp_path / "run", 0), hold(tmp_path / "link" / ".." / "run", 0):
        pass
    assert not lock_of(tmp_path / "run").exists()
