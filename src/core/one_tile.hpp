// Small problems whose rows lie side by side: one tile, for which no plan is needed. Included by kldiv.cpp.
#pragma once
#include "kldiv.h"

namespace kldiv {

// Whether the problem was one, and is done: to the bits that a plan comes to. No axis may be empty.
bool run_one_tile(const kldiv_problem &problem, double *total);

}  // namespace kldiv
