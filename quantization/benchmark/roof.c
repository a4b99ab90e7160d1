/*
 * The roof of one core: bytes a second read from a buffer of each size, in huge pages as the engine's
 * weights are, and multiply-accumulates of int8 and of float a second. Prints JSON. For x86-64 with
 * AVX-512 and VNNI, on Linux.
 */
#define _DEFAULT_SOURCE /* madvise, posix_memalign */
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { N_TRIES = 60, LINE = 64, N_SUMS = 12, HUGE_BYTES = 1 << 21 };

#define TARGET __attribute__((noinline, target("avx512f,avx512bw,avx512vnni,fma")))
#define UNROLL _Pragma("GCC unroll 16")

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

TARGET static void read_all(const char *bytes, size_t n) {
    __m512i all[8];
    UNROLL for (int i = 0; i < 8; i++) { all[i] = _mm512_setzero_si512(); }
    for (size_t k = 0; k < n; k += 8 * LINE) {
        UNROLL for (int i = 0; i < 8; i++) {
            all[i] = _mm512_or_si512(all[i], _mm512_load_si512(bytes + k + (size_t)i * LINE));
        }
    }
    UNROLL for (int i = 0; i < 8; i++) { __asm__ volatile("" : : "v"(all[i])); }
}

TARGET static void multiply_int8(long n) {
    __m512i sums[N_SUMS];
    const __m512i a = _mm512_set1_epi8(3);
    UNROLL for (int i = 0; i < N_SUMS; i++) {
        sums[i] = _mm512_set1_epi32(i);
        __asm__("" : "+v"(sums[i]));
    }
    for (long k = 0; k < n; k++) {
        UNROLL for (int i = 0; i < N_SUMS; i++) {
            __asm__ volatile("vpdpbusd %1, %1, %0" : "+v"(sums[i]) : "v"(a));
        }
    }
}

TARGET static void multiply_float(long n) {
    __m512 sums[N_SUMS];
    const __m512 a = _mm512_set1_ps(0.5f);
    UNROLL for (int i = 0; i < N_SUMS; i++) {
        sums[i] = _mm512_set1_ps((float)i);
        __asm__("" : "+v"(sums[i]));
    }
    for (long k = 0; k < n; k++) {
        UNROLL for (int i = 0; i < N_SUMS; i++) {
            __asm__ volatile("vfmadd231ps %1, %1, %0" : "+v"(sums[i]) : "v"(a));
        }
    }
}

/* Bytes a second in the best of many tries. */
static double bandwidth(size_t n) {
    char *bytes;
    double best = 0.0;
    const size_t n_pages = (n + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
    if (posix_memalign((void **)&bytes, HUGE_BYTES, n_pages)) {
        return 0.0;
    }
    (void)madvise(bytes, n_pages, MADV_HUGEPAGE);
    memset(bytes, 1, n);
    for (int t = 0; t < N_TRIES; t++) {
        const long n_reads = (long)(4000000 / n) + 1;
        const double start = now_s();
        for (long k = 0; k < n_reads; k++) {
            read_all(bytes, n);
        }
        const double rate = (double)n * (double)n_reads / (now_s() - start);
        best = rate > best ? rate : best;
    }
    free(bytes);
    return best;
}

static double rate(void (*multiply)(long), int n_lanes) {
    double best = 0.0;
    for (int t = 0; t < N_TRIES; t++) {
        const double start = now_s();
        multiply(20000);
        const double found = 20000.0 * N_SUMS * n_lanes / (now_s() - start);
        best = found > best ? found : best;
    }
    return best;
}

int main(void) {
    static const size_t sizes[] = {16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192};
    if (!__builtin_cpu_supports("avx512vnni")) {
        fprintf(stderr, "roof: this processor has no AVX-512 VNNI\n");
        return 1;
    }
    printf("{\"bytes_a_second\": {");
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        printf("%s\"%zu\": %.4g", i ? ", " : "", sizes[i] * 1024, bandwidth(sizes[i] * 1024));
    }
    printf("}, \"int8_macs_a_second\": %.4g, \"float_macs_a_second\": %.4g}\n",
           rate(multiply_int8, 64), rate(multiply_float, 16));
    return 0;
}
