/* The kernel for x86-64 with AVX2, FMA and F16C: every one since 2013. */
#if defined(__x86_64__)

#include "kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

#define KERNEL kernel_avx2
#define LANES_HEADER "lanes_avx2.h"
#include "kernel_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
typedef int no_avx2_here; /* a translation unit may not be empty */
#endif
