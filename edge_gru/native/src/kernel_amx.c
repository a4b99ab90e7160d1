/* The kernel for x86-64 with AMX, which also has AVX-512: Xeons since Sapphire Rapids. */
#include "kernels.h"

#if HAS_AMX

#if defined(__clang__)
#pragma clang attribute push(                                                                      \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,amx-tile,amx-int8"))), \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,amx-tile,amx-int8")
#endif

#define KERNEL kernel_amx
#define LANES_HEADER "lanes_amx.h"
#define PLAIN_KERNEL &kernel_avx512
#include "kernel_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
typedef int no_amx_here; /* a translation unit may not be empty */
#endif
