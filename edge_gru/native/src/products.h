/* Products of rows with a packed matrix, on any set of lanes. */
#ifndef EDGE_GRU_PRODUCTS_H
#define EDGE_GRU_PRODUCTS_H

#include "operands.h"
#include "row_sums.h"
#include "tiles.h"

/* What the product of a row with one group, or with two, is added to. */
struct addend {
    const float *add;
    size_t stride;         /* from group to group, in floats */
    const float *add_last; /* to the last vector of each group instead, if not NULL */
};

/* out = addend + product of one row with the group that begins with `first`, and with the next. */
typedef void Groups(const struct product *, size_t first, const uint8_t *const *operands,
                    const struct addend *, float *out);

LANES_INLINE void groups_of_row(enum form form, int n_group, int n_groups, const struct product *p,
                                size_t first, const uint8_t *const *operands,
                                const struct addend *to, float *out) {
    F result[DENSE_GROUP];
    LANES_UNROLL
    for (int i = 0; i < n_groups * n_group; i++) {
        const size_t group = (size_t)(i / n_group);
        const int is_other = to->add_last && i % n_group == n_group - 1;
        result[i] = f_load(is_other ? to->add_last + group * LANES
                                    : to->add + group * to->stride + i % n_group * LANES);
    }
    add_row(form, FEW_SUMS, p, first, n_group, n_groups, operands, result);
    LANES_UNROLL
    for (int i = 0; i < n_groups * n_group; i++) {
        f_store(out + i * LANES, result[i]);
    }
}

#define DEFINE_GROUPS(name, form, n_group, n_groups)                                               \
    LANES_CALLED void name(const struct product *p, size_t first, const uint8_t *const *operands,  \
                           const struct addend *to, float *out) {                                  \
        groups_of_row(form, n_group, n_groups, p, first, operands, to, out);                       \
    }

