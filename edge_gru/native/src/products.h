/* Products of rows with a packed matrix, on any set of lanes. */
#ifndef EDGE_GRU_PRODUCTS_H
#define EDGE_GRU_PRODUCTS_H

#include "operands.h"
#include "tiles.h"

LANES_INLINE void dense_group(enum form form, const struct product *p, size_t first, int n_group,
                              const uint8_t *const *operands, const float *add, float *out) {
    F result[DENSE_GROUP];
    LANES_UNROLL
    for (int v = 0; v < n_group; v++) {
        result[v] = f_load(add + (first + (size_t)v) * LANES);
    }
    add_row(form, p, first, n_group, operands, result);
    LANES_UNROLL
    for (int v = 0; v < n_group; v++) {
        f_store(out + (first + (size_t)v) * LANES, result[v]);
    }
}

LANES_INLINE void dense_row(enum form form, const struct product *p,
                            const uint8_t *const *operands, const float *add, float *out) {
    size_t first = 0;
    for (; first + DENSE_GROUP <= p->n_vectors; first += DENSE_GROUP) {
        dense_group(form, p, first, DENSE_GROUP, operands, add, out);
    }
    switch (p->n_vectors - first) {
    case 1:
        dense_group(form, p, first, 1, operands, add, out);
        break;
    case 2:
        dense_group(form, p, first, 2, operands, add, out);
        break;
    case 3:
        dense_group(form, p, first, 3, operands, add, out);
        break;
    case 4:
        dense_group(form, p, first, 4, operands, add, out);
        break;
    case 5:
        dense_group(form, p, first, 5, operands, add, out);
        break;
    case 6:
        dense_group(form, p, first, 6, operands, add, out);
        break;
    case 7:
        dense_group(form, p, first, 7, operands, add, out);
        break;
    default:
        break;
    }
}

/* out = add + product, both in the order of packed rows. */
static void add_product_row(const struct product *p, const uint8_t *const *operands,
                            const float *add, float *out) {
    switch (p->form) {
    case FORM_FP32:
        dense_row(FORM_FP32, p, operands, add, out);
        break;
    case FORM_FP16:
        dense_row(FORM_FP16, p, operands, add, out);
        break;
    case FORM_INT8:
        dense_row(FORM_INT8, p, operands, add, out);
        break;
    default:
        dense_row(FORM_INT8_HILO, p, operands, add, out);
        break;
    }
}

/* The same for rows, tile by tile and then one by one. */
static void add_product(const struct product *p, const struct workspace *room, size_t n_rows,
                        const float *const *in, const float *const *add, float *const *out) {
    const uint8_t *operands[MAX_ROWS];
    prepare(p, room, n_rows, in, operands);
    const size_t n_tiled = tiled_rows(p, n_rows);
    if (n_tiled) {
        for (size_t first = 0; first < p->n_vectors; first += DENSE_GROUP) {
            const size_t n_left = p->n_vectors - first;
            const size_t n_group = n_left < DENSE_GROUP ? n_left : DENSE_GROUP;
            const struct tiled t = {{p, first, 0, n_group, NULL}, n_tiled,
                                    room->operands,               room->operand_stride,
                                    add,                          first * LANES,
                                    NULL,                         out,
                                    first * LANES};
            add_tiled(&t);
        }
    }
    for (size_t r = n_tiled; r < n_rows; r++) {
        add_product_row(p, operands + r, add[r], out[r]);
    }
}

static void dense(const struct product *p, const struct workspace *room, size_t n_rows,
                  const float *const *in, const float *bias, float *const *out) {
    const float *biases[MAX_ROWS];
    biases[0] = bias;
    for (size_t r = 1; r < n_rows; r++) {
        biases[r] = bias;
    }
    add_product(p, room, n_rows, in, biases, out);
}

#endif
