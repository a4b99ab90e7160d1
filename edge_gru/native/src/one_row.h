/*
 * A step of a GRU or an LSTM for one row: sums of a few blocks at a time stay in registers until
 * their gates are done. These come one turn later, so that weights are read meanwhile.
 *
 * Every other step goes through the blocks backward: the weights that it meets first are those that
 * are still cached.
 *
 * Where all blocks are one turn, the step is bound by its number of instructions and by the chain
 * from one state to the next: such cells have functions of their own.
 */
#ifndef EDGE_GRU_ONE_ROW_H
#define EDGE_GRU_ONE_ROW_H

#include "gates.h"
#include "products.h"

struct one_row {
    const struct cell *cell;
    const struct workspace *room;
    const float *x;
    const float *gates; /* the product with x, biases added, where it is made already */
    const float *h_before;
    const float *c_before;
    float *h_after;
    float *c_after;
};

/* In place of the form of a product with x: it is made already. */
enum { X_IS_MADE = N_FORMS };

typedef void StepOfRow(const struct one_row *);

#if ROW_GROUPS > 1 /* with few registers it would be slower */

enum { ROW_SUMS = ROW_GROUPS * MAX_GATES };

/* What the gates of some blocks are computed from, [block][gate]. */
struct row_sums {
    F x[ROW_SUMS];    /* products with x, biases added */
    F both[ROW_SUMS]; /* and with h; of a GRU's candidate with h alone */
};

LANES_INLINE const uint8_t *prepare_x(int x_form, const struct one_row *row) {
    return x_form == X_IS_MADE ? NULL
                               : operands_of_row((enum form)x_form, &row->cell->x, row->x,
                                                 row->h_after, row->room->x_operands);
}

LANES_INLINE const uint8_t *prepare_h(enum form h_form, const struct one_row *row) {
    return operands_of_row(h_form, &row->cell->h, row->h_before, row->h_after,
                           row->room->operands);
}

LANES_INLINE void sum_x_of_row(int x_form, int n_gates, int n, const struct one_row *row,
                               const uint8_t *operands, size_t block, struct row_sums *sums) {
    const struct cell *cell = row->cell;
    const size_t first = block * (size_t)n_gates;
    const float *add = (x_form == X_IS_MADE ? row->gates : cell->bias) + first * LANES;
    LANES_UNROLL
    for (int i = 0; i < n * n_gates; i++) {
        sums->x[i] = f_load(add + i * LANES);
    }
    if (x_form != X_IS_MADE) {
        add_row((enum form)x_form, FEW_SUMS, &cell->x, first, n_gates, n, &operands, sums->x);
    }
}

/* The product with h alone, to be added once that with x is there. */
LANES_INLINE void multiply_h(enum form h_form, int most_sums, int n_gates, int n,
                             const struct one_row *row, const uint8_t *operand, size_t block,
                             F *products) {
    products_of_row(h_form, most_sums, &row->cell->h, block * (size_t)n_gates, n_gates, n, operand,
                    products);
}

LANES_INLINE void add_h(int n_gates, int n, const struct one_row *row, size_t block,
                        const F *products, struct row_sums *sums) {
    const struct cell *cell = row->cell;
    LANES_UNROLL
    for (int i = 0; i < n * n_gates; i++) {
        const int is_candidate = n_gates == 3 && i % 3 == 2;
        const size_t unit = (block + (size_t)(i / n_gates)) * LANES;
        sums->both[i] = is_candidate ? f_load(cell->bias_candidate + unit) : sums->x[i];
    }
    add_scaled(&cell->h, block * (size_t)n_gates, n * n_gates, products, sums->both);
}

LANES_INLINE void sum_h_of_row(enum form h_form, int most_sums, int n_gates, int n,
                               const struct one_row *row, const uint8_t *operand, size_t block,
                               struct row_sums *sums) {
    F products[ROW_SUMS];
    multiply_h(h_form, most_sums, n_gates, n, row, operand, block, products);
    add_h(n_gates, n, row, block, products, sums);
}

