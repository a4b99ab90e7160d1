#include "network.h"

#include "float_mode.h"
#include "order.h"
#include "pack.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK_STEPS = 16 }; /* of a sequence: with more, recurrent weights leave the second cache */
enum { TILE_BYTES = 768 * 1024 }; /* of a tile of rows: it shares the second cache with weights */

static struct value *append_value(struct network *net, size_t width, size_t *id) {
    struct value *values = realloc(net->values, (net->n_values + 1) * sizeof *values);
    if (!values) {
        return NULL;
    }
    net->values = values;
    *id = net->n_values++;
    memset(&values[*id], 0, sizeof *values);
    values[*id].width = width;
    net->widest = width > net->widest ? width : net->widest;
    return &values[*id];
}

int network_add_scratch(struct network *net, size_t width, size_t *id) {
    struct value *value = append_value(net, width, id);
    if (!value) {
        return 0;
    }
    value->space = SPACE_SCRATCH;
    value->offset = net->scratch_stride;
    net->scratch_stride += round_up(width, LANES);
    return 1;
}

int network_add_constant(struct network *net, const float *values, size_t width, size_t *id) {
    float *copy = arena_take(&net->arena, width, sizeof *copy);
    struct value *value = copy ? append_value(net, width, id) : NULL;
    if (!value) {
        return 0;
    }
    memcpy(copy, values, width * sizeof *copy);
    value->space = SPACE_CONSTANT;
    value->constant = copy;
    return 1;
}

int network_add_state(struct network *net, const float *start, size_t width, size_t *id) {
    if (!network_add_constant(net, start, width, id)) {
        return 0;
    }
    net->values[*id].space = SPACE_STATE;
    net->values[*id].offset = net->state_stride;
    net->state_stride += round_up(width, LANES);
    return 1;
}

int network_init(struct network *net, const struct kernel *kernel, size_t n_in,
                 size_t n_streams) {
    size_t id;
    memset(net, 0, sizeof *net);
    net->kernel = kernel;
    net->n_streams = n_streams;
    return network_add_scratch(net, n_in, &id);
}

struct instruction *network_add_instruction(struct network *net) {
    struct instruction *all =
        realloc(net->instructions, (net->n_instructions + 1) * sizeof *all);
    if (!all) {
        return NULL;
    }
    net->instructions = all;
    memset(&all[net->n_instructions], 0, sizeof *all);
    return &all[net->n_instructions++];
}

/* Steps of one stream in place of streams. */
static const int32_t in_order[MAX_ROWS] = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
    44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63,
};

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Strides of the workspace that the widest instruction needs. */
static void size_workspace(struct network *net) {
    struct workspace *room = &net->room;
    for (size_t i = 0; i < net->n_instructions; i++) {
        const struct instruction *run = &net->instructions[i];
        const struct cell *cell = &run->cell;
        const struct product *products[] = {&run->dense, &cell->x, &cell->h, &cell->h_candidate,
                                            &cell->projection};
        for (size_t p = 0; p < sizeof products / sizeof products[0]; p++) {
            room->operand_stride = larger(room->operand_stride, operand_bytes(products[p]));
            net->has_matrices |= products[p]->in_matrix;
        }
        room->gates_stride = larger(room->gates_stride, cell->n_gates * cell->n_blocks * LANES);
        room->spare_stride = larger(room->spare_stride, cell->n_blocks * LANES);
    }
    room->operand_stride = round_up(room->operand_stride, 64);
}

static int take_workspace(struct network *net) {
    struct workspace *room = &net->room;
    size_workspace(net);
    const size_t row_bytes =
        room->operand_stride +
        (room->gates_stride + room->spare_stride + net->scratch_stride) * sizeof(float);
    size_t n = TILE_BYTES / (row_bytes + 1) / 4 * 4;
    n = n > MAX_ROWS ? MAX_ROWS : n < 8 ? 8 : n;
    net->rows_at_once = n;
    room->operands = arena_take(&net->arena, n + MOST_TILE_ROWS, room->operand_stride);
    room->x_operands = arena_take(&net->arena, 1, room->operand_stride);
    room->gates = arena_take(&net->arena, n * room->gates_stride, sizeof(float));
    room->spare = arena_take(&net->arena, n * room->spare_stride, sizeof(float));
    room->zeros = arena_take(&net->arena, round_up(net->widest, LANES), sizeof(float));
    net->scratch = arena_take(&net->arena, n * net->scratch_stride, sizeof(float));
    net->trace = arena_take(&net->arena, (n + 1) * net->state_stride, sizeof(float));
    return room->operands && room->x_operands && room->gates && room->spare && room->zeros &&
           net->scratch && net->trace;
}

