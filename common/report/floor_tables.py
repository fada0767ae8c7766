"""How far from the hardware's limit is it? Tables of rates, and of a run against its floor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from common.floors.devices import FIGURES, Device
from common.floors.measured import MeasuredFloors
from common.report.tables import Table, interval, milliseconds, percent, significant

SHOWN_FIGURES = (
    "memory_bytes",
    "memory_bandwidth_gb_per_s",
    "l2_bytes",
    "bf16_tflop_per_s",
    "fp8_tflop_per_s",
    "int8_top_per_s",
)


def measured_table(floors: MeasuredFloors) -> Table:
    """The rates of one machine with their intervals and the kernel that reached them."""
    rows = []
    for title, rate in (
        ("read bandwidth", floors.read),
        ("copy bandwidth (read + written)", floors.copy),
        ("bf16 matrix product", floors.matmul_bf16),
        ("fp32 matrix product", floors.matmul_fp32),
    ):
        unit = "GB/s" if rate.unit == "gb_per_s" else "TFLOP/s"
        ends = interval(*rate.interval) if rate.interval else ""
        rows.append(
            (title, unit, significant(rate.median), ends, significant(rate.best), rate.kernel)
        )
    others = floors.others_cpu_share
    busy = "" if others is None else f"; other programs took {percent(others)} of the CPU meanwhile"
    where = floors.device + (f", {floors.threads} threads" if floors.threads else "")
    return Table(
        ("rate", "unit", "median", "interval", "best", "by"),
        tuple(rows),
        ("median", "interval", "best"),
        f"_{floors.origin}: {where}; torch {floors.torch_version}{busy}._",
    )


def devices_table(devices: Iterable[Device]) -> Table:
    """Published figures; empty where no source gave one, `?` where it is unconfirmed."""

    def cell(device: Device, name: str) -> str:
        figure = device.figure(name)
        if figure is None:
            return ""
        value = figure.value / (1 << 30) if name == "memory_bytes" else figure.value
        value = value / (1 << 20) if name == "l2_bytes" else value
        return significant(value, 4) + ("" if figure.confirmed else "?")

    heads = {
        "memory_bytes": "memory GiB",
        "memory_bandwidth_gb_per_s": "GB/s",
        "l2_bytes": "L2 MiB",
        "bf16_tflop_per_s": "bf16 TFLOP/s",
        "fp8_tflop_per_s": "fp8 TFLOP/s",
        "int8_top_per_s": "int8 TOP/s",
    }
    columns = tuple(heads[name] for name in SHOWN_FIGURES)
    rows = tuple(
        (
            device.title,
            device.compute_capability or "",
            *(cell(device, name) for name in SHOWN_FIGURES),
        )
        for device in devices
    )
    return Table(("device", "capability", *columns), rows, columns, "_published, dense rates._")


def devices_json(devices: Iterable[Device]) -> list[dict[str, Any]]:
    """Every known figure with its source, for programs."""
    return [
        {
            "title": device.title,
            "driver_names": list(device.driver_names),
            "compute_capability": device.compute_capability,
            "figures": {
                name: {
                    "value": figure.value,
                    "origin": figure.origin,
                    "confirmed": figure.confirmed,
                    "source": figure.source.title,
                    "url": figure.source.url,
                }
                for name in FIGURES
                if (figure := device.figure(name)) is not None
            },
        }
        for device in devices
    ]


def run_floor_table(summary: Mapping[str, Any]) -> Table:
    """Decode against its floor: the stored bytes at the read bandwidth of the same run.

    Beside it what the counted logical traffic of the implementation predicts at the copy
    bandwidth (best samples of both); the two columns of prediction are modelled.
    """
    rows = []
    for name, variant in summary["variants"].items():
        floor = variant.get("floor")
        if floor is None:
            continue
        rows.append(
            (
                name,
                f"{floor['stored_bytes_per_weight']:.2f}",
                milliseconds(floor["floor_ns"]),
                milliseconds(floor["measured_ns"]),
                percent(floor["share_of_floor"]),
                significant(floor["logical_bytes_per_weight"] or 0),
                milliseconds(floor["modelled_ns"]) if floor["modelled_ns"] else "",
                significant(floor["measured_ns"] / floor["modelled_ns"])
                if floor["modelled_ns"]
                else "",
            )
        )
    columns = ("variant", "stored bytes per weight", "floor ms", "measured ms", "share of floor",
               "logical bytes per weight", "modelled ms", "measured ÷ modelled")  # fmt: skip
    return Table(columns, tuple(rows), columns[1:])
