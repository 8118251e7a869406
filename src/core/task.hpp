// A task of a plan whose operation is separable: tiles in, row sums and gradients out. Included by kldiv.cpp.
#pragma once
#include <cstdint>

#include "plan.hpp"

namespace kldiv {

// Rows in one piece: task i does several groups and leaves what they add to the total.
void run_groups(void *plan, int worker, int64_t task);

// Rows in several pieces: task i does one piece of one group and leaves its sums.
void run_piece(void *plan, int worker, int64_t task);

}  // namespace kldiv
