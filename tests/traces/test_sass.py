"""Disassembly, counted: opcodes, classes, loops, and what the assembler says of resources."""

from __future__ import annotations

from common.traces.sass import (
    CLASSES,
    class_of,
    largest_loop,
    opcode_counts,
    read_instructions,
    read_resources,
)

TEXT = """
Resource usage:
 Function kernel:
  REG:64 STACK:216 SHARED:16 LOCAL:0 CONSTANT[0]:440 TEXTURE:0 SURFACE:0 SAMPLER:0
\tcode for sm_89
\t\tFunction : kernel
        /*0000*/                   IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28] ;  /* 0x0001 */
              /* 0x0002 */
        /*0010*/              @!P3 LDG.E.128 R4, [R2.64] ;  /* 0x0001 */
        /*0020*/              @UP0 UIADD3 UR4, UR4, 0x1, URZ ;  /* 0x0001 */
        /*0030*/                   HMMA.16816.F32 R8, R4, R6, R8 ;  /* 0x0001 */
        /*0040*/              @!P0 BRA 0x10 ;  /* 0x0001 */
        /*0050*/                   RED.E.ADD.F16x2.RN.STRONG.GPU [R2], R8 ;  /* 0x0001 */
        /*0060*/                   ATOMG.E.CAS.STRONG.GPU PT, R5, [R2], R4 ; /* 0x0001 */
        /*0070*/               @P1 BRA 0x60 ;  /* 0x0001 */
        /*0080*/                   EXIT ;  /* 0x0001 */
        /*0090*/                   BRA 0x90;  /* 0x0001 */
        /*00a0*/                   NOP;  /* 0x0001 */
        /*00b0*/                   NOP;  /* 0x0001 */
"""


def test_every_instruction_but_the_padding_is_counted() -> None:
    found = read_instructions(TEXT)
    assert opcode_counts(found) == {
        "ATOMG.E.CAS.STRONG.GPU": 1,
        "BRA": 2,
        "EXIT": 1,
        "HMMA.16816.F32": 1,
        "IMAD.MOV.U32": 1,
        "LDG.E.128": 1,
        "RED.E.ADD.F16x2.RN.STRONG.GPU": 1,
        "UIADD3": 1,
    }
    assert found[1].address == 0x10 and found[1].operands == "R4, [R2.64]"


def test_the_largest_loop_is_what_a_branch_back_closes() -> None:
    found = read_instructions(TEXT)
    assert largest_loop(found) == 4
    assert largest_loop(found[5:8]) == 2  # the retry of a compare-and-swap
    assert largest_loop(found[:4]) == 0


def test_resources_are_the_assemblers() -> None:
    found = read_resources(TEXT)
    assert found is not None
    assert (found.registers, found.stack_bytes, found.static_shared_bytes) == (64, 216, 16)
    assert read_resources("nothing of the kind") is None


def test_each_opcode_has_one_class() -> None:
    named = [opcode for opcodes in CLASSES.values() for opcode in opcodes]
    assert len(named) == len(set(named))
    expected = {
        "HMMA.16816.F32": "tensor",
        "QGMMA.64x64x32.F32.E4M3.E4M3": "tensor",
        "LDGSTS.E.BYPASS.128": "async copy to shared",
        "LDG.E.128": "global load",
        "RED.E.ADD.F16x2.RN.STRONG.GPU": "reduction",
        "REDG.E.ADD.F16x2.RN.STRONG.GPU": "reduction",
        "ATOMG.E.CAS.STRONG.GPU": "atomic",
        "UIADD3": "integer",
        "ULOP3.LUT": "integer",
        "STL.64": "local (spill)",
        "WARPGROUP.ARRIVE": "barrier and wait",
        "FANCY.NEW": "other",
    }
    assert {opcode: class_of(opcode) for opcode in expected} == expected
