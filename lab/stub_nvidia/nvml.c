/*
 * stub: a mock of libnvidia-ml.so.1 for lab hosts. Not NVIDIA's.
 *
 * It reads /run/stub-nvidia/nvml.tsv (written by tools/flat.py; below $STUB_NVIDIA_ROOT in tests) at nvmlInit and shows
 * the GPUs in it whose device node is there, so that it tells a container about the container's GPUs only. The order of
 * arguments and the layout of the structures follow NVIDIA's public nvml.h. STUB_VERSION is the version it was "built" for.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
       DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, VERSION_MISMATCH = 18 };
enum { MAX = 64, FIELDS = 16, MIB = 1024 * 1024 };
/* The columns of a `gpu` line, after its tag; a `mig` line has the GPU's minor, profile, UUID, GI, CI and cap. */
enum { MINOR, ADDRESS, PCI_ID, UUID, SERIAL, NAME, MEMORY, USED, ECC, MIG, PERSISTENCE, FABRIC_STATE, FABRIC_STATUS,
       ECC_ERRORS, REMAP_FAILURE, LOST };

typedef unsigned long long u64;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci_info;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem, reserved[4]; } pci_info_v1;
typedef struct { u64 total, free, used; } memory_v1;
typedef struct { unsigned version; u64 total, reserved, free, used; } memory_v2;
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned char cluster[16]; int status; unsigned clique; unsigned char state; } fabric_v1;
typedef struct { unsigned version; unsigned char cluster[16]; int status; unsigned clique; unsigned char state;
                 unsigned health; unsigned char summary; } fabric_v3;
struct device { char line[512]; char *field[FIELDS]; int index; struct device *parent; };

typedef struct { unsigned id, scope; long long time, took; int type, code; u64 value; } field_value;

static struct device gpus[MAX], migs[MAX];
static int gpu_count, mig_count, users;
static char driver[80];
static int cuda;

static int exists(const char *form, const char *word) {
    char path[512];
    struct stat info;
    const char *root = getenv("STUB_NVIDIA_ROOT");
    int length = snprintf(path, sizeof path, "%s", root ? root : "");
    snprintf(path + length, sizeof path - length, form, word);
    return stat(path, &info) == 0;
}

static struct device *split(struct device *into, const char *text) {
    memset(into, 0, sizeof *into);
    snprintf(into->line, sizeof into->line, "%s", text);
    char *rest = into->line;
    for (int i = 0; i < FIELDS; i++) {
        char *word = strsep(&rest, "\t\n");
        into->field[i] = word ? word : "";
    }
    return into;
}

static int load(void) {
    char path[512], line[600];
    const char *root = getenv("STUB_NVIDIA_ROOT");
    snprintf(path, sizeof path, "%s/run/stub-nvidia/nvml.tsv", root ? root : "");
    FILE *file = fopen(path, "r");
    gpu_count = mig_count = cuda = 0;
    driver[0] = 0;
    while (file && fgets(line, sizeof line, file)) {
        struct device next;
        if (!strncmp(line, "driver\t", 7)) {
            sscanf(line, "driver\t%79[^\t\n]\t%d", driver, &cuda);
        } else if (!strncmp(line, "gpu\t", 4) && gpu_count < MAX) {
            split(&next, line + 4);
            if (exists("/dev/nvidia%s", next.field[MINOR])) {
                split(&gpus[gpu_count], line + 4)->index = gpu_count;
                gpu_count++;
            }
        } else if (!strncmp(line, "mig\t", 4) && mig_count < MAX) {
            split(&next, line + 4);
            for (int i = 0; i < gpu_count; i++) {
                if (!strcmp(gpus[i].field[MINOR], next.field[0]) && exists("/dev/nvidia-caps/nvidia-cap%s", next.field[5])) {
                    split(&migs[mig_count], line + 4)->parent = &gpus[i];
                    mig_count++;
                }
            }
        }
    }
    if (file) fclose(file);
    if (!driver[0]) return DRIVER_NOT_LOADED;
    return strcmp(driver, STUB_VERSION) ? VERSION_MISMATCH : OK;
}

static int put(char *out, unsigned size, const char *text) {
    if (!out) return INVALID_ARGUMENT;
    if (strlen(text) + 1 > size) return INSUFFICIENT_SIZE;
    strcpy(out, text);
    return OK;
}

static int is(struct device *gpu, int column) { return atoi(gpu->field[column]) != 0; }

/* What every question about a device begins with. */
#define ASK(device) do { if (!users) return UNINITIALIZED; if (!device) return INVALID_ARGUMENT; \
    if (!device->parent && is(device, LOST)) return GPU_IS_LOST; } while (0)
#define ASK_GPU(device) do { ASK(device); if (device->parent) return NOT_SUPPORTED; } while (0)

