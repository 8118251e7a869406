// The functions that users call: one for each operation's value, one for its value and gradients.
#pragma once
#include <pybind11/pybind11.h>

#include <string>

// A function of C that answers whatever ndarrays of floats can be given, and hands all else to `fallback`, untouched.
// `operation` counts the rows of the core's table.
pybind11::object make_function(int operation, bool has_gradients, const std::string &name, const std::string &doc,
                               const pybind11::function &fallback);
