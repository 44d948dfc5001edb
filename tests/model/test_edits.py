"""The three edits of docs/model.md: a new activation, norms on queries and keys, a new scheme of positions."""

import re

import pytest
import torch
import torch.nn.functional as F

from common.errors import UserError
from data.layout import Layout
from model.attention import force_route
from model.convert.export import export_checkpoint
from model.encoder import ACTIVATIONS, BLOCKS, Encoder, EncoderConfig, rotate
from model.mlm import MaskedLM
from tests.conftest import ROOT
from tests.model.test_export import config_of, own, write_masked_lm  # noqa: F401  (own: a fixture)

LENGTHS = [5, 1, 9]
CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def encoder_of(architecture: str, **more) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(config_of(architecture, **more)).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return encoder


def ids_of(lengths: list[int] = LENGTHS) -> torch.Tensor:
    return torch.randint(5, 120, (sum(lengths),), generator=torch.Generator().manual_seed(1))


def one_by_one(encoder: Encoder, ids: torch.Tensor) -> torch.Tensor:
    """Each document alone: the result that a batch must give whatever else it contains."""
    return torch.cat([encoder(part, Layout.of([len(part)])) for part in ids.split(LENGTHS)])


@pytest.mark.parametrize("architecture", BLOCKS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_matches_its_name(architecture, name):
    """The block's output equals that of the feed-forward layer with this function."""
    peers = {"gelu": torch.nn.GELU(), "gelu_tanh": torch.nn.GELU("tanh"), "relu": torch.nn.ReLU(), "silu": torch.nn.SiLU()}
    block = encoder_of(architecture, activation=name, layers=1).blocks[0]
    x = torch.randn(7, 32)
    if architecture == "bert":
        assert torch.equal(block.activation(block.mlp_in(x)), peers[name](block.mlp_in(x)))
    other = encoder_of(architecture, activation="relu" if name != "relu" else "silu", layers=1)
    same = encoder_of(architecture, activation=name, layers=1)
    other.load_state_dict(same.state_dict())
    ids, layout = ids_of(), Layout.of(LENGTHS)
    with torch.no_grad():
        assert not torch.allclose(same(ids, layout), other(ids, layout), atol=1e-3)


def test_a_new_activation_is_one_line(monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "squared_relu", lambda x: F.relu(x).square())
    encoder = encoder_of("modern", activation="squared_relu")
    with torch.no_grad():
        torch.testing.assert_close(encoder(ids_of(), Layout.of(LENGTHS)), one_by_one(encoder, ids_of()), **CLOSE)
    with pytest.raises(UserError, match=r"model\.activation=swish: choose one of gelu, .*squared_relu"):
        EncoderConfig(activation="swish")


@pytest.mark.parametrize("architecture", BLOCKS)
def test_qk_norm_is_the_formula(architecture):
    """Queries and keys normalised to unit RMS and scaled before the rotation; attention computed for one document."""
    encoder = encoder_of(architecture, qk_norm=True, layers=1)
    seen = {}
    block = encoder.blocks[0]
    block.register_forward_pre_hook(lambda _, given: seen.update(x=given[0], rotary=given[2]))
    block.attention_out.register_forward_pre_hook(lambda _, given: seen.update(attended=given[0]))
    ids = ids_of([9])
    with torch.no_grad():
        encoder(ids, Layout.of([9]))
        x = block.attention_norm(seen["x"]) if architecture == "modern" else seen["x"]
        q, k, v = block.qkv(x).view(9, 3, 4, 8).unbind(1)
        q, k = (
            part / part.square().mean(-1, keepdim=True).add(1e-6).sqrt() * norm.weight
            for part, norm in ((q, block.q_norm), (k, block.k_norm))
        )
        if architecture == "modern":
            q, k = rotate(q, *seen["rotary"]), rotate(k, *seen["rotary"])
        scores = torch.einsum("qhd,khd->hqk", q, k) / 8**0.5
        wanted = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).reshape(9, 32)
    torch.testing.assert_close(seen["attended"], wanted, **CLOSE)


@pytest.mark.parametrize("architecture", BLOCKS)
def test_qk_norm_keeps_documents_and_masked_positions_apart(architecture):
    """Any packing gives the same, so does a last block on some positions, and every weight has a gradient."""
    torch.manual_seed(0)
    model = MaskedLM(config_of(architecture, qk_norm=True, global_every=1), last_block_on_masked=True)
    ids, layout, positions = ids_of(), Layout.of(LENGTHS), torch.tensor([1, 3, 8, 14])
    encoder = model.encoder.eval()
    with torch.no_grad():
        whole = encoder(ids, layout)
        torch.testing.assert_close(whole, one_by_one(encoder, ids), **CLOSE)
        torch.testing.assert_close(encoder(ids, layout, None, positions), whole[positions], **CLOSE)
        with force_route("packed"):
            torch.testing.assert_close(encoder(ids, Layout.of(LENGTHS)), whole, **CLOSE)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.isfinite(encoder(ids, Layout.of(LENGTHS))).all()
    model(ids, layout, positions, ids[positions]).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert not [name for name in without if "_norm" in name]
    plain = MaskedLM(config_of(architecture))
    assert not any("q_norm" in name or "k_norm" in name for name in plain.state_dict())  # old checkpoints load unchanged


