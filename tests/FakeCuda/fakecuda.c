// A stand-in for NVIDIA's driver library: enough of it for a program to find a device, allocate, copy, load kernels and
// launch them on a machine without a GPU. Device memory is host memory; kernels are counted and not run.
//
// build: cc -shared -fPIC -o libcuda.so.1 fakecuda.c
// FAKE_CUDA_DEVICES         number of devices (1); 0: cuInit reports that there is none
// FAKE_CUDA_INIT_ERROR      error code of cuInit (0)
// FAKE_CUDA_DRIVER          version of the driver (13000 for 13.0)
// FAKE_CUDA_CC              compute capability (90 for 9.0)
// FAKE_CUDA_MEMORY          bytes of device memory (141 GiB; an allocation beyond it fails)
// FAKE_CUDA_FAIL_ATTRIBUTE  number of the device attribute that cannot be read
// FAKE_CUDA_LOG             file that gets a line for each module, launch and allocation
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, NOT_SUPPORTED = 801 };

static long long setting(const char *name, long long otherwise) {
    const char *text = getenv(name);
    return text && *text ? atoll(text) : otherwise;
}

static void note(const char *format, ...) {
    const char *path = getenv("FAKE_CUDA_LOG");
    FILE *log = path ? fopen(path, "a") : NULL;
    if (!log) return;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(log, format, arguments);
    va_end(arguments);
    fputc('\n', log);
    fclose(log);
}

// Initialisation and devices

CUresult cuInit(unsigned flags) {
    if (setting("FAKE_CUDA_DEVICES", 1) == 0) return NO_DEVICE;
    return (CUresult)setting("FAKE_CUDA_INIT_ERROR", 0);
}

CUresult cuDriverGetVersion(int *version) { *version = (int)setting("FAKE_CUDA_DRIVER", 13000); return SUCCESS; }
CUresult cuDeviceGetCount(int *count) { *count = (int)setting("FAKE_CUDA_DEVICES", 1); return SUCCESS; }
CUresult cuDeviceGet(int *device, int ordinal) { *device = ordinal; return SUCCESS; }
CUresult cuDeviceGetName(char *name, int length, int device) { snprintf(name, length, "Stand-in for H200"); return SUCCESS; }
CUresult cuDeviceCanAccessPeer(int *can, int a, int b) { *can = 0; return SUCCESS; }
CUresult cuDeviceGetP2PAttribute(int *value, int attribute, int a, int b) { *value = 0; return SUCCESS; }

static size_t memory(void) { return (size_t)setting("FAKE_CUDA_MEMORY", 141LL << 30); }
CUresult cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = memory(); return SUCCESS; }

// The numbers are CUdevice_attribute's; the values an H200's.
CUresult cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (setting("FAKE_CUDA_FAIL_ATTRIBUTE", -1) == attribute) return INVALID_VALUE;
    switch (attribute) {
    case 1: case 2: case 3: *value = 1024; break;             // threads a block; block x, y
    case 4: *value = 64; break;                               // block z
    case 5: *value = 2147483647; break;                       // grid x
    case 6: case 7: *value = 65535; break;                    // grid y, z
    case 8: *value = 49152; break;                            // shared memory a block
    case 9: case 12: case 82: *value = 65536; break;          // constant memory; registers a block, a multiprocessor
    case 10: *value = 32; break;                              // warp
    case 11: *value = 2147483647; break;                      // pitch
    case 13: case 36: *value = 1980000; break;                // clocks in kHz
    case 16: *value = 132; break;                             // multiprocessors
    case 19: *value = 1; break;                               // can map host memory
    case 38: *value = 60 << 20; break;                        // L2 cache
    case 39: *value = 2048; break;                            // threads a multiprocessor
    case 75: *value = (int)setting("FAKE_CUDA_CC", 90) / 10; break;
    case 76: *value = (int)setting("FAKE_CUDA_CC", 90) % 10; break;
    case 81: *value = 233472; break;                          // shared memory a multiprocessor
    case 97: *value = 232448; break;                          // shared memory a block may opt into
    default: *value = 0; break;
    }
    return SUCCESS;
}

// Contexts

static int context;
CUresult cuCtxCreate_v2(void **out, unsigned flags, int device) { *out = &context; return SUCCESS; }
CUresult cuCtxDestroy_v2(void *c) { return SUCCESS; }
CUresult cuCtxSetCurrent(void *c) { return SUCCESS; }
CUresult cuCtxSynchronize(void) { return SUCCESS; }
CUresult cuCtxGetCacheConfig(int *config) { *config = 0; return SUCCESS; }
CUresult cuCtxSetCacheConfig(int config) { return SUCCESS; }
CUresult cuCtxGetSharedMemConfig(int *config) { *config = 1; return SUCCESS; }
CUresult cuCtxSetSharedMemConfig(int config) { return SUCCESS; }
CUresult cuCtxEnablePeerAccess(void *peer, unsigned flags) { return NOT_SUPPORTED; }
CUresult cuCtxDisablePeerAccess(void *peer) { return NOT_SUPPORTED; }

// Memory: each block carries its size in front, so that what is in use is known.

enum { HEADER = 512 };
static size_t used;

