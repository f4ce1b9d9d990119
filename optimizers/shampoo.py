"""Shampoo: gradients preconditioned by Kronecker factors, in blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from optimizers.averages import Average, no_average
from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Choice, Decay, Log
from optimizers.kronecker.block_options import BlockOptions, DimensionNumbersOf, matrix_axes
from optimizers.kronecker.blocking import from_blocks, to_blocks
from optimizers.kronecker.factors import Cadence, Factor, Solver
from optimizers.kronecker.grafting import Magnitude, graft, magnitude_of
from optimizers.kronecker.kronecker import Kronecker, MeshAxis
from optimizers.kronecker.root_solvers import RootSolver, solver
from optimizers.masks import kernels
from optimizers.wrappers.meshes import on_any_mesh


class ShampooState(NamedTuple):
    """State of `scale_by_shampoo`.

    Attributes:
      count: steps taken.
      momentum: average of gradients.
      factors: averages of G G^T and G^T G with their inverse roots; an empty array if there are no
        parameters.
    """

    count: jax.Array
    momentum: Average
    factors: Any


def scale_by_shampoo(
    b1: float = 0.9,
    b2: float = 0.95,
    *,
    epsilon: float = 1e-6,
    block_size: int = 128,
    exponent: float | None = None,
    update_every: int = 10,
    statistics_every: int = 1,
    stagger: bool = False,
    tolerance: float = 0.0,
    merge: bool = False,
    max_dim: int | None = None,
    one_sided: bool = False,
    root_solver: RootSolver = "auto",
    dimension_numbers: DimensionNumbersOf | None = None,
    mesh: Mesh | None = None,
    mesh_axis: MeshAxis | None = None,
) -> optax.GradientTransformationExtraArgs:
    """L^(-1/4) M R^(-1/4) for each block (Gupta et al. 2018, arXiv:1802.09568, algorithm 1).

    M is the average (b1) of gradients G; L and R are the averages (b2) of G G^T and G^T G. All
    three are unbiased. There is no learning rate and no weight decay, and the magnitude is left as
    it is (see `graft`). Statistics and roots are float32 for every dtype of parameters; updates
    have the gradients' dtype. A tensor or block with NaN or infinity enters no average.

    Args:
      b1: decay of the average of gradients; 0 for no average.
      b2: decay of the averages of statistics; 1 for their sum, as in the paper.
      epsilon: ridge added before a root, relative to the largest eigenvalue; for "pseudo_inverse"
        the threshold below which eigenvalues count as 0.
      block_size: longest side of a block; kernels [..., O] are folded to matrices [rest, O] first.
      exponent: exponent of each matrix; None for -1 / (2 * number of preconditioned axes of the
        block), which is -1/4 for a matrix.
      update_every: steps between refreshes of the roots; the first step is one.
      statistics_every: steps between updates of the statistics; a divisor of `update_every` is
        most useful.
      stagger: refresh some of the roots at every step, instead of all at once.
      tolerance: skip the refresh of a root X while X^p A differs from the identity by at most this,
        relatively; 0 skips none.
      merge, max_dim, one_sided: see `blocking.plan`.
      root_solver: "eigh"; "polar" or "newton", iterations for exponents of -1 / whole number;
        "auto", which is eigh on CPU and polar elsewhere; or "pseudo_inverse", eigh with 0 in place
        of the roots of zero eigenvalues.
      dimension_numbers: for each parameter an `optax.contrib.MuonDimensionNumbers`, which says what
        axes are folded to the rows and the columns of matrices, or None to leave it out; the other
        axes count matrices, as in kernels [layers, inputs, outputs]. A tree like the parameters, or
        a function from them to it. In place of the folding and merging above.
      mesh, mesh_axis: distribute the blocks and their state over this axis of these devices, or
        over all axes; the numbers stay the same.

    Raises:
      ValueError: if an argument is out of range; in `init`, if a parameter is complex.
    """
    _check_settings(exponent, update_every=update_every, statistics_every=statistics_every)

    def order(axes: int) -> Any:
        if exponent is None:
            return 2 * axes
        p = -1.0 / exponent
        return round(p) if isinstance(p, float) and abs(p - round(p)) < 1e-9 else p

    options = BlockOptions(
        block_size, merge, max_dim, one_sided, dimension_numbers, mesh, mesh_axis
    )
    rule = _Shampoo(
        b1,
        b2,
        statistics_every,
        order,
        options,
        Cadence(update_every, stagger, tolerance),
        solver(root_solver, epsilon),
    )
    return on_any_mesh(optax.GradientTransformation(rule.init, rule.update))


def _check_settings(exponent: float | None, **steps: int) -> None:
    for name, value in steps.items():
        if value < 1:
            raise ValueError(f"{name}={value} is not a number of steps: use 1 or more.")
    if isinstance(exponent, float | int) and exponent >= 0:
        raise ValueError(
            f"exponent={exponent} would amplify what it should dampen: use a negative one, "
            "such as -0.25."
        )


@dataclass(frozen=True, eq=False)
class _Shampoo:
    """`init` and `update` of `scale_by_shampoo`."""

    b1: Any
    b2: Any
    statistics_every: int
    order: Callable[[int], Any]
    options: BlockOptions
    cadence: Cadence
    solver: Solver

    def init(self, params: Any) -> ShampooState:
        leaves = jax.tree.leaves(params)
        return ShampooState(
            jnp.zeros((), jnp.int32),
            no_average(params),
            self.options.kronecker(params, self.order).init() if leaves else jnp.zeros(0),
        )

    def update(self, updates: Any, state: Any, params: Any = None) -> tuple[Any, ShampooState]:
        del params
        leaves, tree = jax.tree.flatten(updates)
        if not leaves:
            return updates, state._replace(count=state.count + 1)
        blocks = self.options.kronecker(updates, self.order)
        gradients = [leaf.astype(jnp.float32) for leaf in leaves]
        momentum = state.momentum.updated(tree.unflatten(gradients), self.b1)
        factors = self._observe(blocks, state, gradients)
        factors = blocks.refresh(factors, state.count, self.cadence, self.solver)
        directions = jax.tree.leaves(momentum.mean())
        done = dict(enumerate(directions)) | from_blocks(
            blocks.apply(factors, to_blocks(directions, blocks.plan)), blocks.plan
        )
        out = [done[i].astype(leaf.dtype) for i, leaf in enumerate(leaves)]
        return tree.unflatten(out), ShampooState(state.count + 1, momentum, factors)

    def _observe(
        self, blocks: Kronecker, state: ShampooState, gradients: list[jax.Array]
    ) -> tuple[Factor, ...]:
        """The averages of statistics after this step."""

        def observed() -> tuple[Factor, ...]:
            return blocks.observe(state.factors, to_blocks(gradients, blocks.plan), self.b2)

        if self.statistics_every == 1:
            return observed()
        due = state.count % self.statistics_every == 0
        return jax.lax.cond(due, observed, lambda: state.factors)


@optimizer
def shampoo(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
    epsilon: float = 1e-6,
    block_size: int = 128,
    exponent: Annotated[float | None, Choice(-1 / 4, -1 / 3, -1 / 2)] = None,
    update_every: int = 10,
    statistics_every: int = 1,
    stagger: bool = False,
    tolerance: float = 0.0,
    start_step: int = 0,
    grafting: Magnitude = "adam",
    merge: bool = False,
    max_dim: int | None = None,
    one_sided: bool = False,
    momentum: float | None = None,
    nesterov: bool = False,
    clip: float | None = None,
    root_solver: RootSolver = "auto",
    dimension_numbers: DimensionNumbersOf | None = None,
    mesh: Mesh | None = None,
    mesh_axis: MeshAxis | None = None,
) -> optax.GradientTransformation:
    """Shampoo with grafting (Gupta et al. 2018, arXiv:1802.09568).

    In order: clipping by the global norm; L^(-1/4) M R^(-1/4) in blocks, at the norm of another
    rule's update; momentum of updates (b1 averages gradients); weight decay on kernels; learning
    rate.
    """
    direction = scale_by_shampoo(
        b1,
        b2,
        epsilon=epsilon,
        block_size=block_size,
        exponent=exponent,
        update_every=update_every,
        statistics_every=statistics_every,
        stagger=stagger,
        tolerance=tolerance,
        merge=merge,
        max_dim=max_dim,
        one_sided=one_sided,
        root_solver=root_solver,
        dimension_numbers=dimension_numbers,
        mesh=mesh,
        mesh_axis=mesh_axis,
    )
    magnitude = magnitude_of(grafting, b1, b2)
    return optax.chain(
        optax.identity() if clip is None else optax.clip_by_global_norm(clip),
        direction
        if magnitude is None
        else graft(
            direction, magnitude, lambda tree: matrix_axes(tree, dimension_numbers), start_step
        ),
        optax.identity() if momentum is None else optax.trace(momentum, nesterov),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )
