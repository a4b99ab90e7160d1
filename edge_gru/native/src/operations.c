#include "operations.h"

#include "exact.h"

#include <math.h>
#include <string.h>

static float at(struct operand a, size_t i) { return a.values[a.width == 1 ? 0 : i]; }

#define UNARY(name, expression)                                                                    \
    static void name(const struct arguments *args, size_t n, float *out) {                         \
        for (size_t i = 0; i < n; i++) {                                                           \
            const float a = at(args->inputs[0], i);                                                \
            out[i] = (float)(expression);                                                          \
        }                                                                                          \
    }

#define BINARY(name, expression)                                                                   \
    static void name(const struct arguments *args, size_t n, float *out) {                         \
        for (size_t i = 0; i < n; i++) {                                                           \
            const float a = at(args->inputs[0], i);                                                \
            const float b = at(args->inputs[1], i);                                                \
            out[i] = (float)(expression);                                                          \
        }                                                                                          \
    }

BINARY(add, a + b)
BINARY(subtract, a - b)
BINARY(multiply, a *b)
BINARY(divide, a / b)
BINARY(power, exact_pow((double)a, (double)b))
/* The comparisons are false for NaN, which so passes through, whichever side it is on. */
BINARY(maximum, isnan(a) || a > b ? a : b)
BINARY(minimum, isnan(a) || a < b ? a : b)

UNARY(negate, -a)
UNARY(magnitude, fabsf(a))
UNARY(square_root, sqrtf(a))
UNARY(reciprocal, 1.0f / a)
UNARY(exponential, exact_exp((double)a))
UNARY(logarithm, exact_log((double)a))
UNARY(error_function, exact_erf((double)a))
UNARY(relu, a < 0.0f ? 0.0f : a)
UNARY(leaky_relu, a < 0.0f ? args->parameters[0] * (double)a : (double)a)
UNARY(elu, a < 0.0f ? args->parameters[0] * exact_expm1((double)a) : (double)a)
UNARY(softplus, (a > 0.0f ? (double)a : 0.0) + exact_log(1.0 + exact_exp(-fabs((double)a))))
UNARY(hard_sigmoid,
      fmin(fmax(args->parameters[0] * (double)a + args->parameters[1], 0.0), 1.0))

static void clip(const struct arguments *args, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) {
        const float a = at(args->inputs[0], i);
        const float low = at(args->inputs[1], i);
        const float high = at(args->inputs[2], i);
        const float raised = a < low ? low : a;
        out[i] = raised > high ? high : raised;
    }
}

/* sum of exp(a - largest), and the largest */
static double exponential_sum(const float *a, size_t n, double *largest) {
    double most = (double)a[0];
    double sum = 0.0;
    for (size_t i = 1; i < n; i++) {
        most = (double)a[i] > most ? (double)a[i] : most;
    }
    for (size_t i = 0; i < n; i++) {
        sum += exact_exp((double)a[i] - most);
    }
    *largest = most;
    return sum;
}

static void softmax(const struct arguments *args, size_t n, float *out) {
    const float *a = args->inputs[0].values;
    double most;
    const double sum = exponential_sum(a, n, &most);
    for (size_t i = 0; i < n; i++) {
        out[i] = (float)(exact_exp((double)a[i] - most) / sum);
    }
}

static void log_softmax(const struct arguments *args, size_t n, float *out) {
    const float *a = args->inputs[0].values;
    double most;
    const double log_sum = exact_log(exponential_sum(a, n, &most));
    for (size_t i = 0; i < n; i++) {
        out[i] = (float)((double)a[i] - most - log_sum);
    }
}

/* Parameter: epsilon. Inputs: values, scale, and bias or nothing. */
static void layer_normalization(const struct arguments *args, size_t n, float *out) {
    const float *a = args->inputs[0].values;
    double sum = 0.0;
    double squares = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)a[i];
    }
    const double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) {
        const double centred = (double)a[i] - mean;
        squares += centred * centred;
    }
    const double root = sqrt(squares / (double)n + args->parameters[0]);
    for (size_t i = 0; i < n; i++) {
        const double scaled = ((double)a[i] - mean) / root * (double)at(args->inputs[1], i);
        const double bias = args->n_inputs == 3 ? (double)at(args->inputs[2], i) : 0.0;
        out[i] = (float)(scaled + bias);
    }
}

static void copy(const struct arguments *args, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) {
        out[i] = at(args->inputs[0], i);
    }
}

static void gather(const struct arguments *args, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) {
        out[i] = args->inputs[0].values[args->indices[i]];
    }
}

/* Fills only the places that the indices name: the parts of a concatenation. */
static void scatter(const struct arguments *args, size_t n, float *out) {
    (void)n;
    for (size_t i = 0; i < args->inputs[0].width; i++) {
        out[args->indices[i]] = args->inputs[0].values[i];
    }
}

static const struct operation operations[] = {
    {"Add", 2, 2, 0, 1, add},
    {"Sub", 2, 2, 0, 1, subtract},
    {"Mul", 2, 2, 0, 1, multiply},
    {"Div", 2, 2, 0, 1, divide},
    {"Pow", 2, 2, 0, 1, power},
    {"Max", 2, 2, 0, 1, maximum},
    {"Min", 2, 2, 0, 1, minimum},
    {"Neg", 1, 1, 0, 1, negate},
    {"Abs", 1, 1, 0, 1, magnitude},
    {"Sqrt", 1, 1, 0, 1, square_root},
    {"Reciprocal", 1, 1, 0, 1, reciprocal},
    {"Exp", 1, 1, 0, 1, exponential},
    {"Log", 1, 1, 0, 1, logarithm},
    {"Erf", 1, 1, 0, 1, error_function},
    {"Relu", 1, 1, 0, 1, relu},
    {"LeakyRelu", 1, 1, 1, 1, leaky_relu},
    {"Elu", 1, 1, 1, 1, elu},
    {"Softplus", 1, 1, 0, 1, softplus},
    {"HardSigmoid", 1, 1, 2, 1, hard_sigmoid},
    {"Clip", 3, 3, 0, 1, clip},
    {"Softmax", 1, 1, 0, 0, softmax},
    {"LogSoftmax", 1, 1, 0, 0, log_softmax},
    {"LayerNormalization", 2, 3, 1, 0, layer_normalization},
    {"Copy", 1, 1, 0, 1, copy},
    {"Gather", 1, 1, 0, 0, gather},
    {"Scatter", 1, 1, 0, 0, scatter},
};

enum { N_OPERATIONS = sizeof operations / sizeof operations[0] };

const struct operation *operation_at(size_t index) {
    return index < N_OPERATIONS ? &operations[index] : NULL;
}

const struct operation *operation_named(const char *name) {
    for (size_t i = 0; i < N_OPERATIONS; i++) {
        if (strcmp(operations[i].name, name) == 0) {
            return &operations[i];
        }
    }
    return NULL;
}
