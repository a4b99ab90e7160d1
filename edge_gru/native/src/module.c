/* The Python type Network: a thin binding whose step costs no more than the checks of its arrays. */
#define BINDING_IMPORTS_ARRAY
#include "binding.h"

#include <string.h>

static NetworkObject *ready(PyObject *self) {
    NetworkObject *network = (NetworkObject *)self;
    if (!network->net.is_sealed) {
        PyErr_SetString(PyExc_ValueError, "expected a sealed network");
        return NULL;
    }
    if (network->is_running) {
        PyErr_SetString(PyExc_RuntimeError,
                        "the engine is running in another thread; give each thread its own");
        return NULL;
    }
    return network;
}

static size_t n_in(const NetworkObject *network) { return network->net.values[INPUT_VALUE].width; }

static size_t n_out(const NetworkObject *network) {
    return network->net.values[network->net.output].width;
}

/* Whether the object is a contiguous, aligned array of native float32 of these sizes. */
static int is_row(PyObject *object, size_t n) {
    PyArrayObject *array = (PyArrayObject *)object;
    return PyArray_Check(object) && PyArray_TYPE(array) == NPY_FLOAT32 &&
           PyArray_NDIM(array) == 1 && (size_t)PyArray_DIM(array, 0) == n &&
           PyArray_ISCARRAY_RO(array);
}

static int is_table(PyObject *object, size_t n_columns) {
    PyArrayObject *array = (PyArrayObject *)object;
    return PyArray_Check(object) && PyArray_TYPE(array) == NPY_FLOAT32 &&
           PyArray_NDIM(array) == 2 && (size_t)PyArray_DIM(array, 1) == n_columns &&
           PyArray_ISCARRAY_RO(array);
}

static npy_int64 *counts_of(const NetworkObject *network) {
    return PyArray_DATA((PyArrayObject *)network->counts);
}

/* The argument called out, by place or by name, or NULL; 0 if there is any other. */
static int read_out(PyObject *const *args, Py_ssize_t n_args, PyObject *names, PyObject **out) {
    const Py_ssize_t n_named = names ? PyTuple_GET_SIZE(names) : 0;
    *out = NULL;
    if (n_args + n_named == 2 && n_args > 0) {
        if (n_named && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "out") != 0) {
            return 0;
        }
        *out = args[1] == Py_None ? NULL : args[1];
        return 1;
    }
    return n_args == 1 && n_named == 0;
}

static PyObject *network_step_method(PyObject *self, PyObject *const *args, Py_ssize_t n_args,
                                     PyObject *names) {
    NetworkObject *network = ready(self);
    PyObject *out;
    if (!network) {
        return NULL;
    }
    if (!read_out(args, n_args, names, &out) || !is_row(args[0], n_in(network)) ||
        (out && !(is_row(out, n_out(network)) && PyArray_ISWRITEABLE((PyArrayObject *)out)))) {
        return PyObject_Vectorcall(network->step_any, args, (size_t)n_args, names);
    }
    if (out) {
        Py_INCREF(out);
    } else {
        npy_intp size = (npy_intp)n_out(network);
        out = PyArray_SimpleNew(1, &size, NPY_FLOAT32);
        if (!out) {
            return NULL;
        }
    }
    const int32_t stream = 0;
    network_step(&network->net, 1, &stream, PyArray_DATA((PyArrayObject *)args[0]),
                 PyArray_DATA((PyArrayObject *)out));
    counts_of(network)[0]++;
    return out;
}

/* Copy the streams and mark them, or take the first n; 0 if one does not exist, or comes twice. */
static int take_streams(NetworkObject *network, const int32_t *streams, size_t n) {
    if (!streams) {
        int32_t *first = network->streams;
        for (size_t i = 0; i < n; i++) {
            first[i] = (int32_t)i;
        }
        return 1;
    }
    const uint32_t mark = ++network->n_batches;
    if (mark == 0) { /* wrapped: old marks would look new */
        memset(network->marks, 0, network->net.n_streams * sizeof *network->marks);
        network->n_batches = 1;
        return take_streams(network, streams, n);
    }
    for (size_t i = 0; i < n; i++) {
        const int32_t stream = streams[i];
        if (stream < 0 || (size_t)stream >= network->net.n_streams ||
            network->marks[stream] == mark) {
            return 0;
        }
        network->marks[stream] = mark;
        network->streams[i] = stream;
    }
    return 1;
}

