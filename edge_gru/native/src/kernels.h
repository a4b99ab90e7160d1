/* The kernels of this build. */
#ifndef EDGE_GRU_KERNELS_H
#define EDGE_GRU_KERNELS_H

#include "kernel.h"

extern const struct kernel kernel_scalar;
#if defined(__x86_64__)
extern const struct kernel kernel_avx2;
extern const struct kernel kernel_avx512;
#elif defined(__aarch64__)
extern const struct kernel kernel_neon;
#endif

#endif
