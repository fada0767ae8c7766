"""Which machines does the hierarchical roofline know?

Those of the MoE-Lightning paper (arXiv 2411.11217) and its code. The code has two parameter sets
for the same L4 and they differ: one draws the paper's figures 3 to 5 (in units of 10^9), the other
runs the policy search (in units of 2^30, and with a rate that was profiled instead of the sparse
one of the datasheet). "Effective" is what figure 9's published times imply. A machine of one's own
is made from measured floors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from common.errors import UsageError
from common.floors.hierarchical_roofline import Level, Machine
from common.floors.measured import MeasuredFloors

GIB = float(1 << 30)
_BINARY_GB = GIB / 1e9  # bandwidths of the policy code are in 2^30 bytes per second
# "192 GB" of main memory, as such a virtual machine exposes it. The search reproduces all eight
# published MTBench policies from 187 to 190 GiB, and not at 192.
PAPER_HOST_GIB = 188.0
_CODE = "MoE-Lightning artifacts (github.com/caoshiyi/artifacts), "

_ALL = (
    Machine(
        "l4-figures",
        Level("CPU", 1.3, 100, 192e9),
        Level("L4", 242, 300, 24e9),  # 242 is the L4's rate with structured sparsity; dense: 121
        16,
        _CODE + "plots/roofline at 38b9a98: figures 3 to 5",
    ),
    Machine(
        "l4-optimizer",
        Level("CPU", 1.6, 100 * _BINARY_GB, PAPER_HOST_GIB * GIB),
        Level("L4", 104, 285 * _BINARY_GB, 24 * GIB),
        16 * _BINARY_GB,
        _CODE + "fastmoe/backend at 4092911: the policy search",
    ),
    Machine(
        "t4-optimizer",
        Level("CPU", 0.8, 100 * _BINARY_GB, PAPER_HOST_GIB * GIB),
        Level("T4", 65, 300 * _BINARY_GB, 15 * GIB),
        16 * _BINARY_GB,
        _CODE + "fastmoe/backend at 4092911: the policy search",
    ),
    Machine(
        "l4-effective",
        Level("CPU", 1.3, 43, 192e9),
        Level("L4", 121, 224, 24e9),
        12.1,
        "derived from the published times of figure 9: link 11.9-12.4, attention on the CPU 36-50, "
        "GPU memory 217-231 GB/s; the middles. The rate is the datasheet's dense one",
    ),
)
MACHINES: Mapping[str, Machine] = MappingProxyType({machine.id: machine for machine in _ALL})


def machine_by_id(name: str) -> Machine:
    """The machine with this id. Raises UsageError, listing the ids, if there is none."""
    if name == "2xa100":
        return two_a100(1, 100)
    if name not in MACHINES:
        raise UsageError(
            f"no machine is called {name!r}; choose from {', '.join([*MACHINES, '2xa100'])}"
        )
    return MACHINES[name]


def two_a100(host_scale: float, link_gb_per_s: float) -> Machine:
    """Section 6.3's two A100s: a host of `host_scale` (1..10) times 100 GB/s, 1.6 TFLOP/s, 200 GB,
    and a link of 100..500 GB/s."""
    if not (1 <= host_scale <= 10 and 100 <= link_gb_per_s <= 500):
        raise UsageError("section 6.3 scales the host by 1..10 and the link 100..500; stay there")
    return Machine(
        "2xa100",
        Level("CPU", 1.6 * host_scale, 100 * host_scale, 200e9 * host_scale),
        Level("2xA100", 600, 4000, 160e9),
        link_gb_per_s,
        "arXiv 2411.11217, section 6.3; artifacts performance_model/3d_plot.py at 127009b",
    )


def with_host_memory(machine: Machine, gib: float) -> Machine:
    """The machine with another size of main memory, in GiB."""
    cpu = dataclasses.replace(machine.cpu, memory_bytes=gib * GIB)
    return dataclasses.replace(machine, cpu=cpu)


def machine_from_floors(
    cpu: MeasuredFloors,
    gpu: MeasuredFloors,
    link_gb_per_s: float,
    *,
    host_memory_bytes: float | None = None,
    gpu_memory_bytes: float | None = None,
) -> Machine:
    """This machine: the best measured read bandwidth and bfloat16 rate of either side.

    `link_gb_per_s` is a measured copy from pinned host memory to the GPU.
    """
    if (cpu.origin, gpu.origin) != ("measured-cpu", "measured-gpu"):
        raise UsageError(
            f"these floors are {cpu.origin} and {gpu.origin}; pass one CPU's and one GPU's"
        )
    return Machine(
        "measured",
        Level(cpu.device, max(_bf16(cpu), _fp32(cpu)), cpu.read.best, host_memory_bytes),
        Level(gpu.device, _bf16(gpu), gpu.read.best, gpu_memory_bytes),
        link_gb_per_s,
        "measured by `worklog floors measure`",
    )


def _bf16(floors: MeasuredFloors) -> float:
    return floors.matmul_bf16.best


def _fp32(floors: MeasuredFloors) -> float:
    return floors.matmul_fp32.best
