// Which kernels this machine runs. Included by kldiv.cpp.
#pragma once
#include "kernel.hpp"

namespace kldiv {

// The kernels in use: the best that this machine can run, until kldiv_select_isa names another.
const Kernels &current_kernels();

}  // namespace kldiv
