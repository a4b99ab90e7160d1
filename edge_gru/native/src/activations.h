/*
 * sigmoid and tanh on sixteen lanes. Largest absolute error over all floats: 1.5e-7 and 3.0e-7.
 *
 * sigmoid(a) = 1 / (1 + 2^(-a log2 e)). 2^f on [-0.5, 0.5] is a minimax polynomial of degree five
 * with 2^0 = 1 exactly, relative error 1.1e-7. The reciprocal starts from the bits of its operand
 * and is refined by one step of second order and one of third; no instruction that estimates.
 */
#ifndef EDGE_GRU_ACTIVATIONS_H
#define EDGE_GRU_ACTIVATIONS_H

#include LANES_HEADER

/* A fused add of it leaves the nearest integer plus 127 in the lowest bits. */
#define ROUNDER 12583039.0f
#define LOG2_E 1.44269504f

/* 1 / (1 + 2^(a * factor)) for |a * factor| < 126. */
LANES_INLINE F logistic(F a, float factor) {
    const F rounded = f_fma(a, f_set(factor), f_set(ROUNDER));
    const F power = f_bits_shifted_23(rounded);
    const F f = f_fma(a, f_set(factor), f_sub(f_set(ROUNDER), rounded));
    F p = f_set(0x1.5bba14p-10f);
    p = f_fma(p, f, f_set(0x1.3cea88p-7f));
    p = f_fma(p, f, f_set(0x1.c6b752p-5f));
    p = f_fma(p, f, f_set(0x1.ebf9bcp-3f));
    p = f_fma(p, f, f_set(0x1.62e42ap-1f));
    p = f_fma(p, f, f_set(1.0f));
    const F d = f_fma(p, power, f_set(1.0f));
    const F first = f_bits_subtracted_from(0x7ef311c7u, d);
    const F second = f_fma(first, f_fnma(d, first, f_set(1.0f)), first);
    const F error = f_fnma(d, second, f_set(1.0f));
    return f_fma(second, f_fma(error, error, error), second);
}

LANES_INLINE F sigmoid_lanes(F a) { return logistic(f_clip(a, -50.0f, 50.0f), -LOG2_E); }

LANES_INLINE F tanh_lanes(F a) {
    const F y = logistic(f_clip(a, -25.0f, 25.0f), -2.0f * LOG2_E);
    return f_fma(y, f_set(2.0f), f_set(-1.0f));
}

#endif