class Sinusoidal(Encoder):
    """Sinusoidal positions added to the embeddings (arXiv 1706.03762 §3.5): the edit of docs/model.md."""

    def embed(self, ids, token_types, layout):
        half = torch.arange(0, self.config.hidden_size, 2)
        angle = layout.position[:, None] / 10_000 ** (half / self.config.hidden_size)
        return self.token_embeddings(ids) + torch.cat((angle.sin(), angle.cos()), 1)


class Interpolated(Encoder):
    """Rotary positions at half their distance (position interpolation, arXiv 2306.15595): the other edit."""

    def rotary_tables(self, layout):
        shrunk = Layout(layout.lengths, layout.starts, layout.position.float() / 2)
        return super().rotary_tables(shrunk)


@pytest.mark.parametrize(("kind", "architecture"), [(Sinusoidal, "bert"), (Interpolated, "modern")])
def test_a_new_position_scheme_reads_positions_inside_the_document(kind, architecture):
    torch.manual_seed(0)
    encoder = kind(config_of(architecture)).eval()
    ids = ids_of()
    with torch.no_grad():
        found = encoder(ids, Layout.of(LENGTHS))
        torch.testing.assert_close(found, one_by_one(encoder, ids), **CLOSE)
        usual = Encoder(encoder.config).eval()
        usual.load_state_dict(encoder.state_dict())
        assert not torch.allclose(found, usual(ids, Layout.of(LENGTHS)), atol=1e-3)


def alibi(layout, query, key, window, name):
    """Scores fall with the distance, for each head at its own rate (arXiv 2108.12409): what stands for `_mask`."""
    distance = (query.position[:, :, None] - key.position[:, None, :]).abs()
    allowed = (query.document[:, :, None] == key.document[:, None, :]) | (query.document[:, :, None] < 0)
    if window >= 0:
        allowed &= distance <= window
    slopes = 2.0 ** -torch.arange(1, 1 + config_of("bert").heads)
    return (-slopes[:, None, None] * distance[:, None]).masked_fill(~allowed[:, None], -torch.inf)


@pytest.mark.parametrize("architecture", BLOCKS)
def test_a_bias_on_the_scores_reads_positions_inside_the_document(architecture, monkeypatch):
    """On both routes, for masked positions alone, and in bf16, where the scores of short rows are written out."""
    encoder, ids = encoder_of(architecture), ids_of()
    usual = encoder(ids, Layout.of(LENGTHS))
    monkeypatch.setattr("model.attention._mask", alibi)
    with torch.no_grad():
        whole = one_by_one(encoder, ids)
        assert not torch.allclose(whole, usual, atol=1e-3)
        for route in ("padded", "packed"):
            with force_route(route):
                torch.testing.assert_close(encoder(ids, Layout.of(LENGTHS)), whole, **CLOSE)
        positions, layout = torch.tensor([2, 5, 9, 12]), Layout.of(LENGTHS)
        layout.select(positions)
        torch.testing.assert_close(encoder(ids, layout, None, positions), whole[positions], **CLOSE)
        with torch.autocast("cpu", torch.bfloat16):
            near = encoder(ids, Layout.of(LENGTHS)).float()
        assert (near - whole).abs().mean() < 0.1 * (usual - whole).abs().mean() + 0.02


@pytest.mark.parametrize("architecture", BLOCKS)
@pytest.mark.parametrize(
    ("more", "message"),
    [({"qk_norm": True}, r"ours: qk_norm=True"), ({"activation": "silu"}, r"ours: activation=silu.*activation=gelu")],
    ids=str,
)
def test_export_refuses_what_the_family_cannot_express(architecture, more, message, own, tmp_path):  # noqa: F811
    write_masked_lm(tmp_path / "ours", config_of(architecture, **more), own)
    with pytest.raises(UserError, match=message):
        export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


def test_export_refuses_a_field_that_was_added_later():
    """A field that the export does not know is refused unless it has its default value."""
    from dataclasses import dataclass

    from model.convert.families import check_expressible

    @dataclass
    class Wider(EncoderConfig):
        soft_cap: float = 0.0

    check_expressible(Wider(), "bert", "x")
    with pytest.raises(UserError, match=r"x: soft_cap=30\.0: transformers' Bert has no such setting"):
        check_expressible(Wider(soft_cap=30.0), "bert", "x")


def test_the_edits_on_the_page_match_the_code():
    """Every unchanged line that docs/model.md quotes is in the file that it names; so are the additions already made."""
    page = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```diff\n# (\S+)\n(.*?)^```$", page, re.M | re.S)
    assert len(blocks) == 4
    for name, block in blocks:
        code = (ROOT / name).read_text(encoding="utf-8").splitlines()
        shown = [line[1:] for line in block.splitlines() if line[0] in " -"]
        assert shown and not [line for line in shown if line not in code]
    assert all(line[1:] in code for line in blocks[1][1].splitlines())  # norms on queries and keys are there
    for name in re.findall(r"`((?:model|data|tests|conf)/[\w/]+(?:\.py|/))`", page):
        assert (ROOT / name).exists(), name
