"""What is a GPU program made of? cuobjdump's disassembly, counted by opcode and by class.

Reads the text that `cuobjdump -sass` and `nvdisasm -c` print for one kernel. A count is static: an
instruction of a loop counts once, however often it runs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

LINE = re.compile(
    r"^\s*/\*(?P<address>[0-9a-f]{4,})\*/\s+(?:@!?U?P[0-9T]+\s+)?"
    r"(?P<opcode>[A-Z][A-Z0-9_]*(?:\.[A-Za-z0-9_]+)*)(?P<operands>[^;]*);",
    re.MULTILINE,
)
TARGET = re.compile(r"0x([0-9a-f]+)\s*$")
REGISTERS = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)")

# Class -> opcodes without their modifiers. Sources: "Instruction Set Reference" of NVIDIA's CUDA
# Binary Utilities for Turing to Blackwell; what is in no list is "other".
CLASSES: Mapping[str, tuple[str, ...]] = {
    "tensor": (
        "HMMA", "IMMA", "QMMA", "OMMA", "DMMA", "BMMA", "HGMMA", "IGMMA", "QGMMA", "BGMMA",
        "UTCHMMA", "UTCQMMA", "UTCIMMA", "UTCOMMA",
    ),
    "global load": ("LDG", "LD"),
    "async copy to shared": ("LDGSTS", "UTMALDG", "UBLKCP", "UTMAPF"),
    "global store": ("STG", "ST", "UTMASTG"),
    "reduction": ("RED", "REDG", "UTMAREDG"),
    "atomic": ("ATOM", "ATOMG", "ATOMS"),
    "shared": ("LDS", "STS", "LDSM", "STSM", "MOVM"),
    "local (spill)": ("LDL", "STL"),
    "constant": ("LDC", "LDCU", "ULDC"),
    "floating point": (
        "FFMA", "FADD", "FMUL", "FFMA2", "FADD2", "FMUL2", "HFMA2", "HADD2", "HMUL2", "DFMA",
        "DADD", "DMUL", "MUFU", "FMNMX", "FSEL", "HMNMX2", "FCHK", "FSWZADD",
    ),
    "conversion": (
        "F2F", "F2I", "I2F", "I2I", "I2FP", "F2FP", "F2IP", "I2IP", "FRND", "SGXT",
    ),
    "integer": (
        "IADD3", "IADD", "IMAD", "IMUL", "IABS", "LEA", "LOP3", "LOP", "SHF", "SHL", "SHR", "PRMT",
        "BMSK", "POPC", "FLO", "BREV", "IMNMX", "VIADD", "VIMNMX", "VIADDMNMX", "IDP", "ISCADD",
        "IADD2", "VABSDIFF", "SEL",
    ),
    "predicate": ("ISETP", "FSETP", "HSETP2", "DSETP", "PLOP3", "P2R", "R2P", "VOTE", "UISETP",
                  "UPLOP3", "VOTEU"),
    "move": ("MOV", "S2R", "CS2R", "S2UR", "R2UR", "UMOV", "SHFL", "MATCH", "REDUX", "CREDUX"),
    "barrier and wait": (
        "BAR", "DEPBAR", "LDGDEPBAR", "WARPSYNC", "SYNCS", "MEMBAR", "ERRBAR", "WARPGROUP",
        "FENCE", "UCGABAR_ARV", "UCGABAR_WAIT", "ARRIVES", "ACQBULK", "NANOSLEEP", "YIELD",
        "UTMACMDFLUSH", "CCTL",
    ),
    "control": (
        "BRA", "BRX", "EXIT", "BSSY", "BSYNC", "BREAK", "CALL", "RET", "JMP", "NOP", "BMOV", "KILL",
        "BPT", "RPCMOV", "WARPGROUPSET",
    ),
}  # fmt: skip
CLASS_OF: Mapping[str, str] = {op: name for name, ops in CLASSES.items() for op in ops}


@dataclass(frozen=True)
class Instruction:
    address: int
    opcode: str  # with its modifiers, e.g. "LDG.E.128"
    operands: str


@dataclass(frozen=True)
class Resources:
    """What the assembler says of a kernel. `stack_bytes` per thread: spills and local arrays."""

    registers: int
    stack_bytes: int
    static_shared_bytes: int


def read_instructions(text: str) -> tuple[Instruction, ...]:
    """Every instruction in order. What pads the program after its last exit is left out."""
    found = [
        Instruction(int(m["address"], 16), m["opcode"], m["operands"].strip())
        for m in LINE.finditer(text)
    ]
    # ptxas ends each program with a branch to itself and padding, which never run.
    for at, instruction in enumerate(found):
        if instruction.opcode == "BRA" and _target(instruction) == instruction.address:
            rest = {each.opcode for each in found[at + 1 :]}
            if rest <= {"NOP"}:
                return tuple(found[:at])
    return tuple(found)


def read_resources(text: str) -> Resources | None:
    """Of the first kernel in the text of `cuobjdump -res-usage`; None where there is none."""
    match = REGISTERS.search(text)
    return None if match is None else Resources(*map(int, match.groups()))


def opcode_counts(instructions: tuple[Instruction, ...]) -> dict[str, int]:
    """How often each opcode stands in the program, by its full name, sorted."""
    return dict(sorted(Counter(each.opcode for each in instructions).items()))


def class_of(opcode: str) -> str:
    """The class of an opcode with its modifiers; uniform integer work counts as integer."""
    base = opcode.split(".")[0]
    found = CLASS_OF.get(base)
    if found is None and base.startswith("U"):
        found = CLASS_OF.get(base[1:])
    return found or "other"


def largest_loop(instructions: tuple[Instruction, ...]) -> int:
    """Instructions in the largest span that a backward branch closes; 0: there is no loop."""
    addresses = [each.address for each in instructions]
    largest = 0
    for at, instruction in enumerate(instructions):
        target = _target(instruction) if instruction.opcode.startswith("BRA") else None
        if target is not None and target < instruction.address and target in addresses:
            largest = max(largest, at - addresses.index(target) + 1)
    return largest


def _target(instruction: Instruction) -> int | None:
    match = TARGET.search(instruction.operands)
    return None if match is None else int(match.group(1), 16)
