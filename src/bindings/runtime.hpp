// What this build is and what it found on this machine. Included by module.cpp.
#pragma once
#include <pybind11/pybind11.h>

// The facts; python/kldiv_fast/_runtime.py puts them into words.
pybind11::dict runtime();
