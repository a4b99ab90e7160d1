/* One step of each recurrent cell, sixteen units at a time, on any set of lanes. */
#include "products.h"

/* The gates of a block once their pre-activations are there; writes the new h (and c). */
LANES_INLINE void gru_gates(const F *a, F candidate, float *h) {
    const F r = sigmoid_lanes(a[0]);
    const F z = sigmoid_lanes(a[1]);
    const F n = tanh_lanes(f_fma(r, a[2], candidate));
    f_store(h, f_fma(z, f_sub(f_load(h), n), n));
}

LANES_INLINE void lstm_gates(const F *a, float *h, float *c) {
    const F i = sigmoid_lanes(a[0]);
    const F f = sigmoid_lanes(a[1]);
    const F g = tanh_lanes(a[2]);
    const F o = sigmoid_lanes(a[3]);
    const F new_c = f_fma(f, f_load(c), f_mul(i, g));
    f_store(c, new_c);
    f_store(h, f_mul(o, tanh_lanes(new_c)));
}

/*
 * The steps that a block takes. A GRU with the reset first takes two: RESET turns h into r * h
 * (spare) and keeps z where its pre-activation was, CANDIDATE does the rest.
 */
enum stage { STAGE_GRU, STAGE_RESET, STAGE_CANDIDATE, STAGE_LSTM, STAGE_TANH, STAGE_RELU };

LANES_INLINE int stage_gates(enum stage stage) {
    return stage == STAGE_GRU ? 3 : stage == STAGE_LSTM ? 4 : stage == STAGE_RESET ? 2 : 1;
}

struct rows {
    float *const *gates; /* the product with x, biases added */
    float *const *h;
    float *const *c;
    float *const *h_out; /* h, but for a projected LSTM and for RESET */
};

LANES_INLINE void cell_block(enum stage stage, enum form form, const struct cell *cell,
                             const struct product *p, size_t block,
                             const uint8_t *const *operands, int n_rows, size_t row,
                             const struct rows *rows) {
    const int n_gates = stage_gates(stage);
    const size_t unit = block * LANES;
    const size_t stride = cell->n_gates * LANES;
    F a[MAX_TILE * DENSE_GROUP];
    LANES_UNROLL
    for (int r = 0; r < n_rows; r++) {
        const float *gates = rows->gates[row + (size_t)r] + block * stride;
        LANES_UNROLL
        for (int g = 0; g < n_gates; g++) {
            const int gate = stage == STAGE_CANDIDATE ? 2 : g;
            a[r * n_gates + g] = stage == STAGE_GRU && g == 2 ? f_load(cell->bias_candidate + unit)
                                                              : f_load(gates + gate * LANES);
        }
    }
    add_group(form, p, block * (size_t)n_gates, n_gates, operands, n_rows, a);
    LANES_UNROLL
    for (int r = 0; r < n_rows; r++) {
        float *gates = rows->gates[row + (size_t)r] + block * stride;
        float *h = rows->h[row + (size_t)r] + unit;
        float *h_out = rows->h_out[row + (size_t)r] + unit;
        const F *pre = a + r * n_gates;
        switch (stage) {
        case STAGE_GRU:
            gru_gates(pre, f_load(gates + 2 * LANES), h);
            break;
        case STAGE_RESET:
            f_store(h_out, f_mul(sigmoid_lanes(pre[0]), f_load(h)));
            f_store(gates + LANES, sigmoid_lanes(pre[1]));
            break;
        case STAGE_CANDIDATE: {
            const F n = tanh_lanes(pre[0]);
            f_store(h, f_fma(f_load(gates + LANES), f_sub(f_load(h), n), n));
            break;
        }
        case STAGE_LSTM:
            lstm_gates(pre, h_out, rows->c[row + (size_t)r] + unit);
            break;
        case STAGE_TANH:
            f_store(h, tanh_lanes(pre[0]));
            break;
        case STAGE_RELU:
            f_store(h, f_relu(pre[0]));
            break;
        }
    }
}

