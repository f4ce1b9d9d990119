"""Reads the text of an optimized HLO module: which operations it has, and what they cost."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)")
_ARRAY = re.compile(r"([a-z]+)(\d*)\w*\[([\d,]*)\]")
_WORTH_NAMING = ("dot", "convolution", "reduce", "concatenate")  # inside a fusion


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
      result: its shape as text, such as "f32[128,16]{1,0}".
      rest: the text after the opening bracket: operands and attributes.
    """

    name: str
    opcode: str
    result: str
    rest: str
    root: bool

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.\-]+)", self.rest.partition(")")[0])

    @property
    def source(self) -> str:
        """The path in the program that it was compiled from."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""

    def axes(self, attribute: str) -> list[int]:
        """The numbers of an attribute, such as lhs_contracting_dims={1}."""
        found = re.search(rf"\b{attribute}={{([\d,]*)}}", self.rest)
        return _numbers(found[1]) if found else []


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def size(shape: str) -> int:
    """Bytes of an array, or of all arrays of a tuple."""
    return sum(
        math.prod(_numbers(lengths)) * (int(bits) // 8 if bits else 1)
        for _, bits, lengths in _ARRAY.findall(shape)
    )


def lengths(shape: str) -> list[int]:
    """Lengths of an array's axes."""
    found = _ARRAY.search(shape)
    return _numbers(found[3]) if found else []


class Module:
    """The instructions of a module, by name."""

    def __init__(self, text: str):
        self.name = text.partition("HloModule ")[2].partition(",")[0].split()[0]
        self.instructions: dict[str, Instruction] = {}
        self._bodies: dict[str, list[Instruction]] = {}
        body: list[Instruction] = []
        for line in text.splitlines():
            if opened := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*{$", line):
                body = self._bodies.setdefault(opened[1], [])
            elif found := _INSTRUCTION.match(line):
                root, name, result, opcode, rest = found.groups()
                instruction = Instruction(name, opcode, result, rest, bool(root))
                self.instructions[name] = instruction
                body.append(instruction)

    def inside(self, instruction: Instruction) -> list[Instruction]:
        """The instructions of a fusion."""
        called = re.search(r"\bcalls=%?([\w.\-]+)", instruction.rest)
        return self._bodies[called[1]] if called else []

    def kind(self, instruction: Instruction) -> str:
        """Its opcode; for a fusion, who computes it and the costliest operation inside."""
        if instruction.opcode != "fusion":
            return instruction.opcode
        who = "library fusion" if "kind=kCustom" in instruction.rest else "loop fusion"
        opcodes = {part.opcode for part in self.inside(instruction)}
        return next((f"{who}, {name}" for name in _WORTH_NAMING if name in opcodes), who)

    def flops(self, instruction: Instruction) -> int:
        """Floating-point operations of its matrix products."""
        return sum(
            2 * math.prod(lengths(dot.result)) * self._contracted(dot)
            for dot in (instruction, *self.inside(instruction))
            if dot.opcode == "dot"
        )

    def _contracted(self, dot: Instruction) -> int:
        left = lengths(self.instructions[dot.operands[0]].result)
        return math.prod(left[axis] for axis in dot.axes("lhs_contracting_dims"))

    def moved(self, instruction: Instruction) -> int:
        """Bytes of its operands and its result. Of an array that it slices, only the slice."""
        body = self.inside(instruction)
        root = next((part for part in body if part.root), instruction)
        written = self._operand(root, 1) if _updates(root) else instruction.result
        return size(written) + sum(self._read(instruction, body))

    def _read(self, instruction: Instruction, body: list[Instruction]) -> Iterator[int]:
        inner = {part.rest.partition(")")[0]: part for part in body if part.opcode == "parameter"}
        for i, name in enumerate(instruction.operands):
            whole = size(self.instructions[name].result)
            own = inner[str(i)].name if body else name
            users = [part for part in body or [instruction] if own in part.operands]
            yield min(whole, sum(self._used(user, own, whole) for user in users))

    def _used(self, user: Instruction, name: str, whole: int) -> int:
        if user.operands[0] == name and _updates(user):
            return 0
        sliced = user.operands[0] == name and user.opcode in ("dynamic-slice", "gather", "slice")
        return size(user.result) if sliced else whole

    def _operand(self, instruction: Instruction, i: int) -> str:
        return self.instructions[instruction.operands[i]].result


def _updates(instruction: Instruction) -> bool:
    return instruction.opcode == "dynamic-update-slice"
