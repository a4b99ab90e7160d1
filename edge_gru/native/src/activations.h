/*
 * sigmoid and tanh on sixteen lanes. Largest absolute error over all floats: 1.5e-7 and 3.0e-7.
 *
 * sigmoid(a) = 1 / (1 + 2^(-a log2 e)). 2^f on [-0.5, 0.5] is a minimax polynomial of degree five
 * with 2^0 = 1 exactly, relative error 1.1e-7. The reciprocal starts from the bits of its operand
 * and is refined by one step of second order and one of third; no instruction that estimates.
 *
 * Each is a chain of twenty instructions that wait for each other: several are computed in turns.
 */
#ifndef EDGE_GRU_ACTIVATIONS_H
#define EDGE_GRU_ACTIVATIONS_H

#include LANES_HEADER

enum { MOST_CHAINS = 16 };

/* A fused add of it leaves the nearest integer plus 127 in the lowest bits. */
#define ROUNDER 12583039.0f
#define LOG2_E 1.44269504f

#define EACH_CHAIN LANES_UNROLL for (int i = 0; i < n; i++)

/* y = 1 / d. */
LANES_INLINE void reciprocals(int n, const F *d, F *y) {
    F error[MOST_CHAINS];
    EACH_CHAIN y[i] = f_bits_subtracted_from(0x7ef311c7u, d[i]);
    EACH_CHAIN error[i] = f_fnma(d[i], y[i], f_set(1.0f));
    EACH_CHAIN y[i] = f_fma(y[i], error[i], y[i]);
    EACH_CHAIN error[i] = f_fnma(d[i], y[i], f_set(1.0f));
    EACH_CHAIN error[i] = f_fma(error[i], error[i], error[i]);
    EACH_CHAIN y[i] = f_fma(y[i], error[i], y[i]);
}

/* y = 1 / (1 + 2^(a * factor)) for |a * factor| < 126. */
LANES_INLINE void logistics(int n, const F *a, float factor, F *y) {
    F rounded[MOST_CHAINS], f[MOST_CHAINS], p[MOST_CHAINS];
    EACH_CHAIN rounded[i] = f_fma(a[i], f_set(factor), f_set(ROUNDER));
    EACH_CHAIN f[i] = f_sub(f_set(ROUNDER), rounded[i]);
    EACH_CHAIN f[i] = f_fma(a[i], f_set(factor), f[i]);
    EACH_CHAIN p[i] = f_fma(f_set(0x1.5bba14p-10f), f[i], f_set(0x1.3cea88p-7f));
    EACH_CHAIN p[i] = f_fma(p[i], f[i], f_set(0x1.c6b752p-5f));
    EACH_CHAIN p[i] = f_fma(p[i], f[i], f_set(0x1.ebf9bcp-3f));
    EACH_CHAIN p[i] = f_fma(p[i], f[i], f_set(0x1.62e42ap-1f));
    EACH_CHAIN p[i] = f_fma(p[i], f[i], f_set(1.0f));
    EACH_CHAIN p[i] = f_fma(p[i], f_bits_shifted_23(rounded[i]), f_set(1.0f));
    reciprocals(n, p, y);
}

/* Where is_near, no a is beyond the clip. */
LANES_INLINE void sigmoids(int n, int is_near, const F *a, F *y) {
    F near[MOST_CHAINS];
    EACH_CHAIN near[i] = is_near ? a[i] : f_clip(a[i], -50.0f, 50.0f);
    logistics(n, near, -LOG2_E, y);
}

LANES_INLINE void tanhs(int n, int is_near, const F *a, F *y) {
    F near[MOST_CHAINS];
    EACH_CHAIN near[i] = is_near ? a[i] : f_clip(a[i], -25.0f, 25.0f);
    logistics(n, near, -2.0f * LOG2_E, y);
    EACH_CHAIN y[i] = f_fma(y[i], f_set(2.0f), f_set(-1.0f));
}

#endif
