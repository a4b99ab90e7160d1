/* Matrices as a model has them, in rows, into the layout that a kernel reads. */
#ifndef EDGE_GRU_PACK_H
#define EDGE_GRU_PACK_H

#include "arena.h"
#include "kernel.h"

/* A matrix (n_gates * n_units, n_operand), the rows of a gate together. */
struct matrix {
    enum form form;
    size_t n_gates;
    size_t n_units;
    size_t n_operand;
    const float *weights;       /* of the float forms */
    const int8_t *weights_int8; /* of the others, none of them -128 */
    const float *scale;         /* (rows,): that of the row times the step of the operand */
    const float *gain;          /* (n_operand,) or NULL */
    struct grid grid;           /* of an integer operand */
};

/*
 * 0 if the product of grid.h would not be rounded as the quotient v / step is. Both are odd and
 * monotone in v: only the values count around which the integer changes. Steps that are too small
 * to have a reciprocal fail, and of two million others, drawn at random, none.
 */
int grid_of(float step, struct grid *);

/* Pack in groups of n_group vectors; 0 if memory runs out. */
int pack_product(struct arena *, const struct kernel *, const struct matrix *, size_t n_group,
                 struct product *out);
/* Values of (n_gates * n_units,) in the order of packed rows, zero where there is no unit. */
float *pack_row_values(struct arena *, const float *values, size_t n_gates, size_t n_units);

/* Whether every pre-activation of a cell of integers, packed with its biases, is below NEAR. */
int cell_is_near(const struct cell *);

static inline size_t round_up(size_t n, size_t step) { return (n + step - 1) / step * step; }

#endif
