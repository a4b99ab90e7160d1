/* One step of each recurrent cell, sixteen units at a time, on any set of lanes. */
#ifndef EDGE_GRU_CELLS_H
#define EDGE_GRU_CELLS_H

#include "activations.h"
#include "products.h"

/* Rows of a call; gates holds the product with x, biases added, as [block][gate][16]. */
struct rows {
    float *const *gates;
    float *const *h;
    float *const *c;
    float *const *h_out; /* h, but for a projected LSTM and for the reset stage */
};

/* What becomes of the pre-activations a of a block, once they are there. */
typedef void Gates(const struct cell *, size_t block, const F *a, size_t row,
                   const struct rows *);

LANES_INLINE float *gates_of(const struct cell *cell, size_t block, size_t row,
                             const struct rows *rows) {
    return rows->gates[row] + block * cell->n_gates * LANES;
}

LANES_INLINE void gru_gates(const struct cell *cell, size_t block, const F *a, size_t row,
                            const struct rows *rows) {
    float *h = rows->h[row] + block * LANES;
    const F r = sigmoid_lanes(a[0]);
    const F z = sigmoid_lanes(a[1]);
    const F x = f_load(gates_of(cell, block, row, rows) + 2 * LANES);
    const F n = tanh_lanes(f_fma(r, a[2], x));
    f_store(h, f_fma(z, f_sub(f_load(h), n), n));
}

/* A GRU with the reset first takes two stages: this one leaves r * h, and z in place of r. */
LANES_INLINE void reset_gates(const struct cell *cell, size_t block, const F *a, size_t row,
                              const struct rows *rows) {
    const F h = f_load(rows->h[row] + block * LANES);
    f_store(rows->h_out[row] + block * LANES, f_mul(sigmoid_lanes(a[0]), h));
    f_store(gates_of(cell, block, row, rows), sigmoid_lanes(a[1]));
}

LANES_INLINE void candidate_gates(const struct cell *cell, size_t block, const F *a,
                                  size_t row, const struct rows *rows) {
    float *h = rows->h[row] + block * LANES;
    const F z = f_load(gates_of(cell, block, row, rows));
    const F n = tanh_lanes(a[0]);
    f_store(h, f_fma(z, f_sub(f_load(h), n), n));
}

LANES_INLINE void lstm_gates(const struct cell *cell, size_t block, const F *a, size_t row,
                             const struct rows *rows) {
    float *c = rows->c[row] + block * LANES;
    const F i = sigmoid_lanes(a[0]);
    const F f = sigmoid_lanes(a[1]);
    const F g = tanh_lanes(a[2]);
    const F o = sigmoid_lanes(a[3]);
    const F new_c = f_fma(f, f_load(c), f_mul(i, g));
    (void)cell;
    f_store(c, new_c);
    f_store(rows->h_out[row] + block * LANES, f_mul(o, tanh_lanes(new_c)));
}

/* What a stage multiplies with, and how its rows lie. */
struct stage {
    const struct product *p;
    size_t first_gate;     /* in rows->gates, of what the first vector of a block is added to */
    const float *add_last; /* of the last vector instead, if not NULL: the bias of a candidate */
};

LANES_INLINE void block_of_row(enum form form, Gates *finish, const struct cell *cell,
                               const struct stage *stage, int n_gates, size_t block,
                               const uint8_t *const *operands, size_t row,
                               const struct rows *rows) {
    const float *add = gates_of(cell, block, row, rows) + stage->first_gate * LANES;
    F a[DENSE_GROUP];
    LANES_UNROLL
    for (int g = 0; g < n_gates; g++) {
        a[g] = f_load(add + g * LANES);
    }
    if (stage->add_last) {
        a[n_gates - 1] = f_load(stage->add_last + block * LANES);
    }
    add_row(form, stage->p, block * (size_t)n_gates, n_gates, operands, a);
    finish(cell, block, a, row, rows);
}

