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
static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

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
    room->x_operands = arena_take(&net->arena, n + MOST_TILE_ROWS, room->operand_stride);
    room->gates = arena_take(&net->arena, n * room->gates_stride, sizeof(float));
    room->spare = arena_take(&net->arena, n * room->spare_stride, sizeof(float));
    room->zeros = arena_take(&net->arena, round_up(net->widest, LANES), sizeof(float));
    room->sums = arena_take(&net->arena, N_SUMS * ROOM_OF_SUMS, sizeof *room->sums);
    net->scratch = arena_take(&net->arena, n * net->scratch_stride, sizeof(float));
    net->trace = arena_take(&net->arena, (n + 1) * net->state_stride, sizeof(float));
    return room->operands && room->x_operands && room->gates && room->spare && room->zeros &&
           room->sums && net->scratch && net->trace;
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

/* Rows that lie at equal distances, in floats. */
struct run_of_rows {
    float *first;
    size_t stride;
    size_t n_rows;
};

/* The first rows of a value, where the caller has them. */
static inline struct run_of_rows callers_rows(const struct network *net, size_t id) {
    struct run_of_rows rows = {NULL, net->values[id].width, 0};
    if (id == INPUT_VALUE) {
        rows.first = (float *)net->samples; /* nothing writes to them */
        rows.n_rows = net->n_samples;
    } else if (id == net->output) {
        rows.first = net->results;
        rows.n_rows = net->n_results;
    }
    return rows;
}

static float *row_of(const struct network *net, size_t id, size_t row, int32_t stream) {
    const struct value *value = &net->values[id];
    switch (value->space) {
    case SPACE_STATE:
        return net->states + (size_t)stream * net->state_stride + value->offset;
    case SPACE_CONSTANT:
        return (float *)value->constant; /* nothing writes to it: building saw to that */
    default: {
        const struct run_of_rows theirs = callers_rows(net, id);
        return row < theirs.n_rows ? theirs.first + row * theirs.stride
                                   : net->scratch + row * net->scratch_stride + value->offset;
    }
    }
}

static struct place_of_value place_of(const struct network *net, size_t id) {
    const int is_state = net->values[id].space == SPACE_STATE;
    const struct place_of_value place = {row_of(net, id, 0, 0), is_state ? net->state_stride : 0};
    return place;
}

static void place_values(struct network *net) {
    for (size_t i = 0; i < net->n_instructions; i++) {
        struct instruction *run = &net->instructions[i];
        run->in = place_of(net, run->inputs[0]);
        run->out = place_of(net, run->output);
        run->last = place_of(net, run->inputs[run->n_inputs ? run->n_inputs - 1 : 0]);
    }
    net->sample = place_of(net, INPUT_VALUE);
    net->result = place_of(net, net->output);
}

/* Whether the last instruction is a product that makes the output from something else. */
static int writes_results(const struct network *net) {
    const struct instruction *last =
        net->n_instructions ? &net->instructions[net->n_instructions - 1] : NULL;
    return last && last->kind == RUN_DENSE && last->output == net->output &&
           last->inputs[0] != net->output && net->values[net->output].width <= LANES &&
           net->values[net->output].space == SPACE_SCRATCH;
}

