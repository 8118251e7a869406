// Nested lists and tuples of Python's own numbers, read faster than NumPy can find out what may be in them.
#pragma once
#include <pybind11/pybind11.h>

#include "arguments.hpp"

// A new C-contiguous array of `list`, float64 or else float32. None, with an exception set only if there is no memory: it
// holds anything but floats and integers that a double holds, its rows differ in length, or it is empty.
pybind11::object array_of_list(const Function &function, PyObject *list, bool wide);
inline bool is_list(PyObject *object) { return PyList_CheckExact(object) || PyTuple_CheckExact(object); }
