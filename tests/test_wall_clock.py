"""Speed-ups in time, by hand: the rule's update is only a part of a step."""

from __future__ import annotations

import dataclasses
import math

import jax
import pytest

from distill_bench.networks import network
from distill_bench.tasks import catalogue
from distill_bench.training.source import init_student
from sweeps.board import wall_clock
from sweeps.board.entries import Cost

# A whole step takes 10 + 2 ms, the baseline's 10 + 1 ms.
COST = Cost(step_ms=4.0, baseline_step_ms=3.0, teacher_ms=8.0, state_bytes_per_parameter=8.0)


def test_a_slower_update_counts_only_as_the_part_of_the_step_that_it_is(tiny_task):
    assert wall_clock.per_step(COST, tiny_task) == pytest.approx(12 / 11)
    faster = dataclasses.replace(COST, step_ms=2.0)
    assert wall_clock.per_step(faster, tiny_task) == pytest.approx(10 / 11)
    equal = dataclasses.replace(COST, step_ms=3.0)
    assert wall_clock.per_step(equal, tiny_task) == 1.0


def test_larger_batches_make_the_update_matter_less(tiny_task):
    double = dataclasses.replace(tiny_task, batch_size=2 * tiny_task.batch_size)
    assert wall_clock.per_step(COST, tiny_task, tiny_task) == pytest.approx(12 / 11)
    assert wall_clock.per_step(COST, tiny_task, double) == pytest.approx(23 / 22)


def test_a_wider_student_makes_it_matter_by_its_parameters(tiny_task):
    wide = dataclasses.replace(tiny_task, student=dataclasses.replace(tiny_task.student, width=8))

    def parameters(task):
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(init_student(task, 0)))

    def work(task):  # a backward pass is two forward passes
        return task.teacher_macs + 3 * network.macs(task.student, task.views.size)

    grown = parameters(wide) / parameters(tiny_task)
    rest = 11 * work(wide) / work(tiny_task)
    assert grown > 2
    assert wall_clock.per_step(COST, tiny_task, wide) == pytest.approx((rest + grown) / rest)


def test_in_the_papers_setting_the_update_is_a_small_part():
    """Its images are larger and its student has far more work for each parameter."""
    digits = catalogue.get("digits")
    here = wall_clock.per_step(COST, digits)
    assert 1 < wall_clock.per_step(COST, digits, wall_clock.paper_task()) < here
