/*
 * Tiles of sixteen rows in the matrix registers of AMX: an integer product is exact, so nothing
 * but the time tells it from those of the other kernels. A tile of weights is what lies packed:
 * sixteen steps of four operands each, one vector wide.
 * Of the last tile some weights may belong to another group, or to none: their operands are zero.
 *
 * Registers: 0 to 3 sums, 4 operands, 5 weights, 6 and 7 nothing.
 */
#ifndef EDGE_GRU_TILES_AMX_H
#define EDGE_GRU_TILES_AMX_H

#include "sums.h"

#define MATRIX_STEPS 16
#define MATRIX_ENTER matrix_enter
#define MATRIX_LEAVE matrix_leave

enum { MATRIX_ROWS = MOST_TILE_ROWS, MATRIX_VECTORS = 4 };

struct matrix_shapes {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t n_rows[16];
};

/* The compilers' own intrinsics do not say that they read memory. */
#define MATRIX_LOAD(t, from, stride)                                                               \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t : : "r"(from), "r"(stride) : "memory")
#define MATRIX_STORE(t, to, stride)                                                                \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" : : "r"(to), "r"(stride) : "memory")
#define MATRIX_DOT(sums, operands, weights)                                                        \
    __asm__ volatile("tdpbusd %%tmm" #weights ", %%tmm" #operands ", %%tmm" #sums : : : "memory")

/* All registers are whole. To set this takes as long as a small product. */
static void matrix_enter(void) {
    static const struct matrix_shapes shapes_of_tiles = {
        .palette = 1,
        .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
        .n_rows = {16, 16, 16, 16, 16, 16, 16, 16},
    };
    __asm__ volatile("ldtilecfg %0" : : "m"(shapes_of_tiles));
}

static void matrix_leave(void) { __asm__ volatile("tilerelease"); }

#define MATRIX_STEP(vector)                                                                        \
    if (n_vectors > vector) {                                                                      \
        MATRIX_LOAD(5, weights + vector * 4 * LANES, stride);                                      \
        MATRIX_DOT(vector, 4, 5);                                                                  \
    }

/* The sums of sixteen rows of operands, row by row. */
LANES_INLINE void matrix_sums(const struct part *s, const uint8_t *operands,
                              size_t operand_stride, int n_vectors, I *sums) {
    const size_t n_steps = s->p->n_steps;
    const size_t stride = s->n_group * 4 * LANES;
    const size_t row_bytes = (size_t)n_vectors * sizeof *sums;
    const int8_t *weights = s->p->weights_int8 + (s->first * n_steps + s->vector) * 4 * LANES;
    const int32_t *correction = s->p->correction + (s->first + s->vector) * LANES;
    MATRIX_LOAD(0, correction, (size_t)0); /* the same line for every row */
    if (n_vectors > 1) {
        MATRIX_LOAD(1, correction + LANES, (size_t)0);
    }
    if (n_vectors > 2) {
        MATRIX_LOAD(2, correction + 2 * LANES, (size_t)0);
    }
    if (n_vectors > 3) {
        MATRIX_LOAD(3, correction + 3 * LANES, (size_t)0);
    }
    for (size_t k = 0; k < n_steps; k += MATRIX_STEPS) {
        MATRIX_LOAD(4, operands + 4 * k, operand_stride);
        MATRIX_STEP(0)
        MATRIX_STEP(1)
        MATRIX_STEP(2)
        MATRIX_STEP(3)
        weights += MATRIX_STEPS * stride;
    }
    MATRIX_STORE(0, sums, row_bytes);
    if (n_vectors > 1) {
        MATRIX_STORE(1, sums + 1, row_bytes);
    }
    if (n_vectors > 2) {
        MATRIX_STORE(2, sums + 2, row_bytes);
    }
    if (n_vectors > 3) {
        MATRIX_STORE(3, sums + 3, row_bytes);
    }
}

enum { MATRIX_SUMS = 2 * MATRIX_ROWS * MATRIX_VECTORS };

/* The sums of a tile of rows, and of their lo. */
LANES_INLINE void sum_matrix(enum form form, const struct tiled *t, size_t first, int n_vectors,
                             I *sums) {
    const uint8_t *operands = t->operands + first * t->operand_stride;
    matrix_sums(&t->part, operands, t->operand_stride, n_vectors, sums);
    if (form == FORM_INT8_HILO) {
        matrix_sums(&t->part, operands + low_offset(t->part.p), t->operand_stride, n_vectors,
                    sums + MATRIX_ROWS * n_vectors);
    }
}

/* The next tile is on its way while the results of one are written. */
LANES_INLINE void add_in_matrices(enum form form, const struct tiled *t, int n_vectors) {
    I sums[2][MATRIX_SUMS];
    sum_matrix(form, t, 0, n_vectors, sums[0]);
    for (size_t first = 0; first < t->n_rows; first += MATRIX_ROWS) {
        const size_t next = first + MATRIX_ROWS;
        if (next < t->n_rows) {
            sum_matrix(form, t, next, n_vectors, sums[next / MATRIX_ROWS % 2]);
        }
        write_integers(form, t, first, MATRIX_ROWS, n_vectors, sums[first / MATRIX_ROWS % 2]);
    }
}

#define DEFINE_MATRICES(name, form)                                                                \
    LANES_CALLED void name##_1(const struct tiled *t) { add_in_matrices(form, t, 1); }                \
    LANES_CALLED void name##_2(const struct tiled *t) { add_in_matrices(form, t, 2); }                \
    LANES_CALLED void name##_3(const struct tiled *t) { add_in_matrices(form, t, 3); }                \
    LANES_CALLED void name##_4(const struct tiled *t) { add_in_matrices(form, t, 4); }

DEFINE_MATRICES(matrix_int8, FORM_INT8)
DEFINE_MATRICES(matrix_hilo, FORM_INT8_HILO)

#define MATRIX_TILES                                                                               \
    {matrix_int8_1, matrix_int8_2, matrix_int8_3, matrix_int8_4},                                  \
        {matrix_hilo_1, matrix_hilo_2, matrix_hilo_3, matrix_hilo_4},
#define MATRIX_SHAPES {MATRIX_ROWS, MATRIX_VECTORS, 3}, {MATRIX_ROWS, MATRIX_VECTORS, 3},

#endif
