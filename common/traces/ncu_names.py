"""Which metric answers which question? ncu's names, by generation, each with its source.

Sources: [labels] the label that ncu_report 2026.3 gives the metric in real reports of ncu 2021 to
2025 (compute capability 7.5 to 10.0); [sections] NVIDIA's *Profiling Guide*, sections and metrics
decoder; [rules] the rules that ncu applies (SpeedOfLight, Occupancy, their text in the details
page). Names of compute capability below 7.0 (nvprof's) are not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """One metric that answers a question. `factor` turns its unit into the field's."""

    name: str
    source: str
    factor: int = 1


_PEAK = ".avg.pct_of_peak_sustained_elapsed"
SECTOR_BYTES = 32  # of DRAM and L2, [sections]

# In the order of preference: the first that was collected counts.
CANDIDATES: Mapping[str, tuple[Candidate, ...]] = {
    "dram_read_bytes": (
        Candidate("dram__bytes_read.sum", "[labels] since 2019, cc 7.0+"),
        Candidate("dram__sectors_read.sum", "[sections] sectors of 32 bytes", SECTOR_BYTES),
    ),
    "dram_write_bytes": (
        Candidate("dram__bytes_write.sum", "[labels] since 2019, cc 7.0+"),
        Candidate("dram__sectors_write.sum", "[sections] sectors of 32 bytes", SECTOR_BYTES),
    ),
    "dram_bytes_per_second": (
        Candidate("dram__bytes.sum.per_second", "[labels] DRAM Bandwidth / Memory Throughput"),
    ),
    "dram_throughput_pct": (
        Candidate(f"gpu__dram_throughput{_PEAK}", "[labels] DRAM Throughput, set basic"),
        Candidate(f"dram__throughput{_PEAK}", "[sections] same quantity, asked for by name"),
    ),
    "memory_throughput_pct": (
        Candidate(f"gpu__compute_memory_throughput{_PEAK}", "[labels] Memory Throughput, %"),
    ),
    "sm_throughput_pct": (Candidate(f"sm__throughput{_PEAK}", "[labels] Compute (SM) Throughput"),),
    "occupancy_achieved_pct": (
        Candidate("sm__warps_active.avg.pct_of_peak_sustained_active", "[labels]"),
    ),
    "occupancy_theoretical_pct": (Candidate("sm__maximum_warps_per_active_cycle_pct", "[labels]"),),
    "registers_per_thread": (Candidate("launch__registers_per_thread", "[labels]"),),
    "static_shared_bytes": (Candidate("launch__shared_mem_per_block_static", "[labels]"),),
    "dynamic_shared_bytes": (Candidate("launch__shared_mem_per_block_dynamic", "[labels]"),),
    "waves_per_sm": (Candidate("launch__waves_per_multiprocessor", "[labels]"),),
    "spill_loads": (
        Candidate("sass__inst_executed_register_spilling_op_read", "[labels] since 2025"),
    ),
    "spill_stores": (
        Candidate("sass__inst_executed_register_spilling_op_write", "[labels] since 2025"),
    ),
    "spill_requests": (
        Candidate("derived__local_spilling_requests", "[labels] since 2025, loads and stores"),
    ),
    "local_loads": (
        Candidate("sass__inst_executed_local_loads", "[labels] source counters, since 2021"),
        Candidate("smsp__sass_inst_executed_op_local_ld.sum", "[sections] cc 7.0+"),
        Candidate("smsp__inst_executed_op_local_ld.sum", "[sections] cc 7.0+"),
    ),
    "local_stores": (
        Candidate("sass__inst_executed_local_stores", "[labels] source counters, since 2021"),
        Candidate("smsp__sass_inst_executed_op_local_st.sum", "[sections] cc 7.0+"),
        Candidate("smsp__inst_executed_op_local_st.sum", "[sections] cc 7.0+"),
    ),
    "instructions": (Candidate("smsp__inst_executed.sum", "[labels] Executed Instructions"),),
    "instructions_per_cycle": (
        Candidate("sm__inst_executed.avg.per_cycle_active", "[labels] Executed Ipc Active"),
    ),
    "l1_hit_rate_pct": (Candidate("l1tex__t_sector_hit_rate.pct", "[labels]"),),
    "l2_hit_rate_pct": (Candidate("lts__t_sector_hit_rate.pct", "[labels]"),),
    "shared_bank_conflicts": (
        Candidate("l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum", "[sections] cc 7.0+"),
    ),
    "sm_clock_hz": (
        Candidate("gpc__cycles_elapsed.avg.per_second", "[labels] SM Frequency, to 2024"),
        Candidate("smsp__cycles_elapsed.avg.per_second", "[labels] SM Frequency, since 2025"),
        Candidate("GPU Speed Of Light Throughput: SM Frequency", "[labels] of a details page"),
    ),
}

# How many blocks fit an SM if nothing else counted: the smallest is what limits occupancy.
OCCUPANCY_LIMITS: Mapping[str, str] = {
    "registers": "launch__occupancy_limit_registers",
    "shared memory": "launch__occupancy_limit_shared_mem",
    "blocks": "launch__occupancy_limit_blocks",
    "warps": "launch__occupancy_limit_warps",
    "barriers": "launch__occupancy_limit_barriers",  # since 2025
}

