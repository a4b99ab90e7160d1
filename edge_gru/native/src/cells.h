/* One step of each recurrent cell, sixteen units at a time, on any set of lanes. */
#ifndef EDGE_GRU_CELLS_H
#define EDGE_GRU_CELLS_H

#include "batches.h"
#include "one_row.h"

/* The product with h, and the gates of each block as soon as it is there. */
static void run_stage(const struct cell *cell, const struct stage *stage,
                      const struct workspace *room, size_t n_rows, const float *const *in,
                      const struct rows *rows) {
    const uint8_t *operands[MAX_ROWS + MOST_TILE_ROWS];
    const struct operand_room own = {room->operands, room->operand_stride, 0};
    prepare(stage->p, &own, n_rows, in, operands);
    const size_t n_tiled =
        n_rows > 1 ? stage_of_tiles(cell, stage, room, operands, n_rows, rows) : 0;
    for (size_t r = n_tiled; r < n_rows; r++) {
        stage_of_row(cell, stage, operands[r], room->is_backward, r, rows);
    }
}

static void step_gru(const struct cell *cell, const struct workspace *room, size_t n_rows,
                     const struct rows *rows) {
    const struct stage stage = {&cell->h, 3, 0, cell->bias_candidate, gru_gates, batch_gru};
    run_stage(cell, &stage, room, n_rows, (const float *const *)rows->h, rows);
}

static void step_reset_first(const struct cell *cell, const struct workspace *room, size_t n_rows,
                             const struct rows *rows, float *const *spare) {
    const struct stage reset = {&cell->h, 2, 0, NULL, reset_gates, NULL};
    const struct stage candidate = {&cell->h_candidate, 1, 2, NULL, candidate_gates, NULL};
    struct rows halfway = *rows;
    halfway.h_out = spare;
    run_stage(cell, &reset, room, n_rows, (const float *const *)rows->h, &halfway);
    halfway.h_out = rows->h_out;
    halfway.x = NULL; /* the first stage made them */
    run_stage(cell, &candidate, room, n_rows, (const float *const *)spare, &halfway);
}

static void step_lstm(const struct cell *cell, const struct workspace *room, size_t n_rows,
                      const struct rows *rows, float *const *spare) {
    const struct stage stage = {&cell->h, 4, 0, NULL, lstm_gates, NULL};
    struct rows wide = *rows;
    wide.h_out = cell->has_projection ? spare : rows->h_out;
    run_stage(cell, &stage, room, n_rows, (const float *const *)rows->h, &wide);
    if (cell->has_projection) {
        dense(&cell->projection, room, n_rows, (const float *const *)spare, room->zeros,
              rows->h_out);
    }
}

static void step_rnn(const struct cell *cell, const struct workspace *room, size_t n_rows,
                     const struct rows *rows) {
    Gates *const finish = cell->kind == CELL_RNN_TANH ? tanh_gates : relu_gates;
    add_product(&cell->h, room, n_rows, (const float *const *)rows->h, rows->gates[0],
                room->gates_stride, rows->gates);
    for (size_t r = 0; r < n_rows; r++) {
        for (size_t block = 0; block < cell->n_blocks; block++) {
            const struct place place =
                place_of(cell, rows, r, block, rows->gates[r] + block * LANES);
            finish(1, &place);
        }
    }
}

/* A step from the products with x, or from their operands. */
static void step_from(const struct cell *cell, const struct workspace *room, size_t n_rows,
                      const struct rows *rows) {
    float *spare[MAX_ROWS];
    spare[0] = room->spare;
    for (size_t r = 1; r < n_rows; r++) {
        spare[r] = room->spare + r * room->spare_stride;
    }
    switch (cell->kind) {
    case CELL_GRU:
        step_gru(cell, room, n_rows, rows);
        break;
    case CELL_GRU_RESET_FIRST:
        step_reset_first(cell, room, n_rows, rows, spare);
        break;
    case CELL_LSTM:
        step_lstm(cell, room, n_rows, rows, spare);
        break;
    default:
        step_rnn(cell, room, n_rows, rows);
        break;
    }
}

