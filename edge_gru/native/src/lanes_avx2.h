/* Sixteen lanes in two AVX2 registers. */
#ifndef EDGE_GRU_LANES_H
#define EDGE_GRU_LANES_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define LANES_NAME "avx2"
#define LANES_INLINE static inline __attribute__((always_inline))
#define LANES_CALLED static __attribute__((noinline))
#ifdef __clang__
#define LANES_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LANES_UNROLL _Pragma("GCC unroll 32")
#endif
#define TILE_INT8 2
#define TILE_HILO 1
#define TILE_FLOAT 6
#define TILE_VECTORS_INT8 2
#define TILE_VECTORS_HILO 2
#define ROW_INT8 4
#define ROW_HILO 2
#define ROW_FLOAT 1
#define TILE_VECTORS_FLOAT 1
#define PARTS_INT8 1
#define GATE_CHAINS 2 /* of sixteen lanes, that are computed in turns */
#define ROW_GROUPS 1
#define MAX_TILE 6
#define OPERAND_OFFSET 0

typedef struct {
    __m256 a, b;
} F;
typedef struct {
    __m256i a, b;
} I;
typedef struct {
    __m256i value, magnitude;
} Operand;
typedef I Weights;

LANES_INLINE F f_both(__m256 a, __m256 b) { return (F){a, b}; }
LANES_INLINE I i_both(__m256i a, __m256i b) { return (I){a, b}; }

