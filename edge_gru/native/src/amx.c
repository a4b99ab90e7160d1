/* Whether AMX can be used: the processor, the system and this process have to agree. */
#define _GNU_SOURCE
#include "kernels.h"

#if HAS_AMX

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
enum { CPUID_AMX_TILE = 1 << 24, CPUID_AMX_INT8 = 1 << 25, XCR0_TILES = 3 << 17 };

static int processor_has_amx(void) {
    unsigned a, b, c, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & CPUID_AMX_TILE) && (d & CPUID_AMX_INT8);
}

/* The system saves the registers of tiles when it changes threads. */
static int system_saves_tiles(void) {
    unsigned a, b, c = 0, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) {
        return 0;
    }
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & XCR0_TILES) == XCR0_TILES;
}

int amx_is_granted(void) {
    return processor_has_amx() && system_saves_tiles() &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
}

#else
typedef int no_amx_to_ask_for; /* a translation unit may not be empty */
#endif
