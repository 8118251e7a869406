// See task.hpp.
#include "task.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "convert.hpp"

namespace kldiv {
namespace {

// What a task packs into, and from where, so that what is broadcast is packed once. (All that stands on a task's stack
// comes to some 110 KiB; threads of musl have 128.)
struct Packed {
    alignas(64) double elements[kLargestTile];
    const char *source = nullptr;
    int64_t rows = 0, cols = 0;
};
struct Workspace {
    Packed t, p;
    double sums[kColumns];
    double row_factors[kGroupRows];  // where there is no scratch
    char mask[kGroupRows];           // the group's, where the rows' axis has parts
    Scratch *scratch;

    explicit Workspace(Scratch *own) : scratch(own) {}
    void *factors() { return scratch != nullptr ? scratch->factors : row_factors; }
};

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
    const bool again = buffer.source == grid.data && buffer.cols == grid.cols &&
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

Tile tile_at(const Plan &plan, const Cursor &at, int64_t rows, int64_t cols, Workspace &work) {
    const Operand t = input_at(plan, KLDIV_Y_TRUE, plan.t_in_place, at, rows, cols, work.t),
                  p = input_at(plan, KLDIV_Y_PRED, plan.p_in_place, at, rows, cols, work.p);
    return {t.data, p.data, t.stride, p.stride, rows, cols, nullptr, 0};
}

// Row after row without a gap.
bool gapless(const Plan &plan, const Tile &tile) {
    const int64_t row_bytes = tile.cols * item_size(plan.kernel_dtype);
    return tile.t_stride == row_bytes && tile.p_stride == row_bytes;
}
bool gapless(const Plan &plan, const GradientTile &out, int64_t cols) {
    const int64_t row_bytes = cols * item_size(plan.work_dtype());
    return (out.t == nullptr || out.t_stride == row_bytes) && (out.p == nullptr || out.p_stride == row_bytes);
}

struct Output {
    GradientTile gradients;
    bool staged;
};

// Where the kernel is to write the gradients of the tile that starts at `at`. With `together` the tile's rows are read as
// one, or several to a vector, which sums depend on: where gradients have gaps they are staged for its sake, if they fit.
Output output_at(const Plan &plan, const Cursor &at, const Tile &tile, bool together, const char *factors,
                 Workspace &work) {
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

// What stands staged goes where it belongs.
void deliver(const Plan &plan, const Cursor &at, int64_t rows, int64_t cols, const Workspace &work) {
    const auto one = [&](kldiv_role grad, const double *staged) {
        if (!plan.has(grad)) return;
        const Grid grid = grid_at(at, grad, rows, plan.other_axis(), cols, plan.kernel_axis());
        plan.way == Way::streamed ? stream(staged, item_size(plan.work_dtype()), grid)
                                  : unpack(staged, plan.work_dtype(), plan.operands[grad].dtype, grid);
    };
    one(KLDIV_GRAD_Y_TRUE, work.scratch->t);
    one(KLDIV_GRAD_Y_PRED, work.scratch->p);
}

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
    tile.mask = reinterpret_cast<const uint8_t *>(apart ? work.mask + first : at.at[KLDIV_MASK]);
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
    if (plan.gradients()) {
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

// visit(row, its element) for each row of the group, of an operand that stands beside the rows.
template <class Visit>
void each_row(const RowOperands &rows, const Group &group, kldiv_role role, const Visit &visit) {
    char *const start = group.at.at[role];
    if (rows.parts == nullptr) {
        for (int64_t r = 0; r < group.rows; ++r) visit(r, start + r * rows.axis.strides[role]);
        return;
    }
    const kldiv_axis &inner = rows.parts->axes[rows.parts->ndim - 1];
    for (int64_t r = 0; r < group.rows;) {
        Cursor run{};
        run.at[role] = start;
        run.seek(*rows.parts, group.first + r);
        const int64_t n = std::min(group.rows - r, inner.extent - (group.first + r) % inner.extent);
        for (int64_t i = 0; i < n; ++i) visit(r + i, run.at[role] + i * inner.strides[role]);
        r += n;
    }
}

bool all_masked(const RowOperands &rows, const Group &group) {
    if (!rows.has(KLDIV_MASK)) return false;
    bool any = false;
    each_row(rows, group, KLDIV_MASK, [&](int64_t, const char *kept) { any |= *kept != 0; });
    return !any;
}

template <class Value>
double value_at(const char *data) {
    return static_cast<double>(*reinterpret_cast<const Value *>(data));
}

// What each row is multiplied by: the scale, and what it has of an operand.
void multiply(const RowOperands &rows, const Group &group, kldiv_role role, double *values) {
    if (!rows.has(role)) return;
    const bool is_float = rows.operands[role].dtype == KLDIV_FLOAT32;
    each_row(rows, group, role, [&](int64_t r, const char *data) {
        values[r] *= is_float ? value_at<float>(data) : value_at<double>(data);
    });
}

// values[r] = 0 where the mask is.
template <class Value>
void clear_masked(const RowOperands &rows, const Group &group, Value *values) {
    if (!rows.has(KLDIV_MASK)) return;
    each_row(rows, group, KLDIV_MASK, [&](int64_t r, const char *kept) { values[r] = *kept == 0 ? 0 : values[r]; });
}

template <class Factor>
void store_factors(const RowOperands &rows, const Group &group, const double *values, void *to) {
    for (int64_t r = 0; r < group.rows; ++r) static_cast<Factor *>(to)[r] = static_cast<Factor>(values[r]);
    clear_masked(rows, group, static_cast<Factor *>(to));
}

// A piece of each row: so many classes from `from` on, of each of some runs. (Divisions are a part of a small call.)
struct Span {
    int64_t first_run, last_run, from, count;
};

Span span_of(const Plan &plan, int64_t piece) {
    if (plan.pieces == 1) return {0, plan.runs.size(), 0, plan.class_axis.extent};
    const int64_t first = piece / plan.pieces_per_run * plan.runs_per_piece;
    const int64_t from = piece % plan.pieces_per_run * plan.piece_length;
    return {first, std::min(first + plan.runs_per_piece, plan.runs.size()), from,
            std::min(plan.piece_length, plan.class_axis.extent - from)};
}

// work.sums = one piece of each row of the group; its gradients where they belong.
void sum_piece(const Plan &plan, const Group &group, int64_t piece, Workspace &work) {
    if (plan.gradients())  // nothing is in the sums yet
        read_factors(plan.rows(), group, plan.work_dtype(), work.sums, work.factors());
    std::fill_n(work.sums, group.rows, 0.0);
    if (!plan.gradients() && all_masked(plan.rows(), group)) return;
    if (plan.has(KLDIV_MASK) && plan.row_parts.ndim != 0 && !plan.columns)
        each_row(plan.rows(), group, KLDIV_MASK, [&](int64_t r, const char *kept) { work.mask[r] = *kept; });
    const Span span = span_of(plan, piece);
    for (int64_t o = span.first_run; o < span.last_run; ++o) {
        Cursor run = group.at;
        run.seek(plan.runs, o);
        run.advance(plan.class_axis, span.from);
        plan.columns ? add_columns(plan, run, group.rows, span.count, work)
                     : add_rows(plan, run, group.rows, span.count, work);
    }
}

template <class Out>
void write(const RowOperands &rows, const Group &group, const double *sums) {
    each_row(rows, group, KLDIV_OUT,
             [&](int64_t r, char *out) { *reinterpret_cast<Out *>(out) = static_cast<Out>(sums[r]); });
}

// In eight lanes: one would make every addition wait for the last.
double sum_of(const double *values, int64_t n) {
    double lanes[8] = {};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int l = 0; l < 8; ++l) lanes[l] += values[i + l];
    for (int l = 0; i < n; ++i, ++l) lanes[l] += values[i];
    for (int width = 4; width > 0; width /= 2)
        for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
    return lanes[0];
}

Scratch *scratch_of(const Plan &plan, int worker) { return plan.scratch == nullptr ? nullptr : plan.scratch + worker; }

}  // namespace

Group group_at(const Plan &plan, int64_t number) {
    if (plan.groups == 1) return {plan.start, plan.row_axis.extent, 0};
    Group group = {plan.start, 0, number % plan.groups_per_axis * plan.group_rows};
    group.at.seek(plan.batch, number / plan.groups_per_axis);
    group.at.advance(plan.row_axis, group.first);
    group.rows = std::min(plan.group_rows, plan.row_axis.extent - group.first);
    return group;
}

void read_factors(const RowOperands &rows, const Group &group, kldiv_dtype format, double *scratch, void *to) {
    std::fill_n(scratch, group.rows, rows.scale);
    multiply(rows, group, KLDIV_UPSTREAM, scratch);
    multiply(rows, group, KLDIV_WEIGHT, scratch);
    format == KLDIV_FLOAT64 ? store_factors<double>(rows, group, scratch, to)
                            : store_factors<float>(rows, group, scratch, to);
}

double finish(const RowOperands &rows, const Group &group, double *sums) {
    multiply(rows, group, KLDIV_WEIGHT, sums);
    clear_masked(rows, group, sums);
    if (!rows.has(KLDIV_OUT)) return sum_of(sums, group.rows);
    if (rows.scale != 1)
        for (int64_t r = 0; r < group.rows; ++r) sums[r] *= rows.scale;
    rows.operands[KLDIV_OUT].dtype == KLDIV_FLOAT32 ? write<float>(rows, group, sums)
                                                    : write<double>(rows, group, sums);
    return 0;
}

void run_groups(void *context, int worker, int64_t task) {
    const Plan &plan = *static_cast<const Plan *>(context);
    const int64_t last = std::min((task + 1) * plan.groups_per_task, plan.groups);
    Workspace work(scratch_of(plan, worker));
    double total = 0;
    for (int64_t g = task * plan.groups_per_task; g < last; ++g) {
        const Group group = group_at(plan, g);
        sum_piece(plan, group, 0, work);
        total += finish(plan.rows(), group, work.sums);
    }
    if (plan.way == Way::streamed) end_streams();
    plan.partial[task] = total;
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
