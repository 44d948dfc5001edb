"""Any starting point: shape, tokenizer and weights of a foreign checkpoint or ours; a collapse is detected and stops."""

import json
import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.files import write_jsonl
from data.layout import Layout
from data.shards import open_shards
from model.encoder import EncoderConfig
from model.folder import write_checkpoint
from model.mlm import MaskedLM
from model.settings import Shape
from model.store import load_masked_lm, read_checkpoint
from tests.conftest import TINY, run_script, training_words
from tests.model.peers import TYPES, write_peer
from tokenization.loading import load_tokenizer
from tokenization.tokenizer import Tokenizer
from training.distributed import start
from training.settings import Watch
from training.starting import keep_tokenizer, origin, shape_of, take_weights
from training.watch import BEST, begin_watch, check_collapse, check_watch, evaluate_watch, keep_best

IMPORTED = Shape(architecture="imported")
TURKISH = [
    {"text": "Ankara'da yeni bir kütüphane açıldı ve ilk gün binlerce kişi geldi."},
    {"text": "Çocuklar bahçede oynuyor, anneleri ise onları pencereden izliyor. " * 3},
]


@pytest.fixture(autouse=True)
def hf_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))


def own_checkpoint(folder, tokenizer: Tokenizer, **shape) -> MaskedLM:
    small = {"hidden_size": 32, "layers": 2, "heads": 2, "intermediate_size": 48, "max_length": 64} | shape
    torch.manual_seed(1)
    model = MaskedLM(EncoderConfig(vocab_size=tokenizer.vocab_size, **small)).eval()
    write_checkpoint(folder, model.state_dict(), model.encoder.config, tokenizer, {"name": "başlanğıc"})
    return model


@pytest.mark.parametrize("family", ["mbert", "xlm-roberta", "mmbert"])
def test_training_continues_from_a_hugging_face_folder(family, tmp_path, prepared):
    """Its tokenizer (the same ids, read back from disk), its shape with spare embedding rows, its weights to the bit."""
    rows = 600  # more than any of their vocabularies, whose size differs between trainings
    write_peer(tmp_path / "theirs", family, vocab_size=rows)
    tokenizer = keep_tokenizer(str(tmp_path / "theirs"), tmp_path / "tokenizer")
    peer, own = load_masked_lm(tmp_path / "theirs")
    assert load_tokenizer(tmp_path / "tokenizer").identity == own.identity == tokenizer.identity
    theirs = str(tmp_path / "theirs")
    shape = shape_of(IMPORTED, theirs, 64, tokenizer)
    assert shape == peer.encoder.config and shape.vocab_size == rows > tokenizer.vocab_size
    torch.manual_seed(5)
    model = MaskedLM(shape)
    take_weights(model, theirs, None, tokenizer, open_shards(prepared / "shards"), 0)
    assert all(torch.equal(value, peer.state_dict()[name]) for name, value in model.state_dict().items())
    assert origin(tmp_path / "theirs")["source"] == {"family": TYPES.get(family, family)} and origin(None) == {}
    with pytest.raises(UserError, match=r"max_length of 4096 is above model.max_length=64"):
        shape_of(IMPORTED, theirs, 4096, tokenizer)


def test_imported_needs_something_to_import(prepared, tmp_path):
    tokenizer = load_tokenizer(prepared / "tokenizer")
    with pytest.raises(UserError, match="tokenizer=imported: whose"):
        keep_tokenizer(None, tmp_path / "tokenizer")
    with pytest.raises(UserError, match="model=imported: whose"):
        shape_of(IMPORTED, None, 64, tokenizer)
    with pytest.raises(UserError, match=r"hub://google-bert/mbert"):
        keep_tokenizer("google-bert/mbert", tmp_path / "tokenizer")


@pytest.mark.parametrize("architecture", ["modern", "bert"])
def test_longer_context(architecture, prepared, tmp_path):
    """With theta unchanged short texts give the same to the bit; long ones can be read; theta changes them."""
    tokenizer = load_tokenizer(prepared / "tokenizer")
    shape = {"architecture": architecture, "max_length": 64, "layers": 4, "initializer_range": 0.3}
    before = own_checkpoint(tmp_path / "short", tokenizer, **shape)
    first = str(tmp_path / "short")
    shape = shape_of(replace(IMPORTED, max_length=300), first, 300, tokenizer)
    assert shape.max_length == 300 and shape.global_theta == before.encoder.config.global_theta
    after = MaskedLM(shape).eval()
    take_weights(after, first, None, tokenizer, open_shards(prepared / "shards"), 0)
    random = np.random.default_rng(0)
    short, long = (torch.from_numpy(random.integers(5, tokenizer.vocab_size, size)) for size in (64, 300))
    with torch.no_grad():
        old, new = (model.encoder(short, Layout.of([40, 24])) for model in (before, after))
        assert torch.equal(old, new)
        with pytest.raises(UserError, match="max_length is 64"):
            before.encoder(long, Layout.of([300]))
        hidden = after.encoder(long, Layout.of([300]))
        assert torch.isfinite(hidden).all()
        changed = long.clone()
        changed[290] = changed[290] % (tokenizer.vocab_size - 5) + 5 if changed[290] != 5 else 6
        assert not torch.equal(after.encoder(changed, Layout.of([300]))[0], hidden[0])  # position 0 attends to position 290
    if architecture == "modern":
        other = shape_of(replace(IMPORTED, max_length=300, global_theta=1e6), first, 300, tokenizer)
        turned = MaskedLM(other).eval()
        take_weights(turned, first, None, tokenizer, open_shards(prepared / "shards"), 0)
        with torch.no_grad():
            assert not torch.allclose(turned.encoder(short, Layout.of([40, 24])), old, atol=1e-4)
    else:  # arXiv 2004.05150 §5: the learned positions repeated
        table = after.encoder.position_embeddings.weight
        assert torch.equal(table[64:128], table[:64])


def test_positions_of_an_xlm_r_are_repeated_without_the_rows_of_padding(prepared, tmp_path):
    tokenizer = load_tokenizer(prepared / "tokenizer")
    own_checkpoint(tmp_path / "short", tokenizer, max_length=64, position_offset=2)
    first = str(tmp_path / "short")
    model = MaskedLM(shape_of(replace(IMPORTED, max_length=128), first, 64, tokenizer))
    take_weights(model, first, None, tokenizer, open_shards(prepared / "shards"), 0)
    table = model.encoder.position_embeddings.weight
    assert len(table) == 130 and torch.equal(table[66:130], table[2:66])


@dataclass
class Counters:
    """The fields of train.State that the rule uses."""

    step: int = 0
    above: dict = field(default_factory=dict)
    lowest: float | None = None
    lowest_step: int = 0


@pytest.fixture
def watched(prepared, tmp_path):
    """A model watched on Turkish, and its run folder."""
    tokenizer = load_tokenizer(prepared / "tokenizer")
    model = own_checkpoint(tmp_path / "start", tokenizer)
    write_jsonl(tmp_path / "tr.jsonl", TURKISH)
    files = [{"name": "turkish", "file": str(tmp_path / "tr.jsonl")}]
    ranks = start("cpu")
    watch = begin_watch(model, Watch(files, rise=0.3, patience=2), None, tokenizer, ranks, torch.float32)
    return model, tokenizer, watch, ranks, tmp_path / "run"


def test_drift_is_zero_at_the_start(watched):
    model, _, watch, ranks, _ = watched
    seen = evaluate_watch(watch, model, ranks, torch.float32)
    assert seen["turkish"]["rise"] == 0 and seen["drift"] == {"weights": 0.0, "cosine": pytest.approx(1.0, abs=1e-6)}