/* The same for the first rows of a call, which tiles take. */
LANES_INLINE void block_of_rows(Gates *finish, const struct cell *cell, const struct stage *stage,
                                int n_gates, size_t block, const struct workspace *room,
                                size_t n_rows, const struct rows *rows, float *const *sums) {
    const struct tiled t = {
        {stage->p, block * (size_t)n_gates, 0, (size_t)n_gates, NULL},
        n_rows,
        room->operands,
        room->operand_stride,
        (const float *const *)rows->gates,
        (block * cell->n_gates + stage->first_gate) * LANES,
        stage->add_last ? stage->add_last + block * LANES : NULL,
        sums,
        0,
    };
    F a[DENSE_GROUP];
    add_tiled(&t);
    for (size_t r = 0; r < n_rows; r++) {
        stay_awake(stage->p, r);
        LANES_UNROLL
        for (int g = 0; g < n_gates; g++) {
            a[g] = f_load(sums[r] + g * LANES);
        }
        finish(cell, block, a, r, rows);
    }
}

/* All blocks of the rows that tiles take; returns how many these are. */
LANES_INLINE size_t blocks_of_rows(Gates *finish, const struct cell *cell,
                                   const struct stage *stage, int n_gates,
                                   const struct workspace *room, size_t n_rows,
                                   const struct rows *rows) {
    const size_t n_tiled = tiled_rows(stage->p, n_rows);
    float sums[MAX_ROWS][MAX_GATES * LANES];
    float *out[MAX_ROWS];
    if (!n_tiled) {
        return 0;
    }
    for (size_t r = 0; r < n_tiled; r++) {
        out[r] = sums[r];
    }
    for (size_t block = 0; block < cell->n_blocks; block++) {
        block_of_rows(finish, cell, stage, n_gates, block, room, n_tiled, rows, out);
    }
    return n_tiled;
}

LANES_INLINE void blocks_of_row(enum form form, Gates *finish, const struct cell *cell,
                                const struct stage *stage, int n_gates,
                                const uint8_t *const *operands, size_t row,
                                const struct rows *rows) {
    for (size_t block = 0; block < cell->n_blocks; block++) {
        block_of_row(form, finish, cell, stage, n_gates, block, operands, row, rows);
    }
}

/* The product with h, and the gates of each block as soon as it is there. */
LANES_INLINE void run_stage(Gates *finish, const struct cell *cell, const struct stage *stage,
                            int n_gates, const struct workspace *room, size_t n_rows,
                            const float *const *in, const struct rows *rows) {
    const uint8_t *operands[MAX_ROWS];
    const enum form form = stage->p->form;
    prepare(stage->p, room, n_rows, in, operands);
    const size_t n_tiled = blocks_of_rows(finish, cell, stage, n_gates, room, n_rows, rows);
    for (size_t r = n_tiled; r < n_rows; r++) {
        const uint8_t *const *row = operands + r;
        switch (form) {
        case FORM_FP32:
            blocks_of_row(FORM_FP32, finish, cell, stage, n_gates, row, r, rows);
            break;
        case FORM_FP16:
            blocks_of_row(FORM_FP16, finish, cell, stage, n_gates, row, r, rows);
            break;
        case FORM_INT8:
            blocks_of_row(FORM_INT8, finish, cell, stage, n_gates, row, r, rows);
            break;
        default:
            blocks_of_row(FORM_INT8_HILO, finish, cell, stage, n_gates, row, r, rows);
            break;
        }
    }
}

static void step_gru(const struct cell *cell, const struct workspace *room, size_t n_rows,
                     const struct rows *rows) {
    const struct stage stage = {&cell->h, 0, cell->bias_candidate};
    run_stage(gru_gates, cell, &stage, 3, room, n_rows, (const float *const *)rows->h,
              rows);
}

static void step_reset(const struct cell *cell, const struct workspace *room, size_t n_rows,
                       const struct rows *rows) {
    const struct stage stage = {&cell->h, 0, NULL};
    run_stage(reset_gates, cell, &stage, 2, room, n_rows, (const float *const *)rows->h,
              rows);
}