# Warp instructions by opcode; its instances carry the opcodes.
OPCODES = "sass__inst_executed_per_opcode"

# The details page prints labels, not names. Source: [labels]. One label that two sections use for
# two metrics is listed with its section; "SM Frequency" stands for different metrics by generation
# and is left as it is.
NAME_OF_LABEL: Mapping[str, str] = {
    "Memory Workload Analysis: Memory Throughput": "dram__bytes.sum.per_second",
    "GPU Speed Of Light Throughput: Memory Throughput": f"gpu__compute_memory_throughput{_PEAK}",
    "DRAM Frequency": "dram__cycles_elapsed.avg.per_second",
    "Elapsed Cycles": "gpc__cycles_elapsed.max",
    "DRAM Throughput": f"gpu__dram_throughput{_PEAK}",
    "Duration": "gpu__time_duration.sum",
    "L1/TEX Cache Throughput": "l1tex__throughput.avg.pct_of_peak_sustained_active",
    "L2 Cache Throughput": f"lts__throughput{_PEAK}",
    "SM Active Cycles": "sm__cycles_active.avg",
    "Compute (SM) Throughput": f"sm__throughput{_PEAK}",
    "Mem Busy": f"gpu__compute_memory_access_throughput{_PEAK}",
    "Max Bandwidth": f"gpu__compute_memory_request_throughput{_PEAK}",
    "L1/TEX Hit Rate": "l1tex__t_sector_hit_rate.pct",
    "L2 Hit Rate": "lts__t_sector_hit_rate.pct",
    "Mem Pipes Busy": f"sm__memory_throughput{_PEAK}",
    "One or More Eligible": "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "Issued Warp Per Scheduler": "smsp__issue_active.avg.per_cycle_active",
    "No Eligible": "smsp__issue_inst0.avg.pct_of_peak_sustained_active",
    "Active Warps Per Scheduler": "smsp__warps_active.avg.per_cycle_active",
    "Eligible Warps Per Scheduler": "smsp__warps_eligible.avg.per_cycle_active",
    "Max Active Clusters": "launch__cluster_max_active",
    "Max Cluster Size": "launch__cluster_max_potential_size",
    "Overall GPU Occupancy": "launch__occupancy_cluster_gpu_pct",
    "Cluster Occupancy": "launch__occupancy_cluster_pct",
    "Block Limit Barriers": "launch__occupancy_limit_barriers",
    "Block Limit SM": "launch__occupancy_limit_blocks",
    "Block Limit Registers": "launch__occupancy_limit_registers",
    "Block Limit Shared Mem": "launch__occupancy_limit_shared_mem",
    "Block Limit Warps": "launch__occupancy_limit_warps",
    "Theoretical Active Warps per SM": "sm__maximum_warps_avg_per_active_cycle",
    "Theoretical Occupancy": "sm__maximum_warps_per_active_cycle_pct",
    "Achieved Occupancy": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "Achieved Active Warps Per SM": "sm__warps_active.avg.per_cycle_active",
    "Block Size": "launch__block_size",
    "Function Cache Configuration": "launch__func_cache_config",
    "Grid Size": "launch__grid_size",
    "Registers Per Thread": "launch__registers_per_thread",
    "Shared Memory Configuration Size": "launch__shared_mem_config_size",
    "Driver Shared Memory Per Block": "launch__shared_mem_per_block_driver",
    "Dynamic Shared Memory Per Block": "launch__shared_mem_per_block_dynamic",
    "Static Shared Memory Per Block": "launch__shared_mem_per_block_static",
    "Threads": "launch__thread_count",
    "Waves Per SM": "launch__waves_per_multiprocessor",
    "Executed Ipc Active": "sm__inst_executed.avg.per_cycle_active",
    "Executed Ipc Elapsed": "sm__inst_executed.avg.per_cycle_elapsed",
    "Issued Ipc Active": "sm__inst_issued.avg.per_cycle_active",
    "Local Memory Spilling Requests": "derived__local_spilling_requests",
    "Local Memory Spilling Request Overhead": "derived__local_spilling_requests_pct",
    "Executed Instructions": "smsp__inst_executed.sum",
    "Issued Instructions": "smsp__inst_issued.sum",
    "Avg. Executed Instructions Per Scheduler": "smsp__inst_executed.avg",
    "Avg. Issued Instructions Per Scheduler": "smsp__inst_issued.avg",
    "# SMs": "launch__sm_count",
    "Stack Size": "launch__stack_size",
    "Branch Instructions": "smsp__inst_executed_op_branch.sum",
}


def name_of_label(section: str, label: str) -> str:
    """The metric's name; "Section: label" where the label is none of the table.

    What was asked for by name (--metrics) is printed by name already.
    """
    if "__" in label:
        return label
    full = f"{section}: {label}"
    return NAME_OF_LABEL.get(full) or NAME_OF_LABEL.get(label) or full