/* The data of streams for a batch of n, or NULL and is_other for what only numpy can convert. */
static const int32_t *streams_of(PyObject *streams, size_t n, int *is_other) {
    PyArrayObject *array = (PyArrayObject *)streams;
    *is_other = 0;
    if (streams == Py_None) {
        return NULL;
    }
    if (PyArray_Check(streams) && PyArray_TYPE(array) == NPY_INT32 && PyArray_NDIM(array) == 1 &&
        (size_t)PyArray_DIM(array, 0) == n && PyArray_ISCARRAY_RO(array)) {
        return PyArray_DATA(array);
    }
    *is_other = 1;
    return NULL;
}

static void run_batch(NetworkObject *network, size_t n, const float *x, float *y) {
    network->is_running = 1;
    Py_BEGIN_ALLOW_THREADS;
    network_step(&network->net, n, network->streams, x, y);
    Py_END_ALLOW_THREADS;
    network->is_running = 0;
}

static PyObject *new_table(size_t n_rows, size_t n_columns) {
    npy_intp sizes[] = {(npy_intp)n_rows, (npy_intp)n_columns};
    return PyArray_SimpleNew(2, sizes, NPY_FLOAT32);
}

static void count_batch(NetworkObject *network, const int32_t *streams, size_t n) {
    npy_int64 *counts = counts_of(network);
    for (size_t i = 0; !streams && i < n; i++) {
        counts[i]++;
    }
    for (size_t i = 0; streams && i < n; i++) {
        counts[network->streams[i]]++; /* the caller's may have changed meanwhile */
    }
}

/* The batch if it needs no conversion and is right in every way, or NULL without an error. */
static PyObject *quick_batch(NetworkObject *network, PyObject *x, PyObject *streams) {
    if (!is_table(x, n_in(network))) {
        return NULL;
    }
    int is_other;
    const size_t n = (size_t)PyArray_DIM((PyArrayObject *)x, 0);
    const int32_t *wanted = streams_of(streams, n, &is_other);
    if (is_other || n > network->net.n_streams || !take_streams(network, wanted, n)) {
        return NULL;
    }
    PyObject *y = new_table(n, n_out(network));
    if (y) {
        run_batch(network, n, PyArray_DATA((PyArrayObject *)x), PyArray_DATA((PyArrayObject *)y));
        count_batch(network, wanted, n);
    }
    return y;
}

static PyObject *network_batch_method(PyObject *self, PyObject *const *args, Py_ssize_t n_args,
                                      PyObject *names) {
    NetworkObject *network = ready(self);
    if (!network) {
        return NULL;
    }
    if (!names && (n_args == 1 || n_args == 2)) {
        PyObject *y = quick_batch(network, args[0], n_args == 2 ? args[1] : Py_None);
        if (y || PyErr_Occurred()) {
            return y;
        }
    }
    return PyObject_Vectorcall(network->batch_any, args, (size_t)n_args, names);
}

/* advance(x, streams, out): a batch that the caller has checked and counts. */
static PyObject *network_advance_method(PyObject *self, PyObject *args) {
    NetworkObject *network = ready(self);
    PyObject *x, *streams, *out;
    if (!network || !PyArg_ParseTuple(args, "OOO", &x, &streams, &out)) {
        return NULL;
    }
    npy_intp sizes[] = {-1, (npy_intp)n_in(network)};
    const float *from = array_data(x, NPY_FLOAT32, 2, sizes, "samples");
    if (!from) {
        return NULL;
    }
    sizes[0] = PyArray_DIM((PyArrayObject *)x, 0);
    const int32_t *wanted = array_data(streams, NPY_INT32, 1, sizes, "streams");
    sizes[1] = (npy_intp)n_out(network);
    float *to = wanted ? array_data(out, NPY_FLOAT32, 2, sizes, "out") : NULL;
    if (!to) {
        return NULL;
    }
    if (!PyArray_ISWRITEABLE((PyArrayObject *)out) ||
        (size_t)sizes[0] > network->net.n_streams ||
        !take_streams(network, wanted, (size_t)sizes[0])) {
        PyErr_SetString(PyExc_ValueError, "expected distinct streams and a writeable out");
        return NULL;
    }
    run_batch(network, (size_t)sizes[0], from, to);
    Py_RETURN_NONE;
}

static int check_stream(const NetworkObject *network, Py_ssize_t stream) {
    if (stream >= 0 && (size_t)stream < network->net.n_streams) {
        return 1;
    }
    PyErr_Format(PyExc_ValueError, "expected a stream below %zu, got %zd", network->net.n_streams,
                 stream);
    return 0;
}

