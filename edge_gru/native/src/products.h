/* Products of rows with a packed matrix, on any set of lanes. */
#include "activations.h"
#include "kernel.h"

#define N_CHAINS 4 /* of a float product; part of its definition */
#define HILO_STEPS 254.0f

/* Bytes from the int8 numbers hi of a row to its lo. */
LANES_INLINE size_t low_offset(const struct product *p) {
    return (p->n_operand + LANES - 1) / LANES * LANES;
}

/* Sums of some rows with some vectors of a group; the sums are exact, so their order is free. */
LANES_INLINE void sum_int8(const struct product *p, const int8_t *weights, size_t group_bytes,
                           const uint8_t *const *operands, int n_rows, int n_vectors, I *sums) {
    const int n_parts = n_rows * n_vectors < 8 ? 2 : 1; /* a single row would wait for itself */
    I part[2][2 * MAX_TILE * DENSE_GROUP];
    size_t k = 0;
    LANES_UNROLL
    for (int i = 0; i < n_rows * n_vectors; i++) {
        part[0][i] = sums[i];
        part[1][i] = i_zero();
    }
    for (; k + (size_t)n_parts <= p->n_steps; k += (size_t)n_parts) {
        LANES_UNROLL
        for (int c = 0; c < n_parts; c++) {
            const size_t at = k + (size_t)c;
            Weights w[DENSE_GROUP];
            LANES_UNROLL
            for (int v = 0; v < n_vectors; v++) {
                w[v] = weights_load(weights + at * group_bytes + (size_t)v * 4 * LANES);
            }
            LANES_UNROLL
            for (int r = 0; r < n_rows; r++) {
                const Operand operand = operand_load(operands[r] + 4 * at);
                LANES_UNROLL
                for (int v = 0; v < n_vectors; v++) {
                    part[c][r * n_vectors + v] =
                        i_dot(part[c][r * n_vectors + v], operand, w[v]);
                }
            }
        }
    }
    if (n_parts == 2 && k < p->n_steps) {
        LANES_UNROLL
        for (int r = 0; r < n_rows; r++) {
            const Operand operand = operand_load(operands[r] + 4 * k);
            LANES_UNROLL
            for (int v = 0; v < n_vectors; v++) {
                const Weights w =
                    weights_load(weights + k * group_bytes + (size_t)v * 4 * LANES);
                part[0][r * n_vectors + v] = i_dot(part[0][r * n_vectors + v], operand, w);
            }
        }
    }
    LANES_UNROLL
    for (int i = 0; i < n_rows * n_vectors; i++) {
        sums[i] = n_parts == 2 ? i_add(part[0][i], part[1][i]) : part[0][i];
    }
}

LANES_INLINE void sum_float_step(const float *weights, const float *const *operands, size_t k,
                                 int n_rows, int n_vectors, F *chain) {
    F w[DENSE_GROUP];
    LANES_UNROLL
    for (int v = 0; v < n_vectors; v++) {
        w[v] = f_load(weights + (size_t)v * LANES);
    }
    LANES_UNROLL
    for (int r = 0; r < n_rows; r++) {
        const F operand = f_set(operands[r][k]);
        LANES_UNROLL
        for (int v = 0; v < n_vectors; v++) {
            chain[r * n_vectors + v] = f_fma(operand, w[v], chain[r * n_vectors + v]);
        }
    }
}

LANES_INLINE void sum_float(const struct product *p, const float *weights, size_t group_floats,
                            const float *const *operands, int n_rows, int n_vectors, F *sums) {
    F chain[N_CHAINS][MAX_TILE * DENSE_GROUP];
    size_t k = 0;
    LANES_UNROLL
    for (int c = 0; c < N_CHAINS; c++) {
        LANES_UNROLL
        for (int i = 0; i < n_rows * n_vectors; i++) {
            chain[c][i] = f_set(0.0f);
        }
    }
    for (; k + N_CHAINS <= p->n_steps; k += N_CHAINS) {
        LANES_UNROLL
        for (int c = 0; c < N_CHAINS; c++) {
            sum_float_step(weights + (k + (size_t)c) * group_floats, operands, k + (size_t)c,
                           n_rows, n_vectors, chain[c]);
        }
    }
    LANES_UNROLL
    for (int c = 0; c < N_CHAINS - 1; c++) {
        if (k + (size_t)c < p->n_steps) {
            sum_float_step(weights + (k + (size_t)c) * group_floats, operands, k + (size_t)c,
                           n_rows, n_vectors, chain[c]);
        }
    }
    LANES_UNROLL
    for (int i = 0; i < n_rows * n_vectors; i++) {
        sums[i] = f_add(f_add(chain[0][i], chain[1][i]), f_add(chain[2][i], chain[3][i]));
    }
}

