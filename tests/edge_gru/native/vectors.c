/*
 * Runs cells of every kind, in every form of their products, on one kernel, and prints a hash of
 * all their bits. Kernels and machines agree where the output is the same.
 *
 *     vectors KERNEL [N_STEPS]
 *
 * It also counts the allocations of a step: more than none is a failure.
 */
#include "network.h"
#include "pack.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_STREAMS = 75, N_OUT = 5, MAX_IN = 96 };

static int n_allocations;

void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
void *__wrap_malloc(size_t);
void *__wrap_calloc(size_t, size_t);
void *__wrap_realloc(void *, size_t);

void *__wrap_malloc(size_t n) {
    n_allocations++;
    return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size) {
    n_allocations++;
    return __real_calloc(n, size);
}

void *__wrap_realloc(void *block, size_t n) {
    n_allocations++;
    return __real_realloc(block, n);
}

static uint64_t seed;

/* splitmix64: the same numbers on every machine */
static uint64_t next_bits(void) {
    uint64_t z = seed += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* in [-1, 1) */
static float next_float(void) { return (float)((int64_t)(next_bits() >> 40) - 8388608) * 0x1p-23f; }

static uint64_t hash_of(uint64_t hash, const void *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3u;
    }
    return hash;
}

static struct product random_product(struct network *net, enum form form, size_t n_gates,
                                     size_t n_units, size_t n_operand, size_t n_group) {
    const size_t n_rows = n_gates * n_units;
    float *weights = arena_take(&net->arena, n_rows * n_operand, sizeof *weights);
    int8_t *integers = arena_take(&net->arena, n_rows * n_operand, 1);
    float *scale = arena_take(&net->arena, n_rows, sizeof *scale);
    float *gain = arena_take(&net->arena, n_operand, sizeof *gain);
    const float largest = 1.2f / sqrtf((float)n_operand); /* a rectified state stays finite */
    struct grid grid;
    const int has_grid = grid_of(1.1f / 127, &grid);
    const struct matrix matrix = {form,     n_gates, n_units, n_operand, weights, integers, scale,
                                  n_operand % 2 ? gain : NULL, grid};
    struct product product;
    for (size_t i = 0; i < n_rows * n_operand; i++) {
        weights[i] = next_float() * largest;
        integers[i] = (int8_t)(next_bits() % 255 - 127);
    }
    for (size_t i = 0; i < n_rows; i++) {
        scale[i] = largest / 127 * (1.0f / 127) * (1.5f + next_float());
    }
    for (size_t i = 0; i < n_operand; i++) {
        gain[i] = 1.0f + 0.3f * next_float();
    }
    if (!has_grid || !pack_product(&net->arena, net->kernel, &matrix, n_group, &product)) {
        exit(2);
    }
    return product;
}

static float *random_rows(struct network *net, size_t n_gates, size_t n_units) {
    float *values = arena_take(&net->arena, n_gates * n_units, sizeof *values);
    for (size_t i = 0; i < n_gates * n_units; i++) {
        values[i] = next_float();
    }
    return pack_row_values(&net->arena, values, n_gates, n_units);
}

static size_t add_state(struct network *net, size_t width) {
    float start[256] = {0.0f};
    size_t id;
    for (size_t i = 0; i < width; i++) {
        start[i] = next_float();
    }
    return network_add_state(net, start, width, &id) ? id : (size_t)-1;
}

static const size_t n_gates_of[N_CELLS] = {3, 3, 4, 1, 1};

/* Add a cell above the value x, of n_in; return its h. A projected one has fewer values of it. */
static size_t add_cell(struct network *net, enum cell_kind kind, int is_projected, enum form x_form,
                       enum form h_form, size_t x, size_t n_hidden) {
    struct instruction *run = network_add_instruction(net);
    struct cell *cell = &run->cell;
    const size_t n_h = is_projected ? n_hidden - 3 : n_hidden;
    const size_t n_in = net->values[x].width;
    const size_t h_gates = kind == CELL_GRU_RESET_FIRST ? 2 : n_gates_of[kind];
    const int is_plain = kind == CELL_RNN_TANH || kind == CELL_RNN_RELU;
    cell->kind = kind;
    cell->n_hidden = n_hidden;
    cell->n_blocks = round_up(n_hidden, LANES) / LANES;
    cell->n_gates = n_gates_of[kind];
    cell->x = random_product(net, x_form, cell->n_gates, n_hidden, n_in,
                             is_plain ? DENSE_GROUP : cell->n_gates);
    cell->h = random_product(net, h_form, h_gates, n_hidden, n_h, is_plain ? DENSE_GROUP : h_gates);
    cell->h_candidate = random_product(net, h_form, 1, n_hidden, n_h, 1);
    cell->has_projection = is_projected;
    cell->projection = random_product(net, FORM_FP32, 1, n_h, n_hidden, DENSE_GROUP);
    cell->bias = random_rows(net, cell->n_gates, n_hidden);
    cell->bias_candidate = random_rows(net, 1, n_hidden);
    run->kind = RUN_CELL;
    run->n_inputs = kind == CELL_LSTM ? 3 : 2;
    run->inputs[0] = x;
    run->inputs[1] = run->output = add_state(net, n_h);
    run->inputs[2] = kind == CELL_LSTM ? add_state(net, n_hidden) : run->output;
    return run->output;
}

