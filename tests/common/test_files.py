"""Files are written whole or not at all, links are kept, and a failing disk gives a message with a remedy."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import DiskError, UserError, command, disk_error
from common.files import open_whole, put_in_place, remove, write_json, write_text, writing
from tests.conftest import ROOT, TINY


def made(path: Path, text: str) -> Path:
    path.mkdir(parents=True)
    (path / "a.txt").write_text(text)
    return path


def test_a_linked_folder_is_replaced_at_its_target(tmp_path):
    """A corpus folder linked to a larger disk: the link is kept over any number of runs and no other file is left behind."""
    real = made(tmp_path / "disk" / "corpus", "0")
    link = tmp_path / "runs" / "corpus"
    link.parent.mkdir()
    link.symlink_to(real)
    for text in "123":
        put_in_place(made(tmp_path / "runs" / ".corpus.part", text), link)
        assert link.is_symlink() and (real / "a.txt").read_text() == text
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["corpus"]
    assert [path.name for path in link.parent.iterdir()] == ["corpus"]


def test_a_dangling_link_and_a_left_over_old_one(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "later")
    put_in_place(made(tmp_path / "new", "1"), tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "later" / "a.txt").read_text() == "1"
    kept = made(tmp_path / "elsewhere", "kept")
    (tmp_path / ".plain.old").symlink_to(kept)
    made(tmp_path / "plain", "1")
    put_in_place(made(tmp_path / "new", "2"), tmp_path / "plain")
    assert (tmp_path / "plain" / "a.txt").read_text() == "2" and (kept / "a.txt").read_text() == "kept"
    assert not os.path.lexists(tmp_path / ".plain.old")


def test_a_link_to_another_disk(tmp_path):
    other = Path("/dev/shm")
    if not os.access(other, os.W_OK) or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system (/dev/shm)")
    target = other / f"put-in-place-{os.getpid()}" / "corpus"
    try:
        made(target, "0")
        (tmp_path / "link").symlink_to(target)
        put_in_place(made(tmp_path / "new", "1"), tmp_path / "link")
        assert (target / "a.txt").read_text() == "1" and not (tmp_path / "new").exists()
        assert [path.name for path in target.parent.iterdir()] == ["corpus"]
    finally:
        remove(target.parent)


def test_a_linked_file_is_written_at_its_target(tmp_path):
    (tmp_path / "real.json").write_text("1")
    (tmp_path / "link.json").symlink_to("real.json")
    write_json(tmp_path / "link.json", 2)
    assert (tmp_path / "link.json").is_symlink() and (tmp_path / "real.json").read_text() == "2\n"


def test_remove_never_follows_a_link(tmp_path):
    kept = made(tmp_path / "kept", "1")
    (tmp_path / "link").symlink_to(kept)
    remove(tmp_path / "link")
    remove(tmp_path / "nothing")
    assert (kept / "a.txt").exists() and not os.path.lexists(tmp_path / "link")


def limited(code: str, size: int, *words: str) -> subprocess.CompletedProcess:
    """Python with files limited to `size` bytes, which the process sees as a full disk."""
    start = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"
    return subprocess.run([sys.executable, "-c", start + code, *words], cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_full_disk_is_a_message_and_keeps_the_old_file(tmp_path):
    write_text(tmp_path / "report.html", "before")
    code = (
        "import sys\nfrom common.errors import command\nfrom common.files import write_text\n"
        f"sys.exit(command(lambda: write_text({str(tmp_path / 'report.html')!r}, 'x' * 100_000))())"
    )
    run = limited(code, 50_000)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(f"error: {tmp_path / 'report.html'}: cannot be written") and "Traceback" not in run.stderr
    assert (tmp_path / "report.html").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_weights_without_room_name_their_file(tmp_path):
    code = (
        "import torch\nfrom safetensors.torch import save_file\nfrom common.files import writing\n"
        "from common.errors import DiskError\n"
        f"path = {str(tmp_path / 'model.safetensors')!r}\n"
        "try:\n    with writing(path):\n        save_file({'a': torch.zeros(100_000)}, path)\n"
        "except DiskError as error:\n    print(error.errno, error)\n"
    )
    run = limited(code, 50_000)
    assert run.stdout.startswith(f"{errno.EFBIG} {tmp_path / 'model.safetensors'}: cannot be written"), run.stderr


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_each_disk_error_has_a_remedy(tmp_path, code):
    with pytest.raises(DiskError) as caught, open_whole(tmp_path / "a.json"):
        raise OSError(code, os.strerror(code))
    error = caught.value
    assert isinstance(error, UserError) and isinstance(error, OSError) and error.errno == code
    assert str(error).startswith(f"{tmp_path / 'a.json'}: ") and str(error).endswith(".") and "hoose " in str(error)
    assert not list(tmp_path.iterdir())


def test_other_errors_are_raised_unchanged(tmp_path):
    with pytest.raises(IsADirectoryError), writing(tmp_path):
        raise IsADirectoryError(errno.EISDIR, "x")
    assert disk_error(ValueError("(os error 2)")) is None
    with pytest.raises(ValueError, match="a defect"):
        command(lambda: (_ for _ in ()).throw(ValueError("a defect")))()


@pytest.mark.slow
def test_the_scripts_end_with_a_message_where_nothing_fits(prepared, tmp_path):
    """A tokenizer that does not fit: exit code 2, the file's name, no traceback; with room the same command succeeds."""
    words = [
        "prepare.py",
        f"workdir={prepared}",
        f"tokenizer_dir={tmp_path / 'tokenizer'}",
        f"shards_dir={tmp_path / 'shards'}",
    ]
    run = limited(
        "import runpy, sys\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')", 30_000, *words, *TINY
    )
    assert run.returncode == 2, run.stderr[-2000:]
    assert "cannot be written" in run.stderr and "Traceback" not in run.stderr
