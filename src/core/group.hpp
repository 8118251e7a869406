// A group of a plan's rows, or a piece of it, and what each row has beside its elements: weight, mask, upstream, out.
// Included by the tasks, kldiv.cpp and one_tile.cpp.
#pragma once
#include <cstdint>

#include "plan.hpp"

namespace kldiv {

struct Group {
    Cursor at;
    int64_t rows;
};
Group group_at(const Plan &plan, int64_t number);

// Each row's factor of its gradients, in the kernel's format. `scratch`: a double for each row.
void read_factors(const RowOperands &rows, const Group &group, kldiv_dtype format, double *scratch, void *to);

// A group's rows are known: write them, or give back what they add to the total.
double finish(const RowOperands &rows, const Group &group, double *sums);

bool is_masked(const RowOperands &rows, const Group &group, int64_t row);

// A piece of each row: so many classes from `from` on, of each of some runs. (Divisions are a part of a small call.)
struct Span {
    int64_t first_run, last_run, from, count;
};
Span span_of(const Plan &plan, int64_t piece);

}  // namespace kldiv
