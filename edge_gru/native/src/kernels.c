/* Which kernels run on this processor. */
#include "kernels.h"

#include <float.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#if FLT_EVAL_METHOD != 0
#error "float arithmetic must round to float: build with SSE"
#endif

#if defined(__x86_64__)
static int has_f16c(void) { /* clang 14 does not know its name */
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}
#endif

static int runs_here(const struct kernel *kernel) {
#if defined(__x86_64__)
#if HAS_AMX
    if (kernel == &kernel_amx) {
        return has_avx512() && amx_is_granted();
    }
#endif
    if (kernel == &kernel_avx512) {
        return has_avx512();
    }
    if (kernel == &kernel_avx2) {
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    }
#elif defined(__aarch64__)
    if (kernel == &kernel_neon) {
        return (getauxval(AT_HWCAP) >> 20) & 1; /* HWCAP_ASIMDDP, which old headers lack */
    }
#endif
    return kernel == &kernel_scalar;
}

/* Fastest first. */
static const struct kernel *const built[] = {
#if defined(__x86_64__)
#if HAS_AMX
    &kernel_amx,
#endif
    &kernel_avx512,
    &kernel_avx2,
#elif defined(__aarch64__)
    &kernel_neon,
#endif
    &kernel_scalar,
};

enum { N_BUILT = sizeof built / sizeof built[0] };

const struct kernel *kernel_at(size_t rank) {
    for (size_t i = 0; i < N_BUILT; i++) {
        if (runs_here(built[i]) && rank-- == 0) {
            return built[i];
        }
    }
    return NULL;
}

const struct kernel *kernel_named(const char *name) {
    for (size_t i = 0; i < N_BUILT; i++) {
        if (strcmp(built[i]->name, name) == 0) {
            return runs_here(built[i]) ? built[i] : NULL;
        }
    }
    return NULL;
}

size_t operand_bytes(const struct product *p) {
    const size_t n = (p->n_operand + OPERAND_LINE - 1) / OPERAND_LINE * OPERAND_LINE;
    return p->form == FORM_INT8 ? n : p->form == FORM_INT8_HILO ? 2 * n : n * sizeof(float);
}
