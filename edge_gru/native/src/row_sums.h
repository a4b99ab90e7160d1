/*
 * Sums of products of one row with a packed matrix, on any set of lanes. They are bound by the
 * weights that they read: two groups of vectors that share each operand are taken at once, where
 * there are registers for it.
 */
#ifndef EDGE_GRU_ROW_SUMS_H
#define EDGE_GRU_ROW_SUMS_H

#include "sums.h"

enum { MOST_GROUPS = 2 }; /* of vectors, that are taken at once */

/* Vectors of groups of n_group, from `vector` of the first group on; constants once inlined. */
struct row_part {
    const struct product *p;
    size_t first; /* vector of the first group */
    int n_group;
    int vector;
    int n_vectors;
    int n_rows;  /* of operands: those of int8-hilo are two */
    int n_parts; /* of each sum: few sums would wait for themselves */
};

/* Groups have pointers of their own: to address both by one and an index takes an instruction more. */
LANES_INLINE void next_step(int n_groups, const int8_t **weights, size_t stride) {
    LANES_UNROLL
    for (int g = 0; g < n_groups; g++) {
        weights[g] += stride;
        __asm__("" : "+r"(weights[g]));
    }
}

/* One step of k: every weight is read once. */
LANES_INLINE void row_step(const struct row_part *s, const int8_t *const *weights,
                           const uint8_t *const *operands, size_t at, I *sums) {
    Operand operand[2];
    LANES_UNROLL
    for (int r = 0; r < s->n_rows; r++) {
        operand[r] = operand_load(operands[r] + 4 * at);
    }
    LANES_UNROLL
    for (int v = 0; v < s->n_vectors; v++) {
        const int vector = s->vector + v;
        const int8_t *w = weights[vector / s->n_group] + vector % s->n_group * 4 * LANES;
        if (s->n_rows == 1) {
            sums[v] = i_dot_once(sums[v], operand[0], w);
        } else {
            const Weights both = weights_load(w);
            sums[v] = i_dot(sums[v], operand[0], both);
            sums[s->n_vectors + v] = i_dot(sums[s->n_vectors + v], operand[1], both);
        }
    }
}

LANES_INLINE void sum_row(const struct row_part *s, const uint8_t *const *operands, I *sums) {
    const int n_sums = s->n_rows * s->n_vectors;
    const int n_parts = s->n_parts;
    const int n_groups = (s->vector + s->n_vectors - 1) / s->n_group + 1;
    const size_t n_steps = s->p->n_steps;
    const size_t stride = (size_t)s->n_group * 4 * LANES;
    const int8_t *weights[MOST_GROUPS];
    I part[PARTS_INT8][2 * DENSE_GROUP];
    size_t k = 0;
    LANES_UNROLL
    for (int g = 0; g < n_groups; g++) {
        weights[g] = s->p->weights_int8 + (s->first + (size_t)(g * s->n_group)) * n_steps * 4 * LANES;
    }
    LANES_UNROLL
    for (int i = 0; i < n_sums; i++) {
        const size_t vector = s->first + (size_t)(s->vector + i % s->n_vectors);
        part[0][i] = sum_begun(s->p, vector);
        LANES_UNROLL
        for (int c = 1; c < n_parts; c++) {
            part[c][i] = i_zero_apart();
        }
    }
    if (n_steps >= (size_t)n_parts) { /* a loop that may run no times costs a copy of every sum */
        do {
            LANES_UNROLL
            for (int c = 0; c < n_parts; c++) {
                row_step(s, weights, operands, k + (size_t)c, part[c]);
                next_step(n_groups, weights, stride);
            }
            k += (size_t)n_parts;
        } while (k + (size_t)n_parts <= n_steps);
    }
    for (; n_parts > 1 && k < n_steps; k++) {
        row_step(s, weights, operands, k, part[0]);
        next_step(n_groups, weights, stride);
    }
    LANES_UNROLL
    for (int i = 0; i < n_sums; i++) {
        sums[i] = part[0][i];
        LANES_UNROLL
        for (int c = 1; c < n_parts; c++) {
            sums[i] = i_add(sums[i], part[c][i]);
        }
    }
}

