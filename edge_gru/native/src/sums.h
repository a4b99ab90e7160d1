/* Sums of products of rows with a packed matrix, on any set of lanes. */
#ifndef EDGE_GRU_SUMS_H
#define EDGE_GRU_SUMS_H

#include "kernel.h"
#include LANES_HEADER

#define N_CHAINS 4 /* of a float product; part of its definition */
#define HILO_STEPS 254.0f

/* The vectors from `vector` on of the group of n_group that begins with `first`. */
struct part {
    const struct product *p;
    size_t first;
    size_t vector;
    size_t n_group;
    const uint8_t *const *operands;
};

/* Bytes from the int8 numbers hi of a row to its lo. */
LANES_INLINE size_t low_offset(const struct product *p) {
    return (p->n_operand + OPERAND_LINE - 1) / OPERAND_LINE * OPERAND_LINE;
}

/* What the integer sums of a vector begin with. */
LANES_INLINE I sum_begun(const struct product *p, size_t vector) {
    return OPERAND_OFFSET ? i_apart(i_load(p->correction + vector * LANES)) : i_zero_apart();
}

LANES_INLINE void dot_step(const int8_t *weights, const uint8_t *const *operands, size_t at,
                           int n_rows, int n_vectors, I *sums) {
    Weights w[DENSE_GROUP];
    LANES_UNROLL
    for (int v = 0; v < n_vectors; v++) {
        w[v] = weights_load(weights + v * 4 * LANES);
    }
    LANES_UNROLL
    for (int r = 0; r < n_rows; r++) {
        const Operand operand = operand_load(operands[r] + 4 * at);
        LANES_UNROLL
        for (int v = 0; v < n_vectors; v++) {
            sums[r * n_vectors + v] = i_dot(sums[r * n_vectors + v], operand, w[v]);
        }
    }
}

/* Integer sums of n_rows operands; they are exact, so their order is free. */
LANES_INLINE void sum_int8(const struct part *s, const uint8_t *const *operands, int n_rows,
                           int n_vectors, I *sums) {
    const size_t n_steps = s->p->n_steps;
    const size_t stride = s->n_group * 4 * LANES;
    const int8_t *weights = s->p->weights_int8 + (s->first * n_steps + s->vector) * 4 * LANES;
    LANES_UNROLL
    for (int i = 0; i < n_rows * n_vectors; i++) {
        const size_t vector = s->first + s->vector + (size_t)(i % n_vectors);
        sums[i] = sum_begun(s->p, vector);
    }
    size_t k = 0;
    do { /* a loop that may run no times costs a copy of every sum */
        dot_step(weights, operands, k, n_rows, n_vectors, sums);
        weights += stride;
    } while (++k < n_steps);
}

LANES_INLINE void float_step(const float *weights, const uint8_t *const *operands, size_t k,
                             int n_rows, int n_vectors, F *chain) {
    F w[DENSE_GROUP];
    LANES_UNROLL
    for (int v = 0; v < n_vectors; v++) {
        w[v] = f_load(weights + (size_t)v * LANES);
    }
    LANES_UNROLL
    for (int r = 0; r < n_rows; r++) {
        const F operand = f_set(((const float *)(const void *)operands[r])[k]);
        LANES_UNROLL
        for (int v = 0; v < n_vectors; v++) {
            chain[r * n_vectors + v] = f_fma(operand, w[v], chain[r * n_vectors + v]);
        }
    }
}

LANES_INLINE void add_float(enum form form, const struct part *s, int n_rows, int n_vectors,
                            F *result) {
    const size_t n_steps = s->p->n_steps;
    const size_t stride = s->n_group * LANES;
    const float *weights = s->p->weights + (s->first * n_steps + s->vector) * LANES;
    F chain[N_CHAINS][MAX_TILE * DENSE_GROUP];
    size_t k = 0;
    LANES_UNROLL
    for (int i = 0; i < n_rows * n_vectors; i++) {
        LANES_UNROLL
        for (int c = 0; c < N_CHAINS; c++) {
            chain[c][i] = f_zero_apart();
        }
    }
    if (n_steps >= N_CHAINS) {
        do {
            LANES_UNROLL
            for (int c = 0; c < N_CHAINS; c++) {
                float_step(weights, s->operands, k + (size_t)c, n_rows, n_vectors, chain[c]);
                weights += stride;
            }
            k += N_CHAINS;
        } while (k + N_CHAINS <= n_steps);
    }
    LANES_UNROLL
    for (int c = 0; c < N_CHAINS - 1; c++) {
        if (k + (size_t)c < n_steps) {
            float_step(weights, s->operands, k + (size_t)c, n_rows, n_vectors, chain[c]);
            weights += stride;
        }
    }
    LANES_UNROLL
    for (int i = 0; i < n_rows * n_vectors; i++) {
        const F sum = f_add(f_add(chain[0][i], chain[1][i]), f_add(chain[2][i], chain[3][i]));
        result[i] = f_add(result[i], form == FORM_FP16 ? f_half(sum) : sum);
    }
}

#endif
