"""PSGD-Kron: gradients whitened by Kronecker factors that are learned by gradient descent."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.masks import kernels
from optimizers.wrappers.precision import at_least_float32


class KronState(NamedTuple):
    """State of `scale_by_psgd_kron`.

    Attributes:
      count: steps taken.
      due: sum of the probabilities of a factor update since the last one.
      key: [2] uint32, the key of all noise.
      momentum: averages of gradients.
      left, right: the factors Q of each tensor's rows and columns: an upper triangular matrix
        [n, n], or the diagonal [n] of a diagonal one.
    """

    count: jax.Array
    due: jax.Array
    key: jax.Array
    momentum: Any
    left: Any
    right: Any


def annealed(
    least: float = 0.03, flat: int = 200, decay: float = 1e-3
) -> Callable[[jax.Array], jax.Array]:
    """The authors' share of steps that update the factors: 1 for `flat` steps, then exp(-decay t).

    It falls to `least`, which the default reaches after about 3,700 steps.
    """
    return lambda count: jnp.clip(jnp.exp(-decay * (count - flat)), least, 1.0)


def _as_matrix(p: jax.Array) -> jax.Array:
    """A kernel [.., O] as [rest, O]; a vector or scalar as one column."""
    return p.reshape(-1, p.shape[-1]) if p.ndim > 1 else p.reshape(-1, 1)


def _factor(p: jax.Array, axis: int, max_size: int) -> jax.Array:
    n = (math.prod(p.shape[:-1]), p.shape[-1])[axis] if p.ndim > 1 else (p.size, 1)[axis]
    triangular = p.ndim > 1 and 1 < n <= max_size
    return jnp.eye(n, dtype=p.dtype) if triangular else jnp.ones(n, p.dtype)


def _times(q: jax.Array, x_nk: jax.Array, transpose: bool = False) -> jax.Array:
    """Q X, or Q^T X."""
    if q.ndim == 1:
        return q[:, None] * x_nk
    return jnp.matmul(q.T if transpose else q, x_nk, precision=lax.Precision.HIGHEST)


def _solve_transposed(q: jax.Array, x_nk: jax.Array) -> jax.Array:
    """Q^-T X."""
    if q.ndim == 1:
        return x_nk / q[:, None]
    return lax.linalg.triangular_solve(q, x_nk, left_side=True, lower=False, transpose_a=True)


def _on_both_sides(
    function: Callable[[jax.Array, jax.Array], jax.Array],
    left: jax.Array,
    right: jax.Array,
    x_mn: jax.Array,
) -> jax.Array:
    """`function` of (factor, matrix) for the rows of X, then for its columns."""
    return function(right, function(left, x_mn).T).T


def _largest_eigenvalue(s_nn: jax.Array) -> jax.Array:
    """A lower bound for a symmetric positive semi-definite matrix: one power step.

    It starts from the column of the largest norm. The bound is not below 1 / sqrt(2) of the
    eigenvalue in the experience of PSGD's authors.
    """
    largest = jnp.abs(s_nn).max()
    s_nn = s_nn / jnp.maximum(largest, 1e-30)
    v_n = s_nn @ s_nn[jnp.argmax((s_nn * s_nn).sum(0))]
    norm = jnp.linalg.norm(v_n)
    return largest * jnp.linalg.norm(s_nn @ (v_n / jnp.where(norm == 0, 1.0, norm)))


def _stepped(q: jax.Array, a_nk: jax.Array, b_nk: jax.Array, rate: Any) -> jax.Array:
    """Q after a normalised step down the criterion ||A||^2 + ||B||^2 on the group of its form."""
    if q.ndim == 1:
        a_n, b_n = (a_nk * a_nk).sum(1), (b_nk * b_nk).sum(1)
        return q - rate / jnp.maximum((a_n + b_n).max(), 1e-30) * (a_n - b_n) * q
    a_nn, b_nn = (jnp.matmul(x, x.T, precision=lax.Precision.HIGHEST) for x in (a_nk, b_nk))
    step = rate / jnp.maximum(_largest_eigenvalue(a_nn + b_nn), 1e-30)
    return q - step * _times(jnp.triu(a_nn - b_nn), q)


def _learned(
    left: jax.Array, right: jax.Array, g_mn: jax.Array, v_mn: jax.Array, rate: Any
) -> tuple[jax.Array, jax.Array]:
    """Both factors after one step for a gradient G and noise V, and of the same largest element."""
    a_mn = _on_both_sides(_times, left, right, g_mn)
    b_mn = _on_both_sides(_solve_transposed, left, right, v_mn)
    left, right = _stepped(left, a_mn, b_mn, rate), _stepped(right, a_mn.T, b_mn.T, rate)
    ratio = jnp.sqrt(jnp.abs(left).max() / jnp.abs(right).max())
    return left / ratio, right * ratio  # the product, which is what counts, is the same


def _whitened(left: jax.Array, right: jax.Array, g: jax.Array) -> jax.Array:
    """(Q_left^T Q_left) G (Q_right^T Q_right), in the shape of G."""
    return _on_both_sides(
        lambda q, x: _times(q, _times(q, x), transpose=True), left, right, _as_matrix(g)
    ).reshape(g.shape)


def _clipped(updates: list[jax.Array]) -> list[jax.Array]:
    """The updates scaled to a root mean square of at most 1 over all, then cut at -1 and 1."""
    size = sum(u.size for u in updates)
    norm = optax.tree.norm(updates)
    scale = jnp.minimum(1.0, math.sqrt(size) / jnp.where(norm == 0, 1.0, norm))
    return [jnp.clip(u * scale.astype(u.dtype), -1.0, 1.0) for u in updates]


def scale_by_psgd_kron(
    b1: float = 0.9,
    *,
    probability: float | Callable[[jax.Array], Any] | None = None,
    rate: float = 0.1,
    max_size: int = 512,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """PSGD with Kronecker factors that whiten the averaged gradient M (Li 2015, arXiv:1512.04202).

    The update is P vec(M) with P = Q^T Q and Q = Q_right (x) Q_left. Q minimises the mean of
    g^T P g + v^T P^-1 v over gradients g = vec(M) and noise v ~ N(0, I), whose minimum is
    P = E[g g^T]^(-1/2). A step on the group of triangular matrices, as in Li 2024
    (arXiv:2402.04553), is, with A = Q_left M Q_right^T and B = Q_left^-T V Q_right^-1,

        Q_left <- Q_left - rate / ||A A^T + B B^T|| triu(A A^T - B B^T) Q_left,

    and for Q_right the same with A^T and B^T. The norm is a lower bound of the spectral norm.
    Factors start as identities and have equal largest elements after every step. As in the
    authors' code, the average of gradients also drives the factors (here it is unbiased), and the
    update is scaled to a root mean square of at most 1 over all tensors and cut at -1 and 1.

    A kernel [.., O] is folded to the matrix [rest, O]. Vectors have a diagonal Q. The noise of
    all tensors at step t (from 0), one after another in the order of `jax.tree.leaves`, is drawn
    with the key fold_in(key, t).

    Args:
      b1: decay of the average of gradients.
      probability: share of steps that update the factors, or a function of the step that gives it;
        None for `annealed()`. Not random: an update is made when the shares since the last one
        sum to 1, and at the first step.
      rate: of the factors' steps.
      max_size: a longer side has a diagonal factor.
      seed: of the noise.
    """
    share = annealed() if probability is None else probability

    def init(params: Any) -> KronState:
        return KronState(
            jnp.zeros((), jnp.int32),
            jnp.ones((), jnp.float32),
            jax.random.PRNGKey(seed),
            jax.tree.map(jnp.zeros_like, params),
            jax.tree.map(lambda p: _factor(p, 0, max_size), params),
            jax.tree.map(lambda p: _factor(p, 1, max_size), params),
        )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, KronState]:
        del params
        count = state.count + 1
        momentum = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.momentum, updates)
        means, tree = jax.tree.flatten(optax.tree.bias_correction(momentum, b1, count))
        factors = list(
            zip(tree.flatten_up_to(state.left), tree.flatten_up_to(state.right), strict=True)
        )

        def learn() -> list[tuple[jax.Array, jax.Array]]:
            sizes = [mean.size for mean in means]
            # In float32, so that a seed means the same noise with 64 bits. One draw for all tensors
            # compiles faster than one for each.
            noise = jax.random.normal(
                jax.random.fold_in(state.key, state.count), (sum(sizes),), jnp.float32
            )
            learned, begin = [], 0
            for (left, right), mean, size in zip(factors, means, sizes, strict=True):
                g_mn = _as_matrix(mean)
                v_mn = noise[begin : begin + size].reshape(g_mn.shape).astype(g_mn.dtype)
                begin += size
                new = _learned(left, right, g_mn, v_mn, rate) if mean.size else (left, right)
                learned.append(new)
            return learned

        now = state.due > 1 - 1e-3  # shares such as 0.1 sum to a little less than 1
        factors = lax.cond(now, learn, lambda: factors)
        due = state.due - now + (share(state.count) if callable(share) else share)
        whitened = [
            _whitened(left, right, mean) if mean.size else mean
            for (left, right), mean in zip(factors, means, strict=True)
        ]
        done = jax.tree.unflatten(tree, _clipped(whitened))
        left, right = (jax.tree.unflatten(tree, [of[side] for of in factors]) for side in (0, 1))
        due = due.astype(state.due.dtype)
        return done, KronState(count, due, state.key, momentum, left, right)

    return at_least_float32(optax.GradientTransformation(init, update))


@optimizer
def psgd_kron(
    lr: Annotated[Schedule, Log(3e-3, 1e-1)] = 2e-2,
    *,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    rate: float = 0.1,
    max_size: int = 512,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """PSGD-Kron: whitening by learned triangular Kronecker factors (Li, arXiv:2402.04553).

    The factors are updated at every step first, then ever more rarely, as in the authors' code.
    Sides longer than `max_size` have diagonal factors. `rate` is the factors' learning rate.
    """
    return optax.chain(
        scale_by_psgd_kron(b1, rate=rate, max_size=max_size),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )
