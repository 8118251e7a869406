// A group of a plan's rows, or a piece of it, and what each row has beside its elements: weight, mask, upstream, out.
// Included by the tasks, kldiv.cpp and one_tile.cpp.
#pragma once
#include <algorithm>
#include <cstdint>

#include "convert.hpp"
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
// labels[r] = the group's label; there must be one for each row.
void read_labels(const RowOperands &rows, const Group &group, int64_t *labels);
// places[r] = where the group's state stands among those that a round leaves.
void read_places(const RowOperands &rows, const Group &group, char **places);
bool all_masked(const RowOperands &rows, const Group &group);

// A piece of each row: so many classes from `from` on, of each of some runs. (Divisions are a part of a small call.)
struct Span {
    int64_t first_run, last_run, from, count;
};
Span span_of(const Plan &plan, int64_t piece);

// visit(where a run's part begins, with which of the row's classes) for each run of the span.
template <class Visit>
void each_run(const Plan &plan, const Cursor &at, const Span &span, const Visit &visit) {
    for (int64_t o = span.first_run; o < span.last_run; ++o) {
        Cursor run = at;
        run.seek(plan.runs, o);
        run.advance(plan.class_axis, span.from);
        visit(run, o * plan.class_axis.extent + span.from);
    }
}

// A task of whole rows: several groups, of which values_of(group) gives what each row comes to, and what they add to the
// total is left.
template <class ValuesOf>
void do_groups(const Plan &plan, int64_t task, const ValuesOf &values_of) {
    const int64_t last = std::min((task + 1) * plan.groups_per_task, plan.groups);
    double total = 0;
    for (int64_t g = task * plan.groups_per_task; g < last; ++g) {
        const Group group = group_at(plan, g);
        total += finish(plan.rows(), group, values_of(group));
    }
    if (plan.way == Way::streamed) end_streams();
    plan.partial[task] = total;
}

}  // namespace kldiv
