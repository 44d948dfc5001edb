"""One measurement of a pre-training step, ours or transformers', in its own process (see benchmarks.pretraining).

    python -m benchmarks.peers '{"way": "ours", ...}'      prints one line of JSON; benchmarks.measure.in_child calls it

Both sides read the same shards, and both count text tokens only, neither padding nor special tokens. Ours is the step of
train.py, built from the same parts. The peer is what transformers' run_mlm script does: documents joined and cut into
blocks (`group_texts`) or, for "theirs-padded", one document a row, padded to the longest of its batch; its collator;
BertForMaskedLM; fused AdamW and clipping as in its Trainer, without the Trainer's own overhead.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from benchmarks.measure import child
from common.errors import UserError
from common.launch import ROOT
from data.layout import Layout
from data.loader import Batch, Loader, ahead
from data.masking import Masking
from data.packing import SPECIALS, pack_epoch, stream
from data.shards import DOCUMENT, Shards, open_shards
from model.convert.families import config_to_transformers, to_transformers
from model.encoder import EncoderConfig, count_parameters
from model.mlm import MaskedLM
from tokenization.loading import load_tokenizer
from training.distributed import Ranks, start, without_sync
from training.flops import measured_peak, step_flops
from training.memory import keep_freed_blocks, keep_kernels_once
from training.optimizers import build_optimizers, step_unless
from training.precision import choose_dtype, choose_kernels
from training.settings import Optimizer
from training.tracking import peak_memory, reset_peak_memory

PAD, UNK, CLS, SEP, MASK = range(5)  # of documents made of random tokens
CLOSE = 1e-4  # largest difference of the two losses, from the same weights and ids in fp32


def documents(work: dict[str, Any]) -> tuple[Shards, Masking, int, int]:
    """Shards, masking, [CLS] and [SEP] of a prepared folder, or random tokens in documents of `random` [n] lengths."""
    options = {key: value for key, value in group("masking", work["masking"]).items() if not key.startswith("rate_")}
    vocab = work["shape"]["vocab_size"]
    if work.get("data"):
        tokenizer = load_tokenizer(Path(work["data"]) / "tokenizer")
        if tokenizer.vocab_size > vocab:
            raise UserError(
                f"--vocab {vocab}: the tokenizer of {work['data']} has {tokenizer.vocab_size} tokens. Give as many."
            )
        shards = open_shards(Path(work["data"]) / "shards", tokenizer)
        return shards, Masking.of(tokenizer, **options), tokenizer.cls_id, tokenizer.sep_id
    lengths = np.array(work["random"])
    table = np.zeros(len(lengths), DOCUMENT)
    table["length"], table["start"] = lengths, np.cumsum(lengths) - lengths
    tokens = stream(0).integers(MASK + 1, vocab, lengths.sum()).astype("<u4")
    special = np.arange(vocab) <= MASK
    masking = Masking(MASK, special, np.zeros(vocab, bool), np.arange(MASK + 1, vocab), **options)
    return Shards(Path(), tokens, table, {"sources": ["random"]}), masking, CLS, SEP


def group(name: str, option: str) -> dict[str, Any]:
    """The settings of conf/NAME/OPTION.yaml."""
    return OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / name / f"{option}.yaml"))  # type: ignore[return-value]


# ---------------------------------------------------------------------------------------------------- ours


def our_model(work: dict[str, Any], device: torch.device) -> MaskedLM:
    """Our model of the requested shape, with weights from seed 0."""
    torch.manual_seed(0)
    return MaskedLM(EncoderConfig.from_dict(work["shape"]), last_block_on_masked=True).to(device)


def our_steps(work: dict[str, Any], raw: MaskedLM, ranks: Ranks) -> Iterator[tuple[int, float, torch.Tensor]]:
    """Endless steps as in train.py: (text tokens over all ranks, FLOPs, loss) of each."""
    device = ranks.device
    shards, masking, cls_id, sep_id = documents(work)
    budget = work["batch_tokens"] // ranks.world
    loader = Loader(shards, masking, np.ones(len(shards.sources)), budget, 0, cls_id, sep_id)
    dtype = choose_dtype(work["precision"], device)
    optimizers = build_optimizers(raw, Optimizer(**group("optimizer", work["optimizer"])), dtype)
    model = ranks.wrap(torch.compile(raw, dynamic=True) if work["compile"] else raw)
    cast = (lambda: torch.autocast(device.type, dtype)) if dtype != torch.float32 else contextlib.nullcontext

    def numbers() -> Iterator[tuple[int, int]]:
        epoch = 0
        while True:
            whole = len(loader.plan(epoch, work["length"])) - 1  # the last batch of an epoch is not full
            if whole < ranks.world:
                raise UserError(f"{work.get('data')}: less than one batch of {budget} tokens a rank. Lower --batch-tokens.")
            yield from ((epoch, number) for number in range(ranks.rank, whole // ranks.world * ranks.world, ranks.world))
            epoch += 1

    def made(which: tuple[int, int]) -> Batch:
        return loader.batch(*which, work["length"], work["rate"]).to(device)

    for batch in ahead(numbers(), made):
        masked, text = ranks.host_sum(len(batch.targets), int(batch.lengths_by_source.sum()))
        torch.manual_seed(batch.seed)
        with without_sync(model, True), cast():
            loss = model(batch.ids, batch.layout, batch.positions, batch.targets) / masked
        (loss * ranks.world).backward()
        norm = torch.nn.utils.clip_grad_norm_(raw.parameters(), 1.0)
        step_unless(~(torch.isfinite(loss.detach()) & torch.isfinite(norm)), optimizers)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        flops = step_flops(raw, batch.layout.lengths[: len(batch.documents)], len(batch.targets)) * ranks.world
        yield int(text), flops, loss.detach()


# ---------------------------------------------------------------------------------------------------- theirs


def peer_model(work: dict[str, Any], raw: MaskedLM) -> torch.nn.Module:
    """transformers' *ForMaskedLM with our weights and SDPA attention, as AutoModel configures it."""
    import transformers

    config = raw.encoder.config
    family = "bert" if config.architecture == "bert" else "modernbert"
    special = {"pad_token_id": PAD, "cls_token_id": CLS, "sep_token_id": SEP, "bos_token_id": CLS, "eos_token_id": SEP}
    values = config_to_transformers(config, family, special) | {"attention_probs_dropout_prob": work["attention_dropout"]}
    peer = transformers.AutoModelForMaskedLM.from_config(transformers.AutoConfig.for_model(**values))
    result = peer.load_state_dict(to_transformers(raw.state_dict(), config, family), strict=False)
    if result.unexpected_keys or any("decoder" not in name for name in result.missing_keys):
        raise UserError(f"transformers' model does not take our weights: {result}. Use a version from requirements-dev.txt.")
    return peer