CUresult cuMemAlloc_v2(void **pointer, size_t bytes) {
    if (bytes > memory() - used) { note("refused %zu", bytes); return OUT_OF_MEMORY; }
    char *block = aligned_alloc(HEADER, HEADER + (bytes + HEADER - 1) / HEADER * HEADER);
    if (!block) return OUT_OF_MEMORY;
    memset(block, 0, HEADER + bytes);
    *(size_t *)block = bytes;
    used += bytes;
    note("alloc %zu", bytes);
    *pointer = block + HEADER;
    return SUCCESS;
}

CUresult cuMemFree_v2(void *pointer) {
    if (!pointer) return SUCCESS;
    char *block = (char *)pointer - HEADER;
    used -= *(size_t *)block;
    note("free %zu", *(size_t *)block);
    free(block);
    return SUCCESS;
}

CUresult cuMemGetInfo_v2(size_t *available, size_t *total) { *total = memory(); *available = *total - used; return SUCCESS; }
CUresult cuMemAllocHost_v2(void **pointer, size_t bytes) { *pointer = malloc(bytes); return SUCCESS; }
CUresult cuMemFreeHost(void *pointer) { free(pointer); return SUCCESS; }
CUresult cuMemHostRegister_v2(void *pointer, size_t bytes, unsigned flags) { return SUCCESS; }
CUresult cuMemHostUnregister(void *pointer) { return SUCCESS; }
CUresult cuMemHostGetDevicePointer_v2(void **device, void *host, unsigned flags) { *device = host; return SUCCESS; }
CUresult cuPointerGetAttribute(void *data, int attribute, void *pointer) { *(int *)data = 2; return SUCCESS; }
CUresult cuMemcpy(void *to, const void *from, size_t bytes) { memmove(to, from, bytes); return SUCCESS; }
CUresult cuMemcpyAsync(void *to, const void *from, size_t bytes, void *stream) { memmove(to, from, bytes); return SUCCESS; }
CUresult cuMemcpyHtoD_v2(void *to, const void *from, size_t bytes) { memmove(to, from, bytes); return SUCCESS; }
CUresult cuMemcpyDtoH_v2(void *to, const void *from, size_t bytes) { memmove(to, from, bytes); return SUCCESS; }
CUresult cuMemsetD8_v2(void *to, unsigned char value, size_t bytes) { memset(to, value, bytes); return SUCCESS; }
CUresult cuMemsetD8Async(void *to, unsigned char value, size_t bytes, void *stream) { memset(to, value, bytes); return SUCCESS; }

// Streams and events: everything is done when the call returns.

static int handle;
CUresult cuStreamCreate(void **stream, unsigned flags) { *stream = &handle; return SUCCESS; }
CUresult cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) { *stream = &handle; return SUCCESS; }
CUresult cuStreamDestroy_v2(void *stream) { return SUCCESS; }
CUresult cuStreamSynchronize(void *stream) { return SUCCESS; }
CUresult cuEventCreate(void **event, unsigned flags) { *event = &handle; return SUCCESS; }
CUresult cuEventDestroy_v2(void *event) { return SUCCESS; }
CUresult cuEventRecord(void *event, void *stream) { return SUCCESS; }
CUresult cuEventQuery(void *event) { return SUCCESS; }
CUresult cuEventSynchronize(void *event) { return SUCCESS; }
CUresult cuEventElapsedTime(float *milliseconds, void *start, void *end) { *milliseconds = 1; return SUCCESS; }

// Modules and launches

static void copy_line(const char *text, const char *key, char *line, size_t size) {
    const char *found = strstr(text, key);
    size_t length = found ? strcspn(found, "\r\n") : 0;
    if (length >= size) length = size - 1;
    memcpy(line, found ? found : "", length);
    line[length] = 0;
}

CUresult cuModuleLoadDataEx(void **module, const char *ptx, unsigned count, void *options, void *values) {
    char version[64], target[64];
    copy_line(ptx, ".version", version, sizeof version);
    copy_line(ptx, ".target", target, sizeof target);
    note("module %s %s%s", version, target, strstr(ptx, "bra.uni") ? " with bra.uni" : "");
    *module = &handle;
    return SUCCESS;
}

CUresult cuModuleLoadData(void **module, const char *ptx) { return cuModuleLoadDataEx(module, ptx, 0, NULL, NULL); }
CUresult cuModuleUnload(void *module) { return SUCCESS; }
CUresult cuModuleGetFunction(void **function, void *module, const char *name) { *function = &handle; return SUCCESS; }
CUresult cuFuncSetAttribute(void *function, int attribute, int value) { return SUCCESS; }
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int threads, size_t shared) { *blocks = 2; return SUCCESS; }

CUresult cuOccupancyMaxPotentialBlockSize(int *grid, int *block, void *function, void *sizes, size_t shared, int limit) {
    *grid = 264;
    *block = 1024;
    return SUCCESS;
}

CUresult cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                        unsigned shared, void *stream, void **arguments, void **extra) {
    if (bx * by * bz > 1024 || gy > 65535 || gz > 65535 || shared > 49152) return INVALID_VALUE;
    note("launch (%u,%u,%u) (%u,%u,%u)", gx, gy, gz, bx, by, bz);
    return SUCCESS;
}

CUresult cuGetErrorString(int error, const char **text) { *text = "an error of the stand-in driver"; return SUCCESS; }
CUresult cuGetErrorName(int error, const char **text) { *text = "STAND_IN_ERROR"; return SUCCESS; }