def test_drift_by_its_definition(watched):
    model, _, watch, ranks, _ = watched
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    seen = evaluate_watch(watch, model, ranks, torch.float32)
    assert seen["drift"]["weights"] == pytest.approx(float((after - before).norm() / before.norm()), rel=1e-5)
    assert 0 < seen["drift"]["cosine"] < 0.999


def test_the_rule_counts_evaluations_in_a_row_and_keeps_the_best(watched):
    model, tokenizer, watch, ranks, run = watched
    state = Counters()
    keep = keep_best(model, tokenizer, {"name": "x"}, ranks)

    def at(step: int, rise: float, own: float) -> None:
        state.step = step
        watch.last = {"turkish": {"rise": rise}, "drift": {"weights": 0.1}}
        check_collapse(watch, state, {"loss": own}, run, keep)

    at(0, 0.0, 5.0)
    at(10, 0.2, 4.0)
    kept = read_checkpoint(run / BEST)[0]
    with torch.no_grad():
        model.head.bias.add_(1.0)
    at(20, 0.4, 3.0)  # over the bound once: better on Azerbaijani, worse on Turkish, so not the best
    assert torch.equal(read_checkpoint(run / BEST)[0]["head.bias"], kept["head.bias"]) and state.lowest == 4.0
    at(30, 0.1, 3.9)  # below again: the count restarts
    at(40, 0.4, 3.5)
    with pytest.raises(UserError, match=r"collapse of turkish at step 50.* 0\.500 above the start.*best keeps step 30"):
        at(50, 0.5, 3.4)


def test_a_loss_that_is_not_finite_ends_it_at_once(watched):
    model, tokenizer, watch, ranks, run = watched
    with torch.no_grad():
        model.head.norm.weight.fill_(math.nan)
    state = Counters(step=7, lowest=3.0)
    scores = {"loss": evaluate_watch(watch, model, ranks, torch.float32)["turkish"]["loss"]}
    with pytest.raises(UserError, match="collapse of turkish at step 7"):
        check_collapse(watch, state, scores, run, keep_best(model, tokenizer, {}, ranks))
    assert not (run / BEST).exists()


def test_our_own_text_is_compared_with_its_lowest_loss(watched):
    model, tokenizer, watch, ranks, run = watched
    state, keep = Counters(), keep_best(model, tokenizer, {}, ranks)
    watch.last = {"turkish": {"rise": 0.0}, "drift": {"weights": 0.1}}
    for own in (9.0, 4.0, 4.2, 4.5):
        check_collapse(watch, state, {"loss": own}, run, keep)
    with pytest.raises(UserError, match=r"collapse of heldout.*above its lowest"):
        check_collapse(watch, state, {"loss": 4.6}, run, keep)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([{"name": "heldout", "file": "x"}], "a name other than heldout"),
        ([{"file": "x"}], "expected a"),
        ([{"name": "tr", "file": "nowhere.jsonl"}], "nowhere.jsonl"),
    ],
)
def test_wrong_files_are_named(files, said, tmp_path):
    with pytest.raises(UserError, match=said):
        check_watch(Watch(files, rise=0.5), str(tmp_path))


def lines(run) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").open()]