int network_seal(struct network *net, size_t output) {
    const size_t n_in = net->values[INPUT_VALUE].width;
    net->output = output;
    net->n_behind = (round_up(n_in, LANES) - 1) / n_in;
    net->writes_results = writes_results(net);
    net->runs_in_blocks = runs_in_blocks(net);
    for (size_t i = 0; i < net->n_instructions; i++) {
        struct cell *cell = &net->instructions[i].cell;
        cell->is_near = cell_is_near(cell);
    }
    if (!take_states(net) || !take_workspace(net)) {
        return 0;
    }
    place_values(net);
    net->runs_one = net->kernel->plain ? net->kernel->plain : net->kernel;
    net->runs = net->has_matrices ? net->kernel : net->runs_one;
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

static void add_run(struct run_of_rows run, float **rows) {
    for (size_t r = 0; r < run.n_rows; r++) {
        rows[r] = run.first + r * run.stride;
    }
}

static void rows_of(const struct network *net, size_t id, size_t n_rows, const int32_t *streams,
                    float **rows) {
    const struct value *value = &net->values[id];
    switch (value->space) {
    case SPACE_STATE: {
        float *const first = net->states + value->offset;
        const size_t stride = net->state_stride;
        for (size_t r = 0; r < n_rows; r++) {
            rows[r] = first + (size_t)streams[r] * stride;
        }
        break;
    }
    case SPACE_CONSTANT:
        add_run((struct run_of_rows){row_of(net, id, 0, 0), 0, n_rows}, rows);
        break;
    default: {
        struct run_of_rows theirs = callers_rows(net, id);
        theirs.n_rows = smaller(theirs.n_rows, n_rows);
        const size_t n = theirs.n_rows;
        float *const scratch = net->scratch + n * net->scratch_stride + value->offset;
        add_run(theirs, rows);
        add_run((struct run_of_rows){scratch, net->scratch_stride, n_rows - n}, rows + n);
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
    float *other[MAX_ROWS + 1];
    const size_t last = run->inputs[run->n_inputs - 1];
    float **c = last == run->inputs[1] ? h : other; /* of an LSTM */
    rows_of(net, run->inputs[0], n_rows, streams, x);
    rows_of(net, run->inputs[1], n_rows, streams, h + 1);
    if (c == other) {
        rows_of(net, last, n_rows, streams, c + 1);
    }
    if (streams == in_order) {
        h[0] = h[1] - net->state_stride;
        c[0] = c[1] - net->state_stride;
        net->runs->run(&run->cell, &net->room, n_rows, (const float *const *)x, h, c);
    } else {
        net->runs->step(&run->cell, &net->room, n_rows, (const float *const *)x, h + 1, c + 1);
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
        net->runs->dense(&run->dense, &net->room, n_rows, (const float *const *)first, run->bias,
                         second);
        break;
    case RUN_CELL:
        run_cell(net, run, n_rows, streams);
        break;
    case RUN_SIGMOID:
    case RUN_TANH:
        for (size_t r = 0; r < n_rows; r++) {
            const float *in = row_of(net, run->inputs[0], r, streams[r]);
            float *out = row_of(net, run->output, r, streams[r]);
            (run->kind == RUN_TANH ? net->runs->tanh : net->runs->sigmoid)(width, in, out);
        }
        break;
    default:
        run_operation(net, run, n_rows, streams);
        break;
    }
}

/* Short rows: a call would cost more than the copy. */
static void copy_row(float *to, const float *from, size_t n) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        memcpy(to + i, from + i, 4 * sizeof *to);
    }
    for (; i < n; i++) {
        to[i] = from[i];
    }
}

static inline float *at(const struct place_of_value *place, size_t stream) {
    return place->first + stream * place->stride;
}

/* One row: without lists of rows, for in small networks these take as long as the arithmetic. */
static void step_one(struct network *net, int32_t stream, const float *x, float *y) {
    const struct workspace *room = &net->room;
    const size_t s = (size_t)stream;
    net->room.is_backward = !net->room.is_backward;
    net->runs_one->take(net->values[INPUT_VALUE].width, x, net->sample.first);
    for (size_t i = 0; i < net->n_instructions; i++) {
        const struct instruction *run = &net->instructions[i];
        const float *in = at(&run->in, s);
        float *out = at(&run->out, s);
        if (run->kind == RUN_DENSE) {
            net->runs_one->dense(&run->dense, room, 1, &in, run->bias, &out);
        } else if (run->kind == RUN_CELL) {
            float *c = at(&run->last, s);
            net->runs_one->step(&run->cell, room, 1, &in, &out, &c);
        } else {
            run_instruction(net, run, 1, &stream);
        }
    }
    copy_row(y, at(&net->result, s), net->values[net->output].width);
}

/* At most rows_at_once rows; n_follow samples lie behind those. */
static void step_tile(struct network *net, size_t n_rows, const int32_t *streams, const float *x,
                      size_t n_follow, float *y) {
    const size_t n_in = net->values[INPUT_VALUE].width;
    const size_t n_out = net->values[net->output].width;
    const size_t n_least = net->n_behind > n_follow ? net->n_behind - n_follow : 0;
    net->room.is_backward = n_rows == 1 && !net->room.is_backward;
    net->samples = x;
    net->n_samples = n_rows > n_least ? n_rows - n_least : 0;
    net->results = y;
    net->n_results = net->writes_results ? n_rows : 0;
    while (net->n_results && (n_rows + n_follow - net->n_results + 1) * n_out < LANES) {
        net->n_results--; /* nothing is written beyond the last */
    }
    for (size_t r = net->n_samples; r < n_rows; r++) {
        copy_row(row_of(net, INPUT_VALUE, r, streams[r]), x + r * n_in, n_in);
    }
    for (size_t i = 0; i < net->n_instructions; i++) {
        run_instruction(net, &net->instructions[i], n_rows, streams);
    }
    for (size_t r = net->n_results; r < n_rows; r++) {
        copy_row(y + r * n_out, row_of(net, net->output, r, streams[r]), n_out);
    }
    net->n_samples = net->n_results = 0; /* the caller's rows are not ours any longer */
}

static int enter(const struct network *net, size_t n_rows) {
    const int is_in_matrix = n_rows > 1 && net->has_matrices;
    if (is_in_matrix) {
        net->runs->enter_matrix();
    }
    return is_in_matrix;
}

static void leave(const struct network *net, int is_in_matrix) {
    if (is_in_matrix) {
        net->runs->leave_matrix();
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
        step_tile(net, n, streams + r, x + r * net->values[INPUT_VALUE].width, n_rows - r - n,
                  y + r * net->values[net->output].width);
    }
    leave(net, is_in_matrix);
    float_mode_leave(mode);
}

/* At most rows_at_once steps of a stream: instruction by instruction, a row a step. */
static void run_block(struct network *net, size_t n_steps, int32_t stream, const float *x,
                      size_t n_follow, float *y) {
    float *state = net->states + (size_t)stream * net->state_stride;
    const size_t n_bytes = net->state_stride * sizeof *state;
    struct network steps = *net;
    steps.states = net->trace + net->state_stride;
    memcpy(net->trace, state, n_bytes);
    step_tile(&steps, n_steps, in_order, x, n_follow, y);
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
            run_block(net, n, stream, samples, n_steps - t - n, outputs);
        } else {
            step_one(net, stream, samples, outputs);
        }
    }
    leave(net, is_in_matrix);
    float_mode_leave(mode);
}