static void add_head(struct network *net, enum form form, size_t x) {
    size_t y;
    network_add_scratch(net, N_OUT, &y);
    struct instruction *run = network_add_instruction(net);
    run->kind = RUN_DENSE;
    run->n_inputs = 1;
    run->inputs[0] = x;
    run->output = y;
    run->dense = random_product(net, form, 1, N_OUT, net->values[x].width, DENSE_GROUP);
    run->bias = random_rows(net, 1, N_OUT);
}

/* A short sequence, and one of more than a block: to the last bit what steps make of it. */
static uint64_t run_sequences(struct network *net, size_t n_in, uint64_t hash) {
    static float x[N_STREAMS * MAX_IN], y[N_STREAMS * N_OUT], expected[N_STREAMS * N_OUT];
    for (size_t n = 2; n <= N_STREAMS; n += 63) {
        const int32_t runs = (int32_t)(n % N_STREAMS), steps = (runs + 1) % N_STREAMS;
        const size_t n_bytes = net->state_stride * sizeof *net->states;
        for (size_t i = 0; i < n * n_in; i++) {
            x[i] = 2.0f * next_float();
        }
        memcpy(net->states + (size_t)steps * net->state_stride,
               net->states + (size_t)runs * net->state_stride, n_bytes);
        network_run(net, n, runs, x, y);
        for (size_t t = 0; t < n; t++) {
            network_step(net, 1, &steps, x + t * n_in, expected + t * N_OUT);
        }
        if (memcmp(y, expected, n * N_OUT * sizeof *y) != 0 ||
            memcmp(net->states + (size_t)steps * net->state_stride,
                   net->states + (size_t)runs * net->state_stride, n_bytes) != 0) {
            fprintf(stderr, "a sequence of %zu is not its steps\n", n);
            exit(1);
        }
        hash = hash_of(hash, y, n * N_OUT * sizeof *y);
    }
    return hash;
}

/*
 * Alternate batches of some streams with steps of one, as an engine may: of every number from one
 * to more than are taken at once, in any order.
 */
static uint64_t run(struct network *net, size_t n_in, size_t n_steps) {
    uint64_t hash = 0xcbf29ce484222325u;
    float x[N_STREAMS * MAX_IN], y[N_STREAMS * N_OUT];
    for (size_t t = 0; t < n_steps; t++) {
        const size_t n = t % 8 == 0 ? 1 + (t / 8 * 17 + N_STREAMS - 1) % N_STREAMS : 1;
        int32_t streams[N_STREAMS];
        for (size_t i = 0; i < N_STREAMS; i++) { /* 31 has no divisor in common with 75 */
            streams[i] = (int32_t)((i * 31 + t) % N_STREAMS);
        }
        for (size_t i = 0; i < n * n_in; i++) {
            x[i] = 2.0f * next_float();
        }
        const int before = n_allocations;
        network_step(net, n, streams, x, y);
        if (n_allocations != before) {
            fprintf(stderr, "a step allocated memory\n");
            exit(1);
        }
        for (size_t i = 0; i < n * N_OUT; i++) {
            if (!isfinite(y[i])) {
                fprintf(stderr, "a result is not finite\n");
                exit(1);
            }
        }
        hash = hash_of(hash, y, n * N_OUT * sizeof *y);
    }
    hash = run_sequences(net, n_in, hash);
    return hash_of(hash, net->states, N_STREAMS * net->state_stride * sizeof *net->states);
}

static void run_case(const struct kernel *kernel, int kind, enum form x_form, enum form h_form,
                     size_t n_in, size_t n_hidden, size_t n_steps) {
    const int is_projected = kind == N_CELLS;
    const enum cell_kind cell = is_projected ? CELL_LSTM : (enum cell_kind)kind;
    struct network net;
    seed = (uint64_t)(kind * 1000 + (int)x_form * 100 + (int)h_form * 10) + n_hidden;
    network_init(&net, kernel, n_in, N_STREAMS);
    const size_t below = add_cell(&net, cell, is_projected, x_form, h_form, 0, n_hidden);
    const size_t top = add_cell(&net, cell, is_projected, h_form, h_form, below, n_hidden);
    add_head(&net, x_form, top);
    if (!network_seal(&net, net.instructions[2].output)) {
        exit(2);
    }
    printf("%d %d %d %zu %zu %016llx\n", kind, (int)x_form, (int)h_form, n_in, n_hidden,
           (unsigned long long)run(&net, n_in, n_steps));
    network_free(&net);
}

int main(int n_args, char **args) {
    const struct kernel *kernel = n_args > 1 ? kernel_named(args[1]) : NULL;
    const size_t n_steps = n_args > 2 ? (size_t)atoi(args[2]) : 1000;
    if (!kernel) {
        fprintf(stderr, "usage: vectors KERNEL [N_STEPS], with a kernel that runs here\n");
        return 2;
    }
    for (int kind = 0; kind <= N_CELLS; kind++) { /* the last is an LSTM with a projection */
        for (int x_form = 0; x_form < N_FORMS; x_form++) {
            for (int h_form = 0; h_form < N_FORMS; h_form++) {
                run_case(kernel, kind, (enum form)x_form, (enum form)h_form, 5, 11, n_steps);
                run_case(kernel, kind, (enum form)x_form, (enum form)h_form, 6, 30, n_steps);
                run_case(kernel, kind, (enum form)x_form, (enum form)h_form, 18, 50, n_steps);
                run_case(kernel, kind, (enum form)x_form, (enum form)h_form, 9, 100, n_steps);
                run_case(kernel, kind, (enum form)x_form, (enum form)h_form, 67, 83, n_steps / 4);
            }
        }
    }
    return 0;
}
