"""Reads hyperparameters from signatures: of optimizers, and of the schedules that they use."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

from optimizers.contract.domains import Domain, Value
from optimizers.contract.schedules import OfCount

Schedule = float | OfCount
"""Annotates a hyperparameter that is declared as a peak value and arrives as a function of the step
count, which starts at 0."""

Shape = Callable[..., OfCount]
"""(peak, steps) -> (count -> value). Its keyword-only parameters are hyperparameters."""


def settings_of(schedule: Shape) -> list[inspect.Parameter]:
    """The hyperparameters of a schedule's shape: its keyword-only parameters."""
    return [
        parameter
        for parameter in inspect.signature(schedule).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]


def hints_of(function: Callable) -> dict[str, Any]:
    """The function's type hints, with annotations; none if they cannot be evaluated."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):  # imported for type checkers only, or a functools.partial
        return {}


def typed(
    parameter: inspect.Parameter, hints: Mapping[str, Any], subject: str
) -> tuple[Any, Value | None, Domain | None]:
    """A hyperparameter's type, default and search domain, from its annotation.

    Raises:
      TypeError: if it has more than one domain.
    """
    hint, default = hints.get(parameter.name, Any), parameter.default
    extras = typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ()
    domains = [extra for extra in extras if isinstance(extra, Domain)]
    if len(domains) > 1:
        raise TypeError(
            f"{subject} has {len(domains)} search domains: keep one of Log, Decay, Uniform and "
            "Choice."
        )
    plain = typing.get_args(hint)[0] if extras else hint
    if (
        (plain is float or plain == Schedule)
        and isinstance(default, int)
        and not isinstance(default, bool)
    ):
        default = float(default)
    return plain, default, domains[0] if domains else None


def is_setting(plain: Any) -> bool:
    """Whether values of this type can be typed on a command line: numbers, text and booleans.

    So can those of a parameter without an annotation.
    """
    members = typing.get_args(plain) if _is_union(plain) else (plain,)
    return plain == Schedule or all(
        member in (Any, int, float, bool, str, type(None))
        or typing.get_origin(member) is typing.Literal
        for member in members
    )


def _is_union(plain: Any) -> bool:
    return typing.get_origin(plain) in (typing.Union, types.UnionType)


def schedule_settings(
    name: str, schedule: Shape, known: Collection[str]
) -> tuple[dict[str, Value | None], dict[str, Domain]]:
    """The defaults and the domains of the hyperparameters that a schedule adds to an optimizer's.

    Args:
      name: name of the optimizer.
      schedule: the shape of its schedules.
      known: names of the optimizer's own hyperparameters, which the schedule uses as they are.

    Raises:
      TypeError: if one has neither a default nor is known, or has more than one domain.
    """
    defaults: dict[str, Value | None] = {}
    space: dict[str, Domain] = {}
    hints = hints_of(schedule)
    for parameter in settings_of(schedule):
        if parameter.name in known:
            continue
        subject = f"Hyperparameter {parameter.name!r} of the schedule of {name}"
        if parameter.default is parameter.empty:
            raise TypeError(
                f"{subject} has no default: give it one, or declare the hyperparameter in {name}."
            )
        _, defaults[parameter.name], domain = typed(parameter, hints, subject)
        if domain:
            space[parameter.name] = domain
    return defaults, space