@pytest.mark.slow
def test_a_rate_that_is_too_high_triggers_the_rule(prepared, tmp_path):
    """Through train.py: learn, then continue with a diverging rate; message, exit code 2, curves, the best is kept."""
    first = run_script(*training_words(prepared, tmp_path / "first", "budget.steps=40", "optimizer.lr=1e-2"))
    assert first.returncode == 0, first.stderr
    held = prepared / "corpus" / "heldout.jsonl.gz"
    words = [
        f"start_from={tmp_path / 'first'}",
        f"watch.files=[{{name: before, file: {held}}}]",
        "watch.rise=0.3",
        "evaluation.every=5",
        "budget.steps=60",
        "schedule.warmup=0",
        "clip=null",
        "checkpoint_every=10",
    ]
    calm = run_script(*training_words(prepared, tmp_path / "calm", *words, "optimizer.lr=1e-4"))
    assert calm.returncode == 0, calm.stderr
    rises = [line["watch"]["before"]["rise"] for line in lines(tmp_path / "calm") if "watch" in line]
    assert len(rises) == 13 and rises[0] == 0 and max(rises) < 0.3
    drift = [line["watch"]["drift"]["weights"] for line in lines(tmp_path / "calm") if "watch" in line]
    assert drift == sorted(drift) and drift[0] == 0 < drift[-1] < 0.2
    assert "watch" in json.loads((tmp_path / "calm" / "summary.json").read_text())
    wild = run_script(*training_words(prepared, tmp_path / "wild", *words, "optimizer.lr=3.0"))
    assert wild.returncode == 2 and "Traceback" not in wild.stderr
    assert "collapse of" in wild.stderr and "Lower optimizer.lr" in wild.stderr
    assert read_checkpoint(tmp_path / "wild" / BEST)[3]["step"] == 0  # the start was the best
    again = run_script(*training_words(prepared, tmp_path / "wild", *words, "optimizer.lr=3.0"))
    assert again.returncode == 2 and "collapse of" in again.stderr


@pytest.mark.slow
def test_a_killed_watched_run_goes_on_to_the_same_lines(prepared, tmp_path):
    held = prepared / "corpus" / "heldout.jsonl.gz"
    own_checkpoint(tmp_path / "start", load_tokenizer(prepared / "tokenizer"))
    words = [
        "model=imported",
        f"start_from={tmp_path / 'start'}",
        f"watch.files=[{{name: before, file: {held}}}]",
        "watch.rise=5",
        "evaluation.every=5",
        "budget.steps=20",
        "checkpoint_every=10",
    ]
    words = [word for word in training_words(prepared, tmp_path / "run", *words) if not word.startswith("model.")]
    whole = run_script(*words)
    assert whole.returncode == 0, whole.stderr
    before = [line["watch"] for line in lines(tmp_path / "run") if "watch" in line]
    (tmp_path / "run" / "summary.json").unlink()
    for folder in sorted((tmp_path / "run" / "checkpoints").iterdir())[1:]:
        folder.rename(tmp_path / folder.name)
    assert run_script(*words).returncode == 0
    assert [line["watch"] for line in lines(tmp_path / "run") if "watch" in line] == before


@pytest.mark.slow
def test_the_experiments_run_from_a_hugging_face_folder(prepared, tmp_path):
    """continue_multilingual keeps the tokenizer; transplant_vocabulary uses ours; as a user would run them."""
    write_peer(tmp_path / "theirs", "mbert")
    small = [word for word in TINY if not word.startswith(("model.", "tokenizer.", "phases", "budget"))]
    common = [
        f"start_from={tmp_path / 'theirs'}",
        f"corpus_dir={prepared / 'corpus'}",
        "corpus=demo",
        "corpus.path=data/demo/corpus",
        "phases=[{max_length: 64, until: 1.0}]",
        "budget={steps: 4, epochs: null}",
        *small,
    ]
    kept = run_script("train.py", "experiment=continue_multilingual", f"workdir={tmp_path / 'a'}", *common)
    assert kept.returncode == 0, kept.stderr
    assert load_tokenizer(tmp_path / "a" / "tokenizer").identity == load_masked_lm(tmp_path / "theirs")[1].identity
    for method in ("focus", "mean"):
        work = tmp_path / "b"
        run = work / method
        words = [*common, f"transplant={method}", f"hydra.run.dir={run}", "tokenizer.vocab_size=1500"]
        moved = run_script("train.py", "experiment=transplant_vocabulary", f"workdir={work}", *words)
        assert moved.returncode == 0, moved.stderr
        assert f"transplant={method}: " in moved.stdout
        assert load_masked_lm(run)[0].encoder.config.hidden_size == 32
