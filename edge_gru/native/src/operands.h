/* Rows in the form that a product reads. */
#ifndef EDGE_GRU_OPERANDS_H
#define EDGE_GRU_OPERANDS_H

#include "grid.h"
#include "matrix.h"
#include "sums.h"

enum { NARROWED = 4 }; /* vectors of operands that become bytes together */

/* Zeros in a line after the operands that there are, for kernels that read whole lines. */
LANES_INLINE void end_line(const struct product *p, uint8_t *out) {
    const unsigned n_last = (unsigned)(4 * p->n_steps % OPERAND_LINE);
    if (uses_matrix(p) && n_last) {
        line_clear(out + 4 * p->n_steps - n_last, n_last);
    }
}

LANES_INLINE F operand_values(const struct product *p, const float *in, size_t k) {
    const F v = f_load(in + k);
    return p->gain ? f_mul(v, f_load(p->gain + k)) : v;
}

LANES_INLINE void prepare_int8(const struct product *p, const float *in, uint8_t *out) {
    const size_t n = p->n_operand;
    size_t k = 0;
    for (; k + (NARROWED - 1) * LANES < n; k += NARROWED * LANES) {
        F q[NARROWED];
        LANES_UNROLL
        for (int i = 0; i < NARROWED; i++) {
            q[i] = grid_quotient(operand_values(p, in, k + (size_t)i * LANES), &p->grid);
        }
        f_store_int8_four(out + k, q);
    }
    for (; k < n; k += LANES) {
        f_store_int8(out + k, grid_storable(operand_values(p, in, k), &p->grid));
    }
    end_line(p, out);
}

LANES_INLINE void prepare_hilo(const struct product *p, const float *in, uint8_t *out) {
    for (size_t k = 0; k < p->n_operand; k += LANES) {
        const F v = operand_values(p, in, k);
        const F high = grid_quotient(v, &p->grid);
        const F read = f_mul(f_rounded(high), f_set(p->grid.step));
        const F rest = f_mul(f_sub(v, read), f_set(HILO_STEPS));
        f_store_int8(out + k, high);
        f_store_int8(out + low_offset(p) + k, grid_storable(rest, &p->grid));
    }
    end_line(p, out);
    end_line(p, out + low_offset(p));
}

LANES_INLINE void prepare_float(const struct product *p, int is_half, const float *in,
                                float *out) {
    for (size_t k = 0; k < p->n_operand; k += LANES) {
        const F v = operand_values(p, in, k);
        f_store(out + k, is_half ? f_half(v) : v);
    }
    for (size_t k = p->n_operand; p->narrow && k % 4; k++) {
        out[k] = 0.0f;
    }
}

LANES_INLINE void prepare_form(enum form form, const struct product *p, const float *in,
                               uint8_t *out) {
    switch (form) {
    case FORM_INT8:
        prepare_int8(p, in, out);
        break;
    case FORM_INT8_HILO:
        prepare_hilo(p, in, out);
        break;
    default:
        prepare_float(p, form == FORM_FP16, in, (float *)(void *)out);
        break;
    }
}

/* Bring a row into the form that the product reads. */
LANES_CALLED void prepare_row(const struct product *p, const float *in, uint8_t *out) {
    prepare_form(p->form, p, in, out);
}

/* Whether a row is an operand as it is. */
LANES_INLINE int is_prepared(const struct product *p) {
    return p->form == FORM_FP32 && !p->gain && !(p->narrow && p->n_operand % 4);
}

/* Bring a row into the form that the product reads, unless it has it and nothing writes to it. */
LANES_INLINE const uint8_t *operands_of_row(enum form form, const struct product *p,
                                            const float *in, const float *written, uint8_t *room) {
    if (form == FORM_FP32 && is_prepared(p) && in != written) {
        return (const uint8_t *)(const void *)in;
    }
    prepare_form(form, p, in, room);
    return room;
}

/* Where operands of many rows are made. */
struct operand_room {
    uint8_t *bytes;
    size_t stride;
    int stays; /* nothing writes to the rows before the product is made: they need no copy */
};

static void prepare(const struct product *p, const struct operand_room *room, size_t n_rows,
                    const float *const *in, const uint8_t **operands) {
    if (n_rows == 1) { /* no tile: nothing to prepare for */
        operands[0] = room->bytes;
        prepare_row(p, in[0], room->bytes);
        return;
    }
    for (size_t r = 0; r < n_rows; r++) {
        operands[r] = room->bytes + r * room->stride;
    }
    if (room->stays && is_prepared(p)) {
        for (size_t r = 0; r < n_rows; r++) {
            operands[r] = (const uint8_t *)(const void *)in[r];
        }
    } else if (p->form == FORM_INT8) {
        for (size_t r = 0; r < n_rows; r++) {
            stay_awake(p, r);
            prepare_int8(p, in[r], room->bytes + r * room->stride);
        }
    } else {
        for (size_t r = 0; r < n_rows; r++) {
            stay_awake(p, r);
            prepare_row(p, in[r], room->bytes + r * room->stride);
        }
    }
    for (size_t r = n_rows; r < n_rows + MOST_TILE_ROWS; r++) {
        operands[r] = operands[n_rows - 1]; /* the rest of a tile */
    }
}

#endif