LANES_INLINE F f_load(const float *p) { return f_both(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
/* The first n, and zeros. */
LANES_INLINE F f_load_first(const float *p, size_t n) {
    const __m256i order = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i below = _mm256_set1_epi32((int32_t)n);
    const __m256i a = _mm256_cmpgt_epi32(below, order);
    const __m256i b = _mm256_cmpgt_epi32(below, _mm256_add_epi32(order, _mm256_set1_epi32(8)));
    return f_both(_mm256_maskload_ps(p, a), _mm256_maskload_ps(p + 8, b));
}
LANES_INLINE void f_store(float *p, F x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
LANES_INLINE F f_set(float x) { return f_both(_mm256_set1_ps(x), _mm256_set1_ps(x)); }
LANES_INLINE F f_add(F x, F y) {
    return f_both(_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b));
}
LANES_INLINE F f_sub(F x, F y) {
    return f_both(_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b));
}
LANES_INLINE F f_mul(F x, F y) {
    return f_both(_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b));
}
LANES_INLINE F f_fma(F x, F y, F z) {
    return f_both(_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b));
}
LANES_INLINE F f_fnma(F x, F y, F z) {
    return f_both(_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b));
}
LANES_INLINE F f_max(F x, F y) {
    return f_both(_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b));
}
LANES_INLINE F f_min(F x, F y) {
    return f_both(_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b));
}
LANES_INLINE F f_clip(F x, float low, float high) {
    return f_min(f_set(high), f_max(f_set(low), x)); /* the second if one is NaN */
}
LANES_INLINE F f_number_within(F x, F low, F high) {
    return f_min(f_max(x, low), high); /* low if it is NaN */
}
LANES_INLINE F f_load_four(const float *p) {
    const __m256 four = _mm256_broadcast_ps((const __m128 *)(const void *)p);
    return f_both(four, four);
}
LANES_INLINE __m256 sums_of_two(F x, F y) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(x.a, x.b), _mm256_hadd_ps(y.a, y.b));
    return _mm256_permutevar8x32_ps(sums, order);
}
/* Lane 4 i + j is (0 + 1) + (2 + 3) of the j-th four lanes of x[i]. */
LANES_INLINE F f_sums_of_four(const F *x) {
    return f_both(sums_of_two(x[0], x[1]), sums_of_two(x[2], x[3]));
}
/* The n quarters from the first on, and then zeros: one or two, first being a multiple of n. */
LANES_INLINE F f_quarters(F x, int first, int n) {
    const __m256 half = first & 2 ? x.b : x.a;
    const __m128 low = _mm256_castps256_ps128(half);
    const __m128 quarter = first & 1 ? _mm256_extractf128_ps(half, 1) : low;
    const __m256 zeros = _mm256_setzero_ps();
    return f_both(n == 2 ? half : _mm256_insertf128_ps(zeros, quarter, 0), zeros);
}
LANES_INLINE F f_relu(F x) { return f_max(f_set(0.0f), x); }
LANES_INLINE F f_of_bits(__m256i a, __m256i b) {
    return f_both(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b));
}
LANES_INLINE F f_bits_shifted_23(F x) {
    return f_of_bits(_mm256_slli_epi32(_mm256_castps_si256(x.a), 23),
                     _mm256_slli_epi32(_mm256_castps_si256(x.b), 23));
}
LANES_INLINE F f_bits_subtracted_from(uint32_t from, F x) {
    const __m256i bits = _mm256_set1_epi32((int32_t)from);
    return f_of_bits(_mm256_sub_epi32(bits, _mm256_castps_si256(x.a)),
                     _mm256_sub_epi32(bits, _mm256_castps_si256(x.b)));
}
LANES_INLINE F f_half(F x) {
    const __m128i a = _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT);
    const __m128i b = _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT);
    return f_both(_mm256_cvtph_ps(a), _mm256_cvtph_ps(b));
}
LANES_INLINE F f_rounded(F x) {
    return f_both(_mm256_round_ps(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                  _mm256_round_ps(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

/* Sums that begin alike are one value to GCC, which then copies each of them in every round. */
LANES_INLINE I i_apart(I x) {
    __asm__("" : "+x"(x.a), "+x"(x.b));
    return x;
}
LANES_INLINE F f_apart(F x) {
    __asm__("" : "+x"(x.a), "+x"(x.b));
    return x;
}
LANES_INLINE I i_zero(void) { return i_both(_mm256_setzero_si256(), _mm256_setzero_si256()); }
LANES_INLINE I i_load(const int32_t *p) {
    return i_both(_mm256_loadu_si256((const __m256i *)(const void *)p),
                  _mm256_loadu_si256((const __m256i *)(const void *)(p + 8)));
}
LANES_INLINE void i_store(int32_t *p, I x) {
    _mm256_storeu_si256((__m256i *)(void *)p, x.a);
    _mm256_storeu_si256((__m256i *)(void *)(p + 8), x.b);
}
LANES_INLINE I i_add(I x, I y) {
    return i_both(_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b));
}
LANES_INLINE I i_zero_apart(void) { return i_apart(i_zero()); }
LANES_INLINE F f_zero_apart(void) { return f_apart(f_set(0.0f)); }
LANES_INLINE F f_of_int(I x) { return f_both(_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)); }
/* What f_store_int8 takes. */
LANES_INLINE F f_storable(F a, F low, F high) { return f_number_within(a, low, high); }
LANES_INLINE void f_store_int8(uint8_t *p, F x) {
    const __m256i words =
        _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
    const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
    const __m128i bytes =
        _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
    _mm_storeu_si128((__m128i *)(void *)p, bytes);
}
LANES_INLINE void f_store_int8_four(uint8_t *p, const F *a) {
    for (int i = 0; i < 4; i++) {
        f_store_int8(p + 16 * i, a[i]);
    }
}

LANES_INLINE Operand operand_load(const uint8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    const __m256i value = _mm256_set1_epi32(four);
    return (Operand){value, _mm256_abs_epi8(value)};
}
LANES_INLINE Weights weights_load(const int8_t *p) {
    return i_both(_mm256_load_si256((const __m256i *)(const void *)p),
                  _mm256_load_si256((const __m256i *)(const void *)(p + 32)));
}
/* |a| * (w with the sign of a): two of them stay below 2 * 128 * 127, so nothing saturates. */
LANES_INLINE __m256i dot_half(__m256i acc, Operand operand, __m256i weights) {
    const __m256i pairs =
        _mm256_maddubs_epi16(operand.magnitude, _mm256_sign_epi8(weights, operand.value));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
LANES_INLINE I i_dot(I acc, Operand operand, Weights weights) {
    return i_both(dot_half(acc.a, operand, weights.a), dot_half(acc.b, operand, weights.b));
}

LANES_INLINE I i_dot_once(I acc, Operand operand, const int8_t *weights) {
    return i_dot(acc, operand, weights_load(weights));
}

#endif
