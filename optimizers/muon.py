"""Muon: orthogonalised momentum."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import jax
import optax
from optax import contrib

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.masks import fold_kernel, kernels

# Of each step X <- a X + b X X^T X + c (X X^T)^2 X. Jordan's are tuned for a steep slope at 0, and
# leave singular values between about 0.7 and 1.2. Those of Polar Express (Amsel et al. 2025,
# arXiv:2505.16932, for singular values from 1e-3 on) are the best for each step, and converge to 1.
COEFFICIENTS = {
    "jordan": (3.4445, -4.7750, 2.0315),
    "polar_express": (
        (8.28721201814563, -23.595886519098837, 17.300387312530933),
        (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
        (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
        (3.3184196573706015, -2.488488024314874, 0.51004894012372),
        (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    ),
}


@optimizer
def muon(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    momentum: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    adam_b2: float = 0.95,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
    adam_lr_factor: float | None = None,
    consistent_rms: float | None = None,
    coefficients: Literal["jordan", "polar_express"] = "jordan",
    convolution_scale: Literal["matrix", "kernel"] = "matrix",
    dimension_numbers: Mapping[str, Any] | Callable[[Any], Any] | None = None,
) -> optax.GradientTransformation:
    """Muon: orthogonalises the momentum of each kernel (Jordan et al. 2024).

    Source: kellerjordan.github.io/posts/muon, as implemented in optax. A convolution kernel is
    treated as the matrix [H*W*I, O], or as `dimension_numbers` says (see `scale_by_shampoo`). Its
    update is scaled by sqrt(max(1, O / (H*W*I))), from the matrix that was orthogonalised, so that
    a convolution moves as far as a dense layer of that matrix. With `convolution_scale="kernel"`
    it is sqrt(max(1, H / W)), as in Jordan's code: 1 for most kernels. `consistent_rms` (0.2 in Liu
    et al. 2025, arXiv:2502.16982) scales every update to this root mean square instead. Vectors are
    updated by Adam with the same learning rate, or `adam_lr_factor` times it.
    """
    if coefficients not in COEFFICIENTS:
        raise ValueError(f"unknown coefficients {coefficients!r}: use {' or '.join(COEFFICIENTS)}.")
    if convolution_scale not in ("matrix", "kernel"):
        raise ValueError(f"unknown scale {convolution_scale!r}: use matrix or kernel.")
    if convolution_scale == "kernel" and consistent_rms is not None:
        raise ValueError("consistent_rms replaces convolution_scale: leave one of them out.")

    def rule(rate: Any, decay: Any) -> optax.GradientTransformation:
        return contrib.muon(
            rate,
            COEFFICIENTS[coefficients],
            beta=momentum,
            adam_b2=adam_b2,
            weight_decay=decay,
            weight_decay_mask=kernels,
            adam_learning_rate=None
            if adam_lr_factor is None
            else (lambda count: adam_lr_factor * rate(count)),
            muon_weight_dimension_numbers=fold_kernel
            if dimension_numbers is None
            else dimension_numbers,
            consistent_rms=consistent_rms,
        )

    if convolution_scale == "matrix":
        return rule(lr, weight_decay)
    return optax.chain(  # the scale must not reach weight decay, which comes after it
        rule(lambda count: 1.0, 0.0),
        optax.stateless(_scaled_by_kernel),
        optax.add_decayed_weights(-weight_decay, kernels),
        optax.scale_by_schedule(lr),  # pyright: ignore[reportArgumentType]
    )


def _scaled_by_kernel(updates: Any, params: Any = None) -> Any:
    """Convolutions [H, W, I, O], scaled by sqrt(max(1, H / W)) instead of by their matrices."""
    del params

    def scaled(update: jax.Array) -> jax.Array:
        if update.ndim != 4 or not update.size:
            return update
        height, width, inputs, outputs = update.shape
        matrix = math.sqrt(max(1.0, outputs / (height * width * inputs)))
        return update * (math.sqrt(max(1.0, height / width)) / matrix)

    return jax.tree.map(scaled, updates)
