/*
 * A stage of many rows: block by block, and of each block some rows at a time. The sums of the
 * next rows are begun before the gates of those before them, as they need nothing of each other.
 */
#ifndef EDGE_GRU_BATCHES_H
#define EDGE_GRU_BATCHES_H

#include "stages.h"

struct batch {
    const struct cell *cell;
    const struct stage *stage;
    const struct rows *rows;
    const uint8_t *const *operands;
    size_t operand_stride;
    size_t gates_stride;
    size_t n_rows;
    size_t n_most; /* rows at a time */
    int32_t *sums;
};

/* Some rows of a block. */
struct piece {
    size_t block;
    size_t row;
    size_t n_rows;
    struct tiled x;
    struct tiled h;
};

LANES_INLINE size_t room_of(const struct tiled *t) {
    return (t->p->form == FORM_INT8_HILO ? 2 : 1) * SUM_ROWS * t->n_group * LANES;
}

LANES_INLINE float *floats_at(const struct tiled *t, size_t row) {
    return (float *)(void *)sums_at(t, row, 0);
}

/* The sums of a piece; pieces with even and odd numbers take turns in memory. */
static void sum_piece(const struct batch *b, size_t number, struct piece *piece) {
    const struct cell *cell = b->cell;
    const size_t n_pieces = (b->n_rows + b->n_most - 1) / b->n_most;
    const size_t row = number % n_pieces * b->n_most;
    const size_t block = number / n_pieces;
    const size_t n_rows = b->n_rows - row < b->n_most ? b->n_rows - row : b->n_most;
    const struct tiled x = {&cell->x,     block * cell->n_gates, cell->n_gates,
                            b->rows->x + row, b->operand_stride, NULL};
    const struct tiled h = {b->stage->p,       block * b->stage->n_gates, b->stage->n_gates,
                            b->operands + row, b->operand_stride,         NULL};
    *piece = (struct piece){block, row, n_rows, x, h};
    piece->x.sums = b->sums + number % 2 * (room_of(&x) + room_of(&h));
    piece->h.sums = piece->x.sums + room_of(&x);
    if (b->rows->x) {
        sum_tiles(&piece->x, n_rows);
    }
    sum_tiles(&piece->h, n_rows);
}

/* Floats in place of the sums: of x with its bias, and of both. */
static void add_piece(const struct batch *b, const struct piece *piece) {
    const struct cell *cell = b->cell;
    const struct stage *stage = b->stage;
    const size_t stride = cell->n_gates * LANES;
    float *out[SUM_ROWS];
    struct ends ends = {cell->bias + piece->block * stride, 0, NULL, out, 0};
    if (b->rows->x) {
        for (size_t r = 0; r < piece->n_rows; r++) {
            out[r] = floats_at(&piece->x, r);
        }
        add_tiles(&piece->x, piece->n_rows, &ends);
    }
    for (size_t r = 0; r < piece->n_rows; r++) {
        out[r] = floats_at(&piece->h, r);
    }
    ends.add = b->rows->x ? floats_at(&piece->x, 0)
                          : b->rows->gates[piece->row] + piece->block * stride;
    ends.add += stage->first_gate * LANES;
    ends.add_stride = b->rows->x ? stride : b->gates_stride;
    ends.add_last = stage->add_last ? stage->add_last + piece->block * LANES : NULL;
    add_tiles(&piece->h, piece->n_rows, &ends);
}

static void finish_in_places(const struct batch *b, const struct piece *piece) {
    struct place places[SUM_ROWS];
    for (size_t r = 0; r < piece->n_rows; r++) {
        places[r] = place_of(b->cell, b->rows, piece->row + r, piece->block,
                             floats_at(&piece->h, r));
        if (b->rows->x) {
            places[r].gates = floats_at(&piece->x, r);
        }
    }
    b->stage->finish(piece->n_rows, places);
}

static void finish_piece(const struct batch *b, const struct piece *piece) {
    const struct cell *cell = b->cell;
    const struct rows *rows = b->rows;
    const size_t stride = cell->n_gates * LANES;
    const size_t first = piece->block * stride;
    const int is_scaled_late = b->stage->finish_batch && rows->x && cell->x.form == FORM_INT8 &&
                               cell->h.form == FORM_INT8;
    if (!is_scaled_late) {
        add_piece(b, piece);
    }
    if (!b->stage->finish_batch || !rows->x) {
        finish_in_places(b, piece);
        return;
    }
    const struct slice slice = {
        piece->n_rows,
        !is_scaled_late ? FROM_FLOATS
        : cell->is_near ? FROM_NEAR
                        : FROM_SUMS,
        piece->x.sums,
        piece->h.sums,
        stride,
        cell->x.scale + first,
        cell->h.scale + first,
        cell->bias + first,
        cell->bias_candidate + piece->block * LANES,
        rows->h + piece->row,
        rows->c + piece->row,
        rows->h_out + piece->row,
        rows->c_out + piece->row,
        piece->block * LANES,
    };
    b->stage->finish_batch(&slice);
}

/* A stage of the rows that tiles take; returns how many these are. */
static size_t stage_of_tiles(const struct cell *cell, const struct stage *stage,
                             const struct workspace *room, const uint8_t *const *operands,
                             size_t n_rows, const struct rows *rows) {
    const struct batch b = {cell,
                            stage,
                            rows,
                            operands,
                            room->operand_stride,
                            room->gates_stride,
                            tiled_rows(stage->p, n_rows),
                            rows_of_sums(stage->p),
                            room->sums};
    const size_t n_pieces = (b.n_rows + b.n_most - 1) / b.n_most * cell->n_blocks;
    struct piece pieces[2];
    if (n_pieces) {
        sum_piece(&b, 0, &pieces[0]);
    }
    for (size_t i = 0; i < n_pieces; i++) {
        if (i + 1 < n_pieces) {
            sum_piece(&b, i + 1, &pieces[(i + 1) % 2]);
        }
        finish_piece(&b, &pieces[i % 2]);
    }
    return b.n_rows;
}

#endif
