"""Cutting parameters into blocks and back."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizers.kronecker.blocking import from_blocks, plan, to_blocks

SHAPES = st.lists(st.lists(st.integers(0, 9), min_size=0, max_size=5).map(tuple), max_size=5)


@pytest.mark.slow
@settings(max_examples=20)
@given(shapes=SHAPES, block_size=st.integers(1, 12), merge=st.booleans())
def test_blocks_are_small_and_from_blocks_inverts_to_blocks(shapes, block_size, merge):
    rng = np.random.default_rng(0)
    leaves = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    cut = plan(shapes, block_size, merge=merge)
    stacks = to_blocks([jnp.asarray(leaf) for leaf in leaves], cut)
    for group, stack in zip(cut.groups, stacks, strict=True):
        assert stack.shape == (group.size, *group.block)
        assert max(group.block) <= block_size
    back = from_blocks(stacks, cut)
    assert sorted(back) == [
        i for i, shape in enumerate(shapes) if math.prod(shape) and sum(n > 1 for n in shape) > 1
    ]
    for index, leaf in back.items():
        np.testing.assert_array_equal(leaf, leaves[index])
    # Nothing is padded: every element is in exactly one block.
    assert sum(stack.size for stack in stacks) == sum(leaves[i].size for i in back)


def test_folding_merging_and_limits_on_sides():
    kernel = (3, 3, 16, 32)
    assert plan([kernel], 128).folded == ((144, 32),)
    assert plan([kernel], 200, merge=True).folded == ((144, 32),)
    assert plan([kernel], 16, merge=True).folded == ((9, 16, 32),)
    assert [group.block for group in plan([kernel], 128).groups] == [(128, 32), (16, 32)]
    assert [group.axes for group in plan([kernel], 128, max_dim=100).groups] == [(1,), (1,)]
    assert [group.axes for group in plan([kernel], 128, one_sided=True).groups] == [(1,), (0,)]
    assert plan([kernel], 128, max_dim=20).folded == (None,)


def test_a_block_size_of_zero_is_rejected():
    with pytest.raises(ValueError, match="block_size=0"):
        plan([(2, 2)], 0)
