"""How does Inductor generate code for a GPU where there is none? It is told of one.

Questions to torch.cuda, to Inductor's device interface and to Triton get the answers of one
pretended device; passes, scheduler and code generator are Inductor's own. See `fake_cuda` for
running models on such a device.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

CAPABILITY = (9, 0)
# What Inductor asks of a device. Figures of an H100/H200; only fusion limits depend on them.
PROPERTIES = types.SimpleNamespace(
    name="pretended",
    major=CAPABILITY[0],
    minor=CAPABILITY[1],
    multi_processor_count=132,
    total_memory=80 << 30,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    warp_size=32,
    shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448,
    L2_cache_size=50 << 20,
    gcnArchName="sm_90",
)


@contextmanager
def pretended_compiler() -> Iterator[None]:
    """Inductor and Triton take the pretended GPU for a real one. Not for several threads."""
    from torch._dynamo.device_interface import CudaInterface
    from torch._inductor.fx_passes import joint_graph, post_grad
    from triton.backends.compiler import GPUTarget
    from triton.compiler.compiler import make_backend

    joint_graph.lazy_init()  # its patterns are traced with real tensors: before any pretence
    post_grad.lazy_init()
    import torch._inductor.scheduler

    backend = make_backend(GPUTarget("cuda", 90, 32))
    answers: dict[str, Callable[..., Any]] = {
        "get_device_properties": lambda *a, **k: PROPERTIES,
        "_get_device_properties": lambda *a, **k: PROPERTIES,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "_lazy_init": lambda: None,
        "get_device_capability": lambda *a, **k: CAPABILITY,
        "get_rng_state": lambda *a: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda *a: None,
        "_exchange_device": lambda *a: 0,
        "_maybe_exchange_device": lambda *a: 0,
        "set_device": lambda *a: None,
        "synchronize": lambda *a: None,
    }
    interface: Any = CudaInterface
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch(f"torch.cuda.{name}", answer, create=True))
        for name in ("joint_graph", "post_grad"):
            stack.enter_context(
                mock.patch(f"torch._inductor.fx_passes.{name}.lazy_init", lambda *a: None)
            )
        for module in ("torch.utils._triton", "torch._inductor.scheduler"):
            stack.enter_context(mock.patch(f"{module}.has_triton", lambda: True))
        stack.enter_context(mock.patch("torch.utils._triton.triton_backend", lambda: backend))
        for owner, name, value in (
            (interface.Worker, "get_device_properties", lambda device=None: PROPERTIES),
            (interface.Worker, "current_device", lambda: 0),
            (interface, "get_compute_capability", lambda device=None: 90),
            (interface, "is_available", lambda: True),
        ):
            stack.enter_context(mock.patch.object(owner, name, staticmethod(value)))
        yield
