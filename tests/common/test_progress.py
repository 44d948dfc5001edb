"""Without a terminal what takes long says where it is, a line a minute; what is short says nothing."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import common.progress
from common.progress import progress
from tests.conftest import ROOT


def test_lines_and_no_bar_without_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(common.progress, "LINE", 0)
    bar = progress(range(3), desc="corpus: annotate", unit=" files")
    for _ in bar:
        bar.set_postfix_str("news", refresh=False)
    lines = capsys.readouterr().err.split("\n")
    assert lines[-1] == "" and lines[-2].startswith("corpus: annotate: 3 of 3 files, ") and lines[-2].endswith(", news")
    assert not any("\r" in line or "|" in line for line in lines)
    bar = progress(desc="steps", unit="steps", leave=False)
    bar.update(7)
    assert "steps: 7 of ? steps" in capsys.readouterr().err


def test_nothing_of_what_takes_less_than_a_minute(capsys):
    assert list(progress(range(1000), desc="x")) == list(range(1000))
    with progress(total=5, desc="y") as bar:
        bar.update(5)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal():
    above, below = pty.openpty()
    fcntl.ioctl(below, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    code = "from common.progress import progress\nfor _ in progress(range(3), desc='some'): pass"
    subprocess.run([sys.executable, "-c", code], stderr=below, cwd=ROOT, check=True, timeout=60)
    assert b"some: 100%|" in os.read(above, 10000)