/* Floats of the sums: without scales, so that what they are added to may come later. */
LANES_INLINE void products_of_part(const struct row_part *s, const uint8_t *operand, F *products) {
    const uint8_t *operands[] = {operand, operand + low_offset(s->p)};
    I sums[2 * DENSE_GROUP];
    sum_row(s, operands, sums);
    LANES_UNROLL
    for (int v = 0; v < s->n_vectors; v++) {
        products[v] = f_of_int(sums[v]);
        if (s->n_rows == 2) {
            const F low = f_of_int(sums[s->n_vectors + v]);
            products[v] = f_fma(low, f_set(1.0f / HILO_STEPS), products[v]);
        }
    }
}

/* The same of whole groups, as many vectors at once as fit. */
LANES_INLINE void products_of_row(enum form form, int most_sums, const struct product *p,
                                  size_t first, int n_group, int n_groups, const uint8_t *operand,
                                  F *products) {
    const int n_rows = form == FORM_INT8_HILO ? 2 : 1;
    const int most = form == FORM_INT8_HILO ? ROW_HILO : ROW_INT8;
    const int n_all = n_group * n_groups;
    LANES_UNROLL
    for (int v = 0; v < n_all; v += most) {
        const int n = n_all - v < most ? n_all - v : most;
        const int n_parts = n * n_rows > most_sums ? 1 : PARTS_INT8;
        const struct row_part part = {p, first, n_group, v, n, n_rows, n_parts};
        products_of_part(&part, operand, products + v);
    }
}

/* result[vector] += product * scale, from the vector `first` on. */
LANES_INLINE void add_scaled(const struct product *p, size_t first, int n, const F *products,
                             F *result) {
    const float *scale = p->scale + first * LANES;
    LANES_UNROLL
    for (int v = 0; v < n; v++) {
        result[v] = f_fma(products[v], f_load(scale + v * LANES), result[v]);
    }
}

LANES_INLINE void add_row_float(enum form form, const struct product *p, size_t first, int n_group,
                                const uint8_t *const *operands, F *result) {
    LANES_UNROLL
    for (int v = 0; v < n_group; v += ROW_FLOAT) {
        const struct part part = {p, first, (size_t)v, (size_t)n_group, operands};
        add_float(form, &part, 1, n_group - v < ROW_FLOAT ? n_group - v : ROW_FLOAT, result + v);
    }
}

/*
 * Products of rows of operands with at most n * 4 rows: their chains lie side by side, so that no
 * lane is idle; those of four vectors are summed together, of one row or of several. What fills k
 * up to a multiple of four adds -0, which changes nothing.
 */
LANES_INLINE void sum_narrow(const struct product *p, int n, int n_rows,
                             const uint8_t *const *operands, F *sums) {
    const int n_sums = (n * n_rows + 3) / 4;
    const float *weights = p->narrow;
    F chain[4 * ROW_GROUPS];
    LANES_UNROLL
    for (int i = 0; i < 4 * n_sums; i++) {
        chain[i] = f_set(0.0f);
    }
    for (size_t k = 0; k < p->n_operand; k += 4) {
        LANES_UNROLL
        for (int r = 0; r < n_rows; r++) {
            const F four = f_load_four((const float *)(const void *)operands[r] + k);
            LANES_UNROLL
            for (int i = 0; i < n; i++) {
                chain[r * n + i] = f_fma(four, f_load(weights + i * LANES), chain[r * n + i]);
            }
        }
        weights += n * LANES;
    }
    LANES_UNROLL
    for (int i = 0; i < n_sums; i++) {
        sums[i] = f_sums_of_four(chain + 4 * i);
    }
}

/* Rows whose products with at most sixteen rows are added at once. */
struct narrow_rows {
    size_t n_rows;
    const uint8_t *const *operands;
    const float *add;
    size_t add_stride;
    float *const *out;
};

