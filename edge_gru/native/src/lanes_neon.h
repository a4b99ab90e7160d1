/* Sixteen lanes in four NEON registers; the integer product is that of the dot-product extension. */
#ifndef EDGE_GRU_LANES_H
#define EDGE_GRU_LANES_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define LANES_NAME "neon"
#define LANES_INLINE static inline __attribute__((always_inline))
#define LANES_CALLED static __attribute__((noinline))
#ifdef __clang__
#define LANES_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LANES_UNROLL _Pragma("GCC unroll 32")
#endif
#define TILE_INT8 6
#define TILE_HILO 3
#define TILE_FLOAT 6
#define TILE_VECTORS_INT8 1
#define TILE_VECTORS_HILO 1
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
    float32x4_t q[4];
} F;
typedef struct {
    int32x4_t q[4];
} I;
typedef int8x16_t Operand;
typedef struct {
    int8x16_t q[4];
} Weights;

#define EACH_QUARTER for (int i = 0; i < 4; i++)

LANES_INLINE F f_load(const float *p) {
    F r;
    EACH_QUARTER r.q[i] = vld1q_f32(p + 4 * i);
    return r;
}
/* The first n, and zeros. */
LANES_INLINE F f_load_first(const float *p, size_t n) {
    float four[16] = {0.0f};
    memcpy(four, p, n * sizeof *p);
    return f_load(four);
}
LANES_INLINE void f_store(float *p, F a) { EACH_QUARTER vst1q_f32(p + 4 * i, a.q[i]); }
LANES_INLINE F f_set(float a) {
    F r;
    EACH_QUARTER r.q[i] = vdupq_n_f32(a);
    return r;
}
LANES_INLINE F f_add(F a, F b) {
    EACH_QUARTER a.q[i] = vaddq_f32(a.q[i], b.q[i]);
    return a;
}
LANES_INLINE F f_sub(F a, F b) {
    EACH_QUARTER a.q[i] = vsubq_f32(a.q[i], b.q[i]);
    return a;
}
LANES_INLINE F f_mul(F a, F b) {
    EACH_QUARTER a.q[i] = vmulq_f32(a.q[i], b.q[i]);
    return a;
}
LANES_INLINE F f_fma(F a, F b, F c) {
    EACH_QUARTER a.q[i] = vfmaq_f32(c.q[i], a.q[i], b.q[i]);
    return a;
}
LANES_INLINE F f_fnma(F a, F b, F c) {
    EACH_QUARTER a.q[i] = vfmsq_f32(c.q[i], a.q[i], b.q[i]);
    return a;
}
LANES_INLINE F f_clip(F a, float low, float high) {
    EACH_QUARTER a.q[i] = vminq_f32(vmaxq_f32(a.q[i], vdupq_n_f32(low)), vdupq_n_f32(high));
    return a;
}
LANES_INLINE F f_number_within(F a, F low, F high) { /* low if it is NaN */
    EACH_QUARTER a.q[i] = vminnmq_f32(vmaxnmq_f32(a.q[i], low.q[i]), high.q[i]);
    return a;
}
LANES_INLINE F f_load_four(const float *p) {
    F r;
    EACH_QUARTER r.q[i] = vld1q_f32(p);
    return r;
}
/* Lane 4 i + j is (0 + 1) + (2 + 3) of the j-th four lanes of a[i]. */
LANES_INLINE F f_sums_of_four(const F *a) {
    F r;
    EACH_QUARTER r.q[i] =
        vpaddq_f32(vpaddq_f32(a[i].q[0], a[i].q[1]), vpaddq_f32(a[i].q[2], a[i].q[3]));
    return r;
}
/* The n quarters from the first on, and then zeros: one or two, first being a multiple of n. */
LANES_INLINE F f_quarters(F a, int first, int n) {
    F r = f_set(0.0f);
    for (int i = 0; i < n; i++) {
        r.q[i] = a.q[first + i];
    }
    return r;
}
/* By comparison: the maximum of -0 and 0 is 0 here and -0 on x86. */
LANES_INLINE F f_relu(F a) {
    const float32x4_t zero = vdupq_n_f32(0.0f);
    EACH_QUARTER a.q[i] = vbslq_f32(vcgtq_f32(zero, a.q[i]), zero, a.q[i]);
    return a;
}
LANES_INLINE F f_bits_shifted_23(F a) {
    EACH_QUARTER a.q[i] = vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(a.q[i]), 23));
    return a;
}
LANES_INLINE F f_bits_subtracted_from(uint32_t from, F a) {
    const uint32x4_t bits = vdupq_n_u32(from);
    EACH_QUARTER a.q[i] =
        vreinterpretq_f32_u32(vsubq_u32(bits, vreinterpretq_u32_f32(a.q[i])));
    return a;
}
LANES_INLINE F f_half(F a) {
    EACH_QUARTER a.q[i] = vcvt_f32_f16(vcvt_f16_f32(a.q[i]));
    return a;
}
LANES_INLINE F f_rounded(F a) {
    EACH_QUARTER a.q[i] = vrndnq_f32(a.q[i]);
    return a;
}

