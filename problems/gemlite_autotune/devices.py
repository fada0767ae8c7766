"""Which GPU is meant? An explicit description, for code that must not ask a driver.

Nothing here pretends that a device is present: a description says what the compiler and GemLite's
own rules need to know. Figures come from `common/floors/devices.toml` and the SM limits.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import UsageError
from common.floors.devices import Device, all_devices, find_device
from common.floors.occupancy import SM_LIMITS, SmLimits, sm_limits


@dataclass(frozen=True)
class GpuDescription:
    """`name` is the driver's, by which GemLite chooses its table; bytes and GB/s are published."""

    id: str
    name: str
    capability: str
    sm_count: int
    bandwidth_gb_per_s: float | None
    l2_bytes: int | None

    @property
    def sm(self) -> SmLimits:
        return sm_limits(self.capability)

    @property
    def architecture(self) -> int:
        """90 for 9.0: what the compiler is told."""
        major, minor = self.capability.split(".")
        return 10 * int(major) + int(minor)

    @property
    def shared_bytes_per_block(self) -> int:
        return self.sm.shared_bytes_per_block


def _usable(device: Device) -> bool:
    return device.compute_capability in SM_LIMITS and device.value("sm_count") is not None


def describe(wanted: str) -> GpuDescription:
    """The description of a device by our id ("rtx-4090") or its driver's name.

    Raises UsageError that lists the known ones and says how to describe another.
    """
    found = next((d for d in all_devices() if d.id == wanted), None) or find_device(wanted)
    if found is None or not _usable(found):
        known = ", ".join(device.id for device in all_devices() if _usable(device))
        raise UsageError(
            f"no GPU {wanted!r} is described; there are {known}; describe another one by a "
            "[[device]] with compute_capability and sm_count in common/floors/devices.toml, its "
            "capability in common/floors/occupancy.py"
        )
    sm_count, l2 = found.value("sm_count"), found.value("l2_bytes")
    assert sm_count is not None and found.compute_capability is not None
    return GpuDescription(
        id=found.id,
        name=found.driver_names[0],
        capability=found.compute_capability,
        sm_count=int(sm_count),
        bandwidth_gb_per_s=found.value("memory_bandwidth_gb_per_s"),
        l2_bytes=None if l2 is None else int(l2),
    )
