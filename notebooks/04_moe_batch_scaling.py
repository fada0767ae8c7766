# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # When does more batch stop being free in a mixture of experts?
#
# **Question.** In a dense layer a second token in the batch is nearly free: the weights are read
# once anyway. In a mixture of experts the second token may need *other* experts. From which batch
# on does batching pay, and does counting the distinct experts that a batch touches predict the
# times?
#
# Evidence: times of one expert layer's kernel that others published (published), the expected
# number of touched experts (modelled). Nothing was measured here. The routing of the published
# runs was not recorded: it is taken as uniform, which their benchmark draws at random.

# %% tags=["parameters"]
series = "h100-mixtral-bf16"
compared = ("h100-mixtral-bf16", "h100-qwen3-30b-fp8", "a100-qwen3-30b-bf16")
wall = 1.5  # a latency this many times that of the smallest batch is the wall

# %%
import matplotlib.pyplot as plt

from common.floors.active_experts import (
    compute_turn_tokens,
    expected_active,
    fit_active_law,
)
from common.floors.batch_scaling import (
    BatchPoint,
    gains_per_doubling,
    turns,
)
from common.floors.moe_published import kernel_times
from common.floors.roofline import time_floor_ns
from common.report.tables import Table

plt.rcParams.update({"figure.dpi": 72, "font.size": 9, "axes.spines.top": False,
                     "axes.spines.right": False})  # fmt: skip
all_series = kernel_times()
one = all_series[series]
print(f"{one.device}: {one.experts} experts, top-{one.top_k}, {one.expert_bytes / 1e6:.0f} MB each")
print(f"source: {one.url}")

# %% [markdown]
# ## Before looking: how many experts?
#
# `T` tokens pick `k` of `E` experts each. Every expert is missed by one token with probability
# `1 - k/E`, so `E (1 - (1 - k/E)^T)` are touched. Guess the batch at which nine tenths of them are.

# %%
tokens = [1, 2, 4, 8, 16, 32, 64, 128]
rows = []
for name in compared:
    s = all_series[name]
    rows.append(
        (
            name,
            f"{s.top_k} of {s.experts}",
            *(f"{expected_active(s.experts, s.top_k, t):.1f}" for t in tokens),
        )
    )
columns = ("series", "picked", *map(str, tokens))
print(Table(columns, tuple(rows), columns[2:]).text())

# %% [markdown]
# ## What the times say
#
# Latency per batch, and what each step up gains in throughput *per doubling*: 2 is free batch, 1 is
# no gain at all.

# %%
points = [BatchPoint(t, us / 1e3) for t, us in zip(one.tokens, one.time_us, strict=True)]
gains = [None, *gains_per_doubling(points)]
rows = []
for point, gain in zip(points, gains, strict=True):
    active = expected_active(one.experts, one.top_k, point.batch)
    floor = time_floor_ns(
        active * one.expert_bytes,
        point.batch * one.flops_per_token,
        one.bandwidth_gb_per_s,
        one.rate_tflop_per_s,
    )
    rows.append(
        (
            f"{point.batch:,}",
            f"{active:.2f}",
            f"{point.latency_ms:.3f}",
            "" if gain is None else f"{gain:.2f}",
            f"{100 * floor.time_ns / (point.latency_ms * 1e6):.0f} %",
            floor.bound,
        )
    )
columns = ("batch", "experts touched", "ms", "gain per doubling", "share of floor", "bound by")
print(Table(columns, tuple(rows), columns[:-1]).text())

# %% [markdown]
# The first doublings gain little, because nearly every token brings experts of its own; then
# batch is free until operations begin to count. A sweep that begins at batch 64 never sees the
# first part.

# %%
figure, axes = plt.subplots(1, 2, figsize=(8.4, 3))
for name, colour in zip(compared, ("#2f6fab", "#b85a1e", "#257a6c"), strict=False):
    s = all_series[name]
    axes[0].plot(s.tokens, s.time_us, "o-", ms=3, color=colour, label=name)
    axes[1].plot([p.active for p in s.points()], s.time_us, "o", ms=3, color=colour)
    law = fit_active_law(s.points(), operations=max(s.tokens) > 200)
    axes[0].plot(
        s.tokens, [law.time_us(p.tokens, p.active) for p in s.points()], "--", lw=1, color=colour
    )