/* The products with x of all rows, for all blocks. */
static void product_with_x(const struct cell *cell, const struct workspace *room, size_t n_rows,
                           const float *const *x, float **gates) {
    gates[0] = room->gates;
    for (size_t r = 1; r < n_rows; r++) {
        gates[r] = room->gates + r * room->gates_stride;
    }
    dense(&cell->x, room, n_rows, x, cell->bias, gates);
}

/* The step of one row, if there is a function for its forms: returns whether. */
LANES_INLINE int step_row(const struct cell *cell, const struct workspace *room, const float *x,
                          const float *gates, float *const *h, float *const *c, int to) {
    StepOfRow *const run_row = row_step_of(cell, gates ? X_IS_MADE : (int)cell->x.form);
    if (run_row) {
        const struct one_row row = {cell, room, x, gates, h[0], c[0], h[to], c[to]};
        run_row(&row);
    }
    return run_row != NULL;
}

/*
 * Blocks make their products with x themselves, so that these are still cached when the gates read
 * them; but not where a second stage needs them, or where there is one gate.
 */
LANES_CALLED void step_rows(const struct cell *cell, const struct workspace *room, size_t n_rows,
                            const float *const *x, float *const *h, float *const *c) {
    float *gates[MAX_ROWS];
    const uint8_t *operands[MAX_ROWS + MOST_TILE_ROWS];
    struct rows rows = {operands, gates, h, c, h, c};
    if (cell->n_gates == 1 || (n_rows > 1 && cell->kind == CELL_GRU_RESET_FIRST)) {
        rows.x = NULL;
        product_with_x(cell, room, n_rows, x, gates);
    } else {
        const struct operand_room own = {room->x_operands, room->operand_stride, x[0] != h[0]};
        prepare(&cell->x, &own, n_rows, x, operands);
        for (size_t r = 0; r < n_rows; r++) {
            gates[r] = room->gates; /* of rows one by one: they take turns */
        }
    }
    step_from(cell, room, n_rows, &rows);
}

static void step(const struct cell *cell, const struct workspace *room, size_t n_rows,
                 const float *const *x, float *const *h, float *const *c) {
    if (n_rows != 1 || !step_row(cell, room, x[0], NULL, h, c, 0)) {
        step_rows(cell, room, n_rows, x, h, c);
    }
}

static void run(const struct cell *cell, const struct workspace *room, size_t n_steps,
                const float *const *x, float *const *h, float *const *c) {
    float *gates[MAX_ROWS];
    product_with_x(cell, room, n_steps, x, gates);
    struct workspace turned = *room;
    for (size_t t = 0; t < n_steps; t++) {
        turned.is_backward = !turned.is_backward;
        const struct rows rows = {NULL, gates + t, h + t, c + t, h + t + 1, c + t + 1};
        if (!step_row(cell, &turned, NULL, gates[t], h + t, c + t, 1)) {
            step_from(cell, &turned, 1, &rows);
        }
    }
}

static void take(size_t n, const float *in, float *out) {
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        f_store(out + i, f_load(in + i));
    }
    if (i < n) {
        f_store(out + i, f_load_first(in + i, n - i));
    }
}

static void sigmoid(size_t n, const float *in, float *out) {
    for (size_t i = 0; i < n; i += LANES) {
        F a = f_load(in + i);
        sigmoids(1, 0, &a, &a);
        f_store(out + i, a);
    }
}

static void hyperbolic_tangent(size_t n, const float *in, float *out) {
    for (size_t i = 0; i < n; i += LANES) {
        F a = f_load(in + i);
        tanhs(1, 0, &a, &a);
        f_store(out + i, a);
    }
}

#endif