LANES_INLINE void finish_gru_of_row(int n, int is_near, const struct one_row *row, size_t block,
                                    const struct row_sums *sums) {
    F r[MOST_CHAINS], z[MOST_CHAINS], candidate[MOST_CHAINS];
    EACH_CHAIN r[i] = sums->both[3 * i];
    EACH_CHAIN z[i] = sums->both[3 * i + 1];
    sigmoids(n, is_near, r, r); /* apart: the candidate waits for r alone */
    sigmoids(n, is_near, z, z);
    EACH_CHAIN candidate[i] = f_fma(r[i], sums->both[3 * i + 2], sums->x[3 * i + 2]);
    tanhs(n, is_near, candidate, candidate);
    EACH_CHAIN {
        const size_t unit = (block + (size_t)i) * LANES;
        const F change = f_sub(f_load(row->h_before + unit), candidate[i]);
        f_store(row->h_after + unit, f_fma(z[i], change, candidate[i]));
    }
}

LANES_INLINE void finish_lstm_of_row(int n, const struct one_row *row, size_t block,
                                     const struct row_sums *sums) {
    F input[MOST_CHAINS], *f = input + n, *o = f + n, g[MOST_CHAINS], c[MOST_CHAINS];
    EACH_CHAIN input[i] = sums->both[4 * i];
    EACH_CHAIN f[i] = sums->both[4 * i + 1];
    EACH_CHAIN g[i] = sums->both[4 * i + 2];
    EACH_CHAIN o[i] = sums->both[4 * i + 3];
    tanhs(n, 0, g, g);
    sigmoids(3 * n, 0, input, input);
    EACH_CHAIN {
        const size_t unit = (block + (size_t)i) * LANES;
        c[i] = f_fma(f[i], f_load(row->c_before + unit), f_mul(input[i], g[i]));
        f_store(row->c_after + unit, c[i]);
    }
    tanhs(n, 0, c, c);
    EACH_CHAIN f_store(row->h_after + (block + (size_t)i) * LANES, f_mul(o[i], c[i]));
}

LANES_INLINE void finish_row(int n_gates, int n, int is_near, const struct one_row *row,
                             size_t block, const struct row_sums *sums) {
    if (n_gates == 3) {
        finish_gru_of_row(n, is_near, row, block, sums);
    } else {
        finish_lstm_of_row(n, row, block, sums);
    }
}

LANES_INLINE size_t block_of_turn(const struct one_row *row, size_t turn, size_t n_turns) {
    return (row->room->is_backward ? n_turns - 1 - turn : turn) * ROW_GROUPS;
}

/*
 * The first turn begins with h, which is there already: its weights are read while the layer below
 * still computes its last gates.
 */
LANES_INLINE void step_of_row(int x_form, enum form h_form, int n_gates,
                              const struct one_row *row) {
    const size_t n_turns = row->cell->n_blocks / ROW_GROUPS;
    const uint8_t *h = prepare_h(h_form, row);
    size_t block = block_of_turn(row, 0, n_turns);
    struct row_sums sums, waiting;
    F products[ROW_SUMS];
    if (n_turns) {
        multiply_h(h_form, FEW_SUMS, n_gates, ROW_GROUPS, row, h, block, products);
    }
    const uint8_t *x = prepare_x(x_form, row);
    if (n_turns) {
        sum_x_of_row(x_form, n_gates, ROW_GROUPS, row, x, block, &waiting);
        add_h(n_gates, ROW_GROUPS, row, block, products, &waiting);
        for (size_t turn = 1; turn < n_turns; turn++) {
            const size_t next = block_of_turn(row, turn, n_turns);
            sum_x_of_row(x_form, n_gates, ROW_GROUPS, row, x, next, &sums);
            finish_row(n_gates, ROW_GROUPS, 0, row, block, &waiting);
            sum_h_of_row(h_form, FEW_SUMS, n_gates, ROW_GROUPS, row, h, next, &sums);
            waiting = sums;
            block = next;
        }
        finish_row(n_gates, ROW_GROUPS, 0, row, block, &waiting);
    }
    if (row->cell->n_blocks % ROW_GROUPS) {
        block = n_turns * ROW_GROUPS;
        sum_x_of_row(x_form, n_gates, 1, row, x, block, &sums);
        sum_h_of_row(h_form, FEW_SUMS, n_gates, 1, row, h, block, &sums);
        finish_row(n_gates, 1, 0, row, block, &sums);
    }
}

