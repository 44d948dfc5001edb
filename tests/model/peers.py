"""Tiny random checkpoints in each family's own file format, made with transformers and tokenizers; no data set, no network."""

import json
from pathlib import Path

import tokenizers
import torch
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from common.files import read_json, write_json
from tasks.base import kind_of, known_kinds

TEXTS = [
    "Bakı Azərbaycanın paytaxtı və ən böyük şəhəridir.",
    "İlıq yağış yağır, uşaqlar evə qaçır.",
    "Iğdırda qızıl üzük 12 manata satılır.",
    "Kitab oxumaq gözəldir; dağlar isə ağdır.",
    "Qış gəldi, çay dondu!",
    "söz",
]
BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
FAMILIES = ("bert", "mbert", "roberta", "xlm-roberta", "modernbert", "mmbert")
TYPES = {"mbert": "bert", "mmbert": "modernbert"}
SUFFIXES = {kind: kind_of(kind).transformers for kind in known_kinds() if kind_of(kind).transformers}
NAMES = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "modernbert": "ModernBert"}


def write_tokenizer(folder: Path, family: str) -> dict[str, int]:
    """The family's tokenizer files, trained on TEXTS; returns its special ids and vocab_size for a config."""
    folder.mkdir(parents=True, exist_ok=True)
    special = ROBERTA if "roberta" in family else BERT
    if family in ("bert", "mbert"):
        tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        lower = family == "bert"
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=220, special_tokens=list(BERT)))
        tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in tokens), encoding="utf-8")
        write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": lower})
    elif family in ("roberta", "modernbert"):
        order = ["<s>", "<pad>", "</s>", "<unk>"] if family == "roberta" else list(BERT)
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.train_from_iterator(
            TEXTS,
            trainers.BpeTrainer(vocab_size=340, special_tokens=order, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()),
        )
        tokenizer.add_special_tokens([special[4]])
        name = "RobertaTokenizerFast" if family == "roberta" else "PreTrainedTokenizerFast"
        _finish(folder, tokenizer, special, name, "{0} $A {1} {1} $B {1}" if family == "roberta" else None)
    elif family == "xlm-roberta":
        words = sorted(
            {"▁" + word[:end] for text in TEXTS for word in text.split() for end in range(1, 8)} | set("".join(TEXTS))
        )
        scored = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")] + [(word, len(word) - 12.0) for word in words]
        tokenizer = tokenizers.Tokenizer(models.Unigram(scored, unk_id=3))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.add_special_tokens(["<mask>"])
        _finish(folder, tokenizer, special, "XLMRobertaTokenizerFast", "{0} $A {1} {1} $B {1}")
    else:  # Gemma's: <bos> and <eos> are not named cls_token and sep_token; spaces become ▁, unknown characters bytes
        tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.train_from_iterator(
            TEXTS, trainers.BpeTrainer(vocab_size=200, special_tokens=["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
        )
        _finish(folder, tokenizer, ("<pad>", "<unk>", "<bos>", "<eos>", "<mask>"), "GemmaTokenizerFast", None, named=False)
        special = ("<pad>", "<unk>", "<bos>", "<eos>", "<mask>")
    ids = {
        role: tokenizer.token_to_id(token) for role, token in zip(("pad", "unk", "cls", "sep", "mask"), special, strict=True)
    }
    return {f"{role}_token_id": index for role, index in ids.items()} | {"vocab_size": tokenizer.get_vocab_size()}


def _finish(folder: Path, tokenizer, special, name: str, pair: str | None, named: bool = True) -> None:
    cls, sep = special[2:4]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=(pair or "{0} $A {1} $B {1}").format(cls, sep),
        special_tokens=[(cls, tokenizer.token_to_id(cls)), (sep, tokenizer.token_to_id(sep))],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    if not named:
        roles = {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>", "bos_token": "<bos>", "eos_token": "<eos>"}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": name, "model_max_length": 10**30, **roles})


def write_peer(folder: Path, family: str, suffix: str = "ForMaskedLM", **settings):
    """A random checkpoint of a family with the head `suffix`, saved by transformers; returns the model, without dropout."""
    import transformers

    ids = write_tokenizer(folder, family)
    kind = TYPES.get(family, family)
    shape = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48} | ids
    shape |= {"bos_token_id": ids["cls_token_id"], "eos_token_id": ids["sep_token_id"]}
    if kind == "modernbert":
        shape |= {"max_position_embeddings": 64, "local_attention": 8}
        shape["rope_parameters"] = {
            "full_attention": {"rope_type": "default", "rope_theta": 160000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0 if family == "modernbert" else 160000.0},
        }
    else:
        shape |= {"max_position_embeddings": 64 if kind == "bert" else 66}
        if kind != "bert":
            shape |= {"type_vocab_size": 1, "layer_norm_eps": 1e-5}
    config = transformers.AutoConfig.for_model(kind, **(shape | settings))
    torch.manual_seed(0)
    model = getattr(transformers, NAMES[kind] + suffix)(config).eval()
    with torch.no_grad():  # biases and norms away from 0 and 1, so that a missing one shows
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    if family == "xlm-roberta":
        model.save_pretrained(folder, max_shard_size="20KB")
        assert (folder / "model.safetensors.index.json").exists()
    else:
        model.save_pretrained(folder)
    if family == "mbert":  # as google-bert's files are: torch's own format, gamma and beta, position_ids
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
            for name, value in model.state_dict().items()
        }
        old["bert.embeddings.position_ids"] = torch.arange(64)[None]
        torch.save(old, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    if family == "mmbert":  # its config.json has the older keys, layer_norm_eps, and <eos> for cls
        values = read_json(folder / "config.json")
        ropes = values.pop("rope_parameters")
        values.pop("layer_types")
        values |= {
            "global_rope_theta": ropes["full_attention"]["rope_theta"],
            "position_embedding_type": "sans_pos",
            "local_rope_theta": ropes["sliding_attention"]["rope_theta"],
            "global_attn_every_n_layers": 3,
            "layer_norm_eps": values["norm_eps"],
            "cls_token_id": ids["sep_token_id"],
            "sep_token_id": ids["sep_token_id"],
        }
        write_json(folder / "config.json", values)
    return model


def change_config(folder: Path, **values) -> None:
    """Set keys of a folder's config.json; None removes one."""
    path = folder / "config.json"
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
