// See lists.hpp. No code of Python's runs while a list is read: what is not of Python's own exact types is not read.
#include "lists.hpp"

#include "arrays.hpp"

namespace py = pybind11;

namespace {

constexpr int64_t kExact = int64_t{1} << 53;  // below it a double holds every integer

bool read_exact(PyObject *object, double &value) {
    if (PyFloat_CheckExact(object)) {
        value = PyFloat_AS_DOUBLE(object);
        return true;
    }
    if (!PyLong_CheckExact(object)) return false;
    int overflow = 0;
    const long long integer = PyLong_AsLongLongAndOverflow(object, &overflow);
    value = static_cast<double>(integer);
    return overflow == 0 && -kExact < integer && integer < kExact;
}

// The shape that a list has if all of its rows are as long as the first. 0: it is empty somewhere, or too deep.
int read_shape(PyObject *list, Py_intptr_t *shape) {
    int ndim = 0;
    for (; is_list(list); list = PySequence_Fast_GET_ITEM(list, 0)) {
        if (ndim == arrays::kMaxAxes || PySequence_Fast_GET_SIZE(list) == 0) return 0;
        shape[ndim++] = PySequence_Fast_GET_SIZE(list);
    }
    return ndim;
}

// Writes a list's numbers one after another; false: it is not of that shape, or holds something else.
template <class Real>
bool fill(PyObject *list, int ndim, const Py_intptr_t *shape, Real *&to) {
    if (!is_list(list) || PySequence_Fast_GET_SIZE(list) != *shape) return false;
    PyObject **items = PySequence_Fast_ITEMS(list);
    for (Py_intptr_t i = 0; i < *shape; ++i) {
        if (ndim > 1) {
            if (!fill(items[i], ndim - 1, shape + 1, to)) return false;
            continue;
        }
        double value = 0;
        if (!read_exact(items[i], value)) return false;
        *to++ = static_cast<Real>(value);
    }
    return true;
}

template <class Real>
bool fill(PyObject *list, int ndim, const Py_intptr_t *shape, char *data) {
    Real *to = reinterpret_cast<Real *>(data);
    return fill(list, ndim, shape, to);
}

// Whether the first number is one: what is none is not worth an array.
bool begins_with_a_number(PyObject *list) {
    while (is_list(list)) list = PySequence_Fast_GET_ITEM(list, 0);
    double value = 0;
    return read_exact(list, value);
}

}  // namespace

py::object array_of_list(const Function &function, PyObject *list, bool wide) {
    Py_intptr_t shape[arrays::kMaxAxes];
    const int ndim = read_shape(list, shape);
    if (ndim == 0 || !begins_with_a_number(list)) return {};
    auto array =
        py::reinterpret_steal<py::object>(arrays::empty(wide ? function.float64 : function.float32, ndim, shape));
    if (!array) return {};
    char *data = arrays::fields(array.ptr()).data;
    if (wide ? fill<double>(list, ndim, shape, data) : fill<float>(list, ndim, shape, data)) return array;
    return {};
}
