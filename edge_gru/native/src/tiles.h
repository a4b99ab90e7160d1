/*
 * Sums of products of many rows, a tile at a time, whose rows share each load of the weights. Rows
 * are counted in whole tiles, so there is room for operands and for sums beyond the last.
 */
#ifndef EDGE_GRU_TILES_H
#define EDGE_GRU_TILES_H

#include "matrix.h"
#include "sums.h"

/* The products of some rows with a group of vectors. */
struct tiled {
    const struct product *p;
    size_t first; /* vector of the group */
    size_t n_group;
    const uint8_t *const *operands; /* of whole tiles */
    size_t operand_stride;          /* bytes from row to row of integers */
    int32_t *sums; /* [row][vector][16], or floats; those of lo behind those of SUM_ROWS */
};

/* How much of a product a tile takes. */
struct shape {
    size_t n_rows;
    size_t n_vectors;
    size_t least_rows; /* fewer are faster one by one */
};

/* The sums of the tile that begins with this row and this vector of the group. */
typedef void SumTile(const struct tiled *, size_t row, size_t vector);

LANES_INLINE int32_t *sums_at(const struct tiled *t, size_t row, size_t vector) {
    return t->sums + (row * t->n_group + vector) * LANES;
}

LANES_INLINE void sum_integers(enum form form, const struct tiled *t, size_t row, size_t vector,
                               int n_tile, int n_vectors) {
    const int n_parts = form == FORM_INT8_HILO ? 2 : 1;
    const struct part part = {t->p, t->first, vector, t->n_group, NULL};
    const uint8_t *operands[2 * MAX_TILE];
    I sums[MAX_TILE * DENSE_GROUP];
    LANES_UNROLL
    for (int r = 0; r < n_tile; r++) {
        operands[r] = t->operands[row + (size_t)r];
        operands[n_tile + r] = operands[r] + low_offset(t->p);
    }
    sum_int8(&part, operands, n_parts * n_tile, n_vectors, sums);
    const size_t stride = t->n_group * LANES; /* a store cannot change it */
    int32_t *out = sums_at(t, row, vector);
    LANES_UNROLL
    for (int r = 0; r < n_parts * n_tile; r++) {
        LANES_UNROLL
        for (int v = 0; v < n_vectors; v++) {
            i_store(out + v * LANES, sums[r * n_vectors + v]);
        }
        out += r + 1 == n_tile ? (size_t)(SUM_ROWS - n_tile + 1) * stride : stride;
    }
}

/* The sums of one chain of a tile. */
LANES_INLINE void sum_chain(const struct tiled *t, size_t row, size_t vector, size_t chain,
                            int n_tile, int n_vectors, F *stored) {
    const size_t n_steps = t->p->n_steps;
    const size_t stride = t->n_group * LANES;
    const float *weights =
        t->p->weights + (t->first * n_steps + vector) * LANES + chain * stride;
    const uint8_t *operands[MAX_TILE];
    F sums[MAX_TILE * DENSE_GROUP];
    LANES_UNROLL
    for (int r = 0; r < n_tile; r++) {
        operands[r] = t->operands[row + (size_t)r];
    }
    LANES_UNROLL
    for (int i = 0; i < n_tile * n_vectors; i++) {
        sums[i] = f_zero_apart();
    }
    for (size_t k = chain; k < n_steps; k += N_CHAINS) {
        float_step(weights, operands, k, n_tile, n_vectors, sums);
        weights += N_CHAINS * stride;
    }
    LANES_UNROLL
    for (int i = 0; i < n_tile * n_vectors; i++) {
        stored[i] = sums[i];
    }
}

/*
 * One chain of a float product after the other: all four at once would leave registers for a
 * quarter of the sums, and so read the weights four times as often.
 */
LANES_INLINE void sum_floats(enum form form, const struct tiled *t, size_t row, size_t vector,
                             int n_tile, int n_vectors) {
    F chains[N_CHAINS][MAX_TILE * DENSE_GROUP];
    for (size_t c = 0; c < N_CHAINS; c++) {
        sum_chain(t, row, vector, c, n_tile, n_vectors, chains[c]);
    }
    for (int r = 0; r < n_tile; r++) {
        float *out = (float *)(void *)sums_at(t, row + (size_t)r, vector);
        LANES_UNROLL
        for (int v = 0; v < n_vectors; v++) {
            const int i = r * n_vectors + v;
            const F sum =
                f_add(f_add(chains[0][i], chains[1][i]), f_add(chains[2][i], chains[3][i]));
            f_store(out + v * LANES, form == FORM_FP16 ? f_half(sum) : sum);
        }
    }
}

LANES_INLINE void sum_tile(enum form form, const struct tiled *t, size_t row, size_t vector,
                           int n_tile, int n_vectors) {
    if (form == FORM_FP32 || form == FORM_FP16) {
        sum_floats(form, t, row, vector, n_tile, n_vectors);
    } else {
        sum_integers(form, t, row, vector, n_tile, n_vectors);
    }
}

#define DEFINE_TILE(name, form, n_rows, n_vectors)                                                 \
    LANES_CALLED void name(const struct tiled *t, size_t row, size_t vector) {                     \
        sum_tile(form, t, row, vector, n_rows, n_vectors);                                         \
    }

