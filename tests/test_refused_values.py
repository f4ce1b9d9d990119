"""Values of the command line with which a built-in optimizer cannot be built."""

from __future__ import annotations

import pytest

from distill_bench.errors import UserError
from sweeps.execution import preflight
from sweeps.planning.plan import make_plan


@pytest.mark.parametrize(
    ("opt", "setting", "reason"),
    [
        ("shampoo", "exponent=1", "use a negative one"),
        ("shampoo", "update_every=0", "is not a number of steps"),
        ("soap", "basis_solver=qrr", "use auto, eigh or qr"),
    ],
)
def test_a_value_that_an_optimizer_refuses_is_named_before_anything_runs(
    opt, setting, reason, request_of
):
    plan = make_plan(request_of("4", opts=("adamw", opt), settings=[setting]))
    with pytest.raises(UserError, match=f"--set={setting}: {opt}: .*{reason}"):
        preflight.refuse_values(plan.candidates)
