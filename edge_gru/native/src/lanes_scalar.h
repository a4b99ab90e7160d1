/* Sixteen lanes in portable C99: what every other set of lanes is compared with, bit for bit. */
#ifndef EDGE_GRU_LANES_H
#define EDGE_GRU_LANES_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES_NAME "scalar"
#define LANES_INLINE static inline
#define LANES_UNROLL
#define LANES_CALLED static
#define TILE_INT8 1
#define TILE_HILO 1
#define TILE_FLOAT 1
#define TILE_VECTORS_INT8 1
#define TILE_VECTORS_HILO 1
#define ROW_INT8 1
#define ROW_HILO 1
#define ROW_FLOAT 1
#define TILE_VECTORS_FLOAT 1
#define PARTS_INT8 1
#define GATE_CHAINS 1 /* of sixteen lanes, that are computed in turns */
#define ROW_GROUPS 1
#define MAX_TILE 1
#define OPERAND_OFFSET 0

typedef struct {
    float v[16];
} F;
typedef struct {
    int32_t v[16];
} I;
typedef struct {
    int8_t v[4];
} Operand;
typedef const int8_t *Weights;

#define EACH_LANE for (int i = 0; i < 16; i++)

LANES_INLINE F f_load(const float *p) {
    F r;
    memcpy(r.v, p, sizeof r.v);
    return r;
}
/* The first n, and zeros. */
LANES_INLINE F f_load_first(const float *p, size_t n) {
    F r = {{0.0f}};
    memcpy(r.v, p, n * sizeof *p);
    return r;
}
LANES_INLINE void f_store(float *p, F a) { memcpy(p, a.v, sizeof a.v); }
LANES_INLINE F f_set(float a) {
    F r;
    EACH_LANE r.v[i] = a;
    return r;
}
LANES_INLINE F f_add(F a, F b) {
    EACH_LANE a.v[i] += b.v[i];
    return a;
}
LANES_INLINE F f_sub(F a, F b) {
    EACH_LANE a.v[i] -= b.v[i];
    return a;
}
LANES_INLINE F f_mul(F a, F b) {
    EACH_LANE a.v[i] *= b.v[i];
    return a;
}
LANES_INLINE F f_fma(F a, F b, F c) {
    EACH_LANE a.v[i] = fmaf(a.v[i], b.v[i], c.v[i]);
    return a;
}
LANES_INLINE F f_fnma(F a, F b, F c) {
    EACH_LANE a.v[i] = fmaf(-a.v[i], b.v[i], c.v[i]);
    return a;
}
/* The clip keeps NaN; the other turns it into the lower bound. */
LANES_INLINE F f_clip(F a, float low, float high) {
    EACH_LANE {
        a.v[i] = low > a.v[i] ? low : a.v[i];
        a.v[i] = high < a.v[i] ? high : a.v[i];
    }
    return a;
}
LANES_INLINE F f_number_within(F a, F low, F high) {
    EACH_LANE {
        a.v[i] = a.v[i] > low.v[i] ? a.v[i] : low.v[i];
        a.v[i] = a.v[i] < high.v[i] ? a.v[i] : high.v[i];
    }
    return a;
}
LANES_INLINE F f_load_four(const float *p) {
    F r;
    EACH_LANE r.v[i] = p[i % 4];
    return r;
}
/* Lane 4 i + j is (0 + 1) + (2 + 3) of the j-th four lanes of a[i]. */
LANES_INLINE F f_sums_of_four(const F *a) {
    F r;
    EACH_LANE {
        const float *four = a[i / 4].v + i % 4 * 4;
        r.v[i] = (four[0] + four[1]) + (four[2] + four[3]);
    }
    return r;
}
/* The n quarters from the first on, and then zeros: one or two, first being a multiple of n. */
LANES_INLINE F f_quarters(F a, int first, int n) {
    F r = f_set(0.0f);
    memcpy(r.v, a.v + 4 * first, 4 * (size_t)n * sizeof r.v[0]);
    return r;
}
LANES_INLINE F f_relu(F a) {
    EACH_LANE a.v[i] = 0.0f > a.v[i] ? 0.0f : a.v[i];
    return a;
}
LANES_INLINE uint32_t lane_bits(float a) {
    uint32_t bits;
    memcpy(&bits, &a, sizeof bits);
    return bits;
}
LANES_INLINE float lane_of_bits(uint32_t bits) {
    float a;
    memcpy(&a, &bits, sizeof a);
    return a;
}
LANES_INLINE F f_bits_shifted_23(F a) {
    EACH_LANE a.v[i] = lane_of_bits(lane_bits(a.v[i]) << 23);
    return a;
}
LANES_INLINE F f_bits_subtracted_from(uint32_t from, F a) {
    EACH_LANE a.v[i] = lane_of_bits(from - lane_bits(a.v[i]));
    return a;
}
/* Round to float16 and back: to nearest, ties to even, as IEEE 754 converts. */
LANES_INLINE F f_half(F a) {
    EACH_LANE {
        const uint32_t bits = lane_bits(a.v[i]);
        const uint32_t sign = bits & 0x80000000u;
        const float size = lane_of_bits(bits & 0x7fffffffu);
        float rounded = size;
        if (size < 0x1p-14f) { /* the sum has float16's smallest step as its last digit */
            rounded = (size + 0x1p-1f) - 0x1p-1f;
        } else if (size < 65520.0f) {
            const uint32_t kept = lane_bits(size) + 0xfffu + ((lane_bits(size) >> 13) & 1u);
            rounded = lane_of_bits(kept & ~0x1fffu);
        } else if (size >= 65520.0f) {
            rounded = INFINITY;
        }
        a.v[i] = lane_of_bits(lane_bits(rounded) | sign);
    }
    return a;
}

