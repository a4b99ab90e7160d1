/*
 * A step of a model as a list of instructions, and the states of its streams.
 *
 * A value is a row of floats for each stream: the input, a state (in place), a place in scratch
 * memory, or a constant. Building checks everything, so running cannot fail.
 */
#ifndef EDGE_GRU_NETWORK_H
#define EDGE_GRU_NETWORK_H

#include "arena.h"
#include "kernel.h"
#include "operations.h"

enum space { SPACE_SCRATCH, SPACE_STATE, SPACE_CONSTANT };

struct value {
    enum space space;
    size_t width;
    size_t offset;         /* in floats, of a row of its space */
    const float *constant; /* of SPACE_CONSTANT; of a state what it starts from */
};

enum instruction_kind { RUN_OPERATION, RUN_DENSE, RUN_CELL, RUN_SIGMOID, RUN_TANH };

/* Where a value lies: of the first stream, and how far it is to the next, in floats. */
struct place_of_value {
    float *first;
    size_t stride; /* 0 if streams share it */
};

struct instruction {
    enum instruction_kind kind;
    size_t inputs[MAX_INPUTS]; /* of a cell: x, h, c; the last two are its outputs as well */
    size_t n_inputs;
    size_t output;
    const struct operation *operation;
    double parameters[MAX_PARAMETERS];
    int32_t *indices;
    struct product dense;
    float *bias;
    struct cell cell;
    /* Once sealed, of one row: */
    struct place_of_value in;
    struct place_of_value out;
    struct place_of_value last; /* input: c of an LSTM */
};

struct network {
    const struct kernel *kernel;
    const struct kernel *runs;     /* once sealed: that, or its plain one */
    const struct kernel *runs_one; /* of a single row: no matrix registers in any case */
    struct arena arena;
    size_t n_streams;
    struct value *values;
    size_t n_values;
    struct instruction *instructions;
    size_t n_instructions;
    size_t output;
    struct place_of_value sample; /* once sealed, of one row */
    struct place_of_value result;
    float *states; /* [stream][state_stride] */
    float *start;  /* what a stream begins with */
    size_t state_stride;
    float *scratch; /* [row][scratch_stride] */
    size_t scratch_stride;
    size_t rows_at_once;
    float *trace;       /* [step][state_stride]: the states of a stream, before each step and after */
    int runs_in_blocks; /* whether a sequence can go through the list instruction by instruction */
    /* Of the tile under way, where the caller has them: whole lanes are read and written. */
    const float *samples;
    size_t n_samples; /* the first; those after have been copied */
    size_t n_behind;  /* that have to follow a sample */
    float *results;
    size_t n_results;   /* the first; those after are copied */
    int writes_results; /* whether the last instruction can write them, in ascending order */
    struct workspace room;
    int has_matrices;
    size_t widest; /* value */
    int is_sealed;
};

enum { INPUT_VALUE = 0 };

/* All return 0 if memory runs out. */
int network_init(struct network *, const struct kernel *, size_t n_in, size_t n_streams);
int network_add_scratch(struct network *, size_t width, size_t *id);
int network_add_state(struct network *, const float *start, size_t width, size_t *id);
int network_add_constant(struct network *, const float *values, size_t width, size_t *id);
/* An empty instruction at the end of the list; NULL if memory runs out. */
struct instruction *network_add_instruction(struct network *);
/* Nothing can be added afterwards; every stream begins at its start. */
int network_seal(struct network *, size_t output);
void network_free(struct network *);

/* Advance distinct streams by one row each: x (n_rows, n_in), y (n_rows, n_out). */
void network_step(struct network *, size_t n_rows, const int32_t *streams, const float *x,
                  float *y);
/* Advance one stream by many rows. */
void network_run(struct network *, size_t n_steps, int32_t stream, const float *x, float *y);
void network_reset(struct network *, size_t first, size_t end);
/* Where a state of a stream lies. */
float *network_state(struct network *, size_t id, size_t stream);

#endif