static void step_candidate(const struct cell *cell, const struct workspace *room, size_t n_rows,
                           const struct rows *rows) {
    const struct stage stage = {&cell->h_candidate, 2, NULL};
    run_stage(candidate_gates, cell, &stage, 1, room, n_rows, (const float *const *)rows->h_out,
              rows);
}

static void step_lstm(const struct cell *cell, const struct workspace *room, size_t n_rows,
                      const struct rows *rows) {
    const struct stage stage = {&cell->h, 0, NULL};
    run_stage(lstm_gates, cell, &stage, 4, room, n_rows, (const float *const *)rows->h,
              rows);
}

static void step_rnn(const struct cell *cell, const struct workspace *room, size_t n_rows,
                     const struct rows *rows) {
    add_product(&cell->h, room, n_rows, (const float *const *)rows->h,
                (const float *const *)rows->gates, rows->gates);
    for (size_t r = 0; r < n_rows; r++) {
        for (size_t block = 0; block < cell->n_blocks; block++) {
            const F a = f_load(rows->gates[r] + block * LANES);
            f_store(rows->h[r] + block * LANES,
                    cell->kind == CELL_RNN_TANH ? tanh_lanes(a) : f_relu(a));
        }
    }
}

/* A step from the products with x. */
static void step_from(const struct cell *cell, const struct workspace *room, size_t n_rows,
                      float *const *gates, float *const *h, float *const *c) {
    float *spare[MAX_ROWS];
    struct rows rows = {gates, h, c, h};
    spare[0] = room->spare;
    for (size_t r = 1; r < n_rows; r++) {
        spare[r] = room->spare + r * room->spare_stride;
    }
    switch (cell->kind) {
    case CELL_GRU:
        step_gru(cell, room, n_rows, &rows);
        break;
    case CELL_GRU_RESET_FIRST:
        rows.h_out = spare;
        step_reset(cell, room, n_rows, &rows);
        step_candidate(cell, room, n_rows, &rows);
        break;
    case CELL_LSTM:
        rows.h_out = cell->has_projection ? spare : h;
        step_lstm(cell, room, n_rows, &rows);
        if (cell->has_projection) {
            dense(&cell->projection, room, n_rows, (const float *const *)spare, room->zeros, h);
        }
        break;
    default:
        step_rnn(cell, room, n_rows, &rows);
        break;
    }
}

static void product_with_x(const struct cell *cell, const struct workspace *room, size_t n_rows,
                           const float *const *x, float **gates) {
    gates[0] = room->gates;
    for (size_t r = 1; r < n_rows; r++) {
        gates[r] = room->gates + r * room->gates_stride;
    }
    dense(&cell->x, room, n_rows, x, cell->bias, gates);
}

static void step(const struct cell *cell, const struct workspace *room, size_t n_rows,
                 const float *const *x, float *const *h, float *const *c) {
    float *gates[MAX_ROWS];
    product_with_x(cell, room, n_rows, x, gates);
    step_from(cell, room, n_rows, gates, h, c);
}

static void run(const struct cell *cell, const struct workspace *room, size_t n_steps,
                const float *const *x, float *const *h, float *const *c) {
    float *gates[MAX_ROWS];
    product_with_x(cell, room, n_steps, x, gates);
    for (size_t t = 0; t < n_steps; t++) {
        memcpy(h[t + 1], h[t], cell->h.n_operand * sizeof(float));
        if (cell->kind == CELL_LSTM) {
            memcpy(c[t + 1], c[t], cell->n_hidden * sizeof(float));
        }
        step_from(cell, room, 1, gates + t, h + t + 1, c + t + 1);
    }
}

static void sigmoid(size_t n, const float *in, float *out) {
    for (size_t i = 0; i < n; i += LANES) {
        f_store(out + i, sigmoid_lanes(f_load(in + i)));
    }
}

static void hyperbolic_tangent(size_t n, const float *in, float *out) {
    for (size_t i = 0; i < n; i += LANES) {
        f_store(out + i, tanh_lanes(f_load(in + i)));
    }
}

#endif
