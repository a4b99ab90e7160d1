/* One step of each recurrent cell, sixteen units at a time, on any set of lanes. */
#ifndef EDGE_GRU_CELLS_H
#define EDGE_GRU_CELLS_H

#include "one_row.h"

/* Rows of a call; gates holds the product with x, biases added, as [block][gate][16]. */
struct rows {
    const uint8_t *x; /* of one row: operands of that product, if it is still to be made */
    float *const *gates;
    float *const *h; /* before */
    float *const *c;
    float *const *h_out; /* after; what a stage or a projection still takes, of the stage before */
    float *const *c_out;
};

/* What a stage multiplies with, how its rows lie, and what becomes of the sums. */
struct stage {
    const struct product *p;
    size_t n_gates;
    size_t first_gate;     /* in rows->gates, of what the first vector of a block is added to */
    const float *add_last; /* of the last vector instead, if not NULL: the bias of a candidate */
    Gates *finish;
};

enum { MOST_PLACES = 4 }; /* of a row at once */

static struct place place_of(const struct cell *cell, const struct rows *rows, size_t row,
                             size_t block, const float *a) {
    const size_t first = block * LANES;
    const struct place place = {
        a,
        rows->gates[row] + first * cell->n_gates,
        rows->h[row] + first,
        rows->c[row] + first,
        rows->h_out[row] + first,
        rows->c_out[row] + first,
    };
    return place;
}

/* Pre-activations of one block, or of two: products with x, if still to be made, and with h. */
static void sum_blocks(const struct cell *cell, const struct stage *stage, int n_blocks,
                       const uint8_t *operands, size_t block, const struct rows *rows, size_t row,
                       float *out) {
    const size_t stride = cell->n_gates * LANES;
    float *gates = rows->gates[row] + block * stride;
    if (rows->x) {
        const struct addend bias = {cell->bias + block * stride, stride, NULL};
        groups_for(cell->x.form, cell->n_gates, n_blocks)(&cell->x, block * cell->n_gates, &rows->x,
                                                          &bias, gates);
    }
    const struct addend to = {gates + stage->first_gate * LANES, stride,
                              stage->add_last ? stage->add_last + block * LANES : NULL};
    groups_for(stage->p->form, stage->n_gates, n_blocks)(stage->p, block * stage->n_gates,
                                                         &operands, &to, out);
}

/*
 * Sums of a few blocks and then their gates, so that these can take turns. Every other step goes
 * through the blocks backward: the weights that it meets first are those that are still cached.
 */
static void stage_of_row(const struct cell *cell, const struct stage *stage,
                         const uint8_t *operands, int is_backward, size_t row,
                         const struct rows *rows) {
    float sums[MOST_PLACES * MAX_GATES * LANES];
    struct place places[MOST_PLACES];
    for (size_t done = 0; done < cell->n_blocks;) {
        const size_t n_left = cell->n_blocks - done;
        const size_t n = n_left < MOST_PLACES ? n_left : MOST_PLACES;
        const size_t first = is_backward ? n_left - n : done;
        for (size_t i = 0; i < n; i++) {
            places[i] = place_of(cell, rows, row, first + i, sums + i * stage->n_gates * LANES);
        }
        for (size_t i = 0; i < n; i += ROW_GROUPS) {
            const int n_blocks = n - i < ROW_GROUPS ? 1 : ROW_GROUPS;
            sum_blocks(cell, stage, n_blocks, operands, first + i, rows, row,
                       sums + i * stage->n_gates * LANES);
        }
        stage->finish(n, places);
        done += n;
    }
}

/* The same for the first rows of a call, which tiles take. */
static void block_of_rows(const struct cell *cell, const struct stage *stage, size_t block,
                          const struct workspace *room, size_t n_rows, const struct rows *rows,
                          float *const *sums) {
    const struct tiled t = {
        {stage->p, block * stage->n_gates, 0, stage->n_gates, NULL},
        n_rows,
        room->operands,
        room->operand_stride,
        (const float *const *)rows->gates,
        (block * cell->n_gates + stage->first_gate) * LANES,
        stage->add_last ? stage->add_last + block * LANES : NULL,
        sums,
        0,
    };
    struct place places[MOST_PLACES];
    add_tiled(&t);
    for (size_t r = 0; r < n_rows; r += MOST_PLACES) {
        const size_t n = n_rows - r < MOST_PLACES ? n_rows - r : MOST_PLACES;
        for (size_t i = 0; i < n; i++) {
            stay_awake(stage->p, r + i);
            places[i] = place_of(cell, rows, r + i, block, sums[r + i]);
        }
        stage->finish(n, places);
    }
}

