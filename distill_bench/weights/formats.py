"""The two published layouts of BiT weights, told by their keys, and how they map to this project's parameter tree.

"published" is Big Transfer's: `resnet/block1/unit01/a/standardized_conv2d/kernel`. "flax" is big_vision's:
`block1/unit01/conv1/kernel`, at the top of the file or below `params/` or `opt/target/`. Both keep kernels as
HWIO; the head is [1, 1, C, K] in the first and [C, K] in the second. GroupNorm's vectors are [C] or [1, 1, 1, C].

Sources: `bit_paper.py` and `utils.load_params` of big_vision, the loaders of Big Transfer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

WeightFormat = Literal["published", "flax"]
Shape = tuple[int, ...]

# What the root's max-pool sees beyond the border, in the code that each layout comes from.
POOL_PADDING: dict[WeightFormat, Literal["zero", "inf"]] = {"published": "zero", "flax": "inf"}

_PREFIX = "resnet/"
_FLAX_PREFIXES = ("params/", "opt/target/", "")
_ROOT, _HEAD = "root_block/standardized_conv2d/kernel", "head/conv2d/kernel"


class Unfit(Exception):
    """A file's arrays are not those wanted; the message says why and goes on from the file's name."""


def stored_key(layout: WeightFormat, key: str) -> str:
    """The name, in `layout`, of the parameter at the path `key` of the project's tree."""
    if layout == "published":
        return _PREFIX + key
    *module, leaf = key.split("/")
    leaf = {"gamma": "scale", "beta": "bias"}.get(leaf, leaf)
    match module:
        case ["root_block", _]:
            return f"root_block/conv_root/{leaf}"
        case ["group_norm"]:
            return f"norm-pre-head/{leaf}"
        case ["head", _]:
            return f"head/{leaf}"
        case [block, unit, "a", "proj", _]:
            return f"{block}/{unit}/conv_proj/{leaf}"
        case [block, unit, stage, operation]:
            return f"{block}/{unit}/{'gn' if operation == 'group_norm' else 'conv'}{'abc'.index(stage) + 1}/{leaf}"
    raise ValueError(f"{key!r} is no parameter of a BiT network.")


def stored_shapes(layout: WeightFormat, key: str, shape: Shape) -> tuple[Shape, ...]:
    """The shapes in which files of `layout` hold the parameter `key`; first as its original code does, then the other form, if there is one."""
    if "group_norm" in key:
        vector, image = shape, (1, 1, 1, *shape)
        return (vector, image) if layout == "published" else (image, vector)
    return ((1, 1, *shape),) if key == _HEAD and layout == "published" else (shape,)


def detect(names: Iterable[str]) -> tuple[WeightFormat, dict[str, str]]:
    """The layout of a file with arrays called `names`, and {its key in that layout: its name in the file} for each parameter.

    Numbers that some files carry (`standardized_conv2d_7`) are stripped. A trainer's state beside `params/` or `opt/target/`
    is left out.

    Raises:
      Unfit: where the names are of neither layout, or two of them are the same parameter.
    """
    names = sorted(names)
    if any(name.startswith(_PREFIX) for name in names):
        return "published", _unique(
            (re.sub(r"(standardized_conv2d|group_norm)_\d+/", r"\1/", name), name) for name in names
        )
    root = stored_key("flax", _ROOT)
    for prefix in _FLAX_PREFIXES:
        if prefix + root in names:
            return "flax", _unique(
                (name.removeprefix(prefix), name) for name in names if name.startswith(prefix)
            )
    raise Unfit(
        f"names its arrays as in neither layout of BiT weights: {_some(names)}.\n"
        f"Expected {stored_key('published', _ROOT)!r}, or {root!r} at the top or below {' or '.join(map(repr, _FLAX_PREFIXES[:-1]))}."
    )


def _unique(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, name in pairs:
        if key in found:
            raise Unfit(f"holds the same parameter twice, as {found[key]!r} and as {name!r}.")
        found[key] = name
    return found


def _some(names: Iterable[str], most: int = 8) -> str:
    names = sorted(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(map(repr, names[:most])) or "none") + more


@dataclass(frozen=True)
class Network:
    """What the names and shapes of a file's arrays tell of its network."""

    depths: tuple[int, ...]
    width: int
    channels: int
    classes: int
    root: int  # size of the root's kernel

    def __str__(self) -> str:
        return f"depths {self.depths}, width {self.width}, {self.channels} channels"


def check(layout: WeightFormat, found: Mapping[str, Shape], expected: Mapping[str, Shape]) -> None:
    """Refuses a file whose arrays `found` (keys of `layout`) are not the parameters `expected` (paths of the project's tree).

    Raises:
      Unfit: where the architecture or the number of classes is another, arrays are missing or too many, or a shape is wrong.
    """
    wanted = {stored_key(layout, key): key for key in expected}
    ours = network(
        layout, {name: stored_shapes(layout, key, expected[key])[0] for name, key in wanted.items()}
    )
    seems = network(layout, found)
    if seems and ours and str(seems) != str(ours):
        raise Unfit(f"holds another architecture: {seems}; wanted are {ours}.")
    if seems and ours and seems.classes != ours.classes:
        raise Unfit(f"has {seems.classes} classes; wanted are {ours.classes}.")
    if missing := wanted.keys() - found.keys():
        raise Unfit(f"lacks {len(missing)} arrays of the network: {_some(missing)}.")
    if extra := found.keys() - wanted.keys():
        raise Unfit(f"has {len(extra)} arrays that the network lacks: {_some(extra)}.")
    for name, key in wanted.items():
        if found[name] not in (shapes := stored_shapes(layout, key, expected[key])):
            raise Unfit(
                f"holds {name} with shape {found[name]}; the network wants {' or '.join(map(str, shapes))}."
            )


def network(layout: WeightFormat, shapes: Mapping[str, Shape]) -> Network | None:
    """What `shapes` (keys of `layout`) seem to be of; None where root or head are missing or no kernels."""
    root, head = (
        shapes.get(stored_key(layout, _ROOT), ()),
        shapes.get(stored_key(layout, _HEAD), ()),
    )
    if len(root) != 4 or not head:
        return None
    units: dict[int, int] = {}
    for key in shapes:
        if match := re.search(r"\bblock(\d+)/unit(\d+)/", key):
            block, unit = int(match[1]), int(match[2])
            units[block] = max(unit, units.get(block, 0))
    return Network(
        tuple(units[block] for block in sorted(units)), root[3], root[2], head[-1], root[0]
    )