/* Sums that begin alike are one value to GCC, which then copies each of them in every round. */
LANES_INLINE I i_apart(I a) {
    __asm__("" : "+w"(a.q[0]), "+w"(a.q[1]), "+w"(a.q[2]), "+w"(a.q[3]));
    return a;
}
LANES_INLINE F f_apart(F a) {
    __asm__("" : "+w"(a.q[0]), "+w"(a.q[1]), "+w"(a.q[2]), "+w"(a.q[3]));
    return a;
}
LANES_INLINE I i_zero(void) {
    I r;
    EACH_QUARTER r.q[i] = vdupq_n_s32(0);
    return r;
}
LANES_INLINE I i_load(const int32_t *p) {
    I r;
    EACH_QUARTER r.q[i] = vld1q_s32(p + 4 * i);
    return r;
}
LANES_INLINE void i_store(int32_t *p, I a) { EACH_QUARTER vst1q_s32(p + 4 * i, a.q[i]); }
LANES_INLINE I i_add(I a, I b) {
    EACH_QUARTER a.q[i] = vaddq_s32(a.q[i], b.q[i]);
    return a;
}
LANES_INLINE I i_zero_apart(void) { return i_apart(i_zero()); }
LANES_INLINE F f_zero_apart(void) { return f_apart(f_set(0.0f)); }
LANES_INLINE F f_of_int(I a) {
    F r;
    EACH_QUARTER r.q[i] = vcvtq_f32_s32(a.q[i]);
    return r;
}
/* What f_store_int8 takes. */
LANES_INLINE F f_storable(F a, F low, F high) { return f_number_within(a, low, high); }
LANES_INLINE void f_store_int8(uint8_t *p, F a) {
    const int16x8_t low = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(a.q[0])),
                                       vqmovn_s32(vcvtnq_s32_f32(a.q[1])));
    const int16x8_t high = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(a.q[2])),
                                        vqmovn_s32(vcvtnq_s32_f32(a.q[3])));
    vst1q_u8(p, vreinterpretq_u8_s8(vcombine_s8(vqmovn_s16(low), vqmovn_s16(high))));
}
LANES_INLINE void f_store_int8_four(uint8_t *p, const F *a) {
    EACH_QUARTER f_store_int8(p + 16 * i, a[i]);
}

LANES_INLINE Operand operand_load(const uint8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
LANES_INLINE Weights weights_load(const int8_t *p) {
    Weights r;
    EACH_QUARTER r.q[i] = vld1q_s8(p + 16 * i);
    return r;
}
LANES_INLINE I i_dot(I acc, Operand operand, Weights weights) {
    EACH_QUARTER acc.q[i] = vdotq_s32(acc.q[i], weights.q[i], operand);
    return acc;
}

LANES_INLINE I i_dot_once(I acc, Operand operand, const int8_t *weights) {
    return i_dot(acc, operand, weights_load(weights));
}

#endif