LANES_INLINE void add_narrow_of(int n, int n_rows, const struct product *p,
                                const struct narrow_rows *rows, size_t first) {
    F sums[ROW_GROUPS];
    sum_narrow(p, n, n_rows, rows->operands + first, sums);
    for (int r = 0; r < n_rows; r++) {
        const size_t row = first + (size_t)r;
        const F sum = n_rows == 1 ? sums[0] : f_quarters(sums[r * n / 4], r * n % 4, n);
        const F add = f_load(rows->add + row * rows->add_stride);
        f_store(rows->out[row], f_add(add, p->form == FORM_FP16 ? f_half(sum) : sum));
    }
}

#define DEFINE_NARROW(name, n, n_most)                                                             \
    LANES_CALLED void name(const struct product *p, const struct narrow_rows *all) {               \
        const struct narrow_rows rows = *all;                                                      \
        size_t row = 0;                                                                            \
        for (; row + (n_most) <= rows.n_rows; row += (n_most)) {                                   \
            add_narrow_of(n, n_most, p, &rows, row);                                               \
        }                                                                                          \
        for (; (n_most) > 1 && row < rows.n_rows; row++) {                                         \
            add_narrow_of(n, 1, p, &rows, row);                                                    \
        }                                                                                          \
    }

DEFINE_NARROW(add_narrow_4, 1, 4 * ROW_GROUPS)
DEFINE_NARROW(add_narrow_8, 2, 2 * ROW_GROUPS)
DEFINE_NARROW(add_narrow_12, 3, 1)
DEFINE_NARROW(add_narrow_16, 4, 1)

/* out = add + product, of rows with at most sixteen rows. */
static void add_narrow(const struct product *p, const struct narrow_rows *rows) {
    (p->n_rows <= 4    ? add_narrow_4
     : p->n_rows <= 8  ? add_narrow_8
     : p->n_rows <= 12 ? add_narrow_12
                       : add_narrow_16)(p, rows);
}

/* Up to so many sums are taken in parts: in a loop over turns, and in the only turn. */
enum { FEW_SUMS = 4, SOME_SUMS = 6 };

/* The same of one row. */
LANES_INLINE void add_narrow_row_of(int n, const struct product *p, const uint8_t *operands,
                                    const float *add, float *out) {
    F sum;
    sum_narrow(p, n, 1, &operands, &sum);
    f_store(out, f_add(f_load(add), p->form == FORM_FP16 ? f_half(sum) : sum));
}

#define DEFINE_NARROW_ROW(name, n)                                                                 \
    LANES_CALLED void name(const struct product *p, const uint8_t *operands, const float *add,     \
                           float *out) {                                                           \
        add_narrow_row_of(n, p, operands, add, out);                                               \
    }

DEFINE_NARROW_ROW(add_narrow_row_4, 1)
DEFINE_NARROW_ROW(add_narrow_row_8, 2)
DEFINE_NARROW_ROW(add_narrow_row_12, 3)
DEFINE_NARROW_ROW(add_narrow_row_16, 4)

static void add_narrow_row(const struct product *p, const uint8_t *operands, const float *add,
                           float *out) {
    (p->n_rows <= 4    ? add_narrow_row_4
     : p->n_rows <= 8  ? add_narrow_row_8
     : p->n_rows <= 12 ? add_narrow_row_12
                       : add_narrow_row_16)(p, operands, add, out);
}

/* result[vector] += product of one row with whole groups. */
LANES_INLINE void add_row(enum form form, int most_sums, const struct product *p, size_t first,
                          int n_group, int n_groups, const uint8_t *const *operands, F *result) {
    const int n_all = n_group * n_groups;
    if (form == FORM_FP32 || form == FORM_FP16) {
        LANES_UNROLL
        for (int v = 0; v < n_all; v += n_group) {
            add_row_float(form, p, first + (size_t)v, n_group, operands, result + v);
        }
    } else {
        F products[2 * DENSE_GROUP];
        products_of_row(form, most_sums, p, first, n_group, n_groups, operands[0], products);
        add_scaled(p, first, n_all, products, result);
    }
}

#endif
