/* Sixteen lanes in one AVX-512 register; the integer product is VNNI's. */
#ifndef EDGE_GRU_LANES_H
#define EDGE_GRU_LANES_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define LANES_NAME "avx512"
#define LANES_INLINE static inline __attribute__((always_inline))
#define LANES_CALLED static __attribute__((noinline))
#ifdef __clang__ /* full: early enough for arrays to become registers */
#define LANES_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LANES_UNROLL _Pragma("GCC unroll 32")
#endif
#define TILE_INT8 8
#define TILE_HILO 4
#define TILE_FLOAT 8
#define TILE_VECTORS_INT8 3
#define TILE_VECTORS_HILO 3
#define ROW_INT8 8
#define ROW_HILO 8
#define ROW_FLOAT 4
#define TILE_VECTORS_FLOAT 3
#define PARTS_INT8 2
#define GATE_CHAINS 8 /* of sixteen lanes, that are computed in turns */
#define ROW_GROUPS 2 /* of a row's product that share each operand */
#define MAX_TILE 8
#define OPERAND_OFFSET 128 /* VNNI takes the operand unsigned: each row is corrected for it */

typedef __m512 F;
typedef __m512i I;
typedef __m512i Operand;
typedef __m512i Weights;

LANES_INLINE F f_load(const float *p) { return _mm512_loadu_ps(p); }
/* The first n, and zeros. */
LANES_INLINE F f_load_first(const float *p, size_t n) {
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
LANES_INLINE void f_store(float *p, F a) { _mm512_storeu_ps(p, a); }
LANES_INLINE F f_set(float a) { return _mm512_set1_ps(a); }
LANES_INLINE F f_add(F a, F b) { return _mm512_add_ps(a, b); }
LANES_INLINE F f_sub(F a, F b) { return _mm512_sub_ps(a, b); }
LANES_INLINE F f_mul(F a, F b) { return _mm512_mul_ps(a, b); }
LANES_INLINE F f_fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
LANES_INLINE F f_fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }
LANES_INLINE F f_clip(F a, float low, float high) {
    return _mm512_min_ps(f_set(high), _mm512_max_ps(f_set(low), a)); /* the second if one is NaN */
}
LANES_INLINE F f_number_within(F a, F low, F high) {
    return _mm512_min_ps(_mm512_max_ps(a, low), high); /* low if it is NaN */
}
LANES_INLINE F f_load_four(const float *p) { return _mm512_broadcast_f32x4(_mm_loadu_ps(p)); }
/* Of four lanes of a and of b each: 0 + 1, 2 + 3 of a, then of b. */
LANES_INLINE F f_sums_of_pairs(F a, F b) {
    return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
}
/* Lane 4 i + j is (0 + 1) + (2 + 3) of the j-th four lanes of a[i]. */
LANES_INLINE F f_sums_of_four(const F *a) {
    const __m512i columns = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const F low = f_sums_of_pairs(a[0], a[1]);
    const F high = f_sums_of_pairs(a[2], a[3]);
    return _mm512_permutexvar_ps(columns, f_sums_of_pairs(low, high));
}
/* The n quarters from the first on, and then zeros: one or two, first being a multiple of n. */
LANES_INLINE F f_quarters(F a, int first, int n) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i from = _mm512_add_epi32(lanes, _mm512_set1_epi32(4 * first));
    return _mm512_maskz_permutexvar_ps((__mmask16)((1u << 4 * n) - 1), from, a);
}
LANES_INLINE F f_relu(F a) { return _mm512_max_ps(_mm512_setzero_ps(), a); }
LANES_INLINE F f_bits_shifted_23(F a) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 23));
}
LANES_INLINE F f_bits_subtracted_from(uint32_t from, F a) {
    const __m512i bits = _mm512_set1_epi32((int32_t)from);
    return _mm512_castsi512_ps(_mm512_sub_epi32(bits, _mm512_castps_si512(a)));
}
LANES_INLINE F f_half(F a) {
    return _mm512_cvtph_ps(_mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
LANES_INLINE F f_rounded(F a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Zeros that are no constant: GCC would keep one, and copy each sum that begins with it. */
LANES_INLINE I i_zero_apart(void) {
    I a;
    __asm__ volatile("vpxord %0, %0, %0" : "=v"(a));
    return a;
}
LANES_INLINE F f_zero_apart(void) {
    F a;
    __asm__ volatile("vpxord %0, %0, %0" : "=v"(a));
    return a;
}
LANES_INLINE I i_apart(I a) {
    __asm__("" : "+v"(a));
    return a;
}
LANES_INLINE F f_apart(F a) {
    __asm__("" : "+v"(a));
    return a;
}
LANES_INLINE I i_load(const int32_t *p) { return _mm512_loadu_si512(p); }
LANES_INLINE void i_store(int32_t *p, I a) { _mm512_storeu_si512(p, a); }
LANES_INLINE I i_add(I a, I b) { return _mm512_add_epi32(a, b); }
LANES_INLINE F f_of_int(I a) { return _mm512_cvtepi32_ps(a); }
/* What f_store_int8 takes: it cuts off what is above, and takes infinity and NaN for that. */
LANES_INLINE F f_storable(F a, F low, F high) {
    (void)high;
    return _mm512_max_ps(a, low); /* low if it is NaN */
}
LANES_INLINE void f_store_int8(uint8_t *p, F a) {
    const __m512i moved = _mm512_add_epi32(_mm512_cvtps_epi32(a), _mm512_set1_epi32(128));
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtusepi32_epi8(moved));
}
LANES_INLINE void f_store_int8_four(uint8_t *p, const F *a) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i low = _mm512_packs_epi32(_mm512_cvtps_epi32(a[0]), _mm512_cvtps_epi32(a[1]));
    const __m512i high = _mm512_packs_epi32(_mm512_cvtps_epi32(a[2]), _mm512_cvtps_epi32(a[3]));
    const __m512i mixed = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, high));
    _mm512_storeu_si512(p, _mm512_xor_si512(mixed, _mm512_set1_epi8((char)0x80)));
}

LANES_INLINE Operand operand_load(const uint8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}
LANES_INLINE Weights weights_load(const int8_t *p) { return _mm512_load_si512(p); }
/* Written out: around the intrinsic GCC 12 copies each sum twice in every round. */
LANES_INLINE I i_dot(I acc, Operand operand, Weights weights) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(operand), "v"(weights));
    return acc;
}
/* The same with weights that nothing else reads. */
LANES_INLINE I i_dot_once(I acc, Operand operand, const int8_t *weights) {
    const I *at = (const I *)(const void *)weights;
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(operand), "m"(*at));
    return acc;
}

#endif
