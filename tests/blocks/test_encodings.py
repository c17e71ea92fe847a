import math

import numpy as np
import pytest
import torch
from torch import nn

from gan_ray.blocks.encodings import ENCODINGS, Site, encoding_parts, make_encoding
from gan_ray.errors import ConfigError

SITE = Site(side=4, grid=2, channels=8, heads=4, head_dim=8)
ANY = torch.zeros(1, dtype=torch.float64)


def planes(name: str, **site) -> torch.Tensor:
    return make_encoding(name, Site(**{"side": 4, "channels": 8, **site})).feature_map(ANY)


def attention(name: str, **site):
    return make_encoding(name, Site(**{"side": 4, "head_dim": 8, **site}), attention=True)


def test_there_are_seven():
    assert list(ENCODINGS) == [
        "none", "binary", "sinusoidal", "learned", "rope", "alibi", "relative_bias",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ENCODINGS)
def test_hooks_that_an_encoding_does_not_use_are_neutral(name):
    own = {"binary": "planes", "sinusoidal": "planes", "learned": "planes", "rope": "rotation",
           "alibi": "bias", "relative_bias": "bias"}  # fmt: skip
    used = set()
    for part in (make_encoding(name, SITE), make_encoding(name, SITE, attention=True)):
        maps = part.feature_map(ANY)
        assert maps.shape == (part.channels, 4, 4)
        assert maps.dtype == torch.float64
        queries, keys = torch.randn(2, 2, 4, 16, 8).unbind(0)
        turned = part.rotate(queries, keys)
        if part.channels:
            used.add("planes")
        if not (torch.equal(turned[0], queries) and torch.equal(turned[1], keys)):
            used.add("rotation")
        if part.attention_bias() is not None:
            used.add("bias")
    assert used == ({own[name]} if name in own else set())


@pytest.mark.parametrize("name", ENCODINGS)
def test_only_what_is_learnt_belongs_to_a_checkpoint(name):
    for part in (make_encoding(name, SITE), make_encoding(name, SITE, attention=True)):
        assert set(part.state_dict()) == {key for key, _ in part.named_parameters()}


def test_binary_codes_of_four_cells():
    codes = planes("binary", grid=2)
    cells = {(0, 0): "000", (0, 2): "001", (2, 0): "010", (2, 2): "011"}
    for (row, column), digits in cells.items():
        cell = codes[:, row : row + 2, column : column + 2]
        assert torch.equal(cell, cell[:, :1, :1].expand_as(cell)), "constant within a cell"
        assert "".join(str(int(bit)) for bit in cell[:, 0, 0]) == digits


def test_binary_codes_of_nine_cells_have_four_digits():
    codes = planes("binary", grid=3, side=6)
    assert codes.shape == (4, 6, 6)
    assert codes[:, 5, 5].tolist() == [1, 0, 0, 0], "cell 8"


def test_sinusoidal_planes_are_the_published_waves():
    maps = planes("sinusoidal", channels=8, temperature=100.0)
    for y in range(4):
        for x in range(4):
            wanted = [wave(place * speed)
                      for place in (y, x) for wave in (math.sin, math.cos)
                      for speed in (1.0, 0.1)]  # fmt: skip
            assert maps[:, y, x].tolist() == pytest.approx(wanted, abs=1e-6)


def test_sinusoidal_planes_come_in_fours():
    with pytest.raises(ConfigError, match=r"--model\.encoding-channels"):
        planes("sinusoidal", channels=6)


def test_learned_codes_are_small_constant_within_a_cell_and_learnt():
    torch.manual_seed(0)
    encoding = make_encoding("learned", Site(side=8, grid=4, channels=64))
    assert encoding.table.std().item() == pytest.approx(0.02, rel=0.1)
    maps = encoding.feature_map(ANY.float())
    assert torch.equal(maps[:, ::2, ::2], maps[:, 1::2, 1::2])
    maps.sum().backward()
    assert torch.equal(encoding.table.grad, torch.full_like(encoding.table, 4.0))


def test_no_learned_code_is_without_a_cell():
    encoding = make_encoding("learned", Site(side=3, grid=8, channels=4))
    encoding.feature_map(ANY).sum().backward()
    assert (encoding.table.grad != 0).all()


