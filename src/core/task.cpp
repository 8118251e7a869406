// See task.hpp.
#include "task.hpp"

#include <algorithm>
#include <cstring>

#include "convert.hpp"
#include "group.hpp"
#include "tile.hpp"

namespace kldiv {
namespace {

// (All that stands on a task's stack comes to some 110 KiB; threads of musl have 128.)
struct Workspace : TileBuffers {
    double sums[kColumns];
    double row_factors[kGroupRows];  // where there is no scratch
    uint8_t mask[kGroupRows];        // the group's, where the rows' axis has parts

    using TileBuffers::TileBuffers;
    void *factors() { return scratch != nullptr ? scratch->factors : row_factors; }
};

// ---- 16-bit elements that have no function of their own: a part of a tile at a time is widened for float32's ----

// run(part, its gradients, first row, first column) for parts of at most so many rows and columns.
template <class Run>
void widen(const Plan &plan, const Tile &tile, const GradientTile &out, int64_t most_rows, int64_t most_cols,
           Workspace &work, const Run &run) {
    const int64_t size = item_size(plan.kernel_dtype), wide = item_size(plan.work_dtype());
    for (int64_t r = 0; r < tile.rows; r += most_rows)
        for (int64_t c = 0; c < tile.cols; c += most_cols) {
            const int64_t rows = std::min(most_rows, tile.rows - r), cols = std::min(most_cols, tile.cols - c);
            const auto widened = [&](const char *data, int64_t stride, Packed &buffer) {
                char *first = const_cast<char *>(data) + r * stride + c * size;
                pack({first, plan.kernel_dtype, 0}, {first, rows, stride, cols, size}, KLDIV_FLOAT32, buffer.elements);
                return reinterpret_cast<const char *>(buffer.elements);
            };
            const auto grad = [&](char *base, int64_t stride) {
                return base == nullptr ? base : base + r * stride + c * wide;
            };
            const uint8_t *mask = tile.mask == nullptr ? nullptr : tile.mask + r * tile.mask_stride;
            const Tile part = {widened(tile.t, tile.t_stride, work.t),
                               widened(tile.p, tile.p_stride, work.p),
                               cols * wide,
                               cols * wide,
                               rows,
                               cols,
                               mask,
                               tile.mask_stride};
            run(part,
                GradientTile{grad(out.t, out.t_stride), grad(out.p, out.p_stride), out.t_stride, out.p_stride, nullptr},
                r, c);
        }
}

const void *factors_from(const void *factors, int64_t first, const Plan &plan) {
    return factors == nullptr ? nullptr : static_cast<const char *>(factors) + first * item_size(plan.work_dtype());
}

// sums[r] = the sum of row r, and its gradients. A part is at most a segment long, so that sums keep their bits.
void sum_rows(const Plan &plan, const Tile &tile, const GradientTile &out, double *sums, Workspace &work) {
    const auto sums_of = [](const Functions &functions) { return functions.row_sums; };
    const auto gradients_of = [&](const Functions &functions) {
        return functions.row_gradients[static_cast<int>(plan.wanted)];
    };
    if (!plan.gradients() && sums_of(plan.functions) != nullptr)
        return sums_of(plan.functions)(tile, plan.parameters, sums);
    if (plan.gradients() && gradients_of(plan.functions) != nullptr)
        return gradients_of(plan.functions)(tile, plan.parameters, out, sums);
    const Functions &wide = choose_functions(plan.options, KLDIV_FLOAT32);
    const int64_t cols = std::min(tile.cols, kSegment), rows = std::min(kLargestTile / cols, kGroupRows);
    std::fill_n(sums, tile.rows, 0.0);
    widen(plan, tile, out, rows, cols, work, [&](const Tile &part, GradientTile to, int64_t r, int64_t) {
        double some[kGroupRows];
        to.factors = factors_from(out.factors, r, plan);
        plan.gradients() ? gradients_of(wide)(part, plan.parameters, to, some)
                         : sums_of(wide)(part, plan.parameters, some);
        for (int64_t i = 0; i < part.rows; ++i) sums[r + i] += some[i];
    });
}

// sums[c] += the sum of column c. A part ends where a column's sum leaves the terms' format.
void sum_columns(const Plan &plan, const Tile &tile, const GradientTile &out, double *sums, Workspace &work) {
    if (!plan.gradients() && plan.functions.column_sums != nullptr)
        return plan.functions.column_sums(tile, plan.parameters, sums);
    if (plan.gradients() && plan.functions.column_gradients != nullptr)
        return plan.functions.column_gradients(tile, plan.parameters, out, sums);
    const Functions &wide = choose_functions(plan.options, KLDIV_FLOAT32);
    widen(plan, tile, out, kRowsInTerms, kLargestTile / kRowsInTerms, work,
          [&](const Tile &part, GradientTile to, int64_t, int64_t c) {
              to.factors = factors_from(out.factors, c, plan);
              plan.gradients() ? wide.column_gradients(part, plan.parameters, to, sums + c)
                               : wide.column_sums(part, plan.parameters, sums + c);
          });
}

// The group's mask as the kernel reads it, its tiles' from number `first` on.
void set_mask(const Plan &plan, const Cursor &at, int64_t first, const Workspace &work, Tile &tile) {
    const bool apart = plan.has(KLDIV_MASK) && plan.row_parts.ndim != 0;
    tile.mask = apart ? work.mask + first : reinterpret_cast<const uint8_t *>(at.at[KLDIV_MASK]);
    tile.mask_stride = apart ? 1 : plan.row_axis.strides[KLDIV_MASK];
}

// sums[r] += `count` classes of each of `rows` rows.
void add_rows(const Plan &plan, Cursor at, int64_t rows, int64_t count, Workspace &work) {
    const bool whole = plan.in_place() && !plan.staged();
    const int64_t most_rows = whole ? rows : plan.tile_rows;
    const int64_t most_cols = whole ? count : plan.tile_cols;
    const char *factors = static_cast<const char *>(work.factors());
    double run[kGroupRows];
    for (int64_t r = 0; r < rows; r += most_rows, at.advance(plan.row_axis, most_rows)) {
        Cursor cell = at;
        for (int64_t c = 0; c < count; c += most_cols, cell.advance(plan.class_axis, most_cols)) {
            Tile tile = tile_at(plan, cell, std::min(most_rows, rows - r), std::min(most_cols, count - c), work);
            set_mask(plan, at, r, work, tile);
            const bool together = tile.rows > 1 && gapless(plan, tile);
            const Output out = output_at(plan, cell, tile, together, factors + r * item_size(plan.work_dtype()), work);
            const int64_t tile_rows = tile.rows, tile_cols = tile.cols;
            if (plan.plain && together && gapless(plan, out.gradients, tile.cols)) {
                tile.cols *= tile.rows;
                tile.rows = 1;
            }
            sum_rows(plan, tile, out.gradients, run, work);
            if (out.staged) deliver(plan, cell, tile_rows, tile_cols, work);
            for (int64_t i = 0; i < tile.rows; ++i) work.sums[r + i] += run[i];
        }
    }
}

// Few columns, class after class without a gap: several classes are read as one wider row, and folded at the end.
void add_folded_columns(const Plan &plan, const Tile &tile, const GradientTile &out, double *sums, Workspace &work) {
    const int64_t whole = tile.rows / kFold, size = item_size(plan.kernel_dtype),
                  grad_size = item_size(plan.work_dtype());
    double wide[kFoldedColumns] = {};
    const void *factors = nullptr;
    if (plan.gradients() && work.scratch != nullptr) {  // in column mode gradients have scratch
        char *folded = reinterpret_cast<char *>(work.scratch->folded);
        for (int64_t k = 0; k < kFold; ++k)
            std::memcpy(folded + k * tile.cols * grad_size, out.factors, tile.cols * grad_size);
        factors = folded;
    }
    const auto add = [&](int64_t first, int64_t rows, int64_t folded) {
        const char *t = tile.t + first * tile.t_stride, *p = tile.p + first * tile.p_stride;
        const int64_t cols = folded * tile.cols;
        const auto grad = [&](char *base, int64_t stride) { return base == nullptr ? base : base + first * stride; };
        const GradientTile to = {grad(out.t, out.t_stride), grad(out.p, out.p_stride), cols * grad_size,
                                 cols * grad_size, factors};
        sum_columns(plan, {t, p, cols * size, cols * size, rows, cols, nullptr, 0}, to, wide, work);
    };
    add(0, whole, kFold);
    add(whole * kFold, 1, tile.rows - whole * kFold);
    for (int64_t k = 0; k < kFold; ++k)
        for (int64_t c = 0; c < tile.cols; ++c) sums[c] += wide[k * tile.cols + c];
}

// One tile of columns, the group's from number `first` on.
void add_tile_of_columns(const Plan &plan, const Cursor &at, const Tile &tile, int64_t first, Workspace &work) {
    const char *factors = static_cast<const char *>(work.factors()) + first * item_size(plan.work_dtype());
    const bool flat = kFold * tile.cols <= kFoldedColumns && gapless(plan, tile);
    const Output out = output_at(plan, at, tile, flat, factors, work);
    if (flat && gapless(plan, out.gradients, tile.cols))
        add_folded_columns(plan, tile, out.gradients, work.sums + first, work);
    else
        sum_columns(plan, tile, out.gradients, work.sums + first, work);
    if (out.staged) deliver(plan, at, tile.rows, tile.cols, work);
}

// The same in column mode. What is read in place but not written in place goes by tiles of kFold classes.
void add_columns(const Plan &plan, Cursor at, int64_t rows, int64_t count, Workspace &work) {
    const bool narrow = plan.in_place() && plan.staged();
    const int64_t most_rows = narrow ? kLargestTile / kFold : rows;
    const int64_t most = narrow ? kFold : plan.in_place() ? count : kLargestTile / rows;
    for (int64_t c = 0; c < count; c += most, at.advance(plan.class_axis, most)) {
        Cursor cell = at;
        for (int64_t r = 0; r < rows; r += most_rows, cell.advance(plan.row_axis, most_rows)) {
            const Tile tile = tile_at(plan, cell, std::min(most, count - c), std::min(most_rows, rows - r), work);
            add_tile_of_columns(plan, cell, tile, r, work);
        }
    }
}

// work.sums = one piece of each row of the group; its gradients where they belong.
void sum_piece(const Plan &plan, const Group &group, int64_t piece, Workspace &work) {
    if (plan.gradients())  // nothing is in the sums yet
        read_factors(plan.rows(), group, plan.work_dtype(), work.sums, work.factors());
    std::fill_n(work.sums, group.rows, 0.0);
    if (!plan.gradients() && all_masked(plan.rows(), group)) return;
    if (plan.has(KLDIV_MASK) && plan.row_parts.ndim != 0 && !plan.columns) read_mask(plan.rows(), group, work.mask);
    const Span span = span_of(plan, piece);
    each_run(plan, group.at, span, [&](const Cursor &run, int64_t) {
        plan.columns ? add_columns(plan, run, group.rows, span.count, work)
                     : add_rows(plan, run, group.rows, span.count, work);
    });
}

}  // namespace

void run_groups(void *context, int worker, int64_t task) {
    const Plan &plan = *static_cast<const Plan *>(context);
    Workspace work(scratch_of(plan, worker));
    do_groups(plan, task, [&](const Group &group) {
        sum_piece(plan, group, 0, work);
        return work.sums;
    });
}

void run_piece(void *context, int worker, int64_t task) {
    const Plan &plan = *static_cast<const Plan *>(context);
    const Group group = group_at(plan, plan.first_group + task / plan.pieces);
    Workspace work(scratch_of(plan, worker));
    sum_piece(plan, group, task % plan.pieces, work);
    if (plan.way == Way::streamed) end_streams();
    std::copy_n(work.sums, group.rows, plan.partial + task * plan.group_rows);
}

}  // namespace kldiv
