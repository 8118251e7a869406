// A task of a plan whose rows have a state: passes over their elements, then values and gradients. Included by kldiv.cpp
// and one_tile.cpp.
#pragma once
#include <cstdint>

#include "group.hpp"
#include "plan.hpp"

namespace kldiv {

// Rows in one piece: task i does several groups and leaves what they add to the total.
void run_row_groups(void *plan, int worker, int64_t task);

// Rows in several pieces: task i does one pass over one piece of one group, from plan.states to plan.partial_states, or
// with plan.mapping the gradients of it.
void run_row_piece(void *plan, int worker, int64_t task);

// A round over whole rows of a block: task i does one pass over several groups, from the states beside the rows (or their
// beginnings) to them.
void run_row_round(void *plan, int worker, int64_t task);

// The states of a group's rows, before any pass; masked ones are done, and 0.
void begin_states(const Plan &plan, const Group &group, RowState *states);

}  // namespace kldiv
