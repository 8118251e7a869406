// See tile.hpp.
#include "tile.hpp"

#include <cassert>
#include <limits>

#include "convert.hpp"

namespace kldiv {
namespace {

struct Operand {
    const char *data;
    int64_t stride;
};

// An operand's part of a tile that starts at `at`: `cols` along one axis, `rows` down the other.
Grid grid_at(const Cursor &at, kldiv_role role, int64_t rows, const kldiv_axis &down, int64_t cols,
             const kldiv_axis &along) {
    return {at.at[role], rows, down.strides[role], cols, along.strides[role]};
}

Operand packed(const Plan &plan, kldiv_role role, const Grid &grid, Packed &buffer) {
    assert(grid.rows * grid.cols <= kLargestTile);
    const bool again = !plan.has(KLDIV_WHERE) && buffer.source == grid.data && buffer.cols == grid.cols &&
                       (grid.rows == 1 || grid.row_stride == 0) && grid.rows <= buffer.rows;
    if (!again) {
        pack(plan.operands[role], grid, plan.kernel_dtype, buffer.elements);
        buffer.source = grid.data, buffer.rows = grid.rows, buffer.cols = grid.cols;
    }
    return {reinterpret_cast<const char *>(buffer.elements), grid.cols * item_size(plan.kernel_dtype)};
}

Operand input_at(const Plan &plan, kldiv_role role, bool in_place, const Cursor &at, int64_t rows, int64_t cols,
                 Packed &buffer) {
    const Grid grid = grid_at(at, role, rows, plan.other_axis(), cols, plan.kernel_axis());
    if (in_place) return {grid.data, grid.row_stride};
    return packed(plan, role, grid, buffer);
}

// What makes an element a probability of 0: a class that isn't there, where both sides have it.
double nothing(const kldiv_options &options, kldiv_form form) {
    if (form == KLDIV_LOG_PROBS || form == KLDIV_LOGITS) return -std::numeric_limits<double>::infinity();
    return form == KLDIV_COUNTS ? -options.pseudocount : 0;
}

// A stride that the compiler knows gives it vectors; of any other, no branch, which random bytes would mislead.
template <class Element>
void leave_out_of_row(const char *where, int64_t stride, int64_t n, Element value, Element *row) {
    if (stride == 1) {
        for (int64_t c = 0; c < n; ++c) row[c] = where[c] == 0 ? value : row[c];
        return;
    }
    for (int64_t c = 0; c < n; ++c) {
        const Element either[] = {value, row[c]};
        row[c] = either[where[c * stride] != 0];
    }
}

template <class Element>
void leave_out(const Grid &where, double value, double *elements) {
    Element *row = reinterpret_cast<Element *>(elements);
    for (int64_t r = 0; r < where.rows; ++r, row += where.cols)
        leave_out_of_row(where.data + r * where.row_stride, where.col_stride, where.cols, static_cast<Element>(value),
                         row);
}

// elements = value where the tile has none, of a tile of side-by-side elements.
void leave_out(const Plan &plan, const Cursor &at, int64_t rows, int64_t cols, double value, double *elements) {
    if (!plan.has(KLDIV_WHERE)) return;
    const Grid where = grid_at(at, KLDIV_WHERE, rows, plan.other_axis(), cols, plan.kernel_axis());
    plan.work_dtype() == KLDIV_FLOAT32 ? leave_out<float>(where, value, elements)
                                       : leave_out<double>(where, value, elements);
}

}  // namespace

Tile tile_at(const Plan &plan, const Cursor &at, int64_t rows, int64_t cols, TileBuffers &work) {
    const Operand t = input_at(plan, KLDIV_Y_TRUE, plan.t_in_place, at, rows, cols, work.t),
                  p = input_at(plan, KLDIV_Y_PRED, plan.p_in_place, at, rows, cols, work.p);
    leave_out(plan, at, rows, cols, nothing(plan.options, plan.options.y_true_form), work.t.elements);
    leave_out(plan, at, rows, cols, nothing(plan.options, plan.options.y_pred_form), work.p.elements);
    return {t.data, p.data, t.stride, p.stride, rows, cols, nullptr, 0};
}

bool gapless(const Plan &plan, const Tile &tile) {
    const int64_t row_bytes = tile.cols * item_size(plan.kernel_dtype);
    return tile.t_stride == row_bytes && tile.p_stride == row_bytes;
}
bool gapless(const Plan &plan, const GradientTile &out, int64_t cols) {
    const int64_t row_bytes = cols * item_size(plan.work_dtype());
    return (out.t == nullptr || out.t_stride == row_bytes) && (out.p == nullptr || out.p_stride == row_bytes);
}

Output output_at(const Plan &plan, const Cursor &at, const Tile &tile, bool together, const char *factors,
                 TileBuffers &work) {
    if (!plan.gradients()) return {};
    const kldiv_axis &down = plan.other_axis();
    const GradientTile direct = {at.at[KLDIV_GRAD_Y_TRUE], at.at[KLDIV_GRAD_Y_PRED], down.strides[KLDIV_GRAD_Y_TRUE],
                                 down.strides[KLDIV_GRAD_Y_PRED], factors};
    const bool fits = plan.needs_scratch() && tile.rows * tile.cols <= kLargestTile;
    assert(fits || !plan.staged());
    if (!plan.staged() && (!fits || !together || gapless(plan, direct, tile.cols))) return {direct, false};
    const int64_t row_bytes = tile.cols * item_size(plan.work_dtype());
    const auto staged = [&](kldiv_role grad, double *tile_of) {
        return plan.has(grad) ? reinterpret_cast<char *>(tile_of) : nullptr;
    };
    return {{staged(KLDIV_GRAD_Y_TRUE, work.scratch->t), staged(KLDIV_GRAD_Y_PRED, work.scratch->p), row_bytes,
             row_bytes, factors},
            true};
}

void deliver(const Plan &plan, const Cursor &at, int64_t rows, int64_t cols, const TileBuffers &work) {
    const auto one = [&](kldiv_role grad, double *staged) {
        if (!plan.has(grad)) return;
        leave_out(plan, at, rows, cols, 0, staged);
        const Grid grid = grid_at(at, grad, rows, plan.other_axis(), cols, plan.kernel_axis());
        plan.way == Way::streamed ? stream(staged, item_size(plan.work_dtype()), grid)
                                  : unpack(staged, plan.work_dtype(), plan.operands[grad].dtype, grid);
    };
    one(KLDIV_GRAD_Y_TRUE, work.scratch->t);
    one(KLDIV_GRAD_Y_PRED, work.scratch->p);
}

}  // namespace kldiv
