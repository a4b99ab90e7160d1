#include "pack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NO_ROW = -1 };

/* The row of the matrix that a lane of a packed vector holds: [block][gate][16]. */
static ptrdiff_t row_of(size_t n_gates, size_t n_units, size_t vector, size_t lane) {
    const size_t unit = vector / n_gates * LANES + lane;
    return unit < n_units ? (ptrdiff_t)(vector % n_gates * n_units + unit) : NO_ROW;
}

float *pack_row_values(struct arena *arena, const float *values, size_t n_gates, size_t n_units) {
    const size_t n_vectors = n_gates * (round_up(n_units, LANES) / LANES);
    float *packed = arena_take(arena, n_vectors * LANES, sizeof *packed);
    for (size_t i = 0; packed && i < n_vectors * LANES; i++) {
        const ptrdiff_t row = row_of(n_gates, n_units, i / LANES, i % LANES);
        packed[i] = row == NO_ROW ? 0.0f : values[row];
    }
    return packed;
}

static void pack_float_row(const struct matrix *matrix, size_t row, size_t n_group, float *out) {
    for (size_t k = 0; k < matrix->n_operand; k++) {
        out[k * n_group * LANES] = matrix->weights[row * matrix->n_operand + k];
    }
}

static int32_t pack_int8_row(const struct matrix *matrix, size_t row, size_t n_group,
                             int8_t *out) {
    int32_t sum = 0;
    for (size_t k = 0; k < matrix->n_operand; k++) {
        const int8_t w = matrix->weights_int8[row * matrix->n_operand + k];
        out[k / 4 * n_group * LANES * 4 + k % 4] = w;
        sum += w;
    }
    return sum;
}

/* The largest product of a row: every operand is at an end of its grid. */
static float reach_of(const struct matrix *matrix, size_t row) {
    int32_t sum = 0;
    for (size_t k = 0; k < matrix->n_operand; k++) {
        sum += abs(matrix->weights_int8[row * matrix->n_operand + k]);
    }
    const float operands = matrix->form == FORM_INT8_HILO ? 129.0f : 128.0f;
    return operands * (float)sum * fabsf(matrix->scale[row]);
}

static float larger(float a, float b) { return a > b || a != a ? a : b; }

/* Rows of few outputs, so that four steps of k of four rows fill a vector. */
static float *pack_narrow(struct arena *arena, const struct matrix *matrix) {
    const size_t n_rows = round_up(matrix->n_units, 4);
    const size_t n_steps = round_up(matrix->n_operand, 4);
    float *packed = arena_take(arena, n_rows * n_steps, sizeof *packed);
    for (size_t i = 0; packed && i < n_rows * n_steps; i++) {
        const size_t row = i / 4 % n_rows;
        const size_t k = i / (4 * n_rows) * 4 + i % 4;
        const int is_weight = row < matrix->n_units && k < matrix->n_operand;
        packed[i] = is_weight ? matrix->weights[row * matrix->n_operand + k] : -0.0f;
    }
    return packed;
}

static int take_product(struct arena *arena, const struct matrix *matrix, size_t n_spare,
                        struct product *p) {
    const size_t n_rows = p->n_vectors * LANES;
    if (p->form == FORM_FP32 || p->form == FORM_FP16) {
        const int is_narrow = matrix->n_gates == 1 && matrix->n_units <= LANES;
        p->weights = arena_take(arena, n_rows * p->n_steps, sizeof *p->weights);
        p->narrow = is_narrow ? pack_narrow(arena, matrix) : NULL;
        if (is_narrow && !p->narrow) {
            return 0;
        }
    } else {
        p->weights_int8 = arena_take(arena, n_rows * p->n_steps + n_spare, 4);
        p->correction = arena_take(arena, n_rows, sizeof *p->correction);
        p->scale = pack_row_values(arena, matrix->scale, matrix->n_gates, matrix->n_units);
    }
    if (matrix->gain) {
        float *gain = arena_take(arena, matrix->n_operand, sizeof *gain);
        if (gain) {
            memcpy(gain, matrix->gain, matrix->n_operand * sizeof *gain);
        }
        p->gain = gain;
    }
    return (p->weights || (p->weights_int8 && p->correction && p->scale)) &&
           (p->gain || !matrix->gain);
}

int pack_product(struct arena *arena, const struct kernel *kernel, const struct matrix *matrix,
                 size_t n_group, struct product *out) {
    const int is_float = matrix->form == FORM_FP32 || matrix->form == FORM_FP16;
    memset(out, 0, sizeof *out);
    out->form = matrix->form;
    out->n_operand = matrix->n_operand;
    out->n_rows = matrix->n_gates * matrix->n_units;
    out->n_vectors = matrix->n_gates * (round_up(matrix->n_units, LANES) / LANES);
    out->n_group = n_group;
    out->grid = matrix->grid;
    out->n_steps = is_float ? matrix->n_operand : (matrix->n_operand + 3) / 4;
    out->in_matrix = !is_float && kernel->matrix_steps && out->n_steps >= kernel->matrix_steps;
    const size_t n_spare = out->in_matrix ? kernel->matrix_steps * n_group * LANES : 0;
    if (!take_product(arena, matrix, n_spare, out)) {
        return 0;
    }
    for (size_t i = 0; i < out->n_vectors * LANES; i++) {
        const ptrdiff_t row = row_of(matrix->n_gates, matrix->n_units, i / LANES, i % LANES);
        const size_t first = i / LANES / n_group * n_group;
        const size_t n_left = out->n_vectors - first;
        const size_t n_here = n_left < n_group ? n_left : n_group; /* the last may be smaller */
        const size_t start = (first * out->n_steps + (i / LANES - first)) * LANES + i % LANES;
        if (row == NO_ROW) {
            continue;
        }
        if (is_float) {
            pack_float_row(matrix, (size_t)row, n_here, out->weights + start);
        } else {
            const int32_t sum =
                pack_int8_row(matrix, (size_t)row, n_here, out->weights_int8 + start * 4);
            out->correction[i] = -kernel->operand_offset * sum;
            out->reach = larger(out->reach, reach_of(matrix, (size_t)row));
        }
    }
    return 1;
}

/* Around each value whose quotient is halfway between two integers. */
static int grid_rounds_as_quotient(const struct grid *grid) {
    enum { NEAREST = 4 }; /* floats on either side */
    for (int k = 0; k < 128; k++) {
        float v = ((float)k + 0.5f) * grid->step;
        for (int i = 0; i < NEAREST; i++) {
            v = nextafterf(v, 0.0f);
        }
        for (int i = 0; i <= 2 * NEAREST; i++) {
            const float product = fmaf(v, grid->inverse, v * grid->inverse_rest);
            if (nearbyintf(product) != nearbyintf(v / grid->step)) {
                return 0;
            }
            v = nextafterf(v, INFINITY);
        }
    }
    return 1;
}

int grid_of(float step, struct grid *grid) {
    grid->step = step;
    grid->inverse = 1.0f / step;
    grid->inverse_rest = fmaf(-step, grid->inverse, 1.0f) / step;
    grid->low = -128.0f * step;
    grid->high = 127.0f * step;
    return grid_rounds_as_quotient(grid);
}

static float largest(const float *values, size_t n) {
    float found = 0.0f;
    for (size_t i = 0; values && i < n; i++) {
        found = larger(found, fabsf(values[i]));
    }
    return found;
}

int cell_is_near(const struct cell *cell) {
    const size_t n = cell->n_blocks * LANES;
    const float reach = largest(cell->bias, n * cell->n_gates) + largest(cell->bias_candidate, n) +
                        cell->x.reach + cell->h.reach;
    return cell->x.form == FORM_INT8 && cell->h.form == FORM_INT8 && reach < NEAR;
}