axes[0].set_xscale("log", base=2)
axes[0].set_xlabel("tokens in the batch")
axes[0].set_ylabel("µs (published)")
axes[1].set_xlabel("experts touched (modelled)")
axes[0].legend(frameon=False, fontsize=8)
axes[0].set_title("Over the batch: a knee", loc="left")
axes[1].set_title("Over touched experts: a line, then operations", loc="left")
figure.tight_layout()

# %% [markdown]
# ## One law for three series
#
# `t = fixed + touched × (time to read one expert) + tokens × (time to compute one)`, fitted by
# least squares on the relative error, no coefficient below zero. η is the share of the device's
# bandwidth at which experts are read; a share above 1 would say that the model is wrong.

# %%
rows = []
laws = {}
for name in compared:
    s = all_series[name]
    law = laws[name] = fit_active_law(s.points(), operations=max(s.tokens) > 200)
    eta = law.bandwidth_share(s.expert_bytes, s.bandwidth_gb_per_s)
    phi = law.rate_share(s.flops_per_token, s.rate_tflop_per_s)
    rows.append(
        (
            name,
            f"{law.fixed_us:.1f}",
            f"{law.per_active_us:.2f}",
            f"{law.per_token_us:.3f}",
            "" if eta is None else f"{eta:.2f}",
            "" if phi is None else f"{phi:.2f}",
            f"{100 * law.mean_error:.1f} %",
            f"{100 * law.max_error:.1f} %",
        )
    )
columns = ("series", "fixed µs", "µs per expert", "µs per token", "η", "φ", "mean error", "worst")
print(Table(columns, tuple(rows), columns[1:]).text())

# %% [markdown]
# ## Does it predict points that it has not seen?
#
# Fitted on every other point, asked for the ones between.

# %%
for name in compared:
    s = all_series[name]
    held_in, held_out = s.points()[::2], s.points()[1::2]
    law = fit_active_law(held_in, operations=max(s.tokens) > 200)
    errors = [law.time_us(p.tokens, p.active) / p.time_us - 1 for p in held_out]
    worst = max(errors, key=abs)
    print(
        f"{name:22} {len(held_out)} points held out: mean |error| "
        f"{100 * sum(map(abs, errors)) / len(errors):.1f} %, worst {100 * worst:+.1f} %"
    )

# %% [markdown]
# ## Where does it turn?
#
# Three definitions name three batches, so all are given; and the batch from which operations take
# longer than reading *all* experts, from published rates.

# %%
found = turns(points, wall=wall)
turn = compute_turn_tokens(
    one.experts, one.top_k, one.weight_bytes, one.rate_tflop_per_s * 1e3 / one.bandwidth_gb_per_s
)
print(f"latency wall (> {wall} x the smallest batch): {found.latency_wall}")
print(f"knee: {found.knee}; plateau: {found.plateau} (None: not within the sweep)")
print(f"turn to compute: {turn:.0f} tokens")

# %% [markdown]
# ## Conclusion

# %%
law = laws[series]
full = law.fixed_us + law.per_active_us * one.experts
first = law.time_us(1, expected_active(one.experts, one.top_k, 1))
print(
    f"{series}: one token {first:.0f} µs, all {one.experts} experts read {full:.0f} µs: "
    f"{full / first:.1f} times, whatever the batch up to about {turn:.0f} tokens"
)

# %% [markdown]
# - **Supported:** touched experts explain three series, on two devices and in two formats, within
#   a few per cent, also at points that the fit has not seen.
# - **So** the floor of a mixture of experts is *distinct experts × expert bytes*, from the
#   routing that was really drawn; and prefill and decode have to be swept apart.
# - **Not shown:** what skewed routing does (fewer experts are touched), and anything of a whole
#   model.
#
# **Try it:** with `series = "h100-qwen3-30b-fp8"`, at which batch are nine tenths of the experts
# touched? Does the latency wall come before or after it?
