// The cimport-able face of kldiv.h. Included by bindings/module.cpp.
#pragma once
#include <pybind11/pybind11.h>

// The functions of kldiv_fast/cython_api.pxd, as Cython looks for them: a dictionary from a name to a capsule that holds
// the function and, as its own name, the function's C type.
pybind11::dict cython_api();
