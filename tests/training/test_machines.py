"""Other machines: files from a GPU, more ranks than devices, head sizes, a loader at the end, a profile."""

import json
import zipfile
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

import model.attention
from benchmarks.scaling import values_here
from common.errors import UserError
from common.files import ROOT, sha256_file, write_json
from model.encoder import EncoderConfig
from model.folder import SUMS
from model.mlm import MaskedLM
from tests.conftest import run_script, training_words
from tokenization.loading import load_tokenizer
from training.checkpoints import Tensors, load_state, newest_state, save_state
from training.distributed import start
from training.optimizers import build_optimizers
from training.profiling import costs_of, part_of
from training.settings import Optimizer
from training.tracking import energy_joules, energy_since

SETTINGS = Optimizer("muon", weight_decay=0.1)


def test_a_gpu_s_checkpoint_resumes_without_a_gpu(prepared, tmp_path):
    """The file says that its tensors are on cuda:0, as torch.save writes them there."""
    tokenizer = load_tokenizer(prepared / "tokenizer")
    torch.manual_seed(0)
    config = EncoderConfig("modern", tokenizer.vocab_size, 16, 2, 2, 24)
    raw = MaskedLM(config)
    optimizers = build_optimizers(raw, SETTINGS)
    for p in raw.parameters():
        p.grad = torch.ones_like(p)
    for optimizer in optimizers:
        optimizer.step()
    save_state(tmp_path, {"step": 3}, Tensors.of(raw, optimizers, None), config, tokenizer)
    folder = newest_state(tmp_path)
    path = folder / "optimizers.pt"
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            here, there = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
            assert here in content or not name.endswith("data.pkl")
            file.writestr(name, content.replace(here, there) if name.endswith("data.pkl") else content)
    write_json(folder / SUMS, json.loads((folder / SUMS).read_text()) | {path.name: sha256_file(path)})
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(path, weights_only=True)
    fresh = build_optimizers(raw, SETTINGS)
    assert load_state(folder, raw, fresh, None, tokenizer) == {"step": 3}
    for old, new in zip(optimizers, fresh, strict=True):
        for a, b in zip(old.state.values(), new.state.values(), strict=True):
            assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_rank_without_its_own_device_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="1 CUDA device"):
        start("cuda")


def test_the_scaling_benchmark_asks_for_no_more_ranks_than_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert values_here("ranks", [1, 2, 4], "cuda") == [1] and values_here("ranks", [1, 2], "cpu") == [1, 2]
    assert values_here("length", [128, 8192], "cuda") == [128, 8192]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="a rank needs one"):
        values_here("ranks", [1, 2], "cuda")


@pytest.mark.parametrize(("size", "route"), [(64, "varlen"), (256, "varlen"), (26, "padded"), (288, "padded")])
def test_unsupported_head_sizes_use_the_other_route(monkeypatch, size, route):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(model.attention, "varlen_attn", lambda *_: None)
    q = SimpleNamespace(is_cuda=True, dtype=torch.bfloat16, shape=(10, 4, size), device="cuda")
    assert model.attention.choose_route(q) == route


def test_the_exit_code_is_kept_while_a_batch_is_made():
    """The loader thread is inside a call that has released the GIL when the loop ends."""
    code = (
        "import sys, torch\nfrom data.loader import ahead\na = torch.randn(1500, 1500)\n"
        "def make(_):\n    for _ in range(3): a @ a\n"
        "def run():\n    for number, _ in enumerate(ahead(range(100), make)):\n        if number == 2: return 85\n"
        "sys.exit(run())\n"
    )
    result = run_script("-c", code, PYTHONPATH=str(ROOT))
    assert result.returncode == 85, result.stderr


def event(key: str, device: DeviceType, own: float, whole: float) -> SimpleNamespace:
    on_gpu = device == DeviceType.CUDA
    return SimpleNamespace(
        key=key,
        device_type=device,
        count=1,
        self_device_time_total=own,
        device_time_total=whole,
        self_cpu_time_total=0.0 if on_gpu else own,
        cpu_time_total=0.0 if on_gpu else whole,
    )


def test_a_kernel_is_counted_once():
    """On a GPU torch reports a kernel's time twice: for the operation that launched it and for the kernel."""
    kernel = "nvjet_tst_128x256_64x4_1x2_h_bz_coopA_TNT"
    events = [
        event("aten::mm", DeviceType.CPU, 900.0, 900.0),
        event(kernel, DeviceType.CUDA, 900.0, 900.0),
        event("flash_fwd_kernel", DeviceType.CUDA, 100.0, 100.0),
        event("Optimizer.step#Muon.step", DeviceType.CPU, 0.0, 50.0),
        event("Optimizer.step#Muon.step", DeviceType.CUDA, 50.0, 50.0),
    ]
    costs, optimizers = costs_of(events, on_gpu=True)
    assert [(cost["name"], cost["milliseconds"]) for cost in costs] == [(kernel, 0.9), ("flash_fwd_kernel", 0.1)]
    assert part_of(kernel) == "matrix products" and part_of("flash_fwd_kernel") == "attention"
    assert optimizers == {"Muon": 0.05}


def test_a_profile_shows_the_optimizer_s_share(prepared, tmp_path):
    words = ["optimizer=muon", "debug=profile", "profile=2", "budget.steps=4"]
    result = run_script(*training_words(prepared, tmp_path, *words))
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "profile" / "profile.json").read_text())
    assert set(found["optimizers"]) == {"Muon", "AdamW"} and 0 < found["optimizers"]["Muon"] < 1e3 * found["step_seconds"] * 5
    assert "Muon" in (tmp_path / "profile" / "table.md").read_text()


def test_without_a_counter_energy_is_unknown():
    cpu = torch.device("cpu")
    assert energy_joules(cpu) is None and energy_since(None, cpu) is None and energy_since(5.0, cpu) is None


def test_without_a_terminal_a_run_prints_a_line_a_minute(prepared, tmp_path):
    """The minute is 0 seconds long here."""
    code = (
        "import sys, train\nfrom common.launch import launch\ntrain.PLAIN_LINE = 0\nsys.argv = sys.argv[1:]\n"
        "launch(train.train, 'train', train.Pretraining)"
    )
    result = run_script("-c", code, *training_words(prepared, tmp_path, "budget.steps=4", "log_every=2"), PYTHONPATH=str(ROOT))
    lines = [line for line in result.stderr.splitlines() if line.startswith("training: ")]
    assert len(lines) == 2 and "step 4" in lines[1] and "tokens/s" in lines[1] and "loss" in lines[1], result.stderr
