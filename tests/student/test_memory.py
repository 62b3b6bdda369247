"""Facts about the cache that texts are written with."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.cache_utils import DynamicLayer

from gradatim.model.architecture import (
    PreallocatedLayer,
    compact_order,
    create,
    kv_cache_for,
    sliding_window_of,
    supports_masking,
    window_mask,
)

SIZES = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 9}


def test_a_roomy_layer_holds_what_transformers_own_layer_holds():
    torch.manual_seed(0)
    ours, theirs = PreallocatedLayer(9), DynamicLayer()
    for rows, columns, kept in ((5, 4, [0, 4, 2]), (3, 1, [0, 1, 2]), (3, 3, [2]), (1, 1, [0])):
        keys, values = torch.randn(2, rows, 2, columns, 3)
        for one, other in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(one, other)
        for layer in (ours, theirs):
            layer.batch_select_indices(torch.tensor(kept))
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert ours.get_mask_sizes(1) == theirs.get_mask_sizes(1)


def test_one_row_can_become_several_that_go_on_apart():
    torch.manual_seed(0)
    ours, theirs = PreallocatedLayer(6), DynamicLayer()
    for rows, columns, kept in ((2, 3, [1, 0, 1, 1, 0]), (5, 1, [4, 2, 3]), (3, 2, [0, 1, 2])):
        keys, values = torch.randn(2, rows, 2, columns, 3)
        for layer in (ours, theirs):
            layer.update(keys, values)
            layer.batch_select_indices(torch.tensor(kept))
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)


def test_a_row_that_stays_is_not_copied():
    layer = PreallocatedLayer(4)
    layer.update(torch.zeros(4, 1, 2, 1), torch.zeros(4, 1, 2, 1))
    before = layer.keys.data_ptr()
    layer.batch_select_indices(torch.tensor([0, 3]))
    assert layer.keys.data_ptr() == before


def test_too_little_room_is_an_error():
    layer = PreallocatedLayer(2)
    with pytest.raises(RuntimeError):
        layer.update(torch.zeros(1, 1, 3, 1), torch.zeros(1, 1, 3, 1))


@given(st.lists(st.booleans(), max_size=40))
def test_rows_that_go_on_are_kept_and_only_gaps_are_filled(ended):
    rows = compact_order(ended)
    live = [row for row, end in enumerate(ended) if not end]
    assert sorted(rows) == live
    assert all(row == place for place, row in enumerate(rows) if not ended[place])


def test_only_models_that_attend_everywhere_get_roomy_layers():
    plain = Qwen3ForCausalLM(Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=4, bos_token_id=1, eos_token_id=1))
    sliding = MistralForCausalLM(MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=4))
    assert supports_masking(plain)
    assert not supports_masking(sliding)
    assert [type(layer) for layer in kv_cache_for(plain, 5).layers] == [PreallocatedLayer] * 3
    assert not any(isinstance(layer, PreallocatedLayer) for layer in kv_cache_for(sliding, 5).layers)


def test_a_window_ends_at_the_last_columns_that_may_be_seen():
    visible = torch.tensor([[1, 1, 1, 0, 1, 0], [0, 0, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0]], dtype=torch.bool)
    seen = torch.tensor([[0, 1, 1, 0, 1, 0], [0, 0, 0, 1, 1, 1], [1, 0, 0, 0, 0, 0]], dtype=torch.bool)
    assert torch.equal(window_mask(visible, 3), seen)


def test_layers_with_and_without_windows_keep_every_column():
    window = {
        "use_sliding_window": True,
        "sliding_window": 3,
        "layer_types": ["sliding_attention", "full_attention"] * 4,
    }
    model = create("modern", vocabulary=9, context=20, special={"pad_token_id": 0, "eos_token_id": 1}, seed=0)
    assert {name: getattr(model.config, name) for name in window} == window
    assert (supports_masking(model), sliding_window_of(model)) == (True, 3)
    assert {type(layer) for layer in kv_cache_for(model, 5).layers} == {PreallocatedLayer}


def test_rows_of_another_cache_take_free_places_and_each_row_has_its_own_columns():
    torch.manual_seed(0)
    first, second = torch.randn(2, 2, 3, 2, 4, 5)  # keys and values of 3 rows with 4 columns, in two layers' worth
    pool, texts = PreallocatedLayer(8), PreallocatedLayer(4)
    texts.update(*first)
    pool.append_rows(texts, torch.tensor([0, 2]), 0)
    more = PreallocatedLayer(4)
    more.update(second[0][:, :, :2], second[1][:, :, :2])
    pool.append_rows(more, torch.tensor([1, 1]), 1)
    tokens = torch.randn(2, 3, 2, 1, 5)
    pool.write_at(torch.tensor([4, 2, 3]))
    keys, values = pool.update(*tokens)
    for result, (old, new), token in zip((keys, values), zip(first, second, strict=True), tokens, strict=True):
        assert result.shape == (3, 2, 5, 5)
        assert torch.equal(result[0], torch.cat([old[0], token[0]], dim=1))
        assert torch.equal(result[1, :, :2], new[1][:, :2])
        assert torch.equal(result[1, :, 2], token[1, :, 0])
        assert torch.equal(result[2, :, 3], token[2, :, 0])
        assert result.isfinite().all()
