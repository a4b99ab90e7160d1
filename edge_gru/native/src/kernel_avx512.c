/* The kernel for x86-64 with AVX-512 and its integer product, VNNI. */
#if defined(__x86_64__)

#include "kernels.h"

#if defined(__clang__)
#pragma clang attribute push(                                                                      \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma"))),                  \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma")
#endif

#define KERNEL kernel_avx512
#define LANES_HEADER "lanes_avx512.h"
#include "kernel_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
typedef int no_avx512_here; /* a translation unit may not be empty */
#endif
