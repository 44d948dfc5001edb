"""Sentence vectors: the loss by its definition, pairs from neighbours, and equality with sentence-transformers."""

import json

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from scipy.stats import spearmanr

from common.errors import UserError
from common.files import read_json, write_jsonl, write_text
from data.layout import Layout
from language.azerbaijani import LANGUAGE as AZ
from model.convert.importing import import_checkpoint
from model.embeddings import embed, export_sentences, main, mean_vectors, rows_of
from model.encoder import EncoderConfig
from model.folder import write_checkpoint
from model.mlm import MaskedLM
from model.store import load_encoder
from tasks.next_sentence import read_documents
from tasks.splits import split_of
from tests.conftest import ROOT, run_script
from tests.model.peers import write_peer
from tokenization.loading import load_tokenizer
from tokenization.tokenizer import Tokenizer
from training.sentences import info_nce, neighbours, repeats, run, scored_pairs, spearman

TEXTS = ["Bakı Azərbaycanın paytaxtıdır.", "İlıq yağış yağır, uşaqlar evə qaçır, çünki hava soyuyur və külək əsir.", "Salam!"]


@pytest.fixture(autouse=True)
def hf_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))


def checkpoint_of(folder, tokenizer: Tokenizer, architecture: str, **more):
    shape = {"hidden_size": 32, "layers": 3, "heads": 2, "intermediate_size": 48, "max_length": 64, "initializer_range": 0.2}
    torch.manual_seed(0)
    model = MaskedLM(EncoderConfig(architecture=architecture, vocab_size=tokenizer.vocab_size, **(shape | more)))
    write_checkpoint(folder, model.state_dict(), model.encoder.config, tokenizer, {"name": "cümlə"})


def test_mean_over_all_tokens_at_unit_length(prepared, tmp_path):
    """By hand, one text at a time; the same in any order and batch; longer texts are cut."""
    tokenizer = load_tokenizer(prepared / "tokenizer")
    checkpoint_of(tmp_path / "ours", tokenizer, "bert")
    encoder, _ = load_encoder(tmp_path / "ours")
    vectors = embed(encoder, tokenizer, [*TEXTS, TEXTS[1] * 9], 20)
    encoder.eval()
    for text, vector in zip([*TEXTS, TEXTS[1] * 9], vectors, strict=True):
        row = rows_of(tokenizer, [text], 20)[0]
        assert len(row) <= 20 and row[0] == tokenizer.cls_id and row[-1] == tokenizer.sep_id
        with torch.no_grad():
            mean = encoder(torch.from_numpy(row), Layout.of([len(row)])).mean(0)
        torch.testing.assert_close(vector, mean / mean.norm(), atol=1e-5, rtol=1e-5)
    assert not encoder.training


def test_info_nce_is_its_definition():
    """A loop over rows; a second text equal to the positive is not a negative."""
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.nn.functional.normalize(torch.randn(5, 7, generator=generator), dim=1) for _ in range(2))
    names = np.array([0, 1, 2, 1, 4])
    total = 0.0
    for i in range(5):
        for rows, columns in ((first, second), (second, first)):
            scores = [float(rows[i] @ columns[j]) / 0.1 for j in range(5) if j == i or names[j] != names[i]]
            own = float(rows[i] @ columns[i]) / 0.1
            total += np.log(np.sum(np.exp(scores))) - own
    assert float(info_nce(first, second, repeats(names), 0.1)) == pytest.approx(total / 10, rel=1e-5)


def test_spearman_equals_scipys():
    random = np.random.default_rng(0)
    for ties in (3, 100):
        a, b = random.integers(0, ties, 200), random.normal(size=200)
        assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def test_neighbours_are_from_one_document():
    documents = [{"id": f"d{n}", "text": " ".join(f"Cümlə nömrə {n} {k} burada durur." for k in range(7))} for n in range(40)]
    train, heldout = neighbours(documents, AZ)
    assert len(train) + len(heldout) == 40 * 3
    used = [text for pair in train + heldout for text in pair]
    assert len(used) == len(set(used))
    for part, held in ((train, False), (heldout, True)):
        for first, second in part:
            number, place = first.split()[2], int(first.split()[3])
            assert (split_of(f"d{number}") == 2) == held and second.split()[2:4] == [number, str(place + 1)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("score\tsentence1\tsentence2\n5.0\ta b\n", "line 2"),
        ("score\tsentence1\tsentence2\nx\ta\tb\n", "line 2"),
        ("score\tsentence1\tsentence2\n1\ta\tb\n", "fewer than two"),
    ],
)
def test_bad_scored_pairs_are_named(content, said, tmp_path):
    write_text(tmp_path / "pairs.tsv", content)
    with pytest.raises(UserError, match=said):
        scored_pairs(tmp_path / "pairs.tsv")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "modern", "xlm-roberta"])
