/*
 * The gates of one block of many rows, from what tiles left: floats, or integer sums that are
 * scaled on the way. Each half is computed of as many rows in turns as there are registers for.
 */
#ifndef EDGE_GRU_BATCH_GATES_H
#define EDGE_GRU_BATCH_GATES_H

#include "gates.h"

/* Where pre-activations come from; FROM_NEAR: from sums too small for any to be clipped. */
enum source { FROM_FLOATS, FROM_SUMS, FROM_NEAR };

/* A block of sixteen units of some rows. */
struct slice {
    size_t n_rows;
    enum source source;
    const int32_t *x_sums; /* [row][gate][16]; or floats, biases added */
    const int32_t *h_sums; /* the same; or floats, those of x added but to a GRU's candidate */
    size_t stride;         /* of both, from row to row */
    const float *x_scale;  /* [gate][16] */
    const float *h_scale;
    const float *bias;
    const float *bias_candidate; /* of a GRU */
    float *const *h;             /* before */
    float *const *c;
    float *const *h_out; /* after: may be h and c */
    float *const *c_out;
    size_t first; /* unit */
};

typedef void BatchGates(const struct slice *);

/* What one half leaves to the next. */
struct halfway {
    float first[SUM_ROWS * LANES];
    float second[SUM_ROWS * LANES];
};

LANES_INLINE F scaled(const int32_t *sums, const float *scale, F add) {
    return f_fma(f_of_int(i_load(sums)), f_load(scale), add);
}

/* The product with x of a gate, and its bias. */
LANES_INLINE F x_part(enum source source, const struct slice *s, size_t row, int gate) {
    const int32_t *sums = s->x_sums + row * s->stride + gate * LANES;
    const int first = gate * LANES;
    return source == FROM_FLOATS ? f_load((const float *)(const void *)sums)
                                 : scaled(sums, s->x_scale + first, f_load(s->bias + first));
}

/* The product with h of a gate, added to this if it is not there already. */
LANES_INLINE F h_part(enum source source, const struct slice *s, size_t row, int gate, F add) {
    const int32_t *sums = s->h_sums + row * s->stride + gate * LANES;
    return source == FROM_FLOATS ? f_load((const float *)(const void *)sums)
                                 : scaled(sums, s->h_scale + gate * LANES, add);
}

LANES_INLINE F both_parts(enum source source, const struct slice *s, size_t row, int gate) {
    const F none = f_set(0.0f);
    return h_part(source, s, row, gate,
                  source == FROM_FLOATS ? none : x_part(source, s, row, gate));
}

LANES_INLINE void gru_first(int n, enum source source, const struct slice *s, size_t row,
                            struct halfway *to) {
    const F bias = source == FROM_FLOATS ? f_set(0.0f) : f_load(s->bias_candidate);
    F r[MOST_CHAINS], *z = r + n;
    EACH_CHAIN r[i] = both_parts(source, s, row + (size_t)i, 0);
    EACH_CHAIN z[i] = both_parts(source, s, row + (size_t)i, 1);
    sigmoids(2 * n, source == FROM_NEAR, r, r);
    EACH_CHAIN {
        const size_t at = row + (size_t)i;
        const F candidate = f_fma(r[i], h_part(source, s, at, 2, bias), x_part(source, s, at, 2));
        f_store(to->first + at * LANES, candidate);
        f_store(to->second + at * LANES, z[i]);
    }
}

LANES_INLINE void gru_last(int n, enum source source, const struct slice *s, size_t row,
                           const struct halfway *from) {
    F candidate[MOST_CHAINS];
    EACH_CHAIN candidate[i] = f_load(from->first + (row + (size_t)i) * LANES);
    tanhs(n, source == FROM_NEAR, candidate, candidate);
    EACH_CHAIN {
        const size_t at = row + (size_t)i;
        const F z = f_load(from->second + at * LANES);
        const F change = f_sub(f_load(s->h[at] + s->first), candidate[i]);
        f_store(s->h_out[at] + s->first, f_fma(z, change, candidate[i]));
    }
}

/* Calls f for as many rows at once as fit, and then for single ones. */
#define IN_TURNS(n_most, f, source, s, between)                                                    \
    do {                                                                                           \
        size_t row = 0;                                                                            \
        for (; row + (n_most) <= (s)->n_rows; row += (n_most)) {                                   \
            f(n_most, source, s, row, between);                                                    \
        }                                                                                          \
        for (; (n_most) > 1 && row < (s)->n_rows; row++) {                                         \
            f(1, source, s, row, between);                                                         \
        }                                                                                          \
    } while (0)

enum { HALF_CHAINS = GATE_CHAINS > 1 ? GATE_CHAINS / 2 : 1 };

#define DEFINE_GRU(name, source)                                                                   \
    LANES_CALLED void name(const struct slice *slice) {                                            \
        const struct slice s = *slice; /* a store cannot change it */                              \
        struct halfway between;                                                                    \
        IN_TURNS(HALF_CHAINS, gru_first, source, &s, &between);                                    \
        IN_TURNS(GATE_CHAINS, gru_last, source, &s, &between);                                     \
    }

DEFINE_GRU(batch_gru_floats, FROM_FLOATS)
DEFINE_GRU(batch_gru_sums, FROM_SUMS)
DEFINE_GRU(batch_gru_near, FROM_NEAR)

static void batch_gru(const struct slice *s) {
    (s->source == FROM_FLOATS ? batch_gru_floats
     : s->source == FROM_SUMS ? batch_gru_sums
                              : batch_gru_near)(s);
}

#endif