/* run(x, stream) -> y: many samples of one stream. */
static PyObject *network_run_method(PyObject *self, PyObject *args) {
    NetworkObject *network = ready(self);
    PyObject *x;
    Py_ssize_t stream;
    if (!network || !PyArg_ParseTuple(args, "On", &x, &stream) ||
        !check_stream(network, stream)) {
        return NULL;
    }
    const npy_intp sizes[] = {-1, (npy_intp)n_in(network)};
    const float *from = array_data(x, NPY_FLOAT32, 2, sizes, "samples");
    if (!from) {
        return NULL;
    }
    const size_t n = (size_t)PyArray_DIM((PyArrayObject *)x, 0);
    PyObject *y = new_table(n, n_out(network));
    if (y) {
        float *to = PyArray_DATA((PyArrayObject *)y);
        network->is_running = 1;
        Py_BEGIN_ALLOW_THREADS;
        network_run(&network->net, n, (int32_t)stream, from, to);
        Py_END_ALLOW_THREADS;
        network->is_running = 0;
    }
    return y;
}

/* A state of a stream: its values, and how many. */
static float *state_of(NetworkObject *network, Py_ssize_t id, Py_ssize_t stream, size_t *width) {
    if (!check_stream(network, stream)) {
        return NULL;
    }
    if (id < 0 || (size_t)id >= network->net.n_values ||
        network->net.values[id].space != SPACE_STATE) {
        PyErr_Format(PyExc_ValueError, "expected a state, got value %zd", id);
        return NULL;
    }
    *width = network->net.values[id].width;
    return network_state(&network->net, (size_t)id, (size_t)stream);
}

static PyObject *network_read_method(PyObject *self, PyObject *args) {
    NetworkObject *network = ready(self);
    Py_ssize_t id, stream;
    size_t width;
    if (!network || !PyArg_ParseTuple(args, "nn", &id, &stream)) {
        return NULL;
    }
    const float *values = state_of(network, id, stream, &width);
    npy_intp size = values ? (npy_intp)width : 0;
    PyObject *copy = values ? PyArray_SimpleNew(1, &size, NPY_FLOAT32) : NULL;
    if (copy) {
        memcpy(PyArray_DATA((PyArrayObject *)copy), values, width * sizeof *values);
    }
    return copy;
}

static PyObject *network_write_method(PyObject *self, PyObject *args) {
    NetworkObject *network = ready(self);
    Py_ssize_t id, stream;
    PyObject *from;
    size_t width;
    if (!network || !PyArg_ParseTuple(args, "nnO", &id, &stream, &from)) {
        return NULL;
    }
    float *values = state_of(network, id, stream, &width);
    const npy_intp sizes[] = {values ? (npy_intp)width : 0};
    const float *new = values ? array_data(from, NPY_FLOAT32, 1, sizes, "a state") : NULL;
    if (!new) {
        return NULL;
    }
    memcpy(values, new, width * sizeof *values);
    Py_RETURN_NONE;
}

static PyObject *network_reset_method(PyObject *self, PyObject *args) {
    NetworkObject *network = ready(self);
    Py_ssize_t first, end;
    if (!network || !PyArg_ParseTuple(args, "nn", &first, &end)) {
        return NULL;
    }
    if (first < 0 || end < first || (size_t)end > network->net.n_streams) {
        PyErr_SetString(PyExc_ValueError, "expected a range of streams");
        return NULL;
    }
    network_reset(&network->net, (size_t)first, (size_t)end);
    Py_RETURN_NONE;
}

static const struct kernel *kernel_from(PyObject *name) {
    const struct kernel *kernel =
        name == Py_None ? kernel_at(0)
        : PyUnicode_Check(name) && PyUnicode_AsUTF8(name) ? kernel_named(PyUnicode_AsUTF8(name))
                                                          : NULL;
    if (!kernel && !PyErr_Occurred()) {
        PyErr_Format(PyExc_ValueError, "kernel %R does not run here", name);
    }
    return kernel;
}

static PyObject *network_new(PyTypeObject *type, PyObject *args, PyObject *names) {
    Py_ssize_t width;
    PyObject *counts, *step_any, *batch_any, *kernel_name;
    if ((names && PyDict_Size(names)) ||
        !PyArg_ParseTuple(args, "nOOOO", &width, &counts, &step_any, &batch_any, &kernel_name)) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "Network takes no named arguments");
        }
        return NULL;
    }
    const npy_intp sizes[] = {-1};
    const struct kernel *kernel = kernel_from(kernel_name);
    if (!kernel || !array_data(counts, NPY_INT64, 1, sizes, "step counts")) {
        return NULL;
    }
    const npy_intp n_streams = PyArray_DIM((PyArrayObject *)counts, 0);
    if (width < 1 || width > 1 << 24 || n_streams > INT32_MAX ||
        !PyArray_ISWRITEABLE((PyArrayObject *)counts)) {
        PyErr_SetString(PyExc_ValueError,
                        "expected at least one channel, and 32-bit streams with a count each");
        return NULL;
    }
    NetworkObject *network = (NetworkObject *)type->tp_alloc(type, 0);
    if (!network) {
        return NULL;
    }
    network->counts = Py_NewRef(counts);
    network->step_any = Py_NewRef(step_any);
    network->batch_any = Py_NewRef(batch_any);
    if (!network_init(&network->net, kernel, (size_t)width, (size_t)n_streams)) {
        Py_DECREF(network);
        return PyErr_NoMemory();
    }
    return (PyObject *)network;
}