LANES_INLINE I i_apart(I a) { return a; }
LANES_INLINE F f_apart(F a) { return a; }
LANES_INLINE I i_zero(void) {
    I r;
    memset(&r, 0, sizeof r);
    return r;
}
LANES_INLINE I i_load(const int32_t *p) {
    I r;
    memcpy(r.v, p, sizeof r.v);
    return r;
}
LANES_INLINE void i_store(int32_t *p, I a) { memcpy(p, a.v, sizeof a.v); }
LANES_INLINE I i_add(I a, I b) {
    EACH_LANE a.v[i] += b.v[i];
    return a;
}
LANES_INLINE I i_zero_apart(void) { return i_apart(i_zero()); }
LANES_INLINE F f_zero_apart(void) { return f_apart(f_set(0.0f)); }
LANES_INLINE F f_of_int(I a) {
    F r;
    EACH_LANE r.v[i] = (float)a.v[i];
    return r;
}
/* Store clipped values rounded to int8, ties to even, with the offset of these lanes. */
/* What f_store_int8 takes. */
LANES_INLINE F f_storable(F a, F low, F high) { return f_number_within(a, low, high); }
LANES_INLINE void f_store_int8(uint8_t *p, F a) {
    EACH_LANE p[i] = (uint8_t)(int8_t)((a.v[i] + 12582912.0f) - 12582912.0f);
}
LANES_INLINE void f_store_int8_four(uint8_t *p, const F *a) {
    for (int i = 0; i < 4; i++) {
        f_store_int8(p + 16 * i, a[i]);
    }
}
LANES_INLINE F f_rounded(F a) {
    EACH_LANE a.v[i] = (a.v[i] + 12582912.0f) - 12582912.0f;
    return a;
}

LANES_INLINE Operand operand_load(const uint8_t *p) {
    Operand r;
    memcpy(r.v, p, sizeof r.v);
    return r;
}
LANES_INLINE Weights weights_load(const int8_t *p) { return p; }
LANES_INLINE I i_dot(I acc, Operand operand, Weights weights) {
    EACH_LANE {
        for (int k = 0; k < 4; k++) {
            acc.v[i] += operand.v[k] * weights[4 * i + k];
        }
    }
    return acc;
}

LANES_INLINE I i_dot_once(I acc, Operand operand, const int8_t *weights) {
    return i_dot(acc, operand, weights_load(weights));
}

#endif
