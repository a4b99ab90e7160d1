/* The kernels of this build. */
#ifndef EDGE_GRU_KERNELS_H
#define EDGE_GRU_KERNELS_H

#include "kernel.h"

/* Linux has to be asked for the registers of AMX; compilers know them since GCC 11, clang 12. */
#if defined(__clang__)
#define KNOWS_AMX (__clang_major__ >= 12)
#else
#define KNOWS_AMX (__GNUC__ >= 11)
#endif
#if defined(__x86_64__) && defined(__linux__) && KNOWS_AMX
#define HAS_AMX 1
#else
#define HAS_AMX 0
#endif

extern const struct kernel kernel_scalar;
#if defined(__x86_64__)
extern const struct kernel kernel_avx2;
extern const struct kernel kernel_avx512;
#if HAS_AMX
extern const struct kernel kernel_amx;
/* Whether the processor has AMX and the system lets this process use it. */
int amx_is_granted(void);
#endif
#elif defined(__aarch64__)
extern const struct kernel kernel_neon;
#endif

#endif
