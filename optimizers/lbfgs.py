"""L-BFGS with a line search on the current batch."""

from __future__ import annotations

import optax

from optimizers.contract.api import optimizer
from optimizers.contract.repairs import keep_dtypes, with_own_buffers

LINESEARCH_STEPS = 4


@optimizer(extra_args=("value", "grad", "value_fn"), evaluations=1 + LINESEARCH_STEPS)
def lbfgs(*, memory_size: int = 10) -> optax.GradientTransformation:
    """L-BFGS: quasi-Newton steps from the last few gradients (Liu & Nocedal 1989).

    A zoom line search with at most four evaluations sets the step size. Nothing is searched. Each
    step counts as five gradient evaluations, the most it can need.
    """
    linesearch = optax.scale_by_zoom_linesearch(LINESEARCH_STEPS, initial_guess_strategy="one")
    return with_own_buffers(
        keep_dtypes(optax.lbfgs(memory_size=memory_size, linesearch=linesearch))
    )
