/* Products of a few rows that share each load of the weights. */
#ifndef EDGE_GRU_TILES_H
#define EDGE_GRU_TILES_H

#include "sums.h"

struct tile {
    struct part part;
    const float *const *add; /* rows that the product is added to */
    size_t add_at;
    const float *add_last; /* of the last vector instead, if not NULL; the same for all rows */
    float *const *out;
    size_t out_at;
};

typedef void AddTile(const struct tile *);

LANES_INLINE void add_to_tile(enum form form, const struct tile *t, int n_rows, int n_vectors) {
    F result[MAX_TILE * 4];
    float *out[MAX_TILE];
    LANES_UNROLL
    for (int r = 0; r < n_rows; r++) {
        out[r] = t->out[r] + t->out_at;
        LANES_UNROLL
        for (int v = 0; v < n_vectors; v++) {
            const int is_other = t->add_last && v == n_vectors - 1;
            const float *add = is_other ? t->add_last : t->add[r] + t->add_at + v * LANES;
            result[r * n_vectors + v] = f_load(add);
        }
    }
    add_part(form, &t->part, n_rows, n_vectors, result);
    LANES_UNROLL
    for (int i = 0; i < n_rows * n_vectors; i++) {
        f_store(out[i / n_vectors] + i % n_vectors * LANES, result[i]);
    }
}

#define DEFINE_TILE(name, form, n_rows, n_vectors)                                                 \
    LANES_CALLED void name(const struct tile *t) { add_to_tile(form, t, n_rows, n_vectors); }

#define DEFINE_TILES(name, form, n_rows)                                                           \
    DEFINE_TILE(name##_1, form, n_rows, 1)                                                         \
    DEFINE_TILE(name##_2, form, n_rows, 2)                                                         \
    DEFINE_TILE(name##_3, form, n_rows, 3)                                                         \
    DEFINE_TILE(name##_4, form, n_rows, 4)

DEFINE_TILES(tile_fp32, FORM_FP32, TILE_FLOAT)
DEFINE_TILES(tile_fp16, FORM_FP16, TILE_FLOAT)
DEFINE_TILES(tile_int8, FORM_INT8, TILE_INT8)
DEFINE_TILES(tile_hilo, FORM_INT8_HILO, TILE_HILO)

static AddTile *const tiles[N_FORMS][4] = {
    {tile_fp32_1, tile_fp32_2, tile_fp32_3, tile_fp32_4},
    {tile_fp16_1, tile_fp16_2, tile_fp16_3, tile_fp16_4},
    {tile_int8_1, tile_int8_2, tile_int8_3, tile_int8_4},
    {tile_hilo_1, tile_hilo_2, tile_hilo_3, tile_hilo_4},
};

static inline size_t tile_rows(enum form form) {
    return form == FORM_INT8 ? TILE_INT8 : form == FORM_INT8_HILO ? TILE_HILO : TILE_FLOAT;
}

static inline size_t tile_vectors(enum form form) {
    return form == FORM_INT8        ? TILE_VECTORS_INT8
           : form == FORM_INT8_HILO ? TILE_VECTORS_HILO
                                    : TILE_VECTORS_FLOAT;
}

/* All vectors of a group, as many at once as fit. */
static void add_tile(const struct tile *whole) {
    const enum form form = whole->part.p->form;
    const size_t most = tile_vectors(form);
    const size_t n_group = whole->part.n_group;
    for (size_t v = 0; v < n_group; v += most) {
        const size_t n = n_group - v < most ? n_group - v : most;
        struct tile t = *whole;
        t.part.vector = v;
        t.add_at += v * LANES;
        t.out_at += v * LANES;
        t.add_last = v + n == n_group ? whole->add_last : NULL;
        tiles[form][n - 1](&t);
    }
}

#endif
