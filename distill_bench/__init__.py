"""The fixed task: FunMatch distillation, its data, views, networks, teacher and training loop.

No optimizer is named in this package. It knows `optax.GradientTransformation` and nothing else about
update rules.
"""

__version__ = "0.1.0"
