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

/* The sums of sixteen rows of operands with some vectors of a group. */
LANES_INLINE void matrix_sums(const struct tiled *t, const uint8_t *operands, size_t vector,
                              int n_vectors, int32_t *sums) {
    const struct product *p = t->p;
    const size_t stride = t->n_group * 4 * LANES;
    const int8_t *weights = p->weights_int8 + (t->first * p->n_steps + vector) * 4 * LANES;
    const int32_t *correction = p->correction + (t->first + vector) * LANES;
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
    for (size_t k = 0; k < p->n_steps; k += MATRIX_STEPS) {
        MATRIX_LOAD(4, operands + 4 * k, t->operand_stride);
        MATRIX_STEP(0)
        MATRIX_STEP(1)
        MATRIX_STEP(2)
        MATRIX_STEP(3)
        weights += MATRIX_STEPS * stride;
    }
    MATRIX_STORE(0, sums, stride);
    if (n_vectors > 1) {
        MATRIX_STORE(1, sums + LANES, stride);
    }
    if (n_vectors > 2) {
        MATRIX_STORE(2, sums + 2 * LANES, stride);
    }
    if (n_vectors > 3) {
        MATRIX_STORE(3, sums + 3 * LANES, stride);
    }
}

LANES_INLINE void sum_matrix(enum form form, const struct tiled *t, size_t row, size_t vector,
                             int n_vectors) {
    const uint8_t *operands = t->operands[row];
    matrix_sums(t, operands, vector, n_vectors, sums_at(t, row, vector));
    if (form == FORM_INT8_HILO) {
        matrix_sums(t, operands + low_offset(t->p), vector, n_vectors,
                    sums_at(t, SUM_ROWS + row, vector));
    }
}

#define DEFINE_MATRIX(name, form, n_vectors)                                                       \
    LANES_CALLED void name(const struct tiled *t, size_t row, size_t vector) {                     \
        sum_matrix(form, t, row, vector, n_vectors);                                               \
    }

#define DEFINE_MATRICES(name, form)                                                                \
    DEFINE_MATRIX(name##_1, form, 1)                                                               \
    DEFINE_MATRIX(name##_2, form, 2)                                                               \
    DEFINE_MATRIX(name##_3, form, 3)                                                               \
    DEFINE_MATRIX(name##_4, form, 4)

DEFINE_MATRICES(matrix_int8, FORM_INT8)
DEFINE_MATRICES(matrix_hilo, FORM_INT8_HILO)

#define MATRIX_TILES                                                                               \
    {matrix_int8_1, matrix_int8_2, matrix_int8_3, matrix_int8_4},                                  \
        {matrix_hilo_1, matrix_hilo_2, matrix_hilo_3, matrix_hilo_4},
#define MATRIX_SHAPES {MATRIX_ROWS, MATRIX_VECTORS, 3}, {MATRIX_ROWS, MATRIX_VECTORS, 3},

#endif
