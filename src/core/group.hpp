// A group of a plan's rows, or a piece of it, and what each row has beside its elements: weight, mask, upstream, out.
// Included by the tasks, kldiv.cpp and one_tile.cpp.
#pragma once
#include <cstdint>

#include "plan.hpp"

namespace kldiv {

struct Group {
    Cursor at;  // of the first row; where the rows' axis has parts, what stands beside the rows is at that axis's start
    int64_t rows;
    int64_t first;  // row along that axis
};
Group group_at(const Plan &plan, int64_t number);

// Each row's factor of its gradients, in the kernel's format. `scratch`: a double for each row.
void read_factors(const RowOperands &rows, const Group &group, kldiv_dtype format, double *scratch, void *to);

// A group's rows are known: write them, or give back what they add to the total.
double finish(const RowOperands &rows, const Group &group, double *sums);

// mask[r] = 0 where the group's mask is; there must be one.
void read_mask(const RowOperands &rows, const Group &group, uint8_t *mask);
bool all_masked(const RowOperands &rows, const Group &group);

// A piece of each row: so many classes from `from` on, of each of some runs. (Divisions are a part of a small call.)
struct Span {
    int64_t first_run, last_run, from, count;
};
Span span_of(const Plan &plan, int64_t piece);

}  // namespace kldiv