#define DEFINE_FORM(name, form)                                                                    \
    DEFINE_GROUPS(name##_1, form, 1, 1)                                                            \
    DEFINE_GROUPS(name##_2, form, 2, 1)                                                            \
    DEFINE_GROUPS(name##_3, form, 3, 1)                                                            \
    DEFINE_GROUPS(name##_4, form, 4, 1)                                                            \
    DEFINE_GROUPS(name##_5, form, 5, 1)                                                            \
    DEFINE_GROUPS(name##_6, form, 6, 1)                                                            \
    DEFINE_GROUPS(name##_7, form, 7, 1)                                                            \
    DEFINE_GROUPS(name##_8, form, 8, 1)                                                            \
    DEFINE_GROUPS(name##_twice_1, form, 1, 2)                                                      \
    DEFINE_GROUPS(name##_twice_2, form, 2, 2)                                                      \
    DEFINE_GROUPS(name##_twice_3, form, 3, 2)                                                      \
    DEFINE_GROUPS(name##_twice_4, form, 4, 2)

DEFINE_FORM(fp32_groups, FORM_FP32)
DEFINE_FORM(fp16_groups, FORM_FP16)
DEFINE_FORM(int8_groups, FORM_INT8)
DEFINE_FORM(hilo_groups, FORM_INT8_HILO)

#define ONE_GROUP(name)                                                                            \
    {name##_1, name##_2, name##_3, name##_4, name##_5, name##_6, name##_7, name##_8}
#define TWO_GROUPS(name) {name##_twice_1, name##_twice_2, name##_twice_3, name##_twice_4}

static Groups *const one_group[N_FORMS][DENSE_GROUP] = {
    ONE_GROUP(fp32_groups),
    ONE_GROUP(fp16_groups),
    ONE_GROUP(int8_groups),
    ONE_GROUP(hilo_groups),
};
static Groups *const two_groups[N_FORMS][MAX_GATES] = {
    TWO_GROUPS(fp32_groups),
    TWO_GROUPS(fp16_groups),
    TWO_GROUPS(int8_groups),
    TWO_GROUPS(hilo_groups),
};

static Groups *groups_for(enum form form, size_t n_group, int n_groups) {
    return n_groups == 2 ? two_groups[form][n_group - 1] : one_group[form][n_group - 1];
}

/* out = add + product, both in the order of packed rows, of a product that is not narrow. */
static void add_product_row(const struct product *p, const uint8_t *const *operands,
                            const float *add, float *out) {
    for (size_t first = 0; first < p->n_vectors; first += p->n_group) {
        const size_t n_left = p->n_vectors - first;
        const size_t n_group = n_left < p->n_group ? n_left : p->n_group;
        const struct addend to = {add + first * LANES, 0, NULL};
        groups_for(p->form, n_group, 1)(p, first, operands, &to, out + first * LANES);
    }
}

/* The same for some rows, one by one, of any product. */
static void add_rows(const struct product *p, size_t n_rows, const uint8_t *const *operands,
                     const float *add, size_t add_stride, float *const *out) {
    if (p->narrow) {
        const struct narrow_rows rows = {n_rows, operands, add, add_stride, out};
        add_narrow(p, &rows);
        return;
    }
    for (size_t r = 0; r < n_rows; r++) {
        add_product_row(p, operands + r, add + r * add_stride, out[r]);
    }
}

/* The same in tiles, a group after the other, some rows at a time. */
static void add_product_tiles(const struct product *p, const struct workspace *room, size_t n_rows,
                              const uint8_t *const *operands, const float *add, size_t add_stride,
                              float *const *out) {
    const size_t n_most = rows_of_sums(p);
    for (size_t first = 0; first < p->n_vectors; first += p->n_group) {
        const size_t n_left = p->n_vectors - first;
        const size_t n_group = n_left < p->n_group ? n_left : p->n_group;
        for (size_t r = 0; r < n_rows; r += n_most) {
            const size_t n = n_rows - r < n_most ? n_rows - r : n_most;
            const struct tiled t = {p,           first, n_group, operands + r, room->operand_stride,
                                    room->sums};
            const struct ends ends = {add + r * add_stride + first * LANES, add_stride, NULL,
                                      out + r, first * LANES};
            sum_tiles(&t, n);
            add_tiles(&t, n, &ends);
        }
    }
}

/* out = add + product of rows, tile by tile and then one by one; what is added has a stride. */
static void add_product(const struct product *p, const struct workspace *room, size_t n_rows,
                        const float *const *in, const float *add, size_t add_stride,
                        float *const *out) {
    const uint8_t *operands[MAX_ROWS + MOST_TILE_ROWS];
    const struct operand_room own = {room->operands, room->operand_stride, in[0] != out[0]};
    const int is_narrow = p->narrow && p->n_rows <= LANES / 2; /* half of a tile would idle */
    const size_t n_tiled = is_narrow ? 0 : tiled_rows(p, n_rows);
    prepare(p, &own, n_rows, in, operands);
    add_product_tiles(p, room, n_tiled, operands, add, add_stride, out);
    add_rows(p, n_rows - n_tiled, operands + n_tiled, add + n_tiled * add_stride, add_stride,
             out + n_tiled);
}

LANES_CALLED void dense_row(const struct product *p, const struct workspace *room,
                            const float *in, const float *bias, float *out) {
    const uint8_t *operands = operands_of_row(p->form, p, in, out, room->operands);
    if (p->narrow) {
        add_narrow_row(p, operands, bias, out);
    } else {
        add_product_row(p, &operands, bias, out);
    }
}

LANES_CALLED void dense_rows(const struct product *p, const struct workspace *room, size_t n_rows,
                             const float *const *in, const float *bias, float *const *out) {
    add_product(p, room, n_rows, in, bias, 0, out);
}

/* One row has little to do: it is spared what many rows need. */
static void dense(const struct product *p, const struct workspace *room, size_t n_rows,
                  const float *const *in, const float *bias, float *const *out) {
    if (n_rows != 1) {
        dense_rows(p, room, n_rows, in, bias, out);
    } else if (p->narrow && is_prepared(p) && in[0] != out[0]) {
        add_narrow_row(p, (const uint8_t *)(const void *)in[0], bias, out[0]);
    } else {
        dense_row(p, room, in[0], bias, out[0]);
    }
}

#endif