static int network_traverse(PyObject *self, visitproc visit, void *arg) {
    NetworkObject *network = (NetworkObject *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(network->counts);
    Py_VISIT(network->step_any);
    Py_VISIT(network->batch_any);
    return 0;
}

static int network_clear(PyObject *self) {
    NetworkObject *network = (NetworkObject *)self;
    Py_CLEAR(network->step_any);
    Py_CLEAR(network->batch_any);
    return 0;
}

static void network_dealloc(PyObject *self) {
    NetworkObject *network = (NetworkObject *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    network_clear(self);
    Py_CLEAR(network->counts);
    network_free(&network->net);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *network_kernel(PyObject *self, void *Py_UNUSED(closure)) {
    return PyUnicode_FromString(((NetworkObject *)self)->net.kernel->name);
}

static PyMethodDef network_methods[] = {
    {"step", (PyCFunction)(void (*)(void))network_step_method, METH_FASTCALL | METH_KEYWORDS,
     "Advance stream 0 by one sample."},
    {"step_batch", (PyCFunction)(void (*)(void))network_batch_method,
     METH_FASTCALL | METH_KEYWORDS, "Advance many streams by one sample each."},
    {"advance", network_advance_method, METH_VARARGS, "Advance streams without counting."},
    {"run", network_run_method, METH_VARARGS, "Advance one stream by many samples."},
    {"read", network_read_method, METH_VARARGS, "Copy a state of a stream."},
    {"write", network_write_method, METH_VARARGS, "Set a state of a stream."},
    {"reset", network_reset_method, METH_VARARGS, "Put streams back to their start."},
    {"state", build_state, METH_O, "Add a state that starts from these values."},
    {"constant", build_constant, METH_O, "Add a constant row."},
    {"scratch", build_scratch, METH_O, "Add a value of this width."},
    {"operation", build_operation, METH_VARARGS, "Add an operation."},
    {"dense", build_dense, METH_VARARGS, "Add a product with a matrix, and a bias."},
    {"cell", build_cell, METH_VARARGS, "Add a recurrent cell."},
    {"seal", build_seal, METH_O, "Name the output and allocate the streams."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef network_attributes[] = {
    {"kernel", network_kernel, NULL, "Name of the kernel that runs it.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot network_slots[] = {
    {Py_tp_new, network_new},         {Py_tp_dealloc, network_dealloc},
    {Py_tp_traverse, network_traverse}, {Py_tp_clear, network_clear},
    {Py_tp_methods, network_methods}, {Py_tp_getset, network_attributes},
    {0, NULL},
};

static PyType_Spec network_spec = {
    .name = "edge_gru.native._native.Network",
    .basicsize = sizeof(NetworkObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = network_slots,
};

static PyObject *names_as_tuple(const char *(*name_at)(size_t)) {
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && name_at(i); i++) {
        PyObject *name = PyUnicode_FromString(name_at(i));
        if (!name || PyList_Append(list, name) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(name);
    }
    PyObject *tuple = list ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return tuple;
}

static const char *kernel_name_at(size_t i) {
    return kernel_at(i) ? kernel_at(i)->name : NULL;
}

static const char *operation_name_at(size_t i) {
    return operation_at(i) ? operation_at(i)->name : NULL;
}

static int add_object(PyObject *module, const char *name, PyObject *object) {
    const int status = object ? PyModule_AddObjectRef(module, name, object) : -1;
    Py_XDECREF(object);
    return status;
}

static int module_exec(PyObject *module) {
    if (PyArray_ImportNumPyAPI() < 0 ||
        add_object(module, "KERNELS", names_as_tuple(kernel_name_at)) < 0 ||
        add_object(module, "OPERATIONS", names_as_tuple(operation_name_at)) < 0 ||
        add_object(module, "Network", PyType_FromModuleAndSpec(module, &network_spec, NULL)) < 0) {
        return -1;
    }
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "edge_gru.native._native",
    .m_doc = "The C part of the native engine.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&module_definition); }
