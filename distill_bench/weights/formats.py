"""The two published formats of BiT weights, and how they map to this project's parameter tree.

"published" is Big Transfer's. Its keys look like
`resnet/block1/unit01/a/standardized_conv2d/kernel`. "flax" is big_vision's. Its keys look like
`block1/unit01/conv1/kernel`, at the top of the file or below `params/` or `opt/target/`. Both store
kernels as HWIO. The head is [1, 1, C, K] in "published" and [C, K] in "flax". GroupNorm's vectors
are [C] or [1, 1, 1, C].

Sources: `bit_paper.py` and `utils.load_params` of big_vision, the loaders of Big Transfer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

WeightFormat = Literal["published", "flax"]
Shape = tuple[int, ...]

# How the root's max-pool pads the border in the code that each format comes from.
POOL_PADDING: dict[WeightFormat, Literal["zero", "inf"]] = {"published": "zero", "flax": "inf"}

_PREFIX = "resnet/"
_FLAX_PREFIXES = ("params/", "opt/target/", "")
_ROOT, _HEAD = "root_block/standardized_conv2d/kernel", "head/conv2d/kernel"


class Unfit(Exception):
    """A file does not hold the expected arrays.

    The message says why. It continues a sentence that begins with the file's name.
    """


def stored_key(layout: WeightFormat, key: str) -> str:
    """The name in format `layout` of the parameter at path `key` in the project's tree."""
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
            name = "gn" if operation == "group_norm" else "conv"
            return f"{block}/{unit}/{name}{'abc'.index(stage) + 1}/{leaf}"
    raise ValueError(f"{key!r} is not a parameter of a BiT network.")


def stored_shapes(layout: WeightFormat, key: str, shape: Shape) -> tuple[Shape, ...]:
    """The shapes that the parameter `key` may have in a file of format `layout`.

    First the shape that the format's original code writes, then another accepted one, if any.
    """
    if "group_norm" in key:
        vector, image = shape, (1, 1, 1, *shape)
        return (vector, image) if layout == "published" else (image, vector)
    return ((1, 1, *shape),) if key == _HEAD and layout == "published" else (shape,)


def detect(names: Iterable[str]) -> tuple[WeightFormat, dict[str, str]]:
    """The format of a file with arrays called `names`, and {key in that format: name in the file}.

    The keys leave out the numbers in some files' names (`standardized_conv2d_7`). A trainer's state
    next to `params/` or `opt/target/` is ignored.

    Raises:
      Unfit: if the names follow neither format, or if two names mean the same parameter.
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
        f"has array names of neither format of BiT weights: {_some(names)}.\n"
        f"Expected {stored_key('published', _ROOT)!r}, or {root!r} at the top "
        f"or below {' or '.join(map(repr, _FLAX_PREFIXES[:-1]))}."
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
    """What the names and shapes of a file's arrays say about its network.

    Attributes:
      depths, width, channels, classes: as in `BiTConfig`.
      root: side of the root's kernel.
    """

    depths: tuple[int, ...]
    width: int
    channels: int
    classes: int
    root: int

    def __str__(self) -> str:
        return f"depths {self.depths}, width {self.width}, {self.channels} channels"


def check(layout: WeightFormat, found: Mapping[str, Shape], expected: Mapping[str, Shape]) -> None:
    """Checks that a file holds the parameters of a network, no more and no fewer.

    Args:
      found: the file's shapes, by key of the format.
      expected: the network's shapes, by path in the project's tree.

    Raises:
      Unfit: if the architecture, the number of classes, the names or the shapes differ.
    """
    key_of = {stored_key(layout, key): key for key in expected}
    expected_network = network(
        layout, {name: stored_shapes(layout, key, expected[key])[0] for name, key in key_of.items()}
    )
    found_network = network(layout, found)
    if found_network and expected_network:
        if str(found_network) != str(expected_network):
            raise Unfit(
                f"holds another architecture: {found_network}; expected {expected_network}."
            )
        if found_network.classes != expected_network.classes:
            raise Unfit(
                f"has {found_network.classes} classes; expected {expected_network.classes}."
            )
    if missing := key_of.keys() - found.keys():
        raise Unfit(f"lacks {len(missing)} arrays of the network: {_some(missing)}.")
    if extra := found.keys() - key_of.keys():
        raise Unfit(f"has {len(extra)} arrays that the network does not have: {_some(extra)}.")
    for name, key in key_of.items():
        if found[name] not in (shapes := stored_shapes(layout, key, expected[key])):
            raise Unfit(
                f"holds {name} with shape {found[name]}; "
                f"the network needs {' or '.join(map(str, shapes))}."
            )


def network(layout: WeightFormat, shapes: Mapping[str, Shape]) -> Network | None:
    """The network that has arrays of these shapes, given by key of the format.

    None if the root's or the head's kernel is missing or not a kernel.
    """
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
