"""What do published figures say, and which of them do our formulas reproduce?

Kernel times against the active-expert law, the Hierarchical Roofline's turning points and policies,
the sizes of DeepSpeed-MoE's models. Modelled and published, nothing is measured here; what does not
come out is shown as it comes out.
"""

from __future__ import annotations

import time

from common.floors import moe_published
from common.floors.active_experts import fit_active_law
from common.floors.hierarchical_roofline import (
    Machine,
    balance_point,
    first_turning_point,
    placement_times_s,
    saving_per_resident_byte_s,
    second_turning_point,
    tokens_for_intensity,
)
from common.floors.hrm_machines import machine_by_id, with_host_memory
from common.floors.moe_shapes import (
    attention_intensity_limit,
    attention_work,
    ffn_weight_intensity,
    ffn_work,
    moe_shape,
)
from common.floors.moe_sizes import printed_billions
from common.floors.placement_policy import Policy, Task, best_policy
from common.report.results import Results
from common.report.tables import Table, significant

MICRO_BATCH = 128  # of the paper's figure 5
HOST_GIB = (186.0, 187.0, 188.0, 189.0, 190.0, 191.0, 192.0)
TASKS = {"mtbench": "MTBench"}


def published_results() -> Results:
    found = Results()
    kernels(found)
    turning_points(found)
    questions(found)
    policies(found)
    sizes(found)
    return found


def kernels(found: Results) -> None:
    """The law on the published kernel times."""
    rows = []
    for series in moe_published.kernel_times().values():
        points = series.points()
        # Series that end below the turn have no term for operations: it would fit noise.
        law = fit_active_law(points, operations=series.tokens[-1] > 1024)
        eta = law.bandwidth_share(series.expert_bytes, series.bandwidth_gb_per_s)
        phi = law.rate_share(series.flops_per_token, series.rate_tflop_per_s)
        name = series.id.replace("-", "_")
        found.figure(f"law_max_error_{name}", law.max_error, "", "published")
        found.figure(f"law_mean_error_{name}", law.mean_error, "", "published")
        rows.append(
            (
                series.id, series.device, f"{series.tokens[0]} … {series.tokens[-1]}",
                significant(law.fixed_us), "" if eta is None else f"{eta:.2f}",
                "" if phi is None else f"{phi:.2f}", f"{100 * law.mean_error:.1f} %",
                f"{100 * law.max_error:.1f} %",
            )
        )  # fmt: skip
    columns = ("series", "device", "tokens", "c0 µs", "η", "φ", "mean error", "largest error")
    found.tables["law-published"] = Table(columns, tuple(rows), columns[2:])


def turning_points(found: Results) -> None:
    """P1, P2 and the batches at which Mixtral's experts reach them, per machine."""
    shape = moe_shape("mixtral-8x7b")
    rows = []
    for name in ("l4-figures", "l4-optimizer", "l4-effective", "t4-optimizer", "2xa100"):
        machine = machine_by_id(name)
        # The paper's own count for its own figures, ours beside it.
        for count in ("moe-lightning", "counted"):
            intensity = ffn_work(shape, MICRO_BATCH, count).intensity
            first, second = first_turning_point(machine), second_turning_point(machine, intensity)
            at = [tokens_for_intensity(shape, p, count) for p in (first, second)]
            balance = balance_point(machine, intensity)
            rows.append(
                (
                    name, count, significant(first, 4), significant(second, 4),
                    *("never" if n is None else f"{n:.1f}" for n in at),
                    "compute first" if balance is None else significant(balance, 4),
                )
            )  # fmt: skip
            if name == "l4-figures" and count == "moe-lightning":
                found.figure("p1_flop_per_byte", first, "FLOP/B", "modelled")
                found.figure("p2_flop_per_byte", second, "FLOP/B", "modelled")
                found.figure("n_at_p1", at[0], "tokens", "modelled")
                found.figure("n_at_p2", at[1], "tokens", "modelled")
    columns = ("machine", "count", "P1 FLOP/B", "P2 FLOP/B", "N at P1", "N at P2", "balance FLOP/B")
    note = f"_Mixtral 8x7B, float16, micro-batches of {MICRO_BATCH} tokens._"
    found.tables["turning-points"] = Table(columns, tuple(rows), columns[2:], note)