#define DEFINE_TILES(name, form, n_rows)                                                           \
    DEFINE_TILE(name##_1, form, n_rows, 1)                                                         \
    DEFINE_TILE(name##_2, form, n_rows, 2)                                                         \
    DEFINE_TILE(name##_3, form, n_rows, 3)

DEFINE_TILES(tile_fp32, FORM_FP32, TILE_FLOAT)
DEFINE_TILES(tile_fp16, FORM_FP16, TILE_FLOAT)
DEFINE_TILES(tile_int8, FORM_INT8, TILE_INT8)
DEFINE_TILES(tile_hilo, FORM_INT8_HILO, TILE_HILO)

#ifdef MATRIX_HEADER
#include MATRIX_HEADER
#else
#define MATRIX_TILES
#define MATRIX_SHAPES
#define MATRIX_STEPS 0
#define MATRIX_ENTER NULL
#define MATRIX_LEAVE NULL
#endif

/* By form, and those of matrix registers by integer form. */
static SumTile *const tiles[][4] = {
    {tile_fp32_1, tile_fp32_2, tile_fp32_3},
    {tile_fp16_1, tile_fp16_2, tile_fp16_3},
    {tile_int8_1, tile_int8_2, tile_int8_3},
    {tile_hilo_1, tile_hilo_2, tile_hilo_3},
    MATRIX_TILES
};

/* One row is never a tile: its products with x may still be to be made. */
#define LEAST_ROWS(n_tile) ((n_tile) > 2 ? ((n_tile) + 1) / 2 : 2)

static const struct shape shapes[] = {
    {TILE_FLOAT, TILE_VECTORS_FLOAT, LEAST_ROWS(TILE_FLOAT)},
    {TILE_FLOAT, TILE_VECTORS_FLOAT, LEAST_ROWS(TILE_FLOAT)},
    {TILE_INT8, TILE_VECTORS_INT8, LEAST_ROWS(TILE_INT8)},
    {TILE_HILO, TILE_VECTORS_HILO, LEAST_ROWS(TILE_HILO)},
    MATRIX_SHAPES
};

static inline size_t kind_of_tiles(const struct product *p) {
    return uses_matrix(p) ? N_FORMS + (size_t)(p->form - FORM_INT8) : (size_t)p->form;
}

/* How many of the rows, from the first on, tiles take. */
static inline size_t tiled_rows(const struct product *p, size_t n_rows) {
    const struct shape *shape = &shapes[kind_of_tiles(p)];
    const size_t n_left = n_rows % shape->n_rows;
    return shape->n_rows == 1 ? 0 : n_left < shape->least_rows ? n_rows - n_left : n_rows;
}

/* How many rows to multiply before their sums are used: whole tiles, few enough to stay cached. */
static inline size_t rows_of_sums(const struct product *p) {
    const size_t n_tile = shapes[kind_of_tiles(p)].n_rows;
    return MOST_TILE_ROWS / n_tile * n_tile;
}

/* The sums of rows with a whole group, in parts of equal size. */
static void sum_tiles(const struct tiled *t, size_t n_rows) {
    const size_t kind = kind_of_tiles(t->p);
    const size_t n_parts = (t->n_group + shapes[kind].n_vectors - 1) / shapes[kind].n_vectors;
    const size_t n_part = (t->n_group + n_parts - 1) / n_parts;
    for (size_t v = 0; v < t->n_group; v += n_part) {
        const size_t n = t->n_group - v < n_part ? t->n_group - v : n_part;
        for (size_t r = 0; r < n_rows; r += shapes[kind].n_rows) {
            tiles[kind][n - 1](t, r, v);
        }
    }
}

/* What the sums of rows are added to, and where the results go. */
struct ends {
    const float *add;
    size_t add_stride;     /* from row to row */
    const float *add_last; /* to the last vector instead, if not NULL; the same for all rows */
    float *const *out;
    size_t out_at;
};

LANES_INLINE F product_of(enum form form, const struct tiled *t, size_t row, size_t vector, F add) {
    const int32_t *high = sums_at(t, row, vector);
    if (form == FORM_FP32 || form == FORM_FP16) {
        return f_add(add, f_load((const float *)(const void *)high));
    }
    F sum = f_of_int(i_load(high));
    if (form == FORM_INT8_HILO) {
        const F low = f_of_int(i_load(sums_at(t, SUM_ROWS + row, vector)));
        sum = f_fma(low, f_set(1.0f / HILO_STEPS), sum);
    }
    return f_fma(sum, f_load(t->p->scale + (t->first + vector) * LANES), add);
}

LANES_INLINE void add_sums(enum form form, const struct tiled *t, size_t n_rows,
                           const struct ends *ends) {
    const struct ends at = *ends; /* a store cannot change it */
    for (size_t r = 0; r < n_rows; r++) {
        const float *add = at.add + r * at.add_stride;
        float *out = at.out[r] + at.out_at;
        for (size_t v = 0; v < t->n_group; v++) {
            const int is_other = at.add_last && v + 1 == t->n_group;
            const F before = f_load(is_other ? at.add_last : add + v * LANES);
            f_store(out + v * LANES, product_of(form, t, r, v, before));
        }
    }
}

/* out = add + product, of rows whose sums are there. */
static void add_tiles(const struct tiled *t, size_t n_rows, const struct ends *ends) {
    switch (t->p->form) {
    case FORM_INT8:
        add_sums(FORM_INT8, t, n_rows, ends);
        break;
    case FORM_INT8_HILO:
        add_sums(FORM_INT8_HILO, t, n_rows, ends);
        break;
    default:
        add_sums(FORM_FP32, t, n_rows, ends);
        break;
    }
}

#endif
