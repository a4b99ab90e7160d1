/* Rows in the form that a product reads. */
#ifndef EDGE_GRU_OPERANDS_H
#define EDGE_GRU_OPERANDS_H

#include "grid.h"
#include "matrix.h"
#include "sums.h"

/* Zeros in a line after the operands that there are, for kernels that read whole lines. */
LANES_INLINE void end_line(const struct product *p, uint8_t *out) {
    const unsigned n_last = (unsigned)(4 * p->n_steps % OPERAND_LINE);
    if (uses_matrix(p) && n_last) {
        line_clear(out + 4 * p->n_steps - n_last, n_last);
    }
}

LANES_INLINE void prepare_int8(const struct product *p, int is_hilo, const float *in,
                               uint8_t *out) {
    const struct grid grid = grid_of(p->operand_step);
    for (size_t k = 0; k < p->n_operand; k += LANES) {
        F v = f_load(in + k);
        if (p->gain) {
            v = f_mul(v, f_load(p->gain + k));
        }
        const F high = grid_steps(v, grid);
        f_store_int8(out + k, high);
        if (is_hilo) {
            const F read = f_mul(f_rounded(high), f_set(p->operand_step));
            const F rest = f_mul(f_sub(v, read), f_set(HILO_STEPS));
            f_store_int8(out + low_offset(p) + k, grid_steps(rest, grid));
        }
    }
    end_line(p, out);
    if (is_hilo) {
        end_line(p, out + low_offset(p));
    }
}

LANES_INLINE void prepare_float(const struct product *p, int is_half, const float *in,
                                float *out) {
    for (size_t k = 0; k < p->n_operand; k += LANES) {
        F v = f_load(in + k);
        if (p->gain) {
            v = f_mul(v, f_load(p->gain + k));
        }
        f_store(out + k, is_half ? f_half(v) : v);
    }
    for (size_t k = p->n_operand; p->narrow && k % 4; k++) {
        out[k] = 0.0f;
    }
}

/* Bring a row into the form that the product reads. */
static void prepare_row(const struct product *p, const float *in, uint8_t *out) {
    switch (p->form) {
    case FORM_INT8:
        prepare_int8(p, 0, in, out);
        break;
    case FORM_INT8_HILO:
        prepare_int8(p, 1, in, out);
        break;
    default:
        prepare_float(p, p->form == FORM_FP16, in, (float *)(void *)out);
        break;
    }
}

/* Bring a row into the form that the product reads, unless it has it and nothing writes to it. */
LANES_INLINE const uint8_t *operands_of_row(const struct product *p, const float *in,
                                            const float *written, uint8_t *room) {
    const int is_ready = p->form == FORM_FP32 && !p->gain && !(p->narrow && p->n_operand % 4);
    if (is_ready && in != written) {
        return (const uint8_t *)(const void *)in;
    }
    prepare_row(p, in, room);
    return room;
}

static void prepare(const struct product *p, const struct workspace *room, size_t n_rows,
                    const float *const *in, const uint8_t **operands) {
    for (size_t r = 0; r < n_rows; r++) {
        uint8_t *out = room->operands + r * room->operand_stride;
        operands[r] = out;
        if (n_rows > 1) {
            stay_awake(p, r);
        }
        prepare_row(p, in[r], out);
    }
}

#endif
