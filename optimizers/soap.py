"""SOAP: Adam in the eigenbasis of Shampoo's statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from optimizers.averages import Average, no_average
from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.kronecker.bases import BasisSolver, solver
from optimizers.kronecker.block_options import BlockOptions, DimensionNumbersOf
from optimizers.kronecker.blocking import from_blocks, to_blocks
from optimizers.kronecker.factors import Cadence, Factor, Solver
from optimizers.kronecker.kronecker import Kronecker, MeshAxis
from optimizers.masks import kernels
from optimizers.wrappers.meshes import on_any_mesh


class SoapState(NamedTuple):
    """State of `scale_by_soap`.

    Attributes:
      count: steps taken.
      momentum: average of gradients.
      factors: averages of G G^T and G^T G with their eigenvectors; an empty array if there are no
        parameters.
      square: averages of squared gradients, in the eigenbases of their blocks if they have one.
    """

    count: jax.Array
    momentum: Average
    factors: Any
    square: Average


def _normalise(m: jax.Array, v: jax.Array, epsilon: Any, by_block: bool) -> jax.Array:
    """M / (sqrt(V) + epsilon * the largest sqrt(V)); 0 where V is 0.

    by_block: take the largest of each block of a stack [N, ..], instead of the whole tensor's.
    """
    root = jnp.sqrt(v)
    floor = (
        root + epsilon * root.max(tuple(range(1, v.ndim)) if by_block else None, keepdims=True)
        if v.size
        else root
    )
    return m / jnp.where(floor == 0, 1.0, floor)


def scale_by_soap(
    b1: float = 0.9,
    b2: float = 0.95,
    *,
    epsilon: float = 1e-5,
    block_size: int = 128,
    statistics_b2: float | None = None,
    update_every: int = 10,
    stagger: bool = False,
    tolerance: float = 0.0,
    merge: bool = False,
    max_dim: int | None = None,
    one_sided: bool = False,
    basis_solver: BasisSolver = "auto",
    dimension_numbers: DimensionNumbersOf | None = None,
    mesh: Mesh | None = None,
    mesh_axis: MeshAxis | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Adam in the eigenbasis of Shampoo's statistics (Vyas et al. 2024, arXiv:2409.11321, alg. 3).

    The update of each block is Q_L (M' / sqrt(V)) Q_R^T with M' = Q_L^T M Q_R. M is the average
    (b1) of gradients, kept in the parameters' own coordinates; V is the average (b2) of squared
    gradients in the eigenbases Q_L, Q_R of the averages of G G^T and G^T G. All averages are
    unbiased; a tensor or block with NaN or infinity enters none. Tensors without two axes longer
    than 1 take Adam. There is no learning rate and no weight decay, and it needs no grafting.

    Shampoo with corrected eigenvalues (Eschenhagen et al. 2025, arXiv:2506.03595) is this rule.

    Args:
      b1, b2: decays of the averages of gradients and of their squares.
      epsilon: added to sqrt(V), relative to its largest value in the block or tensor. It keeps
        directions that hold only rounding errors small, whatever the scale of the gradients.
      block_size: longest side of a block; kernels [..., O] are folded to matrices [rest, O] first.
      statistics_b2: decay of the averages of G G^T; None for b2.
      update_every: steps between refreshes of the bases; the first step is one.
      stagger: refresh some of the bases at every step, instead of all at once.
      tolerance: skip the refresh of a basis while its `off_diagonal` is at most this; 0 skips none.
      merge, max_dim, one_sided: see `blocking.plan`.
      basis_solver: "eigh"; "qr", one step of orthogonal iteration from the previous basis; or
        "auto": eigh on CPU, qr elsewhere.
      dimension_numbers: which axes of each parameter make matrices (see `scale_by_shampoo`).
      mesh, mesh_axis: distribute the blocks and their state over this axis of these devices, or
        over all axes; the numbers stay the same.

    Raises:
      ValueError: if an argument is out of range; in `init`, if a parameter is complex.
    """
    if update_every < 1:
        raise ValueError(f"update_every={update_every} is not a number of steps: use 1 or more.")

    options = BlockOptions(
        block_size, merge, max_dim, one_sided, dimension_numbers, mesh, mesh_axis
    )
    rule = _Soap(
        b1,
        b2,
        b2 if statistics_b2 is None else statistics_b2,
        epsilon,
        options,
        Cadence(update_every, stagger, tolerance),
        solver(basis_solver),
    )
    return on_any_mesh(optax.GradientTransformation(rule.init, rule.update))


