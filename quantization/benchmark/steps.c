/*
 * Steps of one stream without Python, behind a C interface: a GRU with random weights and a linear
 * head in float, as quantization/benchmark/native.py makes them.
 */
#include "network.h"
#include "pack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_OUT = 8, N_GATES = 3, N_SAMPLES = 64 };

struct stream {
    struct network net;
    size_t n_in;
    float *samples; /* (N_SAMPLES, n_in) */
    float y[N_OUT];
};

/* In [-1, 1): it need not be good, only the same every time. */
static float next_float(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)((int64_t)(*state >> 40) - 8388608) * 0x1p-23f;
}

static int random_product(struct network *net, enum form form, size_t n_gates, size_t n_units,
                          size_t n_operand, size_t n_group, struct product *out) {
    const size_t n_rows = n_gates * n_units;
    const float largest = 0.7f / sqrtf((float)n_operand);
    float *weights = malloc(n_rows * n_operand * sizeof *weights);
    int8_t *integers = malloc(n_rows * n_operand);
    float *scale = malloc(n_rows * sizeof *scale);
    struct grid grid;
    const int has_grid = grid_of(1.0f / 127.0f, &grid);
    uint64_t state = n_rows;
    int is_done = has_grid && weights && integers && scale;
    for (size_t i = 0; is_done && i < n_rows * n_operand; i++) {
        weights[i] = next_float(&state) * largest;
        integers[i] = (int8_t)lrintf(next_float(&state) * 127.0f);
    }
    for (size_t i = 0; is_done && i < n_rows; i++) {
        scale[i] = largest / 127.0f / 127.0f;
    }
    const struct matrix matrix = {form,     n_gates, n_units, n_operand, weights,
                                  integers, scale,   NULL,    grid};
    is_done = is_done && pack_product(&net->arena, net->kernel, &matrix, n_group, out);
    free(weights);
    free(integers);
    free(scale);
    return is_done;
}

static int add_cell(struct network *net, enum form x_form, enum form h_form, size_t n_hidden,
                    size_t *value) {
    float *zeros = calloc(N_GATES * n_hidden, sizeof *zeros);
    size_t h;
    struct instruction *run = network_add_instruction(net);
    int is_done = zeros && run && network_add_state(net, zeros, n_hidden, &h);
    if (is_done) {
        struct cell *cell = &run->cell;
        run->kind = RUN_CELL;
        run->n_inputs = 2;
        run->inputs[0] = *value;
        run->inputs[1] = run->inputs[2] = run->output = h;
        cell->kind = CELL_GRU;
        cell->n_hidden = n_hidden;
        cell->n_blocks = round_up(n_hidden, LANES) / LANES;
        cell->n_gates = N_GATES;
        cell->bias = pack_row_values(&net->arena, zeros, N_GATES, n_hidden);
        cell->bias_candidate = pack_row_values(&net->arena, zeros, 1, n_hidden);
        is_done = cell->bias && cell->bias_candidate &&
                  random_product(net, x_form, N_GATES, n_hidden, net->values[*value].width,
                                 N_GATES, &cell->x) &&
                  random_product(net, h_form, N_GATES, n_hidden, n_hidden, N_GATES, &cell->h);
        *value = h;
    }
    free(zeros);
    return is_done;
}

static int add_head(struct network *net, size_t below, size_t *value) {
    const float zeros[N_OUT] = {0.0f};
    struct instruction *run = network_add_instruction(net);
    if (!run || !network_add_scratch(net, N_OUT, value)) {
        return 0;
    }
    run->kind = RUN_DENSE;
    run->n_inputs = 1;
    run->inputs[0] = below;
    run->output = *value;
    run->bias = pack_row_values(&net->arena, zeros, 1, N_OUT);
    return run->bias && random_product(net, FORM_FP32, 1, N_OUT, net->values[below].width,
                                       DENSE_GROUP, &run->dense);
}

static int build(struct stream *s, size_t n_hidden, size_t n_layers, enum form x_form,
                 enum form h_form) {
    size_t value = INPUT_VALUE;
    uint64_t state = 1;
    s->samples = malloc(N_SAMPLES * s->n_in * sizeof *s->samples);
    for (size_t i = 0; s->samples && i < N_SAMPLES * s->n_in; i++) {
        s->samples[i] = next_float(&state);
    }
    for (size_t l = 0; l < n_layers; l++) {
        if (!add_cell(&s->net, l ? h_form : x_form, h_form, n_hidden, &value)) {
            return 0;
        }
    }
    return s->samples && add_head(&s->net, value, &value) && network_seal(&s->net, value);
}

void close_stream(struct stream *s) {
    network_free(&s->net);
    free(s->samples);
    free(s);
}

/* Forms by number; those of further layers are h_form. NULL: no such kernel here, or no memory. */
struct stream *open_stream(const char *kernel_name, size_t n_in, size_t n_hidden, size_t n_layers,
                           int x_form, int h_form) {
    const struct kernel *kernel = kernel_named(kernel_name);
    struct stream *s = kernel ? calloc(1, sizeof *s) : NULL;
    if (!s) {
        return NULL;
    }
    s->n_in = n_in;
    if (!network_init(&s->net, kernel, n_in, 1) ||
        !build(s, n_hidden, n_layers, (enum form)x_form, (enum form)h_form)) {
        close_stream(s);
        return NULL;
    }
    return s;
}

void run_steps(struct stream *s, size_t n_steps) {
    const int32_t stream = 0;
    for (size_t t = 0; t < n_steps; t++) {
        network_step(&s->net, 1, &stream, s->samples + t % N_SAMPLES * s->n_in, s->y);
    }
}
