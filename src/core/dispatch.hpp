// Which kernels this machine runs. Included by kldiv.cpp, pairs.cpp and fidelity.cpp.
#pragma once
#include "fidelity_kernel.hpp"
#include "kernel.hpp"
#include "operations.hpp"
#include "pair_kernel.hpp"

namespace kldiv {

// An operation's kernels in use: the best that this machine can run, until kldiv_select_isa names others.
const Kernels &current_kernels(kldiv_operation operation);
const RowwiseKernels &current_rowwise_kernels(int which);  // see operations.hpp
const PairKernels &current_pair_kernels();
const FidelityKernels &current_fidelity_kernels();

}  // namespace kldiv