def test_rope_keeps_lengths_and_sees_offsets_only():
    torch.manual_seed(0)
    side = 5
    encoding = attention("rope", side=side).double()
    query, key = torch.randn(2, 8, dtype=torch.float64)
    queries, keys = (v.expand(1, 1, side**2, 8) for v in (query, key))
    turned, others = encoding.rotate(queries, keys)
    torch.testing.assert_close(turned.norm(dim=-1), queries.norm(dim=-1))
    scores = (turned[0, 0] @ others[0, 0].T).view(side, side, side, side)
    by_offset: dict[tuple[int, int], list[float]] = {}
    for (y, x, v, u), score in np.ndenumerate(scores.numpy()):
        by_offset.setdefault((v - y, u - x), []).append(score)
    assert all(np.ptp(values) < 1e-6 for values in by_offset.values())
    first = sorted(values[0] for values in by_offset.values())
    assert np.diff(first).min() > 1e-6, "offsets differ"


def test_rope_needs_heads_of_a_multiple_of_four():
    with pytest.raises(ConfigError, match=r"--model\.heads"):
        attention("rope", head_dim=6)


def test_alibi_falls_with_the_distance_along_streets():
    bias = attention("alibi", heads=8).attention_bias()
    assert bias.shape == (8, 16, 16)
    assert torch.equal(bias, bias.mT)
    assert (bias.diagonal(dim1=1, dim2=2) == 0).all()
    assert (bias <= 0).all()
    # From (0, 0) to (2, 3), 5 steps; slopes 1/2, 1/4, ... 1/256 (Press et al. 2022, section 3).
    assert bias[:, 0, 2 * 4 + 3].tolist() == [-5 / 2**h for h in range(1, 9)]


def test_alibi_slopes_of_other_than_powers_of_two_are_interleaved():
    bias = attention("alibi", heads=3).attention_bias()
    assert (-bias[:, 0, 1]).tolist() == [2**-4, 2**-8, 2**-2]


def test_relative_bias_has_one_number_for_each_offset():
    encoding = attention("relative_bias", heads=2)
    assert encoding.table.shape == (2, 49)
    assert sorted(set(encoding.index.flatten().tolist())) == list(range(49))
    bias = encoding.attention_bias()
    assert torch.equal(bias[:, 0, 5], bias[:, 5, 10]), "both one step right and down"
    assert not torch.equal(bias[:, 0, 5], bias[:, 5, 0])
    assert 0 < encoding.table.abs().max() < 0.1


def test_encodings_combine():
    both = make_encoding("binary+sinusoidal", SITE)
    apart = [make_encoding(name, SITE).feature_map(ANY) for name in ("binary", "sinusoidal")]
    assert torch.equal(both.feature_map(ANY), torch.cat(apart))
    assert both.channels == 3 + 8
    summed = make_encoding("alibi+relative_bias+rope", SITE, attention=True)
    alibi, relative = (part.attention_bias() for part in list(summed.parts)[:2])
    torch.testing.assert_close(summed.attention_bias(), alibi + relative)
    x = torch.randn(1, 4, 16, 8)
    alone = make_encoding("rope", SITE, attention=True).rotate(x, x)
    assert torch.equal(summed.rotate(x, x)[0], alone[0])


def test_each_consumer_gets_its_part_of_a_combination():
    names = "learned+relative_bias"
    shown, attended = make_encoding(names, SITE), make_encoding(names, SITE, attention=True)
    assert shown.channels == 8
    assert shown.attention_bias() is None
    assert attended.channels == 0
    assert attended.attention_bias() is not None
    assert [part.needs_attention for part in encoding_parts(names)] == [False, True]
    assert len(list(nn.ModuleList([shown, attended]).parameters())) == 2


@pytest.mark.parametrize("name", ["sinus", "binary+", ""])
def test_an_unknown_encoding_is_refused_with_those_that_are_known(name):
    with pytest.raises(ConfigError, match=r"known are alibi, binary.*--model\.encoding"):
        make_encoding(name, SITE)
