"""Are nvidia-smi's texts read as they are, of new and old drivers, with what a GPU does not say?

The lines are as nvidia-smi prints them; the values of the busy H100 (power cap at 700 W) and the
refused field are from public recordings, those of the H200 from its driver's output.
"""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from common.recording.gpu_state import (
    FIELD_SETS,
    Sampler,
    known_fields,
    parse_sample,
    parse_samples,
    reason_names,
    summarise_samples,
)

NEW, OLD, LEAST = FIELD_SETS
IDLE = "2026/11/04 10:11:12.131, 345 MHz, 3201 MHz, 31, 76.44 W, 0 %, 1 MiB, 0x0000000000000001"
BUSY = (
    "2026/11/04 10:11:13.131, 1980 MHz, 3201 MHz, 44, 512.91 W, 99 %, 17021 MiB, 0x0000000000000000"
)
CAPPED = "2026/11/04 10:11:14.131, 1590 MHz, 2619 MHz, 71, 699.80 W, 100 %, 17021 MiB, 0x0000000000000004"  # noqa: E501
SILENT = "2026/11/04 10:11:15.131, 1410 MHz, [N/A], [Not Supported], [Unknown Error], [N/A], 5 MiB, [N/A]"  # noqa: E501
REFUSED = 'Field "clocks_event_reasons.active" is not a valid field to query.\n\n'


def test_a_line_is_read_with_its_units() -> None:
    sample = parse_sample(BUSY, NEW)
    assert sample is not None and sample.reasons == 0
    assert sample.values["sm_clock_mhz"] == 1980 and sample.values["power_w"] == 512.91
    assert sample.values["memory_used_mib"] == 17021


def test_what_a_gpu_does_not_say_is_unknown_and_not_zero() -> None:
    sample = parse_sample(SILENT, OLD)
    assert sample is not None and sample.reasons is None
    assert sample.values["memory_clock_mhz"] is None and sample.values["power_w"] is None
    summary = summarise_samples([sample])
    assert summary is not None and summary["throttled_samples"] is None
    assert "power_w" not in summary and summary["sm_clock_mhz"] == [1410, 1410, 1410]


@pytest.mark.parametrize(
    "text",
    ["", REFUSED, "No devices were found", "timestamp, clocks.sm [MHz]", IDLE[:40],
     "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."],
)  # fmt: skip
def test_other_text_is_no_sample(text: str) -> None:
    assert parse_samples(text, NEW) == []


def test_idle_is_no_throttling_and_a_power_cap_is() -> None:
    summary = summarise_samples(parse_samples("\n".join([IDLE, BUSY, CAPPED, BUSY]), NEW))
    assert summary is not None
    assert summary["samples"] == 4 and summary["throttled_samples"] == 1
    assert summary["reasons"] == {"idle": 1, "power cap": 1}
    assert summary["sm_clock_mhz"] == [345, 1785, 1980]
    assert summarise_samples([]) is None


def test_bits_have_names_also_together_and_unknown_ones() -> None:
    assert reason_names(0x68) == ["hardware slowdown", "thermal (software)", "thermal (hardware)"]
    assert reason_names(0x1000) == ["0x1000"]
    assert reason_names(0) == []


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Replays recorded output under the tool's name."""
    path = folder / "nvidia-smi"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_an_old_driver_is_asked_by_the_old_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = f"case \"$1\" in *event_reasons*) printf '%s' '{REFUSED}'; exit 2;; esac\n"
    nvidia_smi(tmp_path, monkeypatch, f"{refuse}echo '{IDLE}'\n")
    assert known_fields() == OLD


def test_without_a_driver_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, "echo 'No devices were found'; exit 6\n")
    assert known_fields() == ()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert known_fields() == ()
    with Sampler(tmp_path / "clocks.csv", ()) as sampler:
        pass
    assert sampler.summary is None and not (tmp_path / "clocks.csv").exists()


def test_a_step_is_sampled_while_it_lasts_and_never_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked"
    script = f'echo "$*" >> {asked}\necho "{BUSY}"; echo "{CAPPED}"; exec sleep 60\n'
    nvidia_smi(tmp_path, monkeypatch, script)
    with Sampler(tmp_path / "clocks.csv", NEW) as sampler:
        while (tmp_path / "clocks.csv").read_text().count("\n") != 2:
            pass
    assert sampler.summary is not None and sampler.summary["samples"] == 2
    words = asked.read_text().split()
    # Only questions: none of -lgc, -pl, -pm, -ac, -r or their long forms.
    assert all(
        word.startswith(("--query-gpu=", "--format=", "--id=", "--loop-ms=")) for word in words
    )