LANES_INLINE void step_in_one_turn(int x_form, enum form h_form, int n_gates, int is_near,
                                   const struct one_row *row) {
    const uint8_t *x = prepare_x(x_form, row);
    const uint8_t *h = prepare_h(h_form, row);
    struct row_sums sums;
    sum_x_of_row(x_form, n_gates, ROW_GROUPS, row, x, 0, &sums);
    sum_h_of_row(h_form, SOME_SUMS, n_gates, ROW_GROUPS, row, h, 0, &sums);
    finish_row(n_gates, ROW_GROUPS, is_near, row, 0, &sums);
}

#define DEFINE_ONE_ROW(cell, x, h, x_form, h_form, n_gates)                                        \
    LANES_CALLED void cell##_row_##x##_##h(const struct one_row *row) {                            \
        step_of_row(x_form, h_form, n_gates, row);                                                 \
    }                                                                                              \
    LANES_CALLED void cell##_turn_##x##_##h(const struct one_row *row) {                           \
        step_in_one_turn(x_form, h_form, n_gates, 0, row);                                         \
    }

/* Of the forms that recipes with integers have: floats are bound by their weights alone. */
#define DEFINE_ROWS(cell, n_gates)                                                                 \
    DEFINE_ONE_ROW(cell, fp32, int8, FORM_FP32, FORM_INT8, n_gates)                                \
    DEFINE_ONE_ROW(cell, fp32, hilo, FORM_FP32, FORM_INT8_HILO, n_gates)                           \
    DEFINE_ONE_ROW(cell, int8, int8, FORM_INT8, FORM_INT8, n_gates)                                \
    DEFINE_ONE_ROW(cell, hilo, int8, FORM_INT8_HILO, FORM_INT8, n_gates)                           \
    DEFINE_ONE_ROW(cell, hilo, hilo, FORM_INT8_HILO, FORM_INT8_HILO, n_gates)                      \
    DEFINE_ONE_ROW(cell, made, int8, X_IS_MADE, FORM_INT8, n_gates)                                \
    DEFINE_ONE_ROW(cell, made, hilo, X_IS_MADE, FORM_INT8_HILO, n_gates)

DEFINE_ROWS(gru, 3)
DEFINE_ROWS(lstm, 4)

LANES_CALLED void gru_turn_near(const struct one_row *row) {
    step_in_one_turn(FORM_INT8, FORM_INT8, 3, 1, row);
}

/* By forms. */
#define ROW_TABLE(cell)                                                                            \
    {                                                                                              \
        [FORM_FP32] = {[FORM_INT8] = cell##_fp32_int8, [FORM_INT8_HILO] = cell##_fp32_hilo},       \
        [FORM_INT8] = {[FORM_INT8] = cell##_int8_int8},                                            \
        [FORM_INT8_HILO] = {[FORM_INT8] = cell##_hilo_int8, [FORM_INT8_HILO] = cell##_hilo_hilo},  \
        [X_IS_MADE] = {[FORM_INT8] = cell##_made_int8, [FORM_INT8_HILO] = cell##_made_hilo},       \
    }

/* By whether all blocks are one turn, too. */
static StepOfRow *const gru_rows[2][N_FORMS + 1][N_FORMS] = {ROW_TABLE(gru_row),
                                                             ROW_TABLE(gru_turn)};
static StepOfRow *const lstm_rows[2][N_FORMS + 1][N_FORMS] = {ROW_TABLE(lstm_row),
                                                              ROW_TABLE(lstm_turn)};

/* NULL: block by block, as of many rows. */
LANES_INLINE StepOfRow *row_step_of(const struct cell *cell, int x_form) {
    const int is_turn = cell->n_blocks == ROW_GROUPS;
    if (cell->kind == CELL_GRU) {
        return is_turn && cell->is_near && x_form == FORM_INT8
                   ? gru_turn_near
                   : gru_rows[is_turn][x_form][cell->h.form];
    }
    const int is_plain = cell->kind == CELL_LSTM && !cell->has_projection;
    return is_plain ? lstm_rows[is_turn][x_form][cell->h.form] : NULL;
}

#else

LANES_INLINE StepOfRow *row_step_of(const struct cell *cell, int x_form) {
    (void)cell;
    (void)x_form;
    return NULL;
}

#endif

#endif