LANES_INLINE void add_float(enum form form, const struct product *p, size_t first_vector,
                            size_t n_group, int vector, const uint8_t *const *operands,
                            int n_rows, int n_vectors, F *result) {
    const float *rows[MAX_TILE];
    F sums[MAX_TILE * DENSE_GROUP];
    LANES_UNROLL
    for (int r = 0; r < n_rows; r++) {
        rows[r] = (const float *)(const void *)operands[r];
    }
    sum_float(p, p->weights + (first_vector * p->n_steps + (size_t)vector) * LANES,
              n_group * LANES, rows, n_rows, n_vectors, sums);
    LANES_UNROLL
    for (int i = 0; i < n_rows * n_vectors; i++) {
        const F sum = form == FORM_FP16 ? f_half(sums[i]) : sums[i];
        result[i] = f_add(result[i], sum);
    }
}

LANES_INLINE void add_int8(enum form form, const struct product *p, size_t first_vector,
                           size_t n_group, int vector, const uint8_t *const *operands,
                           int n_rows, int n_vectors, F *result) {
    const int n_parts = form == FORM_INT8_HILO ? 2 : 1; /* rows of hi, then rows of lo */
    const int n_sums = n_rows * n_vectors;
    const size_t first_row = (first_vector + (size_t)vector) * LANES;
    const uint8_t *rows[2 * MAX_TILE];
    I sums[2 * MAX_TILE * DENSE_GROUP];
    LANES_UNROLL
    for (int r = 0; r < n_rows; r++) {
        rows[r] = operands[r];
        if (n_parts == 2) {
            rows[n_rows + r] = operands[r] + low_offset(p);
        }
    }
    LANES_UNROLL
    for (int i = 0; i < n_parts * n_sums; i++) {
        sums[i] = OPERAND_OFFSET
                      ? i_load(p->correction + first_row + (size_t)(i % n_vectors) * LANES)
                      : i_zero();
    }
    sum_int8(p, p->weights_int8 + (first_vector * p->n_steps + (size_t)vector) * 4 * LANES,
             n_group * 4 * LANES, rows, n_parts * n_rows, n_vectors, sums);
    LANES_UNROLL
    for (int i = 0; i < n_sums; i++) {
        const F scale = f_load(p->scale + first_row + (size_t)(i % n_vectors) * LANES);
        F sum = f_of_int(sums[i]);
        if (n_parts == 2) {
            sum = f_fma(f_of_int(sums[n_sums + i]), f_set(1.0f / HILO_STEPS), sum);
        }
        result[i] = f_fma(sum, scale, result[i]);
    }
}

/*
 * result[row][vector] += product, for vectors from `vector` on of the group that begins with
 * first_vector. Counts are constants where this is called: everything unrolls into registers.
 */
LANES_INLINE void add_product(enum form form, const struct product *p, size_t first_vector,
                              size_t n_group, int vector, const uint8_t *const *operands,
                              int n_rows, int n_vectors, F *result) {
    if (form == FORM_FP32 || form == FORM_FP16) {
        add_float(form, p, first_vector, n_group, vector, operands, n_rows, n_vectors, result);
    } else {
        add_int8(form, p, first_vector, n_group, vector, operands, n_rows, n_vectors, result);
    }
}

/* How many rows share a load of the weights, and how many vectors are summed at once. */
LANES_INLINE int tile_rows(enum form form) {
    return form == FORM_INT8 ? TILE_INT8 : form == FORM_INT8_HILO ? TILE_HILO : TILE_FLOAT;
}

LANES_INLINE int vectors_at_once(enum form form, int n_rows, int n_vectors) {
    const int most = form == FORM_INT8        ? VECTORS_INT8
                     : form == FORM_INT8_HILO ? VECTORS_HILO
                     : n_rows == 1            ? VECTORS_FLOAT
                                              : VECTORS_FLOAT_TILE;
    return n_vectors < most ? n_vectors : most;
}

/* The same for a whole group, in parts that fit the registers. */
LANES_INLINE void add_group(enum form form, const struct product *p, size_t first_vector,
                            int n_group, const uint8_t *const *operands, int n_rows, F *result) {
    const int n_at_once = vectors_at_once(form, n_rows, n_group);
    LANES_UNROLL
    for (int first = 0; first < n_group; first += n_at_once) {
        const int n = n_group - first < n_at_once ? n_group - first : n_at_once;
        F part[MAX_TILE * DENSE_GROUP];
        LANES_UNROLL
        for (int i = 0; i < n_rows * n; i++) {
            part[i] = result[(i / n) * n_group + first + i % n];
        }
        add_product(form, p, first_vector, (size_t)n_group, first, operands, n_rows, n, part);
        LANES_UNROLL
        for (int i = 0; i < n_rows * n; i++) {
            result[(i / n) * n_group + first + i % n] = part[i];
        }
    }
}