/* All blocks of the rows that tiles take; returns how many these are. */
static size_t blocks_of_rows(const struct cell *cell, const struct stage *stage,
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
        block_of_rows(cell, stage, block, room, n_tiled, rows, out);
    }
    return n_tiled;
}

/* The product with h, and the gates of each block as soon as it is there. */
static void run_stage(const struct cell *cell, const struct stage *stage,
                      const struct workspace *room, size_t n_rows, const float *const *in,
                      const struct rows *rows) {
    const uint8_t *operands[MAX_ROWS];
    prepare(stage->p, room, n_rows, in, operands);
    const size_t n_tiled = blocks_of_rows(cell, stage, room, n_rows, rows);
    for (size_t r = n_tiled; r < n_rows; r++) {
        stage_of_row(cell, stage, operands[r], room->is_backward, r, rows);
    }
}

static void step_gru(const struct cell *cell, const struct workspace *room, size_t n_rows,
                     const struct rows *rows) {
    const struct stage stage = {&cell->h, 3, 0, cell->bias_candidate, gru_gates};
    run_stage(cell, &stage, room, n_rows, (const float *const *)rows->h, rows);
}

static void step_reset_first(const struct cell *cell, const struct workspace *room, size_t n_rows,
                             const struct rows *rows, float *const *spare) {
    const struct stage reset = {&cell->h, 2, 0, NULL, reset_gates};
    const struct stage candidate = {&cell->h_candidate, 1, 2, NULL, candidate_gates};
    struct rows halfway = *rows;
    halfway.h_out = spare;
    run_stage(cell, &reset, room, n_rows, (const float *const *)rows->h, &halfway);
    halfway.h_out = rows->h_out;
    halfway.x = NULL; /* the first stage made them */
    run_stage(cell, &candidate, room, n_rows, (const float *const *)spare, &halfway);
}

static void step_lstm(const struct cell *cell, const struct workspace *room, size_t n_rows,
                      const struct rows *rows, float *const *spare) {
    const struct stage stage = {&cell->h, 4, 0, NULL, lstm_gates};
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
    add_product(&cell->h, room, n_rows, (const float *const *)rows->h,
                (const float *const *)rows->gates, rows->gates);
    for (size_t r = 0; r < n_rows; r++) {
        for (size_t block = 0; block < cell->n_blocks; block++) {
            const struct place place =
                place_of(cell, rows, r, block, rows->gates[r] + block * LANES);
            finish(1, &place);
        }
    }
}

/* A step from the products with x, or from the operands of one row's. */
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

static void product_with_x(const struct cell *cell, const struct workspace *room, size_t n_rows,
                           const float *const *x, float **gates) {
    gates[0] = room->gates;
    for (size_t r = 1; r < n_rows; r++) {
        gates[r] = room->gates + r * room->gates_stride;
    }
    dense(&cell->x, room, n_rows, x, cell->bias, gates);
}

/* The step of one row, if there is a function for its forms: returns whether. */
static int step_row(const struct cell *cell, const struct workspace *room, const float *x,
                    const float *gates, float *const *h, float *const *c, int to) {
    StepOfRow *const run_row = row_step_of(cell, gates ? X_IS_MADE : (int)cell->x.form);
    if (!run_row) {
        return 0;
    }
    const struct one_row row = {
        cell,
        gates ? NULL : operands_of_row(&cell->x, x, h[to], room->x_operands),
        gates,
        operands_of_row(&cell->h, h[0], h[to], room->operands),
        h[0],
        c[0],
        h[to],
        c[to],
        room->is_backward,
    };
    run_row(&row);
    return 1;
}

static void step(const struct cell *cell, const struct workspace *room, size_t n_rows,
                 const float *const *x, float *const *h, float *const *c) {
    if (n_rows == 1 && step_row(cell, room, x[0], NULL, h, c, 0)) {
        return;
    }
    float *gates[MAX_ROWS];
    const int takes_turns = n_rows == 1 && cell->n_gates > 1;
    const struct rows rows = {takes_turns ? room->x_operands : NULL, gates, h, c, h, c};
    if (takes_turns) {
        gates[0] = room->gates;
        prepare_row(&cell->x, x[0], room->x_operands);
    } else {
        product_with_x(cell, room, n_rows, x, gates);
    }
    step_from(cell, room, n_rows, &rows);
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

static void sigmoid(size_t n, const float *in, float *out) {
    for (size_t i = 0; i < n; i += LANES) {
        F a = f_load(in + i);
        sigmoids(1, &a, &a);
        f_store(out + i, a);
    }
}

static void hyperbolic_tangent(size_t n, const float *in, float *out) {
    for (size_t i = 0; i < n; i += LANES) {
        F a = f_load(in + i);
        tanhs(1, &a, &a);
        f_store(out + i, a);
    }
}

#endif
