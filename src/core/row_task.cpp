// See row_task.hpp.
#include "row_task.hpp"

#include <algorithm>
#include <cstring>

#include "convert.hpp"
#include "tile.hpp"

namespace kldiv {
namespace {

// Rows that go through all passes together, while the nearest caches hold their elements.
constexpr int64_t kRowsAtOnce = 64;
constexpr int64_t kElementsAtOnce = 8192;
constexpr int64_t kElsewhere = -1;  // the place of a label that is none of a block's classes

int64_t rows_at_once(const Plan &plan) {
    return std::clamp<int64_t>(kElementsAtOnce / plan.row_size(), 1, kRowsAtOnce);
}

// What stands beside some rows, for their states to begin with; null: nothing does.
struct Beginnings {
    const uint8_t *mask = nullptr;
    const int64_t *labels = nullptr;
    uint8_t masks[kGroupRows];
    int64_t classes[kGroupRows];

    void read(const Plan &plan, const Group &group) {
        if (plan.has(KLDIV_MASK)) read_mask(plan.rows(), group, masks), mask = masks;
        if (!plan.has(KLDIV_LABEL)) return;
        read_labels(plan.rows(), group, classes);
        labels = classes;
    }
    void begin(const Plan &plan, int64_t row, RowState &state) const {
        plan.rowwise->begin(plan.row_parameters, state);
        state.label = 0;
        if (mask != nullptr && mask[row] == 0)  // whose label may be anything
            state.value = 0, state.pass = kRowDone;
        else if (labels != nullptr)
            state.label = plan.class_order.place_of(labels[row]);
    }
    // The same of a row in blocks, whose state stands at `place` if it has begun.
    [[gnu::cold]] void resume(const Plan &plan, int64_t row, const char *place, RowState &state) const {
        plan.begins ? plan.rowwise->begin(plan.row_parameters, state)
                    : static_cast<void>(std::memcpy(&state, place, sizeof state));
        const bool is_here = labels != nullptr && labels[row] >= 0;
        state.label = is_here ? plan.class_order.place_of(labels[row]) : kElsewhere;
    }
};

struct Workspace : TileBuffers {
    double values[kGroupRows];
    double row_factors[kGroupRows];
    Beginnings beginnings;

