"""benchmark.py --profile: where the time of a training step goes."""

from __future__ import annotations

import json
import math
import subprocess

import pytest

from distill_bench.errors import UserError
from distill_bench.networks import network
from sweeps.timing import step_profile
from sweeps.timing.hlo import Module

TEXT = """HloModule jit_step, is_scheduled=true

%fused_computation (param_0: f32[8,3], param_1: f32[3,5]) -> f32[8,5] {
  %param_0 = f32[8,3]{1,0} parameter(0)
  %param_1 = f32[3,5]{1,0} parameter(1)
  ROOT %dot.1 = f32[8,5]{1,0} dot(%param_0, %param_1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%picked (param_0.1: bf16[25,4], param_1.1: s32[]) -> bf16[1,4] {
  %param_0.1 = bf16[25,4]{1,0} parameter(0)
  %param_1.1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %slice = bf16[1,4]{1,0} dynamic-slice(%param_0.1, %param_1.1, %zero), dynamic_slice_sizes={1,4}
}

ENTRY %main (a: f32[8,3], b: f32[3,5], rows: bf16[25,4], i: s32[]) -> (f32[8,5], bf16[1,4]) {
  %a = f32[8,3]{1,0} parameter(0)
  %b = f32[3,5]{1,0} parameter(1)
  %rows = bf16[25,4]{1,0} parameter(2)
  %i = s32[] parameter(3)
  %fusion = f32[8,5]{1,0} fusion(%a, %b), kind=kCustom, calls=%fused_computation, metadata={op_name="f/dot"}
  %loop_fusion = bf16[1,4]{1,0} fusion(%rows, %i), kind=kLoop, calls=%picked
  ROOT %out = (f32[8,5]{1,0}, /*index=1*/bf16[1,4]{1,0}) tuple(%fusion, %loop_fusion)
}
"""  # noqa: E501 - XLA writes such lines


def test_products_and_traffic_are_read_from_the_compiled_text():
    module = Module(TEXT)
    product, picked = (module.instructions[name] for name in ("fusion", "loop_fusion"))
    assert module.name == "jit_step"
    assert (module.kind(product), product.source) == ("library fusion, dot", "f/dot")
    assert module.flops(product) == 2 * 8 * 3 * 5
    assert module.moved(product) == 4 * (8 * 3 + 3 * 5 + 8 * 5)
    assert (module.kind(picked), module.flops(picked)) == ("loop fusion", 0)
    assert module.moved(picked) == 2 * 4 + 4 + 2 * 4  # one row in, the index, one row out
    assert module.instructions["out"].opcode == "tuple"


def test_time_inside_a_loop_is_counted_once():
    events = [("while", 0, 10), ("dot", 1, 4), ("add", 5, 2), ("dot", 20, 3)]
    assert sorted(step_profile._own_times(events)) == [
        ("add", 2),
        ("dot", 3),
        ("dot", 4),
        ("while", 4),
    ]


@pytest.mark.long
def test_the_profile_adds_up(script, tiny_task):
    """To less than the wall time, and to the arithmetic of the network's definition."""
    python, path = script.command("benchmark")[:2]
    done = subprocess.run(
        [python, path, "--profile", "--task=tiny", "--format=json"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert 0 < figures["operations_ms"] <= figures["traced_step_ms"]
    assert sum(row["ms"] for row in figures["kinds"]) == pytest.approx(figures["operations_ms"])
    student, size = tiny_task.student, math.ceil(tiny_task.views.size / 2)
    macs = network.macs(student, tiny_task.views.size)
    root = size**2 * 9 * student.channels * student.width  # needs no gradient of the images
    expected = 2 * tiny_task.batch_size * (3 * macs - root) / 1e6
    assert figures["operations_mflop"] == pytest.approx(expected, rel=0.05)
    assert figures["slowest"][0]["ms"] > 0


def test_a_trace_without_operations_is_one_message():
    program = step_profile.Program(TEXT, lambda: None, 1)
    with pytest.raises(UserError, match="The trace has no operations"):
        step_profile.traced(program, Module(TEXT))