def questions(found: Results) -> None:
    """The two questions of the source notes, in numbers."""
    shape, machine = moe_shape("mixtral-8x7b"), machine_by_id("l4-figures")
    rows = []
    for tokens in (1, 2, 4, 8, 16, 32, 128, 1024, 16384):
        attention = attention_work(shape, tokens, 512)
        ffn = ffn_work(shape, tokens)
        rows.append(
            (
                f"{tokens:,}", significant(attention.intensity), significant(ffn.intensity),
                significant(ffn_weight_intensity(shape, tokens)),
                significant(ffn_work(shape, tokens, "moe-lightning").intensity),
            )
        )  # fmt: skip
    columns = ("N", "attention", "FFN", "FFN, weights only", "FFN, the paper's count")
    limit = attention_intensity_limit(shape)
    note = (
        f"_Operations per byte; context 512, float16. Attention tends to 2 (n_q / n_kv) / bytes = "
        f"{limit:g} whatever N is: every sequence reads its own cache. With an int4 cache: "
        f"{attention_intensity_limit(shape, 0.5):g}._"
    )
    found.tables["intensity"] = Table(columns, tuple(rows), columns, note)
    placed = []
    for tokens in (1, 16, 64, 256, 512, 1024, 4096):
        times = placement_times_s(machine, shape, tokens, micro_batch=MICRO_BATCH)
        cells = [f"{1e3 * times[place]:.2f}" for place in ("gpu-resident", "cpu", "swapped-in")]
        best = min(times, key=lambda place: times[place])
        elsewhere = min(("cpu", "swapped-in"), key=lambda p: times[p])  # type: ignore[index]
        placed.append((f"{tokens:,}", *cells, best, elsewhere))
    heads = (
        "N", "resident on the GPU ms", "on the CPU ms", "swapped in ms", "fastest",
        "fastest where the weights lie in the host's memory",
    )  # fmt: skip
    note = (
        "_One expert layer of Mixtral 8x7B on the paper's L4. A byte that is resident saves "
        f"{1e12 * saving_per_resident_byte_s(machine, 1.0):.1f} ps per step if it is read in every "
        f"step, {1e12 * saving_per_resident_byte_s(machine, 0.25):.1f} ps if one step in four "
        "reads it._"
    )
    found.tables["placement"] = Table(heads, tuple(placed), heads[:4], note)


def search(machine: Machine, prompt: int, generated: int) -> Policy:
    """The published search: attention on the CPU, experts on the GPU, the paper's own count."""
    task = Task(moe_shape("mixtral-8x7b"), prompt, generated)
    return best_policy(machine, task, ((False, True),))


def policies(found: Results) -> None:
    """The published policies beside ours, and for which host memory they are reproduced."""
    published = moe_published.policies()
    started = time.perf_counter()
    slowest = 0.0
    rows = []
    for row in published:
        machine = machine_by_id(row.machine)
        began = time.perf_counter()
        ours = search(machine, row.prompt, row.generated)
        slowest = max(slowest, time.perf_counter() - began)
        published_batch = row.micro_batch * row.micro_batches
        if (ours.micro_batch, ours.micro_batches) == (row.micro_batch, row.micro_batches):
            mark = "same"
        elif ours.micro_batch != row.micro_batch:
            mark = "differs"
        else:  # every N between the two is modelled to be as fast
            free = ours.smallest_batch <= published_batch <= ours.batch
            mark = "N is free" if free else "differs in N"
        rows.append(
            (
                row.task, row.machine, f"{row.prompt} + {row.generated}",
                f"{row.micro_batch} × {row.micro_batches}",
                f"{ours.micro_batch} × {ours.micro_batches}", mark, f"{ours.tokens_per_s:.1f}",
            )
        )  # fmt: skip
    columns = ("task", "machine", "tokens", "published μ × N/μ", "ours", "result", "modelled tok/s")
    found.tables["policies"] = Table(columns, tuple(rows), columns[3:5])
    found.figure("policy_search_seconds", slowest, "s", "measured-cpu")
    mtbench = [row for row in published if "mtbench" in row.task.lower()]
    counts = []
    for gib in HOST_GIB:
        same = 0
        for row in mtbench:
            ours = search(
                with_host_memory(machine_by_id(row.machine), gib), row.prompt, row.generated
            )
            same += (ours.micro_batch, ours.micro_batches) == (row.micro_batch, row.micro_batches)
        counts.append((f"{gib:g}", f"{same} of {len(mtbench)}"))
        found.figure(f"mtbench_at_{gib:g}_gib", same, "of 8", "modelled")
    note = f"_{len(published) + len(HOST_GIB) * len(mtbench)} searches._"
    found.tables["policies-memory"] = Table(
        ("host memory GiB", "MTBench rows reproduced"), tuple(counts), (), note
    )
    found.figure("all_searches_seconds", time.perf_counter() - started, "s", "measured-cpu")


def sizes(found: Results) -> None:
    """Parameter counts of DeepSpeed-MoE's models from their shapes."""
    rows, same = [], 0
    for size in moe_published.sizes():
        ours = printed_billions(size.model.parameters, size.printed)
        same += ours == size.printed
        verdict = "same" if ours == size.printed else size.known_miss or "differs"
        rows.append((size.id, size.printed, ours, verdict, size.remark))
    found.figure("sizes_reproduced", same, "", "modelled")
    columns = ("model", "published 10^9", "computed", "result", "remark")
    found.tables["sizes"] = Table(columns, tuple(rows), columns[1:3])
