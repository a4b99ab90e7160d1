/*
 * What becomes of pre-activations, on any set of lanes. Several blocks of sixteen units take turns
 * at each instruction, where the lanes have registers for it.
 */
#ifndef EDGE_GRU_GATES_H
#define EDGE_GRU_GATES_H

#include "activations.h"
#include "kernel.h"

/* A block of sixteen units of one row. */
struct place {
    const float *a; /* pre-activations, [gate][16] */
    float *gates;   /* [gate][16]: what a holds was added to them, or waits for its stage */
    const float *h; /* before */
    const float *c;
    float *h_out; /* after: may be h and c */
    float *c_out;
};

typedef void Gates(size_t n, const struct place *);

LANES_INLINE void load_gates(int n, const struct place *at, int gate, F *a) {
    EACH_CHAIN a[i] = f_load(at[i].a + gate * LANES);
}

/* h = n + z * (h - n): a unit that holds, z = 1, holds for ever. */
LANES_INLINE void blend(int n, const struct place *at, const F *z, const F *candidate) {
    EACH_CHAIN {
        const F change = f_sub(f_load(at[i].h), candidate[i]);
        f_store(at[i].h_out, f_fma(z[i], change, candidate[i]));
    }
}

LANES_INLINE void gru_gates_of(int n, const struct place *at) {
    F r[MOST_CHAINS], *z = r + n, candidate[MOST_CHAINS];
    load_gates(n, at, 0, r);
    load_gates(n, at, 1, z);
    sigmoids(2 * n, 0, r, r);
    EACH_CHAIN candidate[i] =
        f_fma(r[i], f_load(at[i].a + 2 * LANES), f_load(at[i].gates + 2 * LANES));
    tanhs(n, 0, candidate, candidate);
    blend(n, at, z, candidate);
}

/* A GRU with the reset first takes two stages: this one leaves r * h, and z in place of r. */
LANES_INLINE void reset_gates_of(int n, const struct place *at) {
    F r[MOST_CHAINS], *z = r + n;
    load_gates(n, at, 0, r);
    load_gates(n, at, 1, z);
    sigmoids(2 * n, 0, r, r);
    EACH_CHAIN f_store(at[i].h_out, f_mul(r[i], f_load(at[i].h)));
    EACH_CHAIN f_store(at[i].gates, z[i]);
}

LANES_INLINE void candidate_gates_of(int n, const struct place *at) {
    F z[MOST_CHAINS], candidate[MOST_CHAINS];
    load_gates(n, at, 0, candidate);
    tanhs(n, 0, candidate, candidate);
    EACH_CHAIN z[i] = f_load(at[i].gates);
    blend(n, at, z, candidate);
}

/* c and h of an LSTM, from i, f and o one after the other, and g. */
LANES_INLINE void remember(int n, const struct place *at, const F *input, const F *g) {
    const F *f = input + n, *o = f + n;
    F c[MOST_CHAINS];
    EACH_CHAIN c[i] = f_fma(f[i], f_load(at[i].c), f_mul(input[i], g[i]));
    EACH_CHAIN f_store(at[i].c_out, c[i]);
    tanhs(n, 0, c, c);
    EACH_CHAIN f_store(at[i].h_out, f_mul(o[i], c[i]));
}

LANES_INLINE void lstm_gates_of(int n, const struct place *at) {
    F input[MOST_CHAINS], *f = input + n, *o = f + n, g[MOST_CHAINS];
    load_gates(n, at, 0, input);
    load_gates(n, at, 1, f);
    load_gates(n, at, 2, g);
    load_gates(n, at, 3, o);
    tanhs(n, 0, g, g);
    sigmoids(3 * n, 0, input, input);
    remember(n, at, input, g);
}

LANES_INLINE void tanh_gates_of(int n, const struct place *at) {
    F h[MOST_CHAINS];
    load_gates(n, at, 0, h);
    tanhs(n, 0, h, h);
    EACH_CHAIN f_store(at[i].h_out, h[i]);
}

LANES_INLINE void relu_gates_of(int n, const struct place *at) {
    EACH_CHAIN f_store(at[i].h_out, f_relu(f_load(at[i].a)));
}

/* Of n places; as many at once as have registers. */
#define DEFINE_GATES(name, n_chains)                                                               \
    LANES_CALLED void name(size_t n, const struct place *at) {                                     \
        enum { MOST = GATE_CHAINS > n_chains ? GATE_CHAINS / n_chains : 1 };                       \
        for (; n >= MOST; n -= MOST, at += MOST) {                                                 \
            name##_of(MOST, at);                                                                   \
        }                                                                                          \
        for (; MOST > 2 && n >= 2; n -= 2, at += 2) {                                              \
            name##_of(2, at);                                                                      \
        }                                                                                          \
        if (MOST > 1 && n) {                                                                       \
            name##_of(1, at);                                                                      \
        }                                                                                          \
    }

DEFINE_GATES(gru_gates, 2)
DEFINE_GATES(reset_gates, 2)
DEFINE_GATES(candidate_gates, 1)
DEFINE_GATES(lstm_gates, 4)
DEFINE_GATES(tanh_gates, 1)
DEFINE_GATES(relu_gates, 1)

#endif