def peer_collator(work: dict[str, Any]) -> Any:
    """transformers' masking collator with the tokenizer of the prepared folder, or with as many random tokens."""
    import tokenizers
    import transformers

    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    words = dict(zip(names, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), strict=True))
    if work.get("data"):
        engine = tokenizers.Tokenizer.from_file(str(Path(work["data"]) / "tokenizer" / "tokenizer.json"))
    else:
        tokens = [*words.values(), *(str(number) for number in range(MASK + 1, work["shape"]["vocab_size"]))]
        engine = tokenizers.Tokenizer(
            tokenizers.models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="[UNK]")
        )
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=engine, **words)
    return transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=work["rate"])


def joined_blocks(shards: Shards, length: int, cls_id: int, sep_id: int, count: int) -> np.ndarray:
    """The first `count` blocks [n, length] of shuffled documents joined end to end, as `group_texts` makes them."""
    order, parts, filled = stream(0, 1).permutation(len(shards.documents)), [], 0
    for row in order:
        begin, size = shards.documents["start"][row], shards.documents["length"][row]
        parts += [[cls_id], shards.tokens[begin : begin + size], [sep_id]]
        filled += size + SPECIALS
        if filled >= count * length:
            break
    flat = np.concatenate(parts).astype(np.int64)
    return flat[: len(flat) // length * length].reshape(-1, length)


def single_documents(shards: Shards, length: int, cls_id: int, sep_id: int, count: int) -> list[np.ndarray]:
    """`count` windows of documents in the order of our packing, each [CLS] text [SEP] of at most `length` tokens."""
    lengths = shards.documents["length"]
    plan = pack_epoch(lengths, np.ones(len(lengths), np.int64), length, 1 << 40, stream(0, 1))
    starts = shards.documents["start"][plan.document] + plan.start
    return [
        np.concatenate([[cls_id], shards.tokens[begin : begin + size], [sep_id]]).astype(np.int64)
        for begin, size in zip(starts[:count], plan.length[:count], strict=True)
    ]


def peer_steps(
    work: dict[str, Any], peer: torch.nn.Module, device: torch.device, rate: Callable[[], float] = lambda: 5e-5
) -> Iterator[tuple[int, float, torch.Tensor]]:
    """Endless steps as in transformers' script: (text tokens, 0, loss) of each.

    Joined: one batch of batch_tokens a step. Padded: as many batches of the same number of rows as hold about as much text, so
    that only padding differs. Rows are shuffled for each epoch, as in its Trainer. `rate` is the learning rate at the moment
    (5e-5 in its script). Rows are made during this call, before any time is measured.
    """
    shards, _, cls_id, sep_id = documents(work)
    collate = peer_collator(work)
    rows, length = max(1, work["batch_tokens"] // work["length"]), work["length"]
    n_steps = work["warmup"] + work["steps"]
    if work["way"] == "theirs-padded":
        real = int(np.minimum(shards.documents["length"], length - SPECIALS).mean()) + SPECIALS
        texts: Any = single_documents(shards, length, cls_id, sep_id, 4 * n_steps * work["batch_tokens"] // real + rows)
    else:
        texts = joined_blocks(shards, length, cls_id, sep_id, n_steps * rows)
    if len(texts) < rows:
        raise UserError(
            f"{work.get('data', 'random tokens')}: {len(texts)} rows, but a batch has {rows}. Lower --batch-tokens."
        )
    examples = []
    for ids in texts:
        special = (ids == cls_id) | (ids == sep_id)
        examples.append(
            {"input_ids": ids.tolist(), "special_tokens_mask": special.astype(int).tolist(), "text": int((~special).sum())}
        )
    optimizer = torch.optim.AdamW(peer.parameters(), lr=5e-5, weight_decay=0.0, fused=True)  # its Trainer's
    model = torch.compile(peer) if work["compile"] else peer
    dtype = torch.bfloat16 if work["precision"] == "bf16" else torch.float32
    cast = (lambda: torch.autocast(device.type, dtype)) if dtype != torch.float32 else contextlib.nullcontext
    least = work["batch_tokens"] - work["length"] if work["way"] == "theirs-padded" else 1

    def batches() -> Iterator[list[dict[str, Any]]]:
        order, epoch = np.arange(len(examples)), 0  # in the first epoch as they were drawn
        while True:
            for at in range(0, len(order) - rows + 1, rows):
                yield [examples[number] for number in order[at : at + rows]]
            epoch += 1
            order = stream(0, 2, epoch).permutation(len(examples))

    def taken() -> Iterator[tuple[int, float, torch.Tensor]]:
        source = batches()
        while True:
            chosen, text = [], 0
            optimizer.param_groups[0]["lr"] = rate()
            while text < least:
                chosen.append(next(source))
                text += sum(example["text"] for example in chosen[-1])
            total = torch.zeros((), device=device)
            for part in chosen:
                batch = collate([{key: example[key] for key in ("input_ids", "special_tokens_mask")} for example in part])
                with cast():
                    loss = model(**{key: value.to(device) for key, value in batch.items()}).loss / len(chosen)
                loss.backward()
                total += loss.detach()
            torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            yield text, 0.0, total

    return taken()


# ---------------------------------------------------------------------------------------------------- the measurement


def same_loss(work: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Both losses in fp32 without dropout for the same weights, ids and masks, with joined blocks and with padded documents."""
    raw = our_model(work, device).eval()
    peer = peer_model(work, raw).to(device).eval()
    shards, _, cls_id, sep_id = documents(work)
    found = {}
    for name, texts in (
        ("joined", list(joined_blocks(shards, work["length"], cls_id, sep_id, 4))[:4]),
        ("padded", single_documents(shards, work["length"], cls_id, sep_id, 6)),
    ):
        special = [((ids == cls_id) | (ids == sep_id)).astype(int).tolist() for ids in texts]
        torch.manual_seed(0)
        batch = peer_collator(work)(
            [{"input_ids": ids.tolist(), "special_tokens_mask": mask} for ids, mask in zip(texts, special, strict=True)]
        )
        real = torch.arange(batch["input_ids"].shape[1]) < torch.tensor([len(ids) for ids in texts])[:, None]
        labels = batch["labels"][real]
        positions = torch.nonzero(labels >= 0).flatten()
        with torch.no_grad():
            theirs = peer(
                batch["input_ids"].to(device), attention_mask=real.long().to(device), labels=batch["labels"].to(device)
            ).loss
            layout = Layout.of([len(ids) for ids in texts], device)
            ours = raw(batch["input_ids"][real].to(device), layout, positions.to(device), labels[positions].to(device)) / len(
                positions
            )
        found[name] = {"ours": float(ours), "theirs": float(theirs), "masked": len(positions)}
        if not abs(found[name]["ours"] - found[name]["theirs"]) <= CLOSE:
            raise UserError(f"the losses differ by more than {CLOSE} on {name} documents: {found[name]}. Nothing was measured.")
    return found


def measure(work: dict[str, Any]) -> dict[str, Any] | None:
    """Run warm-up steps, then time `steps` steps. Returns None on all ranks but the first."""
    ranks = start(work["device"])
    device = ranks.device
    if work["way"] == "check":
        return same_loss(work, device)
    attention = choose_kernels(work.get("deterministic", False), work.get("flash_attention", "FA2"), device, ranks.first)
    reset_peak_memory(device)
    if work["way"] == "ours":
        keep_freed_blocks()  # as train.py does
        keep_kernels_once()
    raw = our_model(work, device)
    if work["way"] == "ours":
        steps = our_steps(work, raw, ranks)
        parameters = count_parameters(raw)
    else:
        peer = peer_model(work, raw).to(device)
        parameters = count_parameters(raw)
        del raw
        steps = peer_steps(work, peer, device)

    def settled() -> tuple[float, float]:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter(), time.process_time()

    for _ in range(work["warmup"]):
        next(steps)
    begin = settled()
    taken = [next(steps) for _ in range(work["steps"])]
    end = settled()
    seconds, text, flops = end[0] - begin[0], sum(step[0] for step in taken), sum(step[1] for step in taken)
    peak = peak_memory(device)
    steps.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():  # a thread that is still making a batch when the process ends would abort it
        if thread.daemon:
            thread.join(timeout=5)
    dtype = choose_dtype(work["precision"], device)
    rate = measured_peak(device, dtype)
    if not ranks.first:
        return None
    return {
        "tokens": text,
        "seconds": seconds,
        "cpu_seconds": end[1] - begin[1],
        "tokens_per_second": text / seconds,
        "step_seconds": seconds / work["steps"],
        "peak_bytes": peak,
        "loss": float(taken[-1][2]),
        "flops": flops,
        "matmul_flops_per_second": rate,
        "mfu": flops / seconds / rate / ranks.world if flops else None,
        "dtype": str(dtype).removeprefix("torch."),
        "parameters": parameters,
        "attention": attention if work["way"] == "ours" else None,
    }


if __name__ == "__main__":
    child(measure)
