/* The kernel for 64-bit Arm with the dot-product extension: Cortex-A75 and A76 onwards. */
#if defined(__aarch64__)

#include "kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif

#define KERNEL kernel_neon
#define LANES_HEADER "lanes_neon.h"
#include "kernel_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
typedef int no_neon_here; /* a translation unit may not be empty */
#endif
