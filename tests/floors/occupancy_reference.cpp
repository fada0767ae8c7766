// Reads "capability threads registers shared carve_out" lines, prints what NVIDIA's own calculator
// (cuda_occupancy.h) says: blocks and the limits by warps, blocks, registers, shared memory.
#include <climits>
#include <cstdio>
#include "cuda_occupancy.h"

int main() {
    int major, minor, threads, registers, shared, per_sm, per_block, warps_sm;
    while (std::scanf("%d.%d %d %d %d %d %d %d", &major, &minor, &threads, &registers, &shared,
                      &per_sm, &per_block, &warps_sm) == 8) {
        cudaOccDeviceProp device;
        device.computeMajor = major;
        device.computeMinor = minor;
        device.maxThreadsPerBlock = 1024;
        device.maxThreadsPerMultiprocessor = warps_sm * 32;
        device.regsPerBlock = 65536;
        device.regsPerMultiprocessor = 65536;
        device.warpSize = 32;
        device.sharedMemPerBlock = 48 * 1024;
        device.sharedMemPerMultiprocessor = per_sm;
        device.numSms = 1;
        device.sharedMemPerBlockOptin = per_block;
        device.reservedSharedMemPerBlock = major >= 8 ? 1024 : 0;
        cudaOccFuncAttributes function;
        function.maxThreadsPerBlock = 1024;
        function.numRegs = registers;
        function.sharedSizeBytes = 0;
        function.partitionedGCConfig = PARTITIONED_GC_OFF;
        function.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
        function.maxDynamicSharedSizeBytes = per_block;
        function.numBlockBarriers = 1;
        cudaOccDeviceState state;
        state.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED;
        cudaOccResult result;
        int code = cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &function, &state,
                                                           threads, shared);
        std::printf("%d %d %d %d %d %d\n", code, result.activeBlocksPerMultiprocessor,
                    result.blockLimitWarps, result.blockLimitBlocks, result.blockLimitRegs,
                    result.blockLimitSharedMem);
    }
}