static int take_states(struct network *net) {
    if (net->n_streams > SIZE_MAX / 8 / larger(net->state_stride, 1)) {
        return 0;
    }
    net->states = arena_take(&net->arena, net->n_streams * net->state_stride, sizeof(float));
    net->start = arena_take(&net->arena, net->state_stride, sizeof(float));
    if (!net->states || !net->start) {
        return 0;
    }
    for (size_t i = 0; i < net->n_values; i++) {
        const struct value *value = &net->values[i];
        if (value->space == SPACE_STATE) {
            memcpy(net->start + value->offset, value->constant, value->width * sizeof(float));
        }
    }
    network_reset(net, 0, net->n_streams);
    return 1;
}

static float *row_of(const struct network *net, size_t id, size_t row, int32_t stream) {
    const struct value *value = &net->values[id];
    switch (value->space) {
    case SPACE_STATE:
        return net->states + (size_t)stream * net->state_stride + value->offset;
    case SPACE_CONSTANT:
        return (float *)value->constant; /* nothing writes to it: building saw to that */
    default:
        return net->scratch + row * net->scratch_stride + value->offset;
    }
}

static void place_values(struct network *net) {
    for (size_t id = 0; id < net->n_values; id++) {
        struct value *value = &net->values[id];
        value->first = row_of(net, id, 0, 0);
        value->stream_stride = value->space == SPACE_STATE ? net->state_stride : 0;
    }
}

int network_seal(struct network *net, size_t output) {
    net->output = output;
    net->runs_in_blocks = runs_in_blocks(net);
    if (!take_states(net) || !take_workspace(net)) {
        return 0;
    }
    place_values(net);
    net->is_sealed = 1;
    return 1;
}

void network_free(struct network *net) {
    arena_free(&net->arena);
    free(net->values);
    free(net->instructions);
    memset(net, 0, sizeof *net);
}

float *network_state(struct network *net, size_t id, size_t stream) {
    return net->states + stream * net->state_stride + net->values[id].offset;
}

void network_reset(struct network *net, size_t first, size_t end) {
    for (size_t s = first; s < end; s++) {
        memcpy(net->states + s * net->state_stride, net->start,
               net->state_stride * sizeof *net->start);
    }
}

static void rows_of(const struct network *net, size_t id, size_t n_rows, const int32_t *streams,
                    float **rows) {
    const struct value *value = &net->values[id];
    float *first = row_of(net, id, 0, 0);
    if (value->space == SPACE_STATE) {
        for (size_t r = 0; r < n_rows; r++) {
            rows[r] = first + (size_t)streams[r] * net->state_stride;
        }
    } else {
        const size_t stride = value->space == SPACE_CONSTANT ? 0 : net->scratch_stride;
        for (size_t r = 0; r < n_rows; r++) {
            rows[r] = first + r * stride;
        }
    }
}

static void run_operation(const struct network *net, const struct instruction *run, size_t n_rows,
                          const int32_t *streams) {
    struct arguments args = {.n_inputs = run->n_inputs, .indices = run->indices};
    memcpy(args.parameters, run->parameters, sizeof args.parameters);
    for (size_t r = 0; r < n_rows; r++) {
        for (size_t i = 0; i < run->n_inputs; i++) {
            args.inputs[i].values = row_of(net, run->inputs[i], r, streams[r]);
            args.inputs[i].width = net->values[run->inputs[i]].width;
        }
        run->operation->run(&args, net->values[run->output].width,
                            row_of(net, run->output, r, streams[r]));
    }
}

static void run_cell(const struct network *net, const struct instruction *run, size_t n_rows,
                     const int32_t *streams) {
    float *x[MAX_ROWS];
    float *h[MAX_ROWS + 1];
    float *c[MAX_ROWS + 1];
    rows_of(net, run->inputs[0], n_rows, streams, x);
    rows_of(net, run->inputs[1], n_rows, streams, h + 1);
    rows_of(net, run->inputs[run->n_inputs - 1], n_rows, streams, c + 1);
    if (streams == in_order) {
        h[0] = h[1] - net->state_stride;
        c[0] = c[1] - net->state_stride;
        net->kernel->run(&run->cell, &net->room, n_rows, (const float *const *)x, h, c);
    } else {
        net->kernel->step(&run->cell, &net->room, n_rows, (const float *const *)x, h + 1, c + 1);
    }
}

static void run_instruction(const struct network *net, const struct instruction *run,
                            size_t n_rows, const int32_t *streams) {
    float *first[MAX_ROWS];
    float *second[MAX_ROWS];
    const size_t width = net->values[run->output].width;
    switch (run->kind) {
    case RUN_DENSE:
        rows_of(net, run->inputs[0], n_rows, streams, first);
        rows_of(net, run->output, n_rows, streams, second);
        net->kernel->dense(&run->dense, &net->room, n_rows, (const float *const *)first,
                           run->bias, second);
        break;
    case RUN_CELL:
        run_cell(net, run, n_rows, streams);
        break;
    case RUN_SIGMOID:
    case RUN_TANH:
        for (size_t r = 0; r < n_rows; r++) {
            const float *in = row_of(net, run->inputs[0], r, streams[r]);
            float *out = row_of(net, run->output, r, streams[r]);
            (run->kind == RUN_TANH ? net->kernel->tanh : net->kernel->sigmoid)(width, in, out);
        }
        break;
    default:
        run_operation(net, run, n_rows, streams);
        break;
    }
}

