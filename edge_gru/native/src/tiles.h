/*
 * Products of many rows, a few at a time, which share each load of the weights: a tile. Rows are
 * counted in whole tiles, so there is room for operands beyond the last one; nothing is written
 * for what is not there.
 */
#ifndef EDGE_GRU_TILES_H
#define EDGE_GRU_TILES_H

#include "matrix.h"
#include "sums.h"

struct tiled {
    struct part part;
    size_t n_rows;
    const uint8_t *operands;
    size_t operand_stride;   /* bytes from row to row */
    const float *const *add; /* rows that the product is added to */
    size_t add_at;
    const float *add_last; /* of the last vector instead, if not NULL; the same for all rows */
    float *const *out;
    size_t out_at;
};

/* How much of a product a tile takes. */
struct shape {
    size_t n_rows;
    size_t n_vectors;
    size_t least_rows; /* fewer are faster one by one */
};

typedef void AddTiled(const struct tiled *);

/* Where the rows of a tile lie, in variables that a store cannot change. */
struct ends {
    const float *const *add;
    size_t add_at;
    const float *add_last;
    float *const *out;
    size_t out_at;
};

LANES_INLINE struct ends ends_from(const struct tiled *t, size_t first) {
    const struct ends ends = {t->add + first, t->add_at, t->add_last, t->out + first, t->out_at};
    return ends;
}

LANES_INLINE F added(const struct ends *ends, size_t row, int vector, int n_vectors) {
    const float *add = ends->add[row] + ends->add_at + vector * LANES;
    return f_load(ends->add_last && vector == n_vectors - 1 ? ends->add_last : add);
}

/* The rows of the tile that begins with this one. */
LANES_INLINE size_t rows_from(const struct tiled *t, size_t first, size_t n_tile) {
    return t->n_rows - first < n_tile ? t->n_rows - first : n_tile;
}

/* Results from the sums of a tile of n_tile rows, and of as many of lo. */
LANES_INLINE void write_integers(enum form form, const struct tiled *t, size_t first,
                                 size_t n_tile, int n_vectors, const I *sums) {
    const struct part *s = &t->part;
    const float *scale = s->p->scale + (s->first + s->vector) * LANES;
    const size_t n_rows = rows_from(t, first, n_tile);
    const struct ends ends = ends_from(t, first);
    for (size_t r = 0; r < n_rows; r++) {
        const I *high = sums + r * (size_t)n_vectors;
        const I *low = high + n_tile * (size_t)n_vectors;
        float *out = ends.out[r] + ends.out_at;
        LANES_UNROLL
        for (int v = 0; v < n_vectors; v++) {
            const F add = added(&ends, r, v, n_vectors);
            F sum = f_of_int(high[v]);
            if (form == FORM_INT8_HILO) {
                sum = f_fma(f_of_int(low[v]), f_set(1.0f / HILO_STEPS), sum);
            }
            f_store(out + v * LANES, f_fma(sum, f_load(scale + v * LANES), add));
        }
    }
}

LANES_INLINE void add_integers(enum form form, const struct tiled *t, int n_tile, int n_vectors) {
    const int n_parts = form == FORM_INT8_HILO ? 2 : 1;
    for (size_t first = 0; first < t->n_rows; first += (size_t)n_tile) {
        const uint8_t *operands[2 * MAX_TILE];
        I sums[MAX_TILE * DENSE_GROUP];
        LANES_UNROLL
        for (int r = 0; r < n_tile; r++) {
            operands[r] = t->operands + (first + (size_t)r) * t->operand_stride;
            operands[n_tile + r] = operands[r] + low_offset(t->part.p);
        }
        sum_int8(&t->part, operands, n_parts * n_tile, n_vectors, sums);
        write_integers(form, t, first, (size_t)n_tile, n_vectors, sums);
    }
}

/* The sums of one chain of a tile. */
LANES_INLINE void sum_chain(const struct tiled *t, size_t first, size_t chain, int n_tile,
                            int n_vectors, F *stored) {
    const struct part *s = &t->part;
    const size_t n_steps = s->p->n_steps;
    const size_t stride = s->n_group * LANES;
    const float *weights =
        s->p->weights + (s->first * n_steps + s->vector) * LANES + chain * stride;
    const uint8_t *operands[MAX_TILE];
    F sums[MAX_TILE * DENSE_GROUP];
    LANES_UNROLL
    for (int r = 0; r < n_tile; r++) {
        operands[r] = t->operands + (first + (size_t)r) * t->operand_stride;
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
LANES_INLINE void add_floats(enum form form, const struct tiled *t, int n_tile, int n_vectors) {
    F chains[N_CHAINS][MAX_TILE * DENSE_GROUP];
    for (size_t first = 0; first < t->n_rows; first += (size_t)n_tile) {
        const size_t n_rows = rows_from(t, first, (size_t)n_tile);
        for (size_t c = 0; c < N_CHAINS; c++) {
            sum_chain(t, first, c, n_tile, n_vectors, chains[c]);
        }
        const struct ends ends = ends_from(t, first);
        for (size_t r = 0; r < n_rows; r++) {
            float *out = ends.out[r] + ends.out_at;
            LANES_UNROLL
            for (int v = 0; v < n_vectors; v++) {
                const size_t i = r * (size_t)n_vectors + (size_t)v;
                const F add = added(&ends, r, v, n_vectors);
                const F sum =
                    f_add(f_add(chains[0][i], chains[1][i]), f_add(chains[2][i], chains[3][i]));
                f_store(out + v * LANES, f_add(add, form == FORM_FP16 ? f_half(sum) : sum));
            }
        }
    }
}

LANES_INLINE void add_in_tiles(enum form form, const struct tiled *t, int n_tile, int n_vectors) {
    if (form == FORM_FP32 || form == FORM_FP16) {
        add_floats(form, t, n_tile, n_vectors);
    } else {
        add_integers(form, t, n_tile, n_vectors);
    }
}

#define DEFINE_TILE(name, form, n_rows, n_vectors)                                                 \
    LANES_CALLED void name(const struct tiled *t) { add_in_tiles(form, t, n_rows, n_vectors); }

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
static AddTiled *const tiles[][4] = {
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

/* All vectors of a group, in parts of equal size. */
static void add_tiled(const struct tiled *whole) {
    const size_t kind = kind_of_tiles(whole->part.p);
    const size_t n_group = whole->part.n_group;
    const size_t n_parts = (n_group + shapes[kind].n_vectors - 1) / shapes[kind].n_vectors;
    const size_t n_part = (n_group + n_parts - 1) / n_parts;
    for (size_t v = 0; v < n_group; v += n_part) {
        const size_t n = n_group - v < n_part ? n_group - v : n_part;
        struct tiled t = *whole;
        t.part.vector = v;
        t.add_at += v * LANES;
        t.out_at += v * LANES;
        t.add_last = v + n == n_group ? whole->add_last : NULL;
        tiles[kind][n - 1](&t);
    }
}

#endif
