"""Sets up the test process: eight CPU devices, fast compilation, no implicit rank promotion."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

# A machine may set OpenBLAS's variables for all; the commands refuse those that change numbers.
for _name in [name for name in os.environ if name.startswith("OPENBLAS_")]:
    del os.environ[_name]
os.environ["OPENBLAS_NUM_THREADS"] = "1"
# Test programs run for a moment and took five times as long to compile as to run. Scripts under
# test are compiled as for users; `XLA_FLAGS= pytest` compiles the tests that way too.
_USERS_XLA_FLAGS = os.environ.get("XLA_FLAGS", "")
# Eight devices that share a batch meet at each step. On a busy machine of two cores that can take
# longer than the 40 s after which XLA ends the process.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_collective_call_terminate_timeout_seconds=300",
)

import hypothesis
import jax
import pytest

# A script's background job ignores Ctrl-C, and one under nohup the terminal's end. The programs
# under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
# No test may depend on a time, which a busy machine misses.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

pytest_plugins = [
    "support.fixtures.tasks",
    "support.fixtures.boards",
    "support.fixtures.folders",
    "support.fixtures.pages",
    "support.fixtures.scripts",
]

# A test that uses the fixture gets the marker.
_MARKER_OF_FIXTURE = {"script": "process", "server": "process", "browser": "browser"}

# Tests in these files get the marker `core`, except those that are slow or start processes.
_CORE = [
    "test_blocking.py",
    "test_checkpoints.py",
    "test_conformance.py",
    "test_layering.py",
    "test_losses.py",
    "test_noise.py",
    "test_optimizers.py",
    "test_packing.py",
    "test_plan.py",
    "test_plug_in_tasks.py",
    "test_prepared.py",
    "test_roots.py",
    "test_sampling.py",
    "test_search.py",
    "test_select.py",
    "test_shampoo.py",
    "test_shampoo_abuse.py",
    "test_speedups.py",
    "test_statistics.py",
    "test_store.py",
    "test_surface.py",
    "test_task.py",
    "test_tfrecords.py",
    "test_train.py",
    "test_validity.py",
    "test_variation.py",
    "test_views.py",
]


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests by their fixtures and files, and runs those that start processes first.

    They take the longest, and no worker should wait for one at the end.
    """
    core = {Path(__file__).parent / name for name in _CORE}
    if missing := [str(path) for path in core if not path.is_file()]:
        raise pytest.UsageError(f"_CORE in conftest.py lists files that do not exist: {missing}")
    for item in items:
        for fixture, marker in _MARKER_OF_FIXTURE.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)
        markers = {marker.name for marker in item.iter_markers()}
        if item.path in core and not markers & {"slow", "long", "process", "browser"}:
            item.add_marker("core")
    items.sort(key=lambda item: item.get_closest_marker("process") is None)


@pytest.fixture(scope="session")
def users_xla_flags() -> str:
    """XLA_FLAGS as they were before this file changed them."""
    return _USERS_XLA_FLAGS


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled programs, shared by the workers of a test session and the scripts they start."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "xla"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


@pytest.fixture(scope="module", autouse=True)
def memory() -> Iterator[None]:
    """Frees the programs of each file: those of all files together took 5 GiB a worker."""
    yield
    jax.clear_caches()