int nvmlInitWithFlags(unsigned flags) { (void)flags; int code = users ? OK : load(); if (!code) users++; return code; }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlInit(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { if (!users) return UNINITIALIZED; users--; return OK; }

const char *nvmlErrorString(int code) {
    switch (code) {
    case OK: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    case VERSION_MISMATCH: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *out, unsigned size) { return users ? put(out, size, driver) : UNINITIALIZED; }
int nvmlSystemGetNVMLVersion(char *out, unsigned size) { return put(out, size, "13." STUB_VERSION); }
int nvmlSystemGetCudaDriverVersion_v2(int *out) { *out = cuda; return OK; }
int nvmlSystemGetCudaDriverVersion(int *out) { *out = cuda; return OK; }

int nvmlDeviceGetCount_v2(unsigned *out) { if (!users) return UNINITIALIZED; *out = gpu_count; return OK; }
int nvmlDeviceGetCount(unsigned *out) { return nvmlDeviceGetCount_v2(out); }

static int hand(struct device *found, struct device **out) {
    if (!users) return UNINITIALIZED;
    if (!found) return NOT_FOUND;
    if (!found->parent && is(found, LOST)) return GPU_IS_LOST;
    *out = found;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **out) {
    if (users && index >= (unsigned)gpu_count) return INVALID_ARGUMENT;
    return hand(&gpus[index], out);
}
int nvmlDeviceGetHandleByIndex(unsigned index, struct device **out) { return nvmlDeviceGetHandleByIndex_v2(index, out); }

int nvmlDeviceGetHandleByUUID(const char *uuid, struct device **out) {
    struct device *found = NULL;
    for (int i = 0; i < gpu_count; i++) if (!strcmp(gpus[i].field[UUID], uuid)) found = &gpus[i];
    for (int i = 0; i < mig_count; i++) if (!strcmp(migs[i].field[2], uuid)) found = &migs[i];
    return hand(found, out);
}

static void address(struct device *gpu, unsigned part[4]) { sscanf(gpu->field[ADDRESS], "%x:%x:%x.%x", part, part + 1, part + 2, part + 3); }

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, struct device **out) {
    unsigned wanted[4] = {0}, part[4];
    struct device *found = NULL;
    sscanf(bus_id, "%x:%x:%x.%x", wanted, wanted + 1, wanted + 2, wanted + 3);
    for (int i = 0; i < gpu_count; i++) {
        address(&gpus[i], part);
        if (!memcmp(part, wanted, sizeof part)) found = &gpus[i];
    }
    return hand(found, out);
}
int nvmlDeviceGetHandleByPciBusId(const char *bus_id, struct device **out) { return nvmlDeviceGetHandleByPciBusId_v2(bus_id, out); }

int nvmlDeviceGetIndex(struct device *d, unsigned *out) { ASK_GPU(d); *out = d->index; return OK; }
int nvmlDeviceGetMinorNumber(struct device *d, unsigned *out) { ASK_GPU(d); *out = atoi(d->field[MINOR]); return OK; }
int nvmlDeviceGetSerial(struct device *d, char *out, unsigned size) { ASK_GPU(d); return put(out, size, d->field[SERIAL]); }
int nvmlDeviceGetUUID(struct device *d, char *out, unsigned size) { ASK(d); return put(out, size, d->field[d->parent ? 2 : UUID]); }

int nvmlDeviceGetName(struct device *d, char *out, unsigned size) {
    char text[256];
    ASK(d);
    if (!d->parent) return put(out, size, d->field[NAME]);
    snprintf(text, sizeof text, "%s MIG %s", d->parent->field[NAME], d->field[1]);
    return put(out, size, text);
}

int nvmlDeviceGetPciInfo_v3(struct device *d, pci_info *out) {
    unsigned part[4];
    ASK_GPU(d);
    address(d, part);
    memset(out, 0, sizeof *out);
    out->domain = part[0], out->bus = part[1], out->device = part[2];
    out->id = strtoul(d->field[PCI_ID], NULL, 16);
    snprintf(out->bus_id, sizeof out->bus_id, "%08X:%02X:%02X.0", part[0], part[1], part[2]);
    snprintf(out->legacy, sizeof out->legacy, "%04X:%02X:%02X.0", part[0] & 0xffff, part[1] & 0xff, part[2] & 0xff);
    return OK;
}
int nvmlDeviceGetPciInfo_v2(struct device *d, pci_info_v1 *out) {
    pci_info full;
    int code = nvmlDeviceGetPciInfo_v3(d, &full);
    if (!code) memcpy(out, &full, sizeof full - sizeof full.bus_id), memset(out->reserved, 0, sizeof out->reserved);
    return code;
}

int nvmlDeviceGetMemoryInfo_v2(struct device *d, memory_v2 *out) {
    ASK_GPU(d);
    out->total = strtoull(d->field[MEMORY], NULL, 10) * MIB;
    out->used = strtoull(d->field[USED], NULL, 10) * MIB;
    out->reserved = 0;
    out->free = out->total - out->used;
    return OK;
}
int nvmlDeviceGetMemoryInfo(struct device *d, memory_v1 *out) {
    memory_v2 full;
    int code = nvmlDeviceGetMemoryInfo_v2(d, &full);
    if (!code) out->total = full.total, out->free = full.free, out->used = full.used;
    return code;
}

int nvmlDeviceGetPersistenceMode(struct device *d, int *out) { ASK_GPU(d); *out = is(d, PERSISTENCE); return OK; }
int nvmlDeviceGetEccMode(struct device *d, int *now, int *pending) { ASK_GPU(d); *now = *pending = is(d, ECC); return OK; }
int nvmlDeviceGetComputeMode(struct device *d, int *out) { ASK_GPU(d); *out = 0; return OK; }
int nvmlDeviceGetTemperature(struct device *d, int sensor, unsigned *out) { (void)sensor; ASK_GPU(d); *out = 30; return OK; }
int nvmlDeviceGetPowerUsage(struct device *d, unsigned *out) { ASK_GPU(d); *out = 70000; return OK; }
int nvmlDeviceGetUtilizationRates(struct device *d, utilization *out) { ASK_GPU(d); out->gpu = out->memory = 0; return OK; }
int nvmlDeviceGetComputeRunningProcesses_v3(struct device *d, unsigned *count, void *out) { (void)out; ASK(d); *count = 0; return OK; }

/* By the first two digits of the PCI device id: those of the lab's descriptions. */
int nvmlDeviceGetCudaComputeCapability(struct device *d, int *major, int *minor) {
    ASK_GPU(d);
    unsigned family = strtoul(d->field[PCI_ID], NULL, 16) >> 24;
    int found = family == 0x20 ? 80 : family == 0x26 ? 89 : family == 0x23 ? 90 : family == 0x29 ? 100 : 0;
    *major = found / 10, *minor = found % 10;
    return found ? OK : NOT_SUPPORTED;
}

/* The one field that is known here is 230, what the GPU needs to recover: 0, nothing. */
int nvmlDeviceGetFieldValues(struct device *d, int count, field_value *values) {
    ASK_GPU(d);
    for (int i = 0; i < count; i++) {
        values[i].code = values[i].id == 230 ? OK : NOT_SUPPORTED;
        values[i].value = 0;
    }
    return OK;
}

/* kind 1 is uncorrected; the stub knows no corrected errors. */
int nvmlDeviceGetTotalEccErrors(struct device *d, int kind, int counter, u64 *out) {
    (void)counter;
    ASK_GPU(d);
    if (!is(d, ECC)) return NOT_SUPPORTED;
    *out = kind == 1 ? strtoull(d->field[ECC_ERRORS], NULL, 10) : 0;
    return OK;
}

int nvmlDeviceGetRemappedRows(struct device *d, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failure) {
    ASK_GPU(d);
    *corrected = *uncorrected = *pending = 0;
    *failure = is(d, REMAP_FAILURE);
    return OK;
}

/* state: 0 not supported, 1 not started, 2 in progress, 3 completed. */
static int fabric_state(struct device *d) {
    const char *state = d->field[FABRIC_STATE];
    return !strcmp(state, "Completed") ? 3 : !strcmp(state, "In Progress") ? 2 : !strcmp(state, "Not Started") ? 1 : 0;
}
static int fabric_status(struct device *d) { return strcmp(d->field[FABRIC_STATUS], "Success") && fabric_state(d) == 3 ? 999 : OK; }

int nvmlDeviceGetGpuFabricInfo(struct device *d, fabric_v1 *out) {
    ASK_GPU(d);
    memset(out, 0, sizeof *out);
    out->state = fabric_state(d), out->status = fabric_status(d);
    return OK;
}
int nvmlDeviceGetGpuFabricInfoV(struct device *d, fabric_v3 *out) {
    ASK_GPU(d);
    unsigned version = out->version;
    memset(out, 0, version >> 24 == 3 ? sizeof *out : sizeof *out - sizeof(int));
    out->version = version, out->state = fabric_state(d), out->status = fabric_status(d);
    return OK;
}

int nvmlDeviceGetMigMode(struct device *d, unsigned *now, unsigned *pending) {
    ASK_GPU(d);
    if (!strcmp(d->field[MIG], "-")) return NOT_SUPPORTED;
    *now = *pending = is(d, MIG);
    return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(struct device *d, unsigned *out) { ASK_GPU(d); *out = strcmp(d->field[MIG], "-") ? 7 : 0; return OK; }
int nvmlDeviceIsMigDeviceHandle(struct device *d, unsigned *out) { ASK(d); *out = d->parent != NULL; return OK; }
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(struct device *d, struct device **out) {
    ASK(d);
    return d->parent ? hand(d->parent, out) : INVALID_ARGUMENT;
}
int nvmlDeviceGetMigDeviceHandleByIndex(struct device *d, unsigned index, struct device **out) {
    ASK_GPU(d);
    for (int i = 0; i < mig_count; i++) if (migs[i].parent == d && index-- == 0) return hand(&migs[i], out);
    return NOT_FOUND;
}
int nvmlDeviceGetGpuInstanceId(struct device *d, unsigned *out) { ASK(d); if (!d->parent) return NOT_SUPPORTED; *out = atoi(d->field[3]); return OK; }
int nvmlDeviceGetComputeInstanceId(struct device *d, unsigned *out) { ASK(d); if (!d->parent) return NOT_SUPPORTED; *out = atoi(d->field[4]); return OK; }
