"""SOAP-Muon: SOAP's direction, orthogonalised as in Muon."""

from __future__ import annotations

import math
from typing import Annotated, Any

import jax
import optax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.kronecker.bases import BasisSolver
from optimizers.kronecker.blocking import plan
from optimizers.masks import kernels
from optimizers.newton_schulz import orthogonalise
from optimizers.soap import scale_by_soap
from optimizers.wrappers.precision import at_least_float32


def _orthogonalised(updates: Any, params: Any = None) -> Any:
    """Muon's update from each kernel that SOAP cuts into blocks; the others as they are."""
    del params
    leaves, tree = jax.tree.flatten(updates)
    forms = plan([leaf.shape for leaf in leaves]).folded
    return tree.unflatten(
        u if form is None else orthogonalise(u) * math.sqrt(max(1.0, form[1] / form[0]))
        for u, form in zip(leaves, forms, strict=True)
    )


def scale_by_soap_muon(
    b1: float = 0.9,
    b2: float = 0.95,
    *,
    epsilon: float = 1e-5,
    block_size: int = 128,
    update_every: int = 10,
    one_sided: bool = False,
    basis_solver: BasisSolver = "auto",
) -> optax.GradientTransformationExtraArgs:
    """SOAP's direction, orthogonalised by Muon's Newton-Schulz iteration.

    Sources: Vyas et al. 2025, "Improving SOAP using iterative whitening and Muon"
    (nikhilvyas.github.io/SOAP_Muon.pdf); in the form of pull requests 278 and 321 of
    github.com/KellerJordan/modded-nanogpt (track 3), where the update is orthogonalised after it
    has been rotated back to the parameters' own coordinates.

    The update of a kernel is sqrt(max(1, O / rest)) `orthogonalise`(U), with U the direction of
    `scale_by_soap`, whole and folded to [rest, O]: SOAP's blocks are put together first. U's scale
    does not matter. As in the default of the authors' code, there is no Nesterov momentum, and the
    second moment is that of gradients. (The pull requests keep the Nesterov momentum of their Muon,
    and average its squares instead.) Tensors without two axes longer than 1 take Adam.

    Args:
      b1, b2: decays of the averages of gradients and of their squares and products.
      epsilon, block_size, update_every, one_sided, basis_solver: see `scale_by_soap`.

    Raises:
      ValueError: if an argument is out of range; in `init`, if a parameter is complex.
    """
    direction = scale_by_soap(
        b1,
        b2,
        epsilon=epsilon,
        block_size=block_size,
        update_every=update_every,
        one_sided=one_sided,
        basis_solver=basis_solver,
    )
    return at_least_float32(optax.chain(direction, optax.stateless(_orthogonalised)))


@optimizer
def soap_muon(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
    epsilon: float = 1e-5,
    block_size: int = 128,
    update_every: int = 10,
    one_sided: bool = False,
    basis_solver: BasisSolver = "auto",
) -> optax.GradientTransformation:
    """SOAP-Muon: SOAP's direction, orthogonalised (Vyas et al. 2025; see `scale_by_soap_muon`).

    A convolution kernel is treated as the matrix [H*W*I, O]. Vectors are updated by Adam with the
    same learning rate.
    """
    return optax.chain(
        scale_by_soap_muon(
            b1,
            b2,
            epsilon=epsilon,
            block_size=block_size,
            update_every=update_every,
            one_sided=one_sided,
            basis_solver=basis_solver,
        ),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )
