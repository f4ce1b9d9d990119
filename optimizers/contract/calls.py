"""What an optimizer takes when it is called outside the testbed, as a function of optax."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import optax

from optimizers.contract.repairs import with_own_buffers
from optimizers.contract.signatures import Schedule, hints_of
from optimizers.wrappers.meshes import on_any_mesh
from optimizers.wrappers.precision import refuse_complex

_OUR_NAME, _OPTAX_NAME = "lr", "learning_rate"


class Declared(Protocol):
    """What a call needs to know of an `Optimizer` (see api.py)."""

    @property
    def name(self) -> str: ...
    @property
    def make(self) -> Callable[..., Any]: ...
    @property
    def scheduled(self) -> frozenset[str]: ...


def _names(opt: Declared) -> dict[str, str]:
    """The decorated function's name of each argument of a call, by its name in the call."""
    own = list(inspect.signature(opt.make).parameters)
    renamed = _OUR_NAME in opt.scheduled and _OPTAX_NAME not in own
    return {_OPTAX_NAME if renamed and name == _OUR_NAME else name: name for name in own}


def signature(opt: Declared) -> inspect.Signature:
    """The signature of a call: that of the decorated function, with `learning_rate` for `lr`."""
    own = inspect.signature(opt.make)
    return own.replace(
        parameters=[
            own.parameters[name].replace(
                name=called,
                annotation=optax.ScalarOrSchedule
                if name in opt.scheduled
                else own.parameters[name].annotation,
            )
            for called, name in _names(opt).items()
        ]
    )


def bound(opt: Declared, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the decorated function for a call; schedules are functions of the count.

    Raises:
      TypeError: if an argument is unknown or given twice.
    """
    names = _names(opt)
    if _OUR_NAME in kwargs and _OUR_NAME not in names and _OPTAX_NAME not in kwargs:
        kwargs = {_OPTAX_NAME if name == _OUR_NAME else name: kwargs[name] for name in kwargs}
    try:
        given = signature(opt).bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{opt.name}(): {error}") from None
    given.apply_defaults()
    values = {names[called]: value for called, value in given.arguments.items()}
    return {
        name: _schedule(value) if name in opt.scheduled else value for name, value in values.items()
    }


def for_any_loop(
    rule: Any, extra_args: Collection[str], takes_functions: bool
) -> optax.GradientTransformationExtraArgs:
    """`rule` as code outside the testbed expects it.

    Its update ignores extra arguments that it does not need. Its fresh state shares no buffer with
    the parameters or within itself, so that both can be donated. Unless it takes functions, its
    parameters may be sharded over a mesh with explicit axes. Complex parameters are refused.
    """
    rule = with_own_buffers(rule)

    def init(params: Any) -> Any:
        refuse_complex(params)
        return rule.init(params)

    def update(updates: Any, state: Any, params: Any = None, **extras: Any) -> tuple[Any, Any]:
        needed = {name: extras[name] for name in extra_args if name in extras}
        return rule.update(updates, state, params, **needed)

    ready = optax.GradientTransformationExtraArgs(init, update)
    # A function such as the loss holds explicit arrays of its own.
    return ready if takes_functions else on_any_mesh(ready)


def _schedule(value: Any) -> Callable[[Any], Any]:
    return value if callable(value) else lambda count: value


def static_args(function: Callable[..., Any] | Declared) -> tuple[str, ...]:
    """Names of the arguments that must stay Python values under jit: all that are not floats.

    For `optax.inject_hyperparams(function, static_args(function))`.

    Args:
      function: an optimizer, or a function such as `scale_by_shampoo`.
    """
    inner: Any = getattr(function, "make", function)
    scheduled = getattr(function, "scheduled", frozenset())
    hints = hints_of(inner)

    def plain(name: str) -> Any:
        hint = hints.get(name)
        return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint

    return tuple(
        name
        for name in inspect.signature(inner).parameters
        if name not in scheduled and plain(name) not in (float, float | None, Schedule)
    )
