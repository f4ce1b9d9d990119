"""Documents that describe files and versions name what there is."""

from __future__ import annotations

import dataclasses

import distill_bench
from distill_bench.training.exams import CURVE, HELDOUT_CURVE, METRICS
from support.paths import ROOT
from sweeps.planning.study import Study, Trial


def test_the_description_of_a_store_names_every_field_and_metric():
    text = (ROOT / "docs" / "store.md").read_text()
    fields = [field.name for of in (Study, Trial) for field in dataclasses.fields(of)]
    names = {
        *fields,
        "spec",
        "sources",
        "status",
        "step",
        "detail",
        "environment",
        CURVE,
        HELDOUT_CURVE,
        *METRICS,
    }
    assert {name for name in names if f"`{name}`" not in text} - {"study"} == set()


def test_the_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {distill_bench.__version__}\n" in text
