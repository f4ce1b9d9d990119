"""The fixed task of the benchmark: FunMatch distillation with its data, networks and training loop.

This package never names an optimizer. All it knows about update rules is
`optax.GradientTransformation`.
"""

__version__ = "0.1.0"
