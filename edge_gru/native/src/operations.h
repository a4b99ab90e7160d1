/* The operations around the cells, one row at a time, by their ONNX names. */
#ifndef EDGE_GRU_OPERATIONS_H
#define EDGE_GRU_OPERATIONS_H

#include <stddef.h>
#include <stdint.h>

enum { MAX_INPUTS = 3, MAX_PARAMETERS = 2 };

/* A row of values, or one value for all lanes of the result. */
struct operand {
    const float *values;
    size_t width;
};

struct arguments {
    struct operand inputs[MAX_INPUTS];
    size_t n_inputs;
    double parameters[MAX_PARAMETERS];
    const int32_t *indices;
};

struct operation {
    const char *name;
    size_t least_inputs;
    size_t most_inputs;
    size_t n_parameters;
    /* Inputs are as wide as the output or one value; otherwise the first may have any width. */
    int is_elementwise;
    void (*run)(const struct arguments *, size_t n, float *out);
};

/* NULL if there is none of that name. */
const struct operation *operation_named(const char *name);
/* NULL beyond the last. */
const struct operation *operation_at(size_t index);

#endif
