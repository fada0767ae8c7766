"""What do many binaries hold, for the price of starting the disassembler once?

`nvdisasm` takes a third to half a second to start, most of what it takes for one kernel. It also
disassembles raw code: the programs of many kernels are laid one behind the other, disassembled at
once, and cut apart by address. Targets of branches are put back to what they are in each program.
Equal, instruction by instruction, to what `cuobjdump -sass` prints of each by itself (tested).
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common.traces.sass import Instruction, Resources, read_instructions, read_resources
from problems.gemlite_autotune.shipped_tables import package_folder

TOOL_SECONDS = 120
ALIGNMENT = 128  # of a program in the blob, as in a binary
# Instructions whose last operand is an address in the program.
JUMPS = ("BRA", "BRX", "BSSY", "CALL", "JMP", "RET", "WARPSYNC")
ADDRESS = re.compile(r"0x[0-9a-f]+$")
RAW_NAMES = {90: "SM90a", 100: "SM100a", 120: "SM120a"}  # as Triton compiles for them


def tool(name: str) -> str:
    """A program that Triton brings."""
    return str(package_folder("triton") / "backends" / "nvidia" / "bin" / name)


def program_of(cubin: bytes) -> bytes:
    """The code of the one kernel of a binary: its section `.text.NAME`.

    Raises ValueError for anything that is no 64-bit ELF file with exactly one such section.
    """
    try:
        return _text_section(cubin)
    except (struct.error, IndexError) as error:
        raise ValueError(f"the binary is damaged ({error})") from error


def _text_section(cubin: bytes) -> bytes:
    if cubin[:5] != b"\x7fELF\x02":
        raise ValueError("the compiler's binary is no 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names_at = struct.unpack_from("<HHH", cubin, 0x3A)
    sections = [
        struct.unpack_from("<IIQQQQ", cubin, table + index * size) for index in range(count)
    ]
    names = sections[names_at][4]
    found = []
    for name, _, _, _, offset, length in sections:
        end = cubin.index(b"\0", names + name)
        if cubin[names + name : end].startswith(b".text."):
            found.append(cubin[offset : offset + length])
    if len(found) != 1 or not found[0]:
        raise ValueError(f"the binary holds {len(found)} programs, not one")
    return found[0]


def disassemble(programs: Sequence[bytes], architecture: int) -> list[tuple[Instruction, ...]]:
    """The instructions of each program. `architecture`: 89 for sm_89."""
    starts, blob = [], b""
    for program in programs:
        starts.append(len(blob))
        blob += program + bytes(-len(program) % ALIGNMENT)
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(blob)
        file.flush()
        name = RAW_NAMES.get(architecture, f"SM{architecture}")
        text = _run(tool("nvdisasm"), "--no-dataflow", "--binary", name, file.name)
    ends = [*starts[1:], len(blob)]
    blocks: list[list[str]] = [[] for _ in programs]
    at = 0
    for line in text.splitlines():
        match = re.match(r"\s*/\*([0-9a-f]{4,})\*/", line)
        if match is None:
            continue
        while int(match[1], 16) >= ends[at]:
            at += 1
        blocks[at].append(line)
    return [
        read_instructions("\n".join(_moved(line, start) for line in block))
        for block, start in zip(blocks, starts, strict=True)
    ]


def _moved(line: str, start: int) -> str:
    """A line as it would stand if its program began at 0."""
    head, _, rest = line.partition("*/")
    address = int(head.split("/*")[1], 16) - start
    code, semicolon, tail = rest.partition(";")
    words = code.split()
    jump = any(word.split(".")[0] in JUMPS for word in words[:2])
    target = ADDRESS.search(code.rstrip()) if jump else None
    if target is not None:
        code = f"{code[: target.start()]}{hex(int(target[0], 16) - start)} "
    return f"/*{address:04x}*/{code}{semicolon}{tail}"


def resources_of(cubin: bytes) -> Resources:
    """Registers, stack and static shared memory of a binary's kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = read_resources(_run(tool("cuobjdump"), "-res-usage", file.name))
    if said is None:
        raise RuntimeError("cuobjdump named no resources")
    return said


def _run(*command: str) -> str:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=TOOL_SECONDS
    )
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        why = words[-1] if words else f"code {done.returncode}"
        raise RuntimeError(f"{Path(command[0]).name} failed: {why}")
    return done.stdout
