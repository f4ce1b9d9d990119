"""Students and images that a variation of a task can choose by name."""

from __future__ import annotations

from collections.abc import Callable

from distill_bench.data import datasets
from distill_bench.data.dataset import AnyDataset, Dataset, FashionMnist
from distill_bench.networks.bit import BiTConfig
from distill_bench.networks.mobilenet import MobileNetConfig
from distill_bench.networks.network import NetworkConfig


def r50x1(classes: int) -> BiTConfig:
    """The paper's student, BiT-R50x1."""
    return BiTConfig(depths=(3, 4, 6, 3), width=64, classes=classes, pool_padding="inf")


STUDENTS: dict[str, Callable[[int], NetworkConfig]] = {
    "R50x1": r50x1,
    "mobilenetv3": MobileNetConfig,
}
"""Students for the paper's tasks, by name: functions from the number of classes to a network."""

DIGITS = Dataset(
    name="digits",
    train_size=1000,
    split_seed=0,
    sha256="fe61bc84cd6a594d5ed1b937b7d8f8f791d4091d2a9df91fe5d6066156a4db6e",
)
FASHION = FashionMnist(
    name="fashion_mnist",
    train_size=60_000,
    test_size=10_000,
    order_seed=0,
    sha256="5ccaaf825460173c058bd037170b4823ffe5d6100e53e2549c5b932b07e32592",
)
PHOTOGRAPHS = Dataset(
    name="photographs",
    train_size=400,
    split_seed=0,
    sha256="aa4ff312b6ef23bcdc4e6e2eeb0a5175de77a2d1b92704d7cfc86dc35ae5ca16",
)

IMAGES: dict[str, AnyDataset] = {
    "digits": DIGITS,
    "fashion": FASHION,
    **datasets.CATALOGUE,
    "photographs": PHOTOGRAPHS,
}
"""Data sets that training views can be made from: one per task, by the task's name, and
"photographs", which no task evaluates on."""
