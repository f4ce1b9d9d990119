"""`from sweeps import compare`, in scripts of their own as users write them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from support.paths import CALM

SCRIPT = '''
import sys
from typing import Annotated

import optax

from optimizers import Log, Schedule, optimizer
from sweeps import compare
from sweeps.execution.resources import Resources
from distill_bench.training.lane_layout import LayoutOptions

DAMPING = 0.9


@optimizer
def calm(
    lr: Annotated[Schedule, Log(1e-1, 1.0)] = 0.3, *, damping: float = DAMPING
) -> optax.GradientTransformation:
    """Heavy-ball momentum."""
    return optax.chain(optax.trace(damping), optax.scale_by_learning_rate(lr))


results = compare(
    ["adamw", calm],
    "tiny",
    [20, 60],
    trials=2,
    seeds=2,
    outdir="results",
    resources=Resources(cache=sys.argv[1], layout=LayoutOptions(devices=1)),
)
print(results.table(width=80))
'''


@pytest.fixture
def python(script, tmp_path, compilation_cache):
    """A function that runs a script in the folder of the test."""

    def run(text):
        (tmp_path / "mine.py").write_text(text)
        return subprocess.run(
            [sys.executable, "mine.py", str(compilation_cache)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


ENDING = """
found = results.to_pandas()
print(len(found), sorted(found.opt))
results.plot().savefig("plot.svg")
print(results.speedup("calm"), "|", results.speedup("calm", 60))
for wrong in (lambda: results.speedup("cal"), lambda: results.speedup("calm", 30)):
    try:
        wrong()
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.slow
def test_an_optimizer_of_the_script_gives_the_numbers_of_the_same_file(script, python, tmp_path):
    done = python(SCRIPT + ENDING)
    assert done.returncode == 0, done.stderr
    typed = script("run", f"--opt=adamw,{CALM}", "--horizons=20,60", "--trials=2", "--seeds=2")
    assert typed.returncode == 0, typed.stderr
    table = typed.stdout.rsplit("\n", 2)[0]  # without the line about TensorBoard
    assert done.stdout.startswith(table)
    said = done.stdout[len(table) :].strip().splitlines()
    assert said[0] == "4 ['adamw', 'adamw', 'calm', 'calm']"
    assert said[1].count("x") == 2
    assert said[2:] == [
        "UserError No results of 'cal'. Did you mean 'calm'?",
        "UserError No run of 30 steps; those compared have 20, 60.",
    ]
    assert "<svg" in (tmp_path / "plot.svg").read_text()
    # What was written out is an optimizer's file like any other.
    written = tmp_path / "results" / "from_python" / "calm.py"
    assert "compare" not in written.read_text()
    # Run again, the script computes nothing.
    once_more = python(SCRIPT)
    assert once_more.stdout == table + "\n"
    assert "steps" not in once_more.stderr


WRONG = {
    "compare(['adamw'], 'digit')": "Did you mean 'digits'?",
    "compare(['adamv'])": "Did you mean 'adam'?",
    "compare([3])": "got int",
    "compare([])": "Nothing to run",
    "compare(['adamw'], horizons=[250, 125])": "250,125",
    "compare(['adamw'], settings={'lr': 'fast'})": "fast",
    "compare(['adamw'], trials=0)": "--trials=0",
    "(lambda rule: compare([rule]))(optimizer(lambda lr=0.1: optax.sgd(lr)))": "top level",
}
LOOP = f"""
import json
import optax
from distill_bench.errors import UserError
from optimizers import optimizer
from sweeps import compare

said = {{}}
for wrong in {list(WRONG)!r}:
    try:
        eval(wrong)
    except UserError as error:
        said[wrong] = str(error)
print(json.dumps(said))
"""


@pytest.mark.slow
def test_a_wrong_argument_is_one_message(python):
    done = python(LOOP)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.keys() == WRONG.keys()
    for wrong, words in WRONG.items():
        assert words in said[wrong]