/* q = clip(rint(v / step)), as float lanes. The division decides ties; a product would not do. */
LANES_INLINE F grid_steps(F v, F step) {
    return f_rounded(f_clip_number(f_div(v, step), -128.0f, 127.0f));
}

LANES_INLINE void prepare_int8(const struct product *p, int is_hilo, const float *in,
                               uint8_t *out) {
    const F step = f_set(p->operand_step);
    for (size_t k = 0; k < p->n_operand; k += LANES) {
        F v = f_load(in + k);
        if (p->gain) {
            v = f_mul(v, f_load(p->gain + k));
        }
        const F high = grid_steps(v, step);
        f_store_int8(out + k, high);
        if (is_hilo) {
            const F rest = f_mul(f_sub(v, f_mul(high, step)), f_set(HILO_STEPS));
            f_store_int8(out + low_offset(p) + k, grid_steps(rest, step));
        }
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
}

/* Bring rows into the form that the product reads. */
static void prepare(const struct product *p, const struct workspace *room, size_t n_rows,
                    const float *const *in, const uint8_t **operands) {
    for (size_t r = 0; r < n_rows; r++) {
        uint8_t *out = room->operands + r * room->operand_stride;
        operands[r] = out;
        if (p->form == FORM_FP32 || p->form == FORM_FP16) {
            prepare_float(p, p->form == FORM_FP16, in[r], (float *)(void *)out);
        } else {
            prepare_int8(p, p->form == FORM_INT8_HILO, in[r], out);
        }
    }
}

LANES_INLINE void dense_group(enum form form, const struct product *p, size_t first, int n_group,
                              const uint8_t *const *operands, int n_rows, const float *bias,
                              float *const *out) {
    F result[MAX_TILE * DENSE_GROUP];
    LANES_UNROLL
    for (int i = 0; i < n_rows * n_group; i++) {
        result[i] = f_load(bias + (first + (size_t)(i % n_group)) * LANES);
    }
    add_group(form, p, first, n_group, operands, n_rows, result);
    LANES_UNROLL
    for (int i = 0; i < n_rows * n_group; i++) {
        f_store(out[i / n_group] + (first + (size_t)(i % n_group)) * LANES, result[i]);
    }
}

LANES_INLINE void dense_rows(enum form form, const struct product *p, size_t first, int n_group,
                             const uint8_t *const *operands, size_t n_rows, const float *bias,
                             float *const *out) {
    const size_t tile = (size_t)tile_rows(form);
    size_t r = 0;
    for (; r + tile <= n_rows; r += tile) {
        dense_group(form, p, first, n_group, operands + r, (int)tile, bias, out + r);
    }
    for (; tile > 1 && r < n_rows; r++) {
        dense_group(form, p, first, n_group, operands + r, 1, bias, out + r);
    }
}

LANES_INLINE void dense_form(enum form form, const struct product *p,
                             const uint8_t *const *operands, size_t n_rows, const float *bias,
                             float *const *out) {
    size_t first = 0;
    for (; first + DENSE_GROUP <= p->n_vectors; first += DENSE_GROUP) {
        dense_rows(form, p, first, DENSE_GROUP, operands, n_rows, bias, out);
    }
    switch (p->n_vectors - first) {
    case 1:
        dense_rows(form, p, first, 1, operands, n_rows, bias, out);
        break;
    case 2:
        dense_rows(form, p, first, 2, operands, n_rows, bias, out);
        break;
    case 3:
        dense_rows(form, p, first, 3, operands, n_rows, bias, out);
        break;
    default:
        break;
    }
}

static void dense(const struct product *p, const struct workspace *room, size_t n_rows,
                  const float *const *in, const float *bias, float *const *out) {
    const uint8_t *operands[MAX_ROWS];
    prepare(p, room, n_rows, in, operands);
    switch (p->form) {
    case FORM_FP32:
        dense_form(FORM_FP32, p, operands, n_rows, bias, out);
        break;
    case FORM_FP16:
        dense_form(FORM_FP16, p, operands, n_rows, bias, out);
        break;
    case FORM_INT8:
        dense_form(FORM_INT8, p, operands, n_rows, bias, out);
        break;
    default:
        dense_form(FORM_INT8_HILO, p, operands, n_rows, bias, out);
        break;
    }
}
