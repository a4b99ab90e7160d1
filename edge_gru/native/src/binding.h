/* What the files of the Python binding share. */
#ifndef EDGE_GRU_BINDING_H
#define EDGE_GRU_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL edge_gru_array_api
#ifndef BINDING_IMPORTS_ARRAY
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include "network.h"

typedef struct {
    PyObject_HEAD
    struct network net;
    PyObject *counts;    /* ndarray of int64: steps a stream */
    PyObject *step_any;  /* called with what the fast path does not take */
    PyObject *batch_any;
    uint32_t *marks; /* per stream: the batch that it was last part of */
    uint32_t n_batches;
    int32_t *streams; /* of the batch under way: the caller's may change */
    int is_running;   /* without the interpreter's lock */
} NetworkObject;

/* Methods that add to a network that is not sealed. */
PyObject *build_state(PyObject *, PyObject *);
PyObject *build_constant(PyObject *, PyObject *);
PyObject *build_scratch(PyObject *, PyObject *);
PyObject *build_operation(PyObject *, PyObject *);
PyObject *build_dense(PyObject *, PyObject *);
PyObject *build_cell(PyObject *, PyObject *);
PyObject *build_seal(PyObject *, PyObject *);

/*
 * The data of an aligned, contiguous array of this type and these sizes (-1: any), or NULL with
 * a ValueError that says what was expected.
 */
void *array_data(PyObject *, int type, int n_axes, const npy_intp *sizes, const char *what);

#endif
