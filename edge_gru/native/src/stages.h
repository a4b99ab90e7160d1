/* A stage of a cell: a product with what a step before left, and what becomes of it. */
#ifndef EDGE_GRU_STAGES_H
#define EDGE_GRU_STAGES_H

#include "batch_gates.h"
#include "products.h"

/* Rows of a call; gates holds the product with x, biases added, as [block][gate][16]. */
struct rows {
    const uint8_t *const *x; /* operands of that product, if it is still to be made */
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
    BatchGates *finish_batch; /* the same of many rows, if not NULL */
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
        groups_for(cell->x.form, cell->n_gates, n_blocks)(
            &cell->x, block * cell->n_gates, rows->x + row, &bias, gates);
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

#endif