    using TileBuffers::TileBuffers;
};

// visit(tile, where it starts, its first row) for the tiles of some classes of `rows` rows from `at` on.
template <class Visit>
void each_tile(const Plan &plan, const Cursor &at, int64_t rows, const Span &span, TileBuffers &work,
               const Visit &visit) {
    const bool whole = plan.in_place() && !plan.staged();
    const int64_t most_rows = whole ? rows : plan.tile_rows, most_cols = whole ? span.count : plan.tile_cols;
    each_run(plan, at, span, [&](Cursor run, int64_t first) {
        for (int64_t r = 0; r < rows; r += most_rows, run.advance(plan.row_axis, most_rows)) {
            Cursor cell = run;
            for (int64_t c = 0; c < span.count; c += most_cols, cell.advance(plan.class_axis, most_cols)) {
                const int64_t n = std::min(most_rows, rows - r), m = std::min(most_cols, span.count - c);
                Tile tile = tile_at(plan, cell, n, m, work);
                tile.first = first + c;
                visit(tile, cell, r);
            }
        }
    });
}

void reduce(const Plan &plan, const Cursor &at, int64_t rows, const Span &span, TileBuffers &work, RowState *states) {
    each_tile(plan, at, rows, span, work, [&](const Tile &tile, const Cursor &, int64_t r) {
        plan.rowwise->reduce(tile, plan.row_parameters, states + r);
    });
}

// `factors`: of the first row and so on.
void map(const Plan &plan, const Cursor &at, int64_t rows, const Span &span, const char *factors, TileBuffers &work,
         const RowState *states) {
    each_tile(plan, at, rows, span, work, [&](const Tile &tile, const Cursor &cell, int64_t r) {
        const Output out = output_at(plan, cell, tile, false, factors + r * item_size(plan.work_dtype()), work);
        plan.rowwise->map(tile, plan.row_parameters, out.gradients, states + r);
        if (out.staged) deliver(plan, cell, tile.rows, tile.cols, work);
    });
}

const char *factors_of(const Plan &plan, const Group &group, Workspace &work) {
    if (plan.gradients()) read_factors(plan.rows(), group, plan.work_dtype(), work.values, work.row_factors);
    return reinterpret_cast<const char *>(work.row_factors);
}

// work.values = what each row of the group comes to; its gradients where they belong.
void do_group(const Plan &plan, const Group &group, Workspace &work) {
    const Span span = span_of(plan, 0);
    const char *factors = factors_of(plan, group, work);
    work.beginnings.read(plan, group);
    const int64_t at_once = rows_at_once(plan);
    RowState states[kRowsAtOnce];
    Cursor at = group.at;
    for (int64_t first = 0; first < group.rows; first += at_once, at.advance(plan.row_axis, at_once)) {
        const int64_t n = std::min(at_once, group.rows - first);
        for (int64_t i = 0; i < n; ++i) work.beginnings.begin(plan, first + i, states[i]);
        do reduce(plan, at, n, span, work, states);
        while (plan.rowwise->next(plan.row_parameters, states, n));
        for (int64_t i = 0; i < n; ++i) work.values[first + i] = states[i].value;
        if (plan.gradients()) map(plan, at, n, span, factors + first * item_size(plan.work_dtype()), work, states);
    }
}

// One pass over a group's block. What carries on from here says what dtype the row is computed in: see rounds.cpp.
[[gnu::cold]] void do_round(const Plan &plan, const Group &group, Workspace &work) {
    const Span span = span_of(plan, 0);
    char *places[kGroupRows];
    read_places(plan.rows(), group, places);
    work.beginnings.read(plan, group);
    const int64_t at_once = rows_at_once(plan);
    RowState states[kRowsAtOnce];
    Cursor at = group.at;
    for (int64_t first = 0; first < group.rows; first += at_once, at.advance(plan.row_axis, at_once)) {
        const int64_t n = std::min(at_once, group.rows - first);
        for (int64_t i = 0; i < n; ++i) work.beginnings.resume(plan, first + i, places[first + i], states[i]);
        reduce(plan, at, n, span, work, states);
        for (int64_t i = 0; i < n; ++i) {
            states[i].label = plan.work_dtype();
            std::memcpy(places[first + i], &states[i], sizeof states[i]);
        }
    }
}

}  // namespace

void begin_states(const Plan &plan, const Group &group, RowState *states) {
    Beginnings beginnings;
    beginnings.read(plan, group);
    for (int64_t r = 0; r < group.rows; ++r) beginnings.begin(plan, r, states[r]);
}

void run_row_groups(void *context, int worker, int64_t task) {
    const Plan &plan = *static_cast<const Plan *>(context);
    Workspace work(scratch_of(plan, worker));
    do_groups(plan, task, [&](const Group &group) {
        do_group(plan, group, work);
        return work.values;
    });
}

[[gnu::cold]] void run_row_round(void *context, int worker, int64_t task) {
    const Plan &plan = *static_cast<const Plan *>(context);
    const int64_t last = std::min((task + 1) * plan.groups_per_task, plan.groups);
    Workspace work(scratch_of(plan, worker));
    for (int64_t g = task * plan.groups_per_task; g < last; ++g) do_round(plan, group_at(plan, g), work);
}

void run_row_piece(void *context, int worker, int64_t task) {
    const Plan &plan = *static_cast<const Plan *>(context);
    const Group group = group_at(plan, plan.first_group + task / plan.pieces);
    const Span span = span_of(plan, task % plan.pieces);
    const RowState *states = plan.states + task / plan.pieces * plan.group_rows;
    Workspace work(scratch_of(plan, worker));
    if (plan.mapping) {
        map(plan, group.at, group.rows, span, factors_of(plan, group, work), work, states);
        if (plan.way == Way::streamed) end_streams();
        return;
    }
    RowState *partial = plan.partial_states + task * plan.group_rows;
    std::copy_n(states, group.rows, partial);
    reduce(plan, group.at, group.rows, span, work, partial);
}

}  // namespace kldiv