@dataclass(frozen=True, eq=False)
class _Soap:
    """`init` and `update` of `scale_by_soap`."""

    b1: Any
    b2: Any
    statistics_b2: Any
    epsilon: Any
    options: BlockOptions
    cadence: Cadence
    solver: Solver

    def _blocks(self, params: Any) -> Kronecker:
        return self.options.kronecker(params, lambda axes: 1)

    def init(self, params: Any) -> SoapState:
        leaves = jax.tree.leaves(params)
        return SoapState(
            jnp.zeros((), jnp.int32),
            no_average(params),
            self._blocks(params).init() if leaves else jnp.zeros(0),
            no_average(params),
        )

    def update(self, updates: Any, state: Any, params: Any = None) -> tuple[Any, SoapState]:
        del params
        leaves, tree = jax.tree.flatten(updates)
        if not leaves:
            return updates, state._replace(count=state.count + 1)
        blocks = self._blocks(updates)
        gradients = [leaf.astype(jnp.float32) for leaf in leaves]
        momentum = state.momentum.updated(tree.unflatten(gradients), self.b1)
        factors = blocks.observe(
            state.factors, to_blocks(gradients, blocks.plan), self.statistics_b2
        )
        factors = blocks.refresh(factors, state.count, self.cadence, self.solver)
        rotated = _into_bases(blocks, factors, gradients)
        squares = _whole(blocks, [g * g for g in rotated])
        square = state.square.updated(tree.unflatten(squares), self.b2)
        means = zip(
            _into_bases(blocks, factors, jax.tree.leaves(momentum.mean())),
            _in_blocks(blocks, jax.tree.leaves(square.mean())),
            strict=True,
        )
        stacks = len(blocks.plan.groups)
        scaled = [
            _normalise(m, v, self.epsilon, by_block=i < stacks) for i, (m, v) in enumerate(means)
        ]
        done = _whole(blocks, [*blocks.apply(factors, scaled[:stacks]), *scaled[stacks:]])
        out = [new.astype(leaf.dtype) for new, leaf in zip(done, leaves, strict=True)]
        return tree.unflatten(out), SoapState(state.count + 1, momentum, factors, square)


def _left_out(blocks: Kronecker) -> list[int]:
    """Indices of the tensors that are not cut into blocks and have no eigenbasis."""
    return [i for i, form in enumerate(blocks.plan.folded) if form is None]


def _in_blocks(blocks: Kronecker, tensors: Sequence[jax.Array]) -> list[jax.Array]:
    """The stacks of blocks, then the tensors that are not cut."""
    return [*to_blocks(tensors, blocks.plan), *(tensors[i] for i in _left_out(blocks))]


def _whole(blocks: Kronecker, parts: Sequence[jax.Array]) -> list[jax.Array]:
    """Inverse of `_in_blocks`."""
    stacks = len(blocks.plan.groups)
    done = from_blocks(parts[:stacks], blocks.plan)
    done |= dict(zip(_left_out(blocks), parts[stacks:], strict=True))
    return [done[i] for i in range(len(done))]


def _into_bases(
    blocks: Kronecker, factors: tuple[Factor, ...], tensors: Sequence[jax.Array]
) -> list[jax.Array]:
    """Each stack of blocks in its eigenbases, then the tensors that have none."""
    stacks = len(blocks.plan.groups)
    parts = _in_blocks(blocks, tensors)
    return [*blocks.apply(factors, parts[:stacks], transpose=True), *parts[stacks:]]


@optimizer
def soap(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
    epsilon: float = 1e-5,
    block_size: int = 128,
    update_every: int = 10,
    stagger: bool = False,
    tolerance: float = 0.0,
    max_dim: int | None = None,
    one_sided: bool = False,
    clip: float | None = None,
    basis_solver: BasisSolver = "auto",
    dimension_numbers: DimensionNumbersOf | None = None,
    mesh: Mesh | None = None,
    mesh_axis: MeshAxis | None = None,
) -> optax.GradientTransformation:
    """SOAP: Adam in Shampoo's eigenbasis (Vyas et al. 2024, arXiv:2409.11321).

    In order: clipping by the global norm, the preconditioned direction, weight decay on kernels,
    learning rate.
    """
    direction = scale_by_soap(
        b1,
        b2,
        epsilon=epsilon,
        block_size=block_size,
        update_every=update_every,
        stagger=stagger,
        tolerance=tolerance,
        max_dim=max_dim,
        one_sided=one_sided,
        basis_solver=basis_solver,
        dimension_numbers=dimension_numbers,
        mesh=mesh,
        mesh_axis=mesh_axis,
    )
    return optax.chain(
        optax.identity() if clip is None else optax.clip_by_global_norm(clip),
        direction,
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )
