/* Methods that build a network: every size and index is checked here, so that running need not. */
#include "binding.h"
#include "pack.h"

#include <string.h>

enum { MAX_WIDTH = 1 << 24 };

static struct network *open_network(PyObject *self) {
    struct network *net = &((NetworkObject *)self)->net;
    if (net->is_sealed) {
        PyErr_SetString(PyExc_ValueError, "expected a network that is not sealed yet");
        return NULL;
    }
    return net;
}

static PyObject *id_or_no_memory(int is_done, size_t id) {
    return is_done ? PyLong_FromSize_t(id) : PyErr_NoMemory();
}

typedef int AddRow(struct network *, const float *, size_t, size_t *);

static PyObject *add_row(PyObject *self, PyObject *array, AddRow *add) {
    struct network *net = open_network(self);
    const npy_intp sizes[] = {-1};
    size_t id = 0;
    const float *values =
        net ? array_data(array, NPY_FLOAT32, 1, sizes, "a row of values") : NULL;
    if (!values) {
        return NULL;
    }
    const int is_done = add(net, values, (size_t)PyArray_DIM((PyArrayObject *)array, 0), &id);
    return id_or_no_memory(is_done, id);
}

PyObject *build_state(PyObject *self, PyObject *start) {
    return add_row(self, start, network_add_state);
}

PyObject *build_constant(PyObject *self, PyObject *values) {
    return add_row(self, values, network_add_constant);
}

PyObject *build_scratch(PyObject *self, PyObject *argument) {
    struct network *net = open_network(self);
    const Py_ssize_t width = net ? PyLong_AsSsize_t(argument) : -1;
    size_t id = 0;
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (width < 1 || width > MAX_WIDTH) {
        return PyErr_Format(PyExc_ValueError, "expected a width from 1 to %d, got %zd", MAX_WIDTH,
                            width);
    }
    const int is_done = network_add_scratch(net, (size_t)width, &id);
    return id_or_no_memory(is_done, id);
}

/* Whether the value exists, and can be written to if that is asked. */
static int check_value(const struct network *net, Py_ssize_t id, int is_written) {
    if (id < 0 || (size_t)id >= net->n_values) {
        PyErr_Format(PyExc_ValueError, "expected a value below %zu, got %zd", net->n_values, id);
        return 0;
    }
    if (is_written && (id == INPUT_VALUE || net->values[id].space == SPACE_CONSTANT)) {
        PyErr_Format(PyExc_ValueError, "expected a value that can be written, got %zd", id);
        return 0;
    }
    return 1;
}

static int check_width(const struct network *net, Py_ssize_t id, int is_written, size_t width) {
    if (!check_value(net, id, is_written)) {
        return 0;
    }
    if (net->values[id].width != width) {
        PyErr_Format(PyExc_ValueError, "expected value %zd to be %zu wide, got %zu", id, width,
                     net->values[id].width);
        return 0;
    }
    return 1;
}

static int check_operation(const struct network *net, const struct operation *operation,
                           const struct instruction *run) {
    const size_t n = net->values[run->output].width;
    for (size_t i = 0; i < run->n_inputs; i++) {
        const size_t width = net->values[run->inputs[i]].width;
        const int is_free = !operation->is_elementwise && i == 0 && run->indices;
        if (!is_free && width != n && (width != 1 || (!operation->is_elementwise && i == 0))) {
            PyErr_Format(PyExc_ValueError, "%s cannot make %zu values of %zu", operation->name, n,
                         width);
            return 0;
        }
    }
    return 1;
}

/* Gather reads, and Scatter writes, where the indices say. */
static int check_indices(const struct network *net, struct instruction *run, PyObject *indices) {
    const int is_scatter = strcmp(run->operation->name, "Scatter") == 0;
    const int is_needed = is_scatter || strcmp(run->operation->name, "Gather") == 0;
    const size_t n_in = net->values[run->inputs[0]].width;
    const size_t n_out = net->values[run->output].width;
    const npy_intp sizes[] = {(npy_intp)(is_scatter ? n_in : n_out)};
    if (!is_needed && indices == Py_None) {
        return 1;
    }
    const int32_t *at = is_needed ? array_data(indices, NPY_INT32, 1, sizes, "indices") : NULL;
    for (npy_intp i = 0; at && i < sizes[0]; i++) {
        if (at[i] < 0 || (size_t)at[i] >= (is_scatter ? n_out : n_in)) {
            at = NULL;
        }
    }
    if (!at) {
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_ValueError, "%s got indices that it does not take",
                         run->operation->name);
        }
        return 0;
    }
    run->indices = (int32_t *)(uintptr_t)at; /* the caller copies */
    return 1;
}

static int read_inputs(const struct network *net, PyObject *ids, struct instruction *run) {
    run->n_inputs = (size_t)PyTuple_GET_SIZE(ids);
    if (run->n_inputs < run->operation->least_inputs ||
        run->n_inputs > run->operation->most_inputs) {
        PyErr_Format(PyExc_ValueError, "%s cannot take %zu inputs", run->operation->name,
                     run->n_inputs);
        return 0;
    }
    for (size_t i = 0; i < run->n_inputs; i++) {
        const Py_ssize_t id = PyLong_AsSsize_t(PyTuple_GET_ITEM(ids, (Py_ssize_t)i));
        if (PyErr_Occurred() || !check_value(net, id, 0)) {
            return 0;
        }
        run->inputs[i] = (size_t)id;
    }
    return 1;
}

static int read_parameters(PyObject *parameters, struct instruction *run) {
    if ((size_t)PyTuple_GET_SIZE(parameters) != run->operation->n_parameters) {
        PyErr_Format(PyExc_ValueError, "%s takes %zu parameters", run->operation->name,
                     run->operation->n_parameters);
        return 0;
    }
    for (size_t i = 0; i < run->operation->n_parameters; i++) {
        run->parameters[i] = PyFloat_AsDouble(PyTuple_GET_ITEM(parameters, (Py_ssize_t)i));
    }
    return !PyErr_Occurred();
}

static int append(struct network *net, const struct instruction *run) {
    struct instruction *end = network_add_instruction(net);
    if (!end) {
        PyErr_NoMemory();
        return 0;
    }
    *end = *run;
    return 1;
}

PyObject *build_operation(PyObject *self, PyObject *args) {
    struct network *net = open_network(self);
    struct instruction run = {.kind = RUN_OPERATION};
    const char *name;
    PyObject *ids, *parameters, *indices;
    Py_ssize_t output;
    if (!net || !PyArg_ParseTuple(args, "sO!nO!O", &name, &PyTuple_Type, &ids, &output,
                                  &PyTuple_Type, &parameters, &indices)) {
        return NULL;
    }
    const int is_tanh = strcmp(name, "Tanh") == 0;
    const int is_sigmoid = strcmp(name, "Sigmoid") == 0;
    run.operation = operation_named(is_tanh || is_sigmoid ? "Neg" : name); /* of the same shape */
    if (!run.operation) {
        return PyErr_Format(PyExc_ValueError, "there is no operation %s", name);
    }
    if (!check_value(net, output, 1) || !read_inputs(net, ids, &run) ||
        !read_parameters(parameters, &run)) {
        return NULL;
    }
    run.output = (size_t)output;
    if (!check_indices(net, &run, indices) || !check_operation(net, run.operation, &run)) {
        return NULL;
    }
    if (is_tanh || is_sigmoid) {
        run.kind = is_tanh ? RUN_TANH : RUN_SIGMOID;
        if (!check_width(net, (Py_ssize_t)run.inputs[0], 0, net->values[run.output].width)) {
            return NULL;
        }
    }
    if (run.indices) {
        const size_t n = (size_t)PyArray_DIM((PyArrayObject *)indices, 0);
        int32_t *copy = arena_take(&net->arena, n, sizeof *copy);
        if (!copy) {
            return PyErr_NoMemory();
        }
        memcpy(copy, run.indices, n * sizeof *copy);
        run.indices = copy;
    }
    if (!append(net, &run)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static const char *const form_names[N_FORMS] = {"fp32", "fp16", "int8", "int8-hilo"};
static const char *const cell_names[N_CELLS] = {"GRU", "GRU_RESET_FIRST", "LSTM", "RNN_TANH",
                                                "RNN_RELU"};

static int index_of(const char *const *names, int n, const char *name, const char *what) {
    for (int i = 0; i < n; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    PyErr_Format(PyExc_ValueError, "there is no %s %s", what, name);
    return -1;
}

static int has_lowest_int8(const int8_t *w, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (w[i] == INT8_MIN) {
            return 1;
        }
    }
    return 0;
}

static int read_int8(struct matrix *matrix, PyObject *weights, PyObject *scale) {
    const npy_intp sizes[] = {(npy_intp)(matrix->n_gates * matrix->n_units),
                              (npy_intp)matrix->n_operand};
    matrix->weights_int8 = array_data(weights, NPY_INT8, 2, sizes, "weights");
    matrix->scale =
        matrix->weights_int8 ? array_data(scale, NPY_FLOAT32, 1, sizes, "scales") : NULL;
    if (!matrix->scale) {
        return 0;
    }
    if (has_lowest_int8(matrix->weights_int8, (size_t)(sizes[0] * sizes[1]))) {
        PyErr_SetString(PyExc_ValueError, "expected weights from -127 to 127, got -128");
        return 0;
    }
    return 1;
}

/* A product is (form, weights, scale or None, gain or None, operand step). */
static int read_matrix(PyObject *product, size_t n_gates, size_t n_units, size_t n_operand,
                       struct matrix *matrix) {
    const char *form_name;
    PyObject *weights, *scale, *gain;
    double step;
    const npy_intp sizes[] = {(npy_intp)(n_gates * n_units), (npy_intp)n_operand};
    *matrix = (struct matrix){.n_gates = n_gates, .n_units = n_units, .n_operand = n_operand};
    if (!PyTuple_Check(product)) {
        PyErr_SetString(PyExc_ValueError, "expected a product as a tuple");
        return 0;
    }
    if (!PyArg_ParseTuple(product, "sOOOd", &form_name, &weights, &scale, &gain, &step)) {
        return 0;
    }
    const int form = index_of(form_names, N_FORMS, form_name, "product");
    if (form < 0) {
        return 0;
    }
    if (n_operand > MAX_OPERAND || !(step > 0.0 && step < 1e30)) {
        PyErr_Format(PyExc_ValueError,
                     "expected at most %d operands on a positive grid, got %zu", MAX_OPERAND,
                     n_operand);
        return 0;
    }
    matrix->form = (enum form)form;
    if (!grid_of((float)step, &matrix->grid)) {
        PyErr_Format(PyExc_ValueError, "expected a larger step of the operand, got %R",
                     PyTuple_GET_ITEM(product, 4));
        return 0;
    }
    if (gain != Py_None &&
        !(matrix->gain = array_data(gain, NPY_FLOAT32, 1, sizes + 1, "gains"))) {
        return 0;
    }
    if (form == FORM_INT8 || form == FORM_INT8_HILO) {
        return read_int8(matrix, weights, scale);
    }
    matrix->weights = array_data(weights, NPY_FLOAT32, 2, sizes, "weights");
    return matrix->weights != NULL;
}

static int read_product(struct network *net, PyObject *product, size_t n_gates, size_t n_units,
                        size_t n_operand, size_t n_group, struct product *out) {
    struct matrix matrix;
    if (!read_matrix(product, n_gates, n_units, n_operand, &matrix)) {
        return 0;
    }
    if (!pack_product(&net->arena, net->kernel, &matrix, n_group, out)) {
        PyErr_NoMemory();
        return 0;
    }
    return 1;
}

static float *read_rows(struct network *net, PyObject *array, size_t n_gates, size_t n_units) {
    const npy_intp sizes[] = {(npy_intp)(n_gates * n_units)};
    const float *values = array_data(array, NPY_FLOAT32, 1, sizes, "a bias");
    float *packed = values ? pack_row_values(&net->arena, values, n_gates, n_units) : NULL;
    if (values && !packed) {
        PyErr_NoMemory();
    }
    return packed;
}

PyObject *build_dense(PyObject *self, PyObject *args) {
    struct network *net = open_network(self);
    struct instruction run = {.kind = RUN_DENSE, .n_inputs = 1};
    Py_ssize_t input, output;
    PyObject *product, *bias;
    if (!net || !PyArg_ParseTuple(args, "nnOO", &input, &output, &product, &bias) ||
        !check_value(net, input, 0) || !check_value(net, output, 1)) {
        return NULL;
    }
    const size_t n_out = net->values[output].width;
    run.inputs[0] = (size_t)input;
    run.output = (size_t)output;
    run.bias = read_rows(net, bias, 1, n_out);
    if (!run.bias || !read_product(net, product, 1, n_out, net->values[input].width, DENSE_GROUP,
                                   &run.dense)) {
        return NULL;
    }
    if (!append(net, &run)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static const size_t cell_gates[N_CELLS] = {3, 3, 4, 1, 1};

/* The product of an LSTM's projection, and the rows of a candidate that follow the reset. */
static int read_further_products(struct network *net, struct cell *cell, size_t n_h,
                                 PyObject *candidate, PyObject *projection) {
    if (cell->kind == CELL_GRU_RESET_FIRST &&
        !read_product(net, candidate, 1, cell->n_hidden, n_h, 1, &cell->h_candidate)) {
        return 0;
    }
    cell->has_projection = cell->kind == CELL_LSTM && projection != Py_None;
    return !cell->has_projection || read_product(net, projection, 1, n_h, cell->n_hidden,
                                                 DENSE_GROUP, &cell->projection);
}

static int read_biases(struct network *net, struct cell *cell, PyObject *bias,
                       PyObject *bias_candidate) {
    cell->bias = read_rows(net, bias, cell->n_gates, cell->n_hidden);
    if (cell->bias && cell->kind == CELL_GRU) {
        cell->bias_candidate = read_rows(net, bias_candidate, 1, cell->n_hidden);
        return cell->bias_candidate != NULL;
    }
    return cell->bias != NULL;
}

static int check_states(const struct network *net, const struct cell *cell, Py_ssize_t h,
                        Py_ssize_t c, int has_projection) {
    if (!check_value(net, h, 1)) {
        return 0;
    }
    if (!has_projection && !check_width(net, h, 1, cell->n_hidden)) {
        return 0;
    }
    if (cell->kind != CELL_LSTM) {
        return 1;
    }
    if (h == c) {
        PyErr_SetString(PyExc_ValueError, "expected two states of an LSTM, got one twice");
        return 0;
    }
    return check_width(net, c, 1, cell->n_hidden);
}

/* cell(kind, n_hidden, x, h, c, x product, h product, candidate, projection, bias, candidate's) */
PyObject *build_cell(PyObject *self, PyObject *args) {
    struct network *net = open_network(self);
    struct instruction run = {.kind = RUN_CELL};
    struct cell *cell = &run.cell;
    const char *kind_name;
    Py_ssize_t n_hidden, x, h, c;
    PyObject *x_product, *h_product, *candidate, *projection, *bias, *bias_candidate;
    if (!net || !PyArg_ParseTuple(args, "snnnnOOOOOO", &kind_name, &n_hidden, &x, &h, &c,
                                  &x_product, &h_product, &candidate, &projection, &bias,
                                  &bias_candidate)) {
        return NULL;
    }
    const int kind = index_of(cell_names, N_CELLS, kind_name, "cell");
    if (kind < 0 || !check_value(net, x, 0)) {
        return NULL;
    }
    if (n_hidden < 1 || n_hidden > MAX_OPERAND) {
        return PyErr_Format(PyExc_ValueError, "expected 1 to %d units, got %zd", MAX_OPERAND,
                            n_hidden);
    }
    cell->kind = (enum cell_kind)kind;
    cell->n_gates = cell_gates[kind];
    cell->n_hidden = (size_t)n_hidden;
    cell->n_blocks = round_up(cell->n_hidden, LANES) / LANES;
    if (!check_states(net, cell, h, c, kind == CELL_LSTM && projection != Py_None)) {
        return NULL;
    }
    const size_t n_h = net->values[h].width;
    const size_t h_gates = kind == CELL_GRU_RESET_FIRST ? 2 : cell->n_gates;
    const int is_rnn = kind == CELL_RNN_TANH || kind == CELL_RNN_RELU;
    const size_t x_group = is_rnn ? DENSE_GROUP : cell->n_gates; /* an RNN has no blocks of gates */
    const size_t h_group = is_rnn ? DENSE_GROUP : h_gates;
    if (!read_product(net, x_product, cell->n_gates, cell->n_hidden, net->values[x].width,
                      x_group, &cell->x) ||
        !read_product(net, h_product, h_gates, cell->n_hidden, n_h, h_group, &cell->h) ||
        !read_further_products(net, cell, n_h, candidate, projection) ||
        !read_biases(net, cell, bias, bias_candidate)) {
        return NULL;
    }
    run.n_inputs = kind == CELL_LSTM ? 3 : 2;
    run.inputs[0] = (size_t)x;
    run.inputs[1] = (size_t)h;
    run.inputs[2] = (size_t)(kind == CELL_LSTM ? c : h);
    run.output = (size_t)h;
    if (!append(net, &run)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *build_seal(PyObject *self, PyObject *argument) {
    NetworkObject *network = (NetworkObject *)self;
    struct network *net = open_network(self);
    const Py_ssize_t output = net ? PyLong_AsSsize_t(argument) : -1;
    if (PyErr_Occurred() || !check_value(net, output, 0)) {
        return NULL;
    }
    network->marks = arena_take(&net->arena, net->n_streams, sizeof *network->marks);
    network->streams = arena_take(&net->arena, net->n_streams, sizeof *network->streams);
    if (!network->marks || !network->streams || !network_seal(net, (size_t)output)) {
        return PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}
