// The core for the package's own Python: kldiv_run on ndarrays of any readable dtype, kldiv_rows on addresses, kldiv_pairs,
// kldiv_fidelity.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

// Adds `run`, `rows`, `pairs`, `fidelity` and `sum_of_weights` to the module.
void add_run(pybind11::module_ &m);
