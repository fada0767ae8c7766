"""Does a clock measure the call and nothing else?"""

from __future__ import annotations

import gc
import importlib.util
import time

import pytest

from common.errors import PreconditionError
from common.timing.clocks import CpuClock, CudaClock


def test_the_cpu_clock_measures_the_call_in_nanoseconds() -> None:
    took_ns = CpuClock().measure(lambda: time.sleep(0.02))
    assert isinstance(took_ns, int)
    assert 20_000_000 <= took_ns < 2_000_000_000


def test_the_collector_is_off_during_the_call_and_back_on_after_it() -> None:
    seen: list[bool] = []
    CpuClock().measure(lambda: seen.append(gc.isenabled()))
    assert seen == [False]
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off_and_an_error_brings_it_back() -> None:
    gc.disable()
    try:
        CpuClock().measure(lambda: None)
        assert not gc.isenabled()
    finally:
        gc.enable()
    with pytest.raises(ZeroDivisionError):
        CpuClock().measure(lambda: 1 // 0)
    assert gc.isenabled()


def _has_cuda() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def test_the_cuda_clock_measures_a_device_or_says_in_one_line_what_is_missing() -> None:
    if not _has_cuda():
        with pytest.raises(PreconditionError) as caught:
            CudaClock()
        assert "CpuClock" in str(caught.value) and "\n" not in str(caught.value)
        return
    import torch

    x = torch.ones(4096, 4096, device="cuda")
    clock = CudaClock()
    clock.measure(lambda: x @ x)
    one, ten = clock.measure(lambda: x @ x), clock.measure(lambda: [x @ x for _ in range(10)])
    assert 4 * one < ten < 40 * one
