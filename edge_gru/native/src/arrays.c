#include "binding.h"

static const char *type_name(int type) {
    return type == NPY_FLOAT32 ? "float32" : type == NPY_INT8 ? "int8" : "integers";
}

void *array_data(PyObject *object, int type, int n_axes, const npy_intp *sizes,
                 const char *what) {
    PyArrayObject *array = (PyArrayObject *)object;
    int fits = PyArray_Check(object) && PyArray_TYPE(array) == type &&
               PyArray_NDIM(array) == n_axes && PyArray_ISCARRAY_RO(array);
    for (int i = 0; fits && i < n_axes; i++) {
        fits = sizes[i] < 0 ? PyArray_DIM(array, i) > 0 : PyArray_DIM(array, i) == sizes[i];
    }
    if (!fits) {
        PyErr_Format(PyExc_ValueError,
                     n_axes == 1 ? "expected %s as contiguous %s of shape (%zd,)"
                                 : "expected %s as contiguous %s of shape (%zd, %zd)",
                     what, type_name(type), (Py_ssize_t)sizes[0],
                     n_axes == 1 ? (Py_ssize_t)0 : (Py_ssize_t)sizes[1]);
        return NULL;
    }
    return PyArray_DATA(array);
}