/* Where a value of one stream lies. */
static inline float *value_of(const struct network *net, size_t id, size_t stream) {
    return net->values[id].first + stream * net->values[id].stream_stride;
}

/* One row: without lists of rows, for in small networks these take as long as the arithmetic. */
static void step_one(struct network *net, int32_t stream, const float *x, float *y) {
    const struct workspace *room = &net->room;
    const size_t s = (size_t)stream;
    net->room.is_backward = !net->room.is_backward;
    memcpy(net->values[INPUT_VALUE].first, x, net->values[INPUT_VALUE].width * sizeof *x);
    for (size_t i = 0; i < net->n_instructions; i++) {
        const struct instruction *run = &net->instructions[i];
        const float *in = value_of(net, run->inputs[0], s);
        float *out = value_of(net, run->output, s);
        if (run->kind == RUN_DENSE) {
            net->kernel->dense(&run->dense, room, 1, &in, run->bias, &out);
        } else if (run->kind == RUN_CELL) {
            float *c = value_of(net, run->inputs[run->n_inputs - 1], s);
            net->kernel->step(&run->cell, room, 1, &in, &out, &c);
        } else {
            run_instruction(net, run, 1, &stream);
        }
    }
    memcpy(y, value_of(net, net->output, s), net->values[net->output].width * sizeof *y);
}

/* At most rows_at_once rows. */
static void step_tile(struct network *net, size_t n_rows, const int32_t *streams, const float *x,
                      float *y) {
    const size_t n_in = net->values[INPUT_VALUE].width;
    const size_t n_out = net->values[net->output].width;
    for (size_t r = 0; r < n_rows; r++) {
        memcpy(row_of(net, INPUT_VALUE, r, streams[r]), x + r * n_in, n_in * sizeof *x);
    }
    for (size_t i = 0; i < net->n_instructions; i++) {
        run_instruction(net, &net->instructions[i], n_rows, streams);
    }
    for (size_t r = 0; r < n_rows; r++) {
        memcpy(y + r * n_out, row_of(net, net->output, r, streams[r]), n_out * sizeof *y);
    }
}

static int enter(const struct network *net, size_t n_rows) {
    const int is_in_matrix = n_rows > 1 && net->has_matrices;
    if (is_in_matrix) {
        net->kernel->enter_matrix();
    }
    return is_in_matrix;
}

static void leave(const struct network *net, int is_in_matrix) {
    if (is_in_matrix) {
        net->kernel->leave_matrix();
    }
}

void network_step(struct network *net, size_t n_rows, const int32_t *streams, const float *x,
                  float *y) {
    const struct float_mode mode = float_mode_enter();
    if (n_rows == 1) {
        step_one(net, streams[0], x, y);
        float_mode_leave(mode);
        return;
    }
    const int is_in_matrix = enter(net, n_rows);
    for (size_t r = 0; r < n_rows; r += net->rows_at_once) {
        const size_t n = n_rows - r < net->rows_at_once ? n_rows - r : net->rows_at_once;
        step_tile(net, n, streams + r, x + r * net->values[INPUT_VALUE].width,
                  y + r * net->values[net->output].width);
    }
    leave(net, is_in_matrix);
    float_mode_leave(mode);
}

/* At most rows_at_once steps of a stream: instruction by instruction, a row a step. */
static void run_block(struct network *net, size_t n_steps, int32_t stream, const float *x,
                      float *y) {
    float *state = net->states + (size_t)stream * net->state_stride;
    const size_t n_bytes = net->state_stride * sizeof *state;
    struct network steps = *net;
    steps.states = net->trace + net->state_stride;
    memcpy(net->trace, state, n_bytes);
    step_tile(&steps, n_steps, in_order, x, y);
    memcpy(state, net->trace + n_steps * net->state_stride, n_bytes);
}

void network_run(struct network *net, size_t n_steps, int32_t stream, const float *x, float *y) {
    const struct float_mode mode = float_mode_enter();
    const size_t n_most = net->rows_at_once < BLOCK_STEPS ? net->rows_at_once : BLOCK_STEPS;
    const size_t n_block = net->runs_in_blocks ? n_most : 1;
    const int is_in_matrix = enter(net, n_block);
    for (size_t t = 0; t < n_steps; t += n_block) {
        const size_t n = n_steps - t < n_block ? n_steps - t : n_block;
        const float *samples = x + t * net->values[INPUT_VALUE].width;
        float *outputs = y + t * net->values[net->output].width;
        if (n > 1) {
            run_block(net, n, stream, samples, outputs);
        } else {
            step_one(net, stream, samples, outputs);
        }
    }
    leave(net, is_in_matrix);
    float_mode_leave(mode);
}