LANES_INLINE void cell_blocks(enum stage stage, enum form form, const struct cell *cell,
                              const struct product *p, const uint8_t *const *operands,
                              size_t n_rows, const struct rows *rows) {
    const size_t tile = (size_t)tile_rows(form);
    for (size_t block = 0; block < cell->n_blocks; block++) {
        size_t r = 0;
        for (; r + tile <= n_rows; r += tile) {
            cell_block(stage, form, cell, p, block, operands + r, (int)tile, r, rows);
        }
        for (; tile > 1 && r < n_rows; r++) {
            cell_block(stage, form, cell, p, block, operands + r, 1, r, rows);
        }
    }
}

/* One function a stage: each holds the four forms. */
#define DEFINE_STAGE(name, stage)                                                                  \
    static void name(const struct cell *cell, const struct product *p,                             \
                     const struct workspace *room, size_t n_rows, const float *const *in,          \
                     const struct rows *rows) {                                                    \
        const uint8_t *operands[MAX_ROWS];                                                         \
        prepare(p, room, n_rows, in, operands);                                                    \
        switch (p->form) {                                                                         \
        case FORM_FP32:                                                                            \
            cell_blocks(stage, FORM_FP32, cell, p, operands, n_rows, rows);                        \
            break;                                                                                 \
        case FORM_FP16:                                                                            \
            cell_blocks(stage, FORM_FP16, cell, p, operands, n_rows, rows);                        \
            break;                                                                                 \
        case FORM_INT8:                                                                            \
            cell_blocks(stage, FORM_INT8, cell, p, operands, n_rows, rows);                        \
            break;                                                                                 \
        default:                                                                                   \
            cell_blocks(stage, FORM_INT8_HILO, cell, p, operands, n_rows, rows);                   \
            break;                                                                                 \
        }                                                                                          \
    }

DEFINE_STAGE(stage_gru, STAGE_GRU)
DEFINE_STAGE(stage_reset, STAGE_RESET)
DEFINE_STAGE(stage_candidate, STAGE_CANDIDATE)
DEFINE_STAGE(stage_lstm, STAGE_LSTM)
DEFINE_STAGE(stage_tanh, STAGE_TANH)
DEFINE_STAGE(stage_relu, STAGE_RELU)

static void step(const struct cell *cell, const struct workspace *room, size_t n_rows,
                 const float *const *x, float *const *h, float *const *c) {
    float *gates[MAX_ROWS];
    float *spare[MAX_ROWS];
    for (size_t r = 0; r < n_rows; r++) {
        gates[r] = room->gates + r * room->gates_stride;
        spare[r] = room->spare + r * room->spare_stride;
    }
    const float *const *h_in = (const float *const *)h;
    const float *const *spare_in = (const float *const *)spare;
    struct rows rows = {gates, h, c, h};
    dense(&cell->x, room, n_rows, x, cell->bias, gates);
    switch (cell->kind) {
    case CELL_GRU:
        stage_gru(cell, &cell->h, room, n_rows, h_in, &rows);
        break;
    case CELL_GRU_RESET_FIRST:
        rows.h_out = spare;
        stage_reset(cell, &cell->h, room, n_rows, h_in, &rows);
        stage_candidate(cell, &cell->h_candidate, room, n_rows, spare_in, &rows);
        break;
    case CELL_LSTM:
        rows.h_out = cell->has_projection ? spare : h;
        stage_lstm(cell, &cell->h, room, n_rows, h_in, &rows);
        if (cell->has_projection) {
            dense(&cell->projection, room, n_rows, spare_in, room->zeros, h);
        }
        break;
    case CELL_RNN_TANH:
        stage_tanh(cell, &cell->h, room, n_rows, h_in, &rows);
        break;
    default:
        stage_relu(cell, &cell->h, room, n_rows, h_in, &rows);
        break;
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
