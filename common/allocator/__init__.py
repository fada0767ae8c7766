"""What would PyTorch's CUDA caching allocator do with these allocations? A model of it, no torch.

    allocator = CachingAllocator(SimulatedDriver(24 << 30))
    address = allocator.malloc(3 << 20)
    allocator.free(address)
    write_snapshot(path, allocator)          # opens in the viewer of PyTorch

Rooms: `settings` the rules that need no state, `driver` where memory comes from, `blocks` the free
lists and counters, `segments` memory taken from the driver and given back, `expandable` the same
for segments that grow, `streams` frees that wait for another stream (`capture_order` within a
capture), `model` the allocator itself, `graphs` captures, `checkpoint` pools put back into an
earlier state, `snapshot_file` what it writes, `rewind` (with `growth` and `layout`)
the start of a recorded run and `validate` the model against the rest of it, `steps` a program's
allocations as data, `layer_stack` those of a quantised stack under CUDA graphs.

Every rule names the function of PyTorch's source that it models. They were read in three versions
of `c10/cuda/CUDACachingAllocator.cpp` (mid 2025, end of 2025, early 2026) and in the headers of
2.13; where they differ, the latest is modelled. Rules that were not read in the source say so.
"""
