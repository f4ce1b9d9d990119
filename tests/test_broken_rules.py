"""Every subtly broken optimizer is caught by a conformance check; sound ones like it pass."""

from __future__ import annotations

import jax
import pytest

from optimizers.conformance import checks, naming, suite
from optimizers.contract import registry
from support.broken_rules import BROKEN, HEAD, SOUND

# Of the checks, those that the broken rules need. The others have tests of their own.
NEEDED = sorted({rule.check for rule in BROKEN.values()}, key=checks.CHECKS.index)


def loaded(folder, source):
    path = folder / "broken.py"
    path.write_text(HEAD + source)
    return registry.resolve(str(path)).optimizer


def test_no_two_rules_are_the_same():
    assert len({rule.source for rule in BROKEN.values()}) == len(BROKEN) > 19


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_caught(tmp_path, name):
    rule = BROKEN[name]
    assert rule.check in checks.CHECKS
    reason = rule.check(loaded(tmp_path, rule.source))
    assert reason is not None
    assert rule.says in reason


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUND)
def test_a_sound_rule_passes(tmp_path, name):
    opt = loaded(tmp_path, SOUND[name])
    assert {check.__name__: check(opt) for check in NEEDED} == dict.fromkeys(
        check.__name__ for check in NEEDED
    )


def test_a_rule_that_writes_into_the_parameters_fails_one_check_alone(tmp_path):
    rule = BROKEN["a rule that writes into the parameters"]
    opt = loaded(tmp_path, rule.source)
    few = [check for check in NEEDED if check in (rule.check, *checks.QUICK)]
    few += [checks.traces_once, checks.ignores_names, checks.uses_every_gradient]
    failed = [outcome.check for outcome in suite.examine(opt, few) if outcome.fails]
    assert failed == [rule.check.__name__]


def test_a_structural_failure_ends_the_list_and_a_warning_does_not(tmp_path):
    typed = BROKEN["an average of another type"]
    after = checks.CHECKS[checks.CHECKS.index(typed.check) :]
    outcomes = list(suite.examine(loaded(tmp_path, typed.source), after))
    assert [(o.check, o.fails) for o in outcomes] == [(typed.check.__name__, True)]
    kept = BROKEN["the parameters themselves in the state"]
    outcomes = list(suite.examine(loaded(tmp_path, kept.source), (kept.check, checks.builds)))
    assert [(o.reason is None, o.fails) for o in outcomes] == [(False, False), (True, False)]


def test_other_names_keep_the_order_of_the_parameters():
    """Else a rule that is sound could differ by rounding, or by its random numbers."""
    leaves = naming.leaves()
    for names in (naming.NEUTRAL, *naming.TYPICAL):
        tree: dict = {}
        for path, leaf in zip(names, leaves, strict=True):
            folder = tree
            for part in path[:-1]:
                folder = folder.setdefault(part, {})
            folder[path[-1]] = leaf
        assert all(a is b for a, b in zip(jax.tree.leaves(tree), leaves, strict=True))
