"""One-sided Shampoo: the shorter side of each matrix whitened, with a pseudo-inverse root."""

from __future__ import annotations

from typing import Annotated

import optax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.kronecker.block_options import matrix_axes
from optimizers.kronecker.grafting import graft, magnitude_of
from optimizers.masks import kernels
from optimizers.shampoo import scale_by_shampoo
from optimizers.wrappers.precision import at_least_float32

_ADAM_EPS = 1e-15  # of the row


@optimizer
def one_sided_shampoo(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.8, 0.99)] = 0.9,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
    threshold: float = 1e-6,
    block_size: int = 128,
    update_every: int = 1,
) -> optax.GradientTransformation:
    """One-sided Shampoo with a pseudo-inverse root, at the norm of Adam's updates.

    After row 35 of modded-nanogpt's track 3 (github.com/KellerJordan/modded-nanogpt,
    records/track_3_optimization/README.md): the update of a block G [m, n] with m <= n is
    L^+^(1/2) M, where M is the average (b1) of gradients, L that (b2) of G G^T, and L^+ its
    pseudo-inverse; the root is renewed at every step. For m > n it is M R^+^(1/2), with R the
    average of G^T G. An et al. 2025 (ASGO, arXiv:2503.20762) and Xie et al. 2025 (arXiv:2503.10537)
    analyse the rule with a ridge in place of the pseudo-inverse. Vectors take Adam.

    The row says one-sided; the script in its log leaves sides and exponents to a library's
    defaults. That library drops eigenvalues of 0 and less only; here those of up to `threshold`
    times the largest are dropped, which float32 cannot tell from 0. Matrices are cut into blocks.
    """
    direction = scale_by_shampoo(
        b1,
        b2,
        epsilon=threshold,
        block_size=block_size,
        exponent=-0.5,
        update_every=update_every,
        one_sided=True,
        root_solver="pseudo_inverse",
    )
    magnitude = magnitude_of("adam", b1, b2, _ADAM_EPS)
    assert magnitude is not None
    return optax.chain(
        at_least_float32(graft(direction, magnitude, matrix_axes)),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )
