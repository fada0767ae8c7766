"""Many programs disassembled at once: the same, instruction by instruction, as each by itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from common.traces.sass import largest_loop, read_instructions
from problems.gemlite_autotune.disassembly import disassemble, program_of, resources_of, tool

# Our own: a loop with a call inside it, so that branches, calls and convergence points appear.
PTX = """
.version 8.7
.target {target}
.address_size 64
.func (.reg .f32 r) slow (.reg .f32 x)
{{ .reg .f32 y; .reg .pred p;
   setp.gt.f32 p, x, 0f3F800000; @!p bra less; sqrt.rn.f32 y, x; bra out;
less: div.rn.f32 y, x, 0f40490FDB; out: mov.f32 r, y; ret; }}
.visible .entry {name} (.param .u64 data, .param .u32 count)
{{ .reg .u64 a, o; .reg .u32 i, n, t; .reg .f32 s, v; .reg .pred p;
   ld.param.u64 a, [data]; ld.param.u32 n, [count]; mov.u32 t, %tid.x;
   mul.wide.u32 o, t, 4; add.u64 a, a, o; mov.f32 s, 0f00000000; mov.u32 i, 0;
again: ld.global.f32 v, [a]; call (v), slow, (v); fma.rn.f32 s, v, {factor}, s;
   add.u64 a, a, 128; add.u32 i, i, 1; setp.lt.u32 p, i, n; @p bra again;
   st.global.f32 [a], s; ret; }}
"""
TARGETS = {89: ("ptxas", "sm_89"), 90: ("ptxas", "sm_90a"), 120: ("ptxas-blackwell", "sm_120a")}


def assemble(folder: Path, architecture: int, name: str, factor: str) -> bytes:
    program, target = TARGETS[architecture]
    source, binary = folder / f"{name}.ptx", folder / f"{name}.cubin"
    source.write_text(PTX.format(target=target, name=name, factor=factor))
    command = [tool(program), f"--gpu-name={target}", str(source), "-o", str(binary)]
    subprocess.run(command, check=True, capture_output=True)
    return binary.read_bytes()


@pytest.mark.parametrize("architecture", TARGETS)
def test_many_at_once_are_what_each_is_by_itself(tmp_path: Path, architecture: int) -> None:
    cubins = [assemble(tmp_path, architecture, f"kernel{n}", f"0f4{n}400000") for n in range(3)]
    found = disassemble([program_of(cubin) for cubin in cubins], architecture)
    for number, (cubin, instructions) in enumerate(zip(cubins, found, strict=True)):
        place = tmp_path / f"kernel{number}.cubin"
        said = subprocess.run(
            [tool("cuobjdump"), "-sass", str(place)], check=True, capture_output=True, text=True
        )
        assert instructions == read_instructions(said.stdout)
        assert len(instructions) > 30 and largest_loop(instructions) > 10
        assert resources_of(cubin).registers > 4
    assert found[0] != found[1]


@pytest.mark.parametrize("damage", [b"", b"no ELF", b"\x7fELF\x02" + bytes(90)])
def test_what_is_no_binary_of_one_kernel_is_refused(damage: bytes) -> None:
    with pytest.raises(ValueError, match=r"ELF|damaged|programs"):
        program_of(damage)


def test_a_disassembler_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="nvdisasm failed: "):
        disassemble([bytes(range(128))], 7)