def test_sentence_transformers_gives_the_same_vectors(kind, prepared, tmp_path, capsys):
    library = pytest.importorskip("sentence_transformers", reason="installed with requirements-dev.txt")
    if kind == "xlm-roberta":
        write_peer(tmp_path / "theirs", kind)
        import_checkpoint(str(tmp_path / "theirs"), tmp_path / "ours")
    else:
        more = {"norm_eps": 1e-5, "window": 4} if kind == "modern" else {}
        checkpoint_of(tmp_path / "ours", load_tokenizer(prepared / "tokenizer"), kind, **more)
    assert main(["export", str(tmp_path / "ours"), str(tmp_path / "out")]) == 0
    texts = [*TEXTS, TEXTS[1] * 9]
    model = library.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    encoder, tokenizer = load_encoder(tmp_path / "ours")
    vectors = embed(encoder, tokenizer, texts, 512)
    np.testing.assert_allclose(model.encode(texts), vectors.numpy(), atol=1e-5)
    assert model.similarity(vectors[:1], vectors).shape == (1, 4)
    import transformers

    peer = transformers.AutoModel.from_pretrained(tmp_path / "out")
    assert peer.config.hidden_size == 32
    back = import_checkpoint(str(tmp_path / "out"), tmp_path / "back")
    assert any("no masked-LM head" in note for note in back)
    again, _ = load_encoder(tmp_path / "back")
    assert torch.equal(embed(again, tokenizer, texts, 512), vectors)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "library_name: sentence-transformers" in card and "SentenceTransformer(" in card
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    assert main(["vectors", str(tmp_path / "ours"), str(tmp_path / "texts.txt"), str(tmp_path / "v.npy")]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), vectors[:3].numpy(), atol=1e-6)
    assert main(["export", str(tmp_path / "ours"), str(tmp_path / "out")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_gradients_flow_and_training_brings_pairs_together(prepared, tmp_path):
    tokenizer = load_tokenizer(prepared / "tokenizer")
    checkpoint_of(tmp_path / "ours", tokenizer, "bert")
    encoder, _ = load_encoder(tmp_path / "ours")
    encoder.eval()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-2)
    rows = rows_of(tokenizer, [*TEXTS, "Bakı böyük şəhərdir.", "Külək əsir.", "Sağ ol!"], 32)
    losses = []
    for _ in range(8):
        first, second = mean_vectors(encoder, rows, torch.device("cpu")).split(3)
        loss = info_nce(first, second, repeats(np.arange(3)), 0.1)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2


NOUNS = ("kitab", "dağ", "çay", "şəhər", "uşaq", "qatar", "alma", "dəniz", "bulud", "ağac", "körpü", "bazar", "səhər", "axşam")


def by_hand(encoder, tokenizer, texts):
    """Unit means over the tokens, one text at a time."""
    found = []
    for row in rows_of(tokenizer, texts, 48):
        mean = encoder(torch.from_numpy(row), Layout.of([len(row)])).sum(0) / len(row)
        found.append(mean / mean.square().sum().sqrt())
    return torch.stack(found)


def scores_by_hand(first, second, a, b, gold):
    """Share of texts whose own successor is the nearest, and Spearman by scipy, of vectors [n, H]."""
    nearest = [max(range(len(second)), key=lambda j, i=i: float(first[i] @ second[j])) == i for i in range(len(first))]
    cosines = [float(x @ y) for x, y in zip(a, b, strict=True)]
    return {"next_sentence": np.mean(nearest), "of": len(first), "spearman": spearmanr(cosines, gold).statistic}


def test_one_step_equals_the_definition(prepared, tmp_path):
    """Pairs, loss, gradient, updated weights and scores, all from this test's texts and torch's primitives."""
    tokenizer = load_tokenizer(prepared / "tokenizer")
    checkpoint_of(tmp_path / "ours", tokenizer, "bert", dropout=0.0)
    pairs = {
        f"d{n}": (f"Bu gün {noun} haqqında danışırıq.", f"Sabah {noun} barədə bir nağıl oxuyacağıq!")
        for n, noun in enumerate(NOUNS, start=10)
    }
    pairs["d11"] = (pairs["d11"][0], pairs["d10"][1])  # equal to another positive
    write_jsonl(tmp_path / "texts.jsonl", [{"id": name, "text": f"{a} {b} Son."} for name, (a, b) in pairs.items()])
    train, heldout = ([pair for name, pair in pairs.items() if (split_of(name) == 2) == held] for held in (False, True))
    assert len(heldout) > 2 and {pairs["d10"], pairs["d11"]} <= set(train)
    gold = [3.0, 1.0, 2.0]
    write_jsonl(
        tmp_path / "scored.jsonl",
        [{"text": a, "text_b": b, "score": score} for (a, b), score in zip(train, gold, strict=False)],
    )
    rate, decay = 1e-2, 0.1
    words = [
        f"checkpoint={tmp_path / 'ours'}",
        f"documents={tmp_path}/texts.jsonl",
        f"test={tmp_path / 'scored.jsonl'}",
        f"run_dir={tmp_path / 'run'}",
        f"batch={len(train)}",
        "max_length=48",
        "temperature=0.2",
        "log_every=1",
        "clip=null",
        "schedule.warmup=0",
        f"optimizer.lr={rate}",
        f"optimizer.weight_decay={decay}",
        "device=cpu",
        "precision=fp32",
    ]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert run(compose("sentences", words)) == 0

    encoder, _ = load_encoder(tmp_path / "ours")
    encoder.eval()
    first, second = (by_hand(encoder, tokenizer, list(texts)) for texts in zip(*train, strict=True))
    loss = 0
    for i, (_, own) in enumerate(train):
        others = [j for j, (_, b) in enumerate(train) if j == i or b != own]
        for rows, columns in ((first, second), (second, first)):
            likely = torch.exp(torch.stack([rows[i] @ columns[j] for j in others]) / 0.2)
            loss = loss - torch.log(likely[others.index(i)] / likely.sum()) / (2 * len(train))
    loss.backward()
    gradients = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    (step,) = [line for line in lines if "loss" in line]
    assert step["loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
    norm = sum(float(g.square().sum()) for g in gradients.values()) ** 0.5
    assert step["gradient_norm"] == pytest.approx(norm, rel=1e-3)

    after, _ = load_encoder(tmp_path / "run" / "checkpoint")
    moved = dict(after.named_parameters())
    for name, weight in encoder.named_parameters():
        wanted = weight.detach().clone()
        if name in gradients:  # Adam's first step: the first moment gives the gradient, the second its square
            wanted *= 1 - rate * decay * (weight.ndim > 1)
            wanted -= rate * gradients[name] / (gradients[name].abs() + 1e-6)
        torch.testing.assert_close(moved[name], wanted, atol=0.1 * rate, rtol=0)
    assert max(float((moved[name] - weight).detach().abs().max()) for name, weight in encoder.named_parameters()) > 0.9 * rate

    summary = read_json(tmp_path / "run" / "summary.json")
    for when, model in (("before", encoder), ("after", after.eval())):
        with torch.no_grad():
            vectors = [
                by_hand(model, tokenizer, list(texts)) for texts in (*zip(*heldout, strict=True), *zip(*train[:3], strict=True))
            ]
        assert summary[when] == pytest.approx(scores_by_hand(*vectors, gold)), when


@pytest.mark.slow
def test_the_command(prepared, tmp_path):
    """From the demo's documents: transformers on the exported folder has the scores that the run printed; a rerun is
    skipped; bad overrides exit with 2."""
    import transformers

    checkpoint_of(tmp_path / "ours", load_tokenizer(prepared / "tokenizer"), "bert", initializer_range=0.02)
    write_jsonl(tmp_path / "scored.jsonl", [{"text": t, "text_b": t[:-1], "score": n} for n, t in enumerate(TEXTS)])
    words = [
        "-m",
        "training.sentences",
        f"checkpoint={tmp_path / 'ours'}",
        f"documents={ROOT}/data/demo/corpus/*.jsonl",
        "optimizer.lr=3e-3",
        "epochs=5",
        "batch=16",
        "max_length=48",
        "device=cpu",
        "precision=fp32",
        "threads=1",
        f"test={tmp_path / 'scored.jsonl'}",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]
    result = run_script(*words)
    assert result.returncode == 0, result.stderr
    summary = read_json(tmp_path / "run" / "summary.json")
    losses = [line["loss"] for line in map(json.loads, (tmp_path / "run" / "metrics.jsonl").open()) if "loss" in line]
    assert losses[-1] < losses[0] and summary["after"]["next_sentence"] > summary["before"]["next_sentence"]
    export_sentences(tmp_path / "run", tmp_path / "out")
    _, heldout = neighbours(read_documents(sorted((ROOT / "data" / "demo" / "corpus").glob("*.jsonl"))), AZ)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    model = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()

    def vectors(texts):
        batch = theirs(list(texts), padding=True, truncation=True, max_length=48, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"][:, :, None]
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)

    both = [vectors(texts) for texts in (*zip(*heldout, strict=True), TEXTS, [text[:-1] for text in TEXTS])]
    assert summary["after"] == pytest.approx(scores_by_hand(*both, range(3)))
    shown = f"{summary['after']['next_sentence']:.1%} of {len(heldout)} held-out sentences"
    assert shown in result.stdout and f"Sentence vectors: {shown}" in (tmp_path / "out" / "README.md").read_text()
    assert "already complete" in run_script(*words).stdout
    for word, said in (
        ("documents=nowhere/*.jsonl", "no such files"),
        ("batch=1", "at least 2"),
        ("checkpoint=nowhere", "nowhere"),
    ):
        result = run_script(*words[:-1], f"hydra.run.dir={tmp_path / 'other'}", word)
        assert result.returncode == 2 and said in result.stderr and "Traceback" not in result.stderr
