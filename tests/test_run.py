"""run.py as a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest

from support.paths import BRISK, CALM, ROOT
from support.stores import contents, rows
from sweeps.board.entries import BASELINE

PLUG_IN = """
import jax, jax.numpy as jnp, optax
from optimizers import Schedule, optimizer

@optimizer(schedule="constant")
def {name}(lr: Schedule = 0.1):
    def my_update(updates, count, params=None):
        {body}
        return jax.tree.map(lambda u: -lr(count) * factor * u, updates), count + 1
    return optax.GradientTransformation(lambda params: jnp.int32(0), my_update)
"""


SMALL = ["--horizons=20,60", "--trials=2", "--seeds=2"]


@pytest.mark.slow
def test_a_sweep_compares_stores_and_repeats(script, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = script("run", f"--opt={BRISK},{CALM}", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "speed-up" in done.stdout
    assert (
        done.stdout.strip()
        .splitlines()[-1]
        .endswith(f"tensorboard --logdir {tmp_path / 'runs' / 'tensorboard' / 'tiny' / 'finals'}")
    )
    first = contents(tmp_path / "runs")
    found = rows(script)
    assert [
        (row["opt"], row["horizon"], row["seeds"], row["trials"], row["status"])
        for row in sorted(found, key=lambda r: (r["opt"], r["horizon"]))
    ] == [(opt, horizon, 2, 2, "ok") for opt in ("brisk", "calm") for horizon in (20, 60)]
    keys = {
        "opt",
        "task",
        "horizon",
        "probe_loss",
        "probe_loss_std",
        "heldout_kl",
        "agreement",
        "accuracy",
        "speedup",
        "seeds",
        "trials",
        "diverged",
        "status",
    }
    assert all(keys <= row.keys() for row in found)
    table = script("leaderboard")
    assert table.returncode == 0
    assert table.stdout.strip() in done.stdout
    assert max(map(len, table.stdout.splitlines())) <= 80
    # 16 trials, 4 means and what the charts are.
    assert len(list((tmp_path / "runs").rglob("events.out.tfevents.*"))) == 16 + 4 + 2

    # Running the command again computes nothing; in another folder it gives the same bits.
    began = time.monotonic()
    again = script("run", f"--opt={BRISK},{CALM}", *SMALL)
    assert again.stdout == done.stdout
    assert "Compiled" not in again.stderr
    assert time.monotonic() - began < 60
    # A narrower request shows its own rungs and optimizers only.
    narrow = script("run", f"--opt={BRISK}", "--horizons=20", *SMALL[1:])
    assert narrow.returncode == 0, narrow.stderr
    assert "   20  brisk" in narrow.stdout
    assert "calm" not in narrow.stdout
    assert "   60  " not in narrow.stdout
    filtered = script("leaderboard", "--horizons=60")
    assert "   60  " in filtered.stdout
    assert "   20  " not in filtered.stdout
    refused = script("leaderboard", "--horizons=60,61")
    assert (refused.returncode, "--horizons=61" in refused.stderr) == (2, True)
    done = script("run", f"--opt={BRISK},{CALM}", *SMALL, "--dry_run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("nothing left to run")
    (tmp_path / "runs").rename(tmp_path / "before")
    # One optimizer alone gives the same results as with others.
    assert script("run", f"--opt={CALM}", *SMALL).returncode == 0
    alone = contents(tmp_path / "runs")
    assert alone == {name: content for name, content in first.items() if "/calm-" in name}


@pytest.mark.long
def test_broken_plug_ins_cost_only_their_own_trials(script, tmp_path):
    (tmp_path / "raises.py").write_text(
        PLUG_IN.format(name="raises", body="raise ValueError('my own words')")
    )
    (tmp_path / "nan.py").write_text(
        PLUG_IN.format(name="nan", body="factor = jnp.where(count == 6, jnp.nan, 1.0)")
    )
    # A new optimizer is one new file: the example under another name.
    text = (ROOT / "examples" / "my_optimizer.py").read_text()
    (tmp_path / "brand_new.py").write_text(text.replace("my_optimizer", "brand_new"))
    done = script(
        "run",
        "--opt=./raises.py,./nan.py,./brand_new.py",
        "--horizons=20",
        "--trials=2",
        "--seeds=1",
    )
    assert done.returncode == 1
    assert "my own words" in done.stderr
    assert "after step 7 the parameters are not finite" in done.stderr
    assert "distill_bench/" not in done.stderr
    assert len(done.stderr.splitlines()) < 40
    # Without anything to tune, the only run is a final.
    assert "crashed 1 of 1 seed: ValueError: my own words" in " ".join(done.stdout.split())
    found = {row["opt"]: row["status"] for row in rows(script) if row["status"] != "reference"}
    assert found == {"raises": "crashed", "nan": "diverged", "brand_new": "ok"}
    checked = subprocess.run(
        [sys.executable, "-m", "optimizers.conformance", str(tmp_path / "brand_new.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (checked.returncode, checked.stdout.count("  pass  ")) == (0, 17)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([f"--opt={BASELINE}x"], f"Did you mean '{BASELINE}'"),
        ([f"--opt={BRISK}", "--task=digit"], "Did you mean 'digits'"),
        ([f"--opt={BRISK}", "--lr=abc"], "--lr=abc: 'abc' is not a finite number"),
        ([f"--opt={BRISK}", "--trials=0"], "--trials=0"),
        ([f"--opt={BRISK}", "--trials=many"], "many"),
        ([f"--opt={BRISK}", "--horizons=500,250"], "--horizons=250,500"),
        ([f"--opt={BRISK}", "--horizon=500"], "horizon"),
        (["brisk"], "Unexpected argument 'brisk'"),
        ([], "Nothing to run"),
    ],
)
def test_a_typo_gives_one_message_and_writes_nothing(script, tmp_path, flags, message):
    done = script("run", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 6
    assert not (tmp_path / "runs").exists()


def test_an_outdir_that_is_a_file_is_refused(script, tmp_path):
    (tmp_path / "runs").write_text("mine")
    done = script("run", f"--opt={BRISK}")
    assert (done.returncode, "is a file" in done.stderr) == (2, True)
    assert (tmp_path / "runs").read_text() == "mine"


def test_a_dry_run_writes_nothing(script, tmp_path):
    done = script("run", f"--opt={BRISK},{CALM}", "--dry_run", "--trials=4")
    assert done.returncode == 0, done.stderr
    assert "14 tuning runs (4, 3 for each optimizer), then 12 final runs" in done.stdout
    assert re.search(r"about (\d+ min )?\d+ s on this machine", done.stdout)
    assert "measured" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_help_and_list_work_and_help_imports_no_jax(script):
    for flag in ("--help", "--list"):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", *script.command("run", flag)[1:]],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0
        assert BASELINE in done.stdout
    helped = subprocess.run(
        [sys.executable, "-X", "importtime", *script.command("run", "--help")[1:]],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not [
        line
        for line in helped.stderr.splitlines()
        if line.split("|")[-1].strip() in ("jax", "optax", "numpy", "tensorboard")
    ]


def test_a_closed_pipe_gives_no_stack_trace(script):
    assert os.path.exists(script.command("run")[1])
    done = subprocess.run(
        f"{' '.join(script.command('run', '--help'))} | head -1",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
