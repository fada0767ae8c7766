"""Is each driver name matched to the right device or to none, and is a bad table refused?"""

from __future__ import annotations

import pytest

from common.errors import UsageError
from common.floors.devices import (
    FIGURES,
    all_devices,
    device_by_id,
    find_device,
    parse_devices,
)

GOOD = """
schema = "worklog.devices/1"
[sources.sheet]
title = "A datasheet"
url = "https://example.org/sheet"
[[device]]
id = "one"
title = "One"
driver_names = ["NVIDIA One"]
compute_capability = "9.0"
source = "sheet"
memory_bytes = 1024
memory_bandwidth_gb_per_s = 12.5
"""


@pytest.mark.parametrize(
    ("name", "device_id", "bandwidth"),
    [
        ("NVIDIA GeForce RTX 5090", "rtx-5090", 1792),
        ("NVIDIA GeForce RTX 4090", "rtx-4090", 1008),
        ("GeForce RTX 3090", "rtx-3090", 936),
        ("NVIDIA H100 80GB HBM3", "h100-sxm", 3350),
        ("NVIDIA H100 PCIe", "h100-pcie", 2000),
        ("NVIDIA H100 NVL", "h100-nvl", 3900),
        ("NVIDIA H200", "h200-sxm", 4800),
        ("nvidia  h200 ", "h200-sxm", 4800),
        ("NVIDIA GH200 480GB", "gh200-96gb", 4000),
        ("NVIDIA B200", "b200", 8000),
        ("NVIDIA A100-SXM4-40GB", "a100-sxm-40gb", 1555),
        ("A100-SXM4-40GB", "a100-sxm-40gb", 1555),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm-80gb", 2039),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80gb", 1935),
        ("NVIDIA L4", "l4", 300),
        ("NVIDIA L40S", "l40s", 864),
        ("NVIDIA A10G", "a10g", 600),
        ("AMD Instinct MI300X", "mi300x", 5300),
    ],
)
def test_a_name_from_the_driver_finds_its_device(
    name: str, device_id: str, bandwidth: float
) -> None:
    device = find_device(name)
    assert device is not None
    assert device.id == device_id
    assert device.value("memory_bandwidth_gb_per_s") == bandwidth


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA GeForce RTX 5090 Laptop GPU",
        "NVIDIA H100",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA A100",
        "RTX 4090",
        "NVIDIA RTX PRO 6000 Blackwell",
        "NVIDIA",
        "",
    ],
)
def test_a_name_that_is_only_similar_finds_nothing(name: str) -> None:
    assert find_device(name) is None


def test_every_figure_of_the_table_names_a_public_source() -> None:
    devices = all_devices()
    assert len(devices) >= 20
    for device in devices:
        for name, figure in device.figures.items():
            assert name in FIGURES
            assert figure.origin == "published"
            assert figure.source.url.startswith("https://")


def test_every_device_has_the_figures_that_a_decode_floor_needs() -> None:
    for device in all_devices():
        assert device.value("memory_bytes") is not None, device.id
        assert device.value("memory_bandwidth_gb_per_s") is not None, device.id


def test_eight_bit_rates_are_dense_and_at_most_twice_the_sixteen_bit_rate() -> None:
    """A sparse figure that slipped in would be four times the 16-bit rate."""
    for device in all_devices():
        half = device.value("fp16_tflop_per_s")
        for name in ("fp8_tflop_per_s", "int8_top_per_s"):
            rate = device.value(name)
            if half is None or rate is None:
                continue
            # GeForce: int8 runs at full rate, fp16 with FP32 accumulation at half of it.
            limit = 4 if device.id.startswith("rtx-") and name == "int8_top_per_s" else 2
            assert rate <= 1.03 * limit * half, (device.id, name)


def test_an_unknown_figure_is_none_and_never_zero() -> None:
    device = device_by_id("a10g")
    assert device.value("fp16_tflop_per_s") is None
    assert device.figure("fp16_tflop_per_s") is None


def test_a_figure_that_was_not_confirmed_says_so() -> None:
    fp8 = device_by_id("rtx-5090").figure("fp8_tflop_per_s")
    bandwidth = device_by_id("rtx-5090").figure("memory_bandwidth_gb_per_s")
    assert fp8 is not None and not fp8.confirmed
    assert bandwidth is not None and bandwidth.confirmed


def test_the_last_cache_of_mi300x_is_the_one_in_front_of_its_memory() -> None:
    assert device_by_id("mi300x").last_cache_bytes == 256 << 20
    assert device_by_id("h200-sxm").last_cache_bytes == 60 << 20
    assert device_by_id("h100-nvl").last_cache_bytes is None


def test_a_figure_or_device_that_does_not_exist_is_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match="memory_bandwidth_gb_per_s"):
        device_by_id("l4").value("bandwidth")
    with pytest.raises(UsageError, match="h200-sxm"):
        device_by_id("h200")


def test_a_good_table_is_read() -> None:
    (device,) = parse_devices(GOOD, "good.toml")
    assert device.value("memory_bandwidth_gb_per_s") == 12.5
    assert device.value("l2_bytes") is None


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('schema = "worklog.devices/1"', 'schema = "worklog.devices/2"', "schema"),
        ("memory_bytes = 1024", "memory_bytes = ", "not TOML"),
        ("memory_bytes = 1024", "memory_bytes = 0", "positive"),
        ("memory_bytes = 1024", "memory_bytes = -1", "positive"),
        ("memory_bytes = 1024", "memory_bytes = 10.5", "whole number"),
        ("memory_bytes = 1024", "memory_bytes = true", "positive"),
        ("memory_bytes = 1024", 'memory_bytes = "80 GB"', "positive"),
        ("= 12.5", "= nan", "positive"),
        ("= 12.5", "= inf", "positive"),
        ("memory_bytes = 1024", "memory_byte = 1024", "unknown key 'memory_byte'"),
        ('source = "sheet"', 'source = "other"', "unknown source 'other'"),
        ('source = "sheet"', "", "'source' must be text"),
        ('driver_names = ["NVIDIA One"]', "driver_names = []", "driver_names"),
        ('driver_names = ["NVIDIA One"]', 'driver_names = ["NVIDIA One", "one"]', "stands twice"),
        ('compute_capability = "9.0"', "compute_capability = 90", "compute_capability"),
        ('source = "sheet"', 'source = "sheet"\nunconfirmed = ["l2_bytes"]', "no figure"),
        ("https://example.org", "http://example.org", "https://"),
    ],
)
def test_a_bad_table_is_refused_in_one_line(old: str, new: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(UsageError) as caught:
        parse_devices(GOOD.replace(old, new), "bad.toml")
    message = str(caught.value)
    assert says in message
    assert "bad.toml" in message
    assert "\n" not in message


def test_two_devices_may_not_share_a_driver_name() -> None:
    second = GOOD[GOOD.index("[[device]]") :].replace('id = "one"', 'id = "two"')
    with pytest.raises(UsageError, match="driver name 'one' stands twice"):
        parse_devices(GOOD + second, "bad.toml")
