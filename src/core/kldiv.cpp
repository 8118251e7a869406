// From a problem to blocks: which axis is innermost, what is read in place, how the work is cut. The cut depends on
// shapes and strides alone, never on the number of threads, and partial sums are folded in order: the same bits always.
#include "kldiv.h"

#include <algorithm>
#include <cassert>
#include <cfloat>
#include <cmath>
#include <limits>
#include <memory>
#include <new>

#include "convert.hpp"
#include "dispatch.hpp"
#include "kernel.hpp"
#include "nest.hpp"
#include "parallel.hpp"

namespace kldiv {
namespace {

// Elements in one task, at least (when there are as many). Small problems give each of 16 threads two tasks or more; in
// large ones a longer run of neighbours feeds the prefetchers better (4 % from 32 to 128 Ki; no more beyond).
constexpr int64_t kSmallBlock = 32 * 1024;
constexpr int64_t kLargeBlock = 128 * 1024;
constexpr int64_t kTasksInSmall = 64;
constexpr int64_t kMaxTasks = 4096;
constexpr int64_t kMaxPartials = 1 << 16;  // partial sums kept at a time: 512 KiB, twice that at the very worst
constexpr int64_t kGroupRows = 512;        // rows whose sums are kept at a time
constexpr int64_t kFold = 16;              // classes, side by side, that few columns are read as: whole vectors always
constexpr int64_t kPacked = 512;           // elements in a tile that is packed: memory and kernel take short turns
constexpr int64_t kCrossedCols = 32;       // columns of a tile that is transposed while it is packed, and twice as many rows
constexpr int64_t kPackedColumns = 1024;   // columns of a tile that is packed in column mode
constexpr int64_t kLargestTile = 2048;     // elements of any tile that is packed
constexpr int64_t kFoldedColumns = 1024;   // kFold classes of few columns fill at most so many

int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

int64_t block_size(int64_t elements) { return std::clamp(elements / kTasksInSmall, kSmallBlock, kLargeBlock); }

// Everything that a task needs, made once for a call. The unit of work is a group of neighbouring rows times a piece
// of their classes. It is read in tiles: by row_sums, along the classes, or in column mode by column_sums, along the rows.
struct Plan {
    kldiv_array t, p;
    Cursor start;
    bool plain;             // only the sum over everything is wanted: rows mean nothing
    bool columns;
    Nest batch;             // batch axes but row_axis
    kldiv_axis row_axis;    // a group's rows are neighbours along it
    Nest runs;              // class axes but class_axis
    kldiv_axis class_axis;
    kldiv_dtype kernel_dtype;
    bool t_in_place, p_in_place;
    Operations ops;
    Clip clip;
    bool weight_is_float, out_is_float;

    int64_t tile_rows, tile_cols;  // of what is packed
    int64_t group_rows, groups_per_axis, groups;
    int64_t piece_length, pieces_per_run, runs_per_piece, pieces;
    int64_t groups_per_task;  // with one piece
    int64_t first_group;      // with several
    double *partial;

    int64_t row_size() const { return runs.size() * class_axis.extent; }
    int64_t elements() const { return batch.size() * row_axis.extent * row_size(); }
    bool in_place() const { return t_in_place && p_in_place; }
    const kldiv_axis &kernel_axis() const { return columns ? row_axis : class_axis; }
    const kldiv_axis &other_axis() const { return columns ? class_axis : row_axis; }
};

// ---- A task: tiles in, row sums out ----

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
};

struct Operand {
    const char *data;
    int64_t stride;
};

Operand packed(const Plan &plan, const kldiv_array &array, const Grid &grid, Packed &buffer) {
    assert(grid.rows * grid.cols <= kLargestTile);
    const bool again = buffer.source == grid.data && buffer.cols == grid.cols &&
                       (grid.rows == 1 || grid.row_stride == 0) && grid.rows <= buffer.rows;
    if (!again) {
        pack(array, grid, plan.kernel_dtype, buffer.elements);
        buffer.source = grid.data, buffer.rows = grid.rows, buffer.cols = grid.cols;
    }
    return {reinterpret_cast<const char *>(buffer.elements), grid.cols * item_size(plan.kernel_dtype)};
}

Tile tile_at(const Plan &plan, const Cursor &at, int64_t rows, int64_t cols, Workspace &work) {
    const kldiv_axis &down = plan.other_axis(), &along = plan.kernel_axis();
    Operand t = {at.t, down.y_true}, p = {at.p, down.y_pred};
    if (!plan.t_in_place) t = packed(plan, plan.t, {at.t, rows, down.y_true, cols, along.y_true}, work.t);
    if (!plan.p_in_place) p = packed(plan, plan.p, {at.p, rows, down.y_pred, cols, along.y_pred}, work.p);
    return {t.data, p.data, t.stride, p.stride, rows, cols, nullptr, 0};
}

// sums[r] += `count` classes of each of `rows` rows.
void add_rows(const Plan &plan, Cursor at, int64_t rows, int64_t count, Workspace &work) {
    const int64_t most_rows = plan.in_place() ? rows : plan.tile_rows;
    const int64_t most_cols = plan.in_place() ? count : plan.tile_cols;
    const int64_t size = item_size(plan.kernel_dtype);
    double run[kGroupRows];
    for (int64_t r = 0; r < rows; r += most_rows, at.advance(plan.row_axis, most_rows)) {
        Cursor cell = at;
        for (int64_t c = 0; c < count; c += most_cols, cell.advance(plan.class_axis, most_cols)) {
            Tile tile = tile_at(plan, cell, std::min(most_rows, rows - r), std::min(most_cols, count - c), work);
            tile.mask = reinterpret_cast<const uint8_t *>(at.mask);
            tile.mask_stride = plan.row_axis.mask;
            const bool one_stream = tile.t_stride == tile.cols * size && tile.p_stride == tile.cols * size;
            if (plan.plain && one_stream) {
                tile.cols *= tile.rows;
                tile.rows = 1;
            }
            plan.ops.row_sums(tile, plan.clip, run);
            for (int64_t i = 0; i < tile.rows; ++i) work.sums[r + i] += run[i];
        }
    }
}

// Few columns, class after class without a gap: several classes are read as one wider row, and folded at the end.
void add_folded_columns(const Plan &plan, const Tile &tile, double *sums) {
    const int64_t whole = tile.rows / kFold, size = item_size(plan.kernel_dtype);
    double wide[kFoldedColumns] = {};
    const auto add = [&](int64_t first, int64_t rows, int64_t folded) {
        const char *t = tile.t + first * tile.t_stride, *p = tile.p + first * tile.p_stride;
        const int64_t cols = folded * tile.cols;
        plan.ops.column_sums({t, p, cols * size, cols * size, rows, cols, nullptr, 0}, plan.clip, wide);
    };
    add(0, whole, kFold);
    add(whole * kFold, 1, tile.rows - whole * kFold);
    for (int64_t k = 0; k < kFold; ++k)
        for (int64_t c = 0; c < tile.cols; ++c) sums[c] += wide[k * tile.cols + c];
}

// The same in column mode.
void add_columns(const Plan &plan, Cursor at, int64_t rows, int64_t count, Workspace &work) {
    const int64_t most = plan.in_place() ? count : kLargestTile / rows;
    const int64_t size = item_size(plan.kernel_dtype);
    for (int64_t c = 0; c < count; c += most, at.advance(plan.class_axis, most)) {
        const Tile tile = tile_at(plan, at, std::min(most, count - c), rows, work);
        if (kFold * rows <= kFoldedColumns && tile.t_stride == rows * size && tile.p_stride == rows * size)
            add_folded_columns(plan, tile, work.sums);
        else
            plan.ops.column_sums(tile, plan.clip, work.sums);
    }
}

struct Group {
    Cursor at;
    int64_t rows;
};

Group group_at(const Plan &plan, int64_t number) {
    Group group = {plan.start, 0};
    const int64_t from = number % plan.groups_per_axis * plan.group_rows;
    group.at.seek(plan.batch, number / plan.groups_per_axis);
    group.at.advance(plan.row_axis, from);
    group.rows = std::min(plan.group_rows, plan.row_axis.extent - from);
    return group;
}

bool all_masked(const Plan &plan, Group group) {
    if (group.at.mask == nullptr) return false;
    for (int64_t r = 0; r < group.rows; ++r)
        if (group.at.mask[r * plan.row_axis.mask] != 0) return false;
    return true;
}

// work.sums = one piece of each row of the group.
void sum_piece(const Plan &plan, const Group &group, int64_t piece, Workspace &work) {
    std::fill_n(work.sums, group.rows, 0.0);
    if (all_masked(plan, group)) return;
    const int64_t first_run = piece / plan.pieces_per_run * plan.runs_per_piece;
    const int64_t last_run = std::min(first_run + plan.runs_per_piece, plan.runs.size());
    const int64_t from = piece % plan.pieces_per_run * plan.piece_length;
    const int64_t count = std::min(plan.piece_length, plan.class_axis.extent - from);
    for (int64_t o = first_run; o < last_run; ++o) {
        Cursor run = group.at;
        run.seek(plan.runs, o);
        run.advance(plan.class_axis, from);
        plan.columns ? add_columns(plan, run, group.rows, count, work) : add_rows(plan, run, group.rows, count, work);
    }
}

template <class Weight>
void multiply(double *sums, int64_t n, const char *weight, int64_t stride) {
    for (int64_t r = 0; r < n; ++r) sums[r] *= *reinterpret_cast<const Weight *>(weight + r * stride);
}

template <class Out>
void write(const double *sums, int64_t n, char *out, int64_t stride) {
    for (int64_t r = 0; r < n; ++r) *reinterpret_cast<Out *>(out + r * stride) = static_cast<Out>(sums[r]);
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

// A group's rows are known: write them, or give back what they add to the total.
double finish(const Plan &plan, const Group &group, double *sums) {
    const Cursor &at = group.at;
    const kldiv_axis &axis = plan.row_axis;
    if (at.weight != nullptr)
        plan.weight_is_float ? multiply<float>(sums, group.rows, at.weight, axis.weight)
                             : multiply<double>(sums, group.rows, at.weight, axis.weight);
    if (at.mask != nullptr)
        for (int64_t r = 0; r < group.rows; ++r) sums[r] = at.mask[r * axis.mask] != 0 ? sums[r] : 0;
    if (at.out != nullptr) {
        plan.out_is_float ? write<float>(sums, group.rows, at.out, axis.out)
                          : write<double>(sums, group.rows, at.out, axis.out);
        return 0;
    }
    return sum_of(sums, group.rows);
}

// Rows in one piece: task i does several groups and leaves what they add to the total.
void run_groups(void *context, int64_t task) {
    const Plan &plan = *static_cast<const Plan *>(context);
    const int64_t last = std::min((task + 1) * plan.groups_per_task, plan.groups);
    Workspace work;
    double total = 0;
    for (int64_t g = task * plan.groups_per_task; g < last; ++g) {
        const Group group = group_at(plan, g);
        sum_piece(plan, group, 0, work);
        total += finish(plan, group, work.sums);
    }
    plan.partial[task] = total;
}

// Rows in several pieces: task i does one piece of one group and leaves its sums.
void run_piece(void *context, int64_t task) {
    const Plan &plan = *static_cast<const Plan *>(context);
    const Group group = group_at(plan, plan.first_group + task / plan.pieces);
    Workspace work;
    sum_piece(plan, group, task % plan.pieces, work);
    std::copy_n(work.sums, group.rows, plan.partial + task * plan.group_rows);
}

// ---- The plan ----

bool normal(double epsilon, kldiv_dtype dtype) { return epsilon >= (dtype == KLDIV_FLOAT64 ? DBL_MIN : FLT_MIN); }

bool is_float64_work(const kldiv_array &t, const kldiv_array &p) {
    return t.dtype == KLDIV_FLOAT64 || p.dtype == KLDIV_FLOAT64 || p.dtype >= kKernelDtypes;
}

bool readable(const kldiv_array &array, int64_t stride, int64_t extent) {
    return array.dtype < kKernelDtypes && !array.swapped && (stride == item_size(array.dtype) || extent == 1);
}

// Which dtype the kernel reads, and which operands it reads in place.
void choose_operands(Plan &plan) {
    const kldiv_axis &along = plan.kernel_axis();
    const bool t = readable(plan.t, along.y_true, along.extent), p = readable(plan.p, along.y_pred, along.extent);
    const bool same = plan.t.dtype == plan.p.dtype;
    plan.kernel_dtype = same && t && p                      ? plan.t.dtype
                        : is_float64_work(plan.t, plan.p) ? KLDIV_FLOAT64
                                                            : KLDIV_FLOAT32;
    plan.t_in_place = t && plan.t.dtype == plan.kernel_dtype;
    plan.p_in_place = p && plan.p.dtype == plan.kernel_dtype;
}

// One row of a broadcast operand, repeated, makes short rows one stream. (What is packed is float32 or float64.)
void repeat_short_broadcast(Plan &plan) {
    const int64_t most = plan.plain ? 128 : 15;
    if (plan.kernel_dtype > KLDIV_FLOAT64) return;
    if (plan.columns || !plan.in_place() || plan.class_axis.extent > most || plan.row_axis.extent == 1) return;
    const int64_t row_bytes = plan.class_axis.extent * item_size(plan.kernel_dtype);
    plan.t_in_place = !(plan.row_axis.y_true == 0 && plan.row_axis.y_pred == row_bytes);
    plan.p_in_place = !(plan.row_axis.y_pred == 0 && plan.row_axis.y_true == row_bytes);
}

Operations choose_operations(int clip, double epsilon, kldiv_dtype dtype) {
    const Kernels &kernels = current_kernels();
    return (clip && normal(epsilon, dtype) ? kernels.clipped : kernels.general)[dtype];
}

Clip choose_clip(int clip, double epsilon) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    return clip ? Clip{epsilon, 1} : Clip{-infinity, infinity};
}

// Rows stand nearer to each other than classes do, and there are enough of them, or they can be folded.
bool worth_columns(const Plan &plan) {
    const kldiv_axis &rows = plan.row_axis, &classes = plan.class_axis;
    if (reach(rows) == 0 || reach(rows) >= reach(classes)) return false;
    constexpr int64_t enough = 16;
    return rows.extent >= enough || continues({1, classes.y_true, classes.y_pred, 0, 0, 0},
                                              {rows.extent, rows.y_true, rows.y_pred, 0, 0, 0});
}

// What is packed goes tile by tile; where memory runs down the rows, in tiles that fill cache lines both ways.
void choose_tiles(Plan &plan) {
    const kldiv_axis &down = plan.row_axis, &along = plan.class_axis;
    const bool crossed = (!plan.t_in_place && runs_down(down.y_true, along.y_true)) ||
                         (!plan.p_in_place && runs_down(down.y_pred, along.y_pred));
    plan.tile_cols = std::min(along.extent, crossed ? kCrossedCols : kPacked);
    plan.tile_rows = std::min({down.extent, (crossed ? kLargestTile : kPacked) / plan.tile_cols, kGroupRows});
    // Such a tile has to be whole in one group, however long its rows are.
    if (!crossed) plan.tile_rows = std::min(plan.tile_rows, std::max<int64_t>(1, kSmallBlock / plan.row_size()));
}

void cut_into_groups(Plan &plan, int64_t block) {
    const int64_t extent = plan.row_axis.extent;
    if (plan.columns) {
        plan.group_rows = std::min(plan.in_place() ? kColumns : kPackedColumns, extent);
    } else {
        choose_tiles(plan);
        plan.group_rows = std::min({extent, kGroupRows, std::max<int64_t>(1, block / plan.row_size())});
        if (!plan.in_place()) plan.group_rows = std::max<int64_t>(1, plan.group_rows / plan.tile_rows) * plan.tile_rows;
    }
    plan.groups_per_axis = ceil_div(extent, plan.group_rows);
    plan.groups = plan.batch.size() * plan.groups_per_axis;
}

// Pieces of long rows: parts of a run, in whole segments, or several runs.
void cut_into_pieces(Plan &plan, int64_t block) {
    const int64_t run = plan.class_axis.extent, unit = plan.columns ? kFold : kSegment;
    const int64_t bound = ceil_div(plan.row_size(), kMaxPartials / plan.group_rows);
    const int64_t least = std::max({int64_t{1}, block / plan.group_rows, bound});
    plan.piece_length = std::min(run, ceil_div(ceil_div(run, std::max<int64_t>(1, run / least)), unit) * unit);
    plan.pieces_per_run = ceil_div(run, plan.piece_length);
    plan.runs_per_piece = plan.pieces_per_run > 1 ? 1 : std::max<int64_t>(1, least / run);
    plan.pieces = ceil_div(plan.runs.size(), plan.runs_per_piece) * plan.pieces_per_run;
}

void cut(Plan &plan) {
    const int64_t block = block_size(plan.elements());
    cut_into_groups(plan, block);
    cut_into_pieces(plan, block);
    const int64_t group_size = plan.group_rows * plan.row_size();
    plan.groups_per_task = std::max({int64_t{1}, block / group_size, ceil_div(plan.groups, kMaxTasks)});
}

// From axes to a plan; the operands, start and nests are set.
void complete(Plan &plan, int clip, double epsilon) {
    choose_operands(plan);
    repeat_short_broadcast(plan);
    plan.ops = choose_operations(clip, epsilon, plan.kernel_dtype);
    plan.clip = choose_clip(clip, epsilon);
    cut(plan);
}

Plan make_plan(const kldiv_problem &problem) {
    Plan plan{};
    plan.t = problem.y_true;
    plan.p = problem.y_pred;
    plan.start = {static_cast<const char *>(problem.y_true.data), static_cast<const char *>(problem.y_pred.data),
                  static_cast<const char *>(problem.weight.data), reinterpret_cast<const char *>(problem.mask),
                  static_cast<char *>(problem.out)};
    plan.plain = problem.weight.data == nullptr && problem.mask == nullptr && problem.out == nullptr;
    plan.weight_is_float = problem.weight.dtype == KLDIV_FLOAT32;
    plan.out_is_float = problem.out_dtype == KLDIV_FLOAT32;
    for (int i = 0; i < problem.batch_ndim; ++i) {
        kldiv_axis axis = problem.batch[i];  // strides of what is not there would keep axes apart
        if (problem.weight.data == nullptr) axis.weight = 0;
        if (problem.mask == nullptr) axis.mask = 0;
        if (problem.out == nullptr) axis.out = 0;
        plan.batch.push(axis);
    }
    // A plain sum knows no rows: all axes are alike, and contiguous inputs become one long run.
    for (int i = 0; i < problem.class_ndim; ++i) (plan.plain ? plan.batch : plan.runs).push(problem.classes[i]);
    for (Nest *nest : {&plan.batch, &plan.runs}) {
        flip_negative(*nest, plan.start);
        coalesce(*nest);
    }
    plan.class_axis = (plan.plain ? plan.batch : plan.runs).pop();
    plan.row_axis = plan.batch.pop();
    plan.columns = !plan.plain && worth_columns(plan);
    complete(plan, problem.clip, problem.epsilon);
    return plan;
}

// ---- The run ----

using Partials = std::unique_ptr<double[]>;

Partials allocate(int64_t n) { return Partials(new (std::nothrow) double[static_cast<size_t>(n)]); }

kldiv_status run_whole_rows(Plan &plan, int requested, Poll &poll, double &total) {
    const int64_t tasks = ceil_div(plan.groups, plan.groups_per_task);
    const Partials partials = allocate(tasks);
    if (!partials) return KLDIV_NO_MEMORY;
    plan.partial = partials.get();
    const int threads = choose_threads(requested, plan.elements(), tasks);
    const kldiv_status status = run_tasks(threads, tasks, poll, run_groups, &plan);
    if (status != KLDIV_OK) return status;
    for (int64_t i = 0; i < tasks; ++i) total += plan.partial[i];
    return KLDIV_OK;
}

// As many groups at a time as there is room for partial sums.
kldiv_status run_in_pieces(Plan &plan, int requested, Poll &poll, double &total) {
    const int64_t slots = plan.pieces * plan.group_rows;  // of one group
    const int64_t at_once = std::min(plan.groups, std::max<int64_t>(1, kMaxPartials / slots));
    const Partials partials = allocate(at_once * slots);
    if (!partials) return KLDIV_NO_MEMORY;
    plan.partial = partials.get();
    for (plan.first_group = 0; plan.first_group < plan.groups; plan.first_group += at_once) {
        const int64_t count = std::min(at_once, plan.groups - plan.first_group);
        const int64_t tasks = count * plan.pieces;
        const int threads = choose_threads(requested, count * plan.group_rows * plan.row_size(), tasks);
        const kldiv_status status = run_tasks(threads, tasks, poll, run_piece, &plan);
        if (status != KLDIV_OK) return status;
        for (int64_t g = 0; g < count; ++g) {
            const Group group = group_at(plan, plan.first_group + g);
            double *sums = plan.partial + g * slots;
            for (int64_t piece = 1; piece < plan.pieces; ++piece)
                for (int64_t r = 0; r < group.rows; ++r) sums[r] += sums[piece * plan.group_rows + r];
            total += finish(plan, group, sums);
        }
    }
    return KLDIV_OK;
}

kldiv_status run_plan(Plan &plan, int requested, Poll &poll, double *total) {
    double sum = 0;
    const kldiv_status status = plan.pieces > 1 ? run_in_pieces(plan, requested, poll, sum)
                                                : run_whole_rows(plan, requested, poll, sum);
    if (status == KLDIV_OK && total != nullptr) *total = sum;
    return status;
}

// No classes: every row is the empty sum.
void run_empty(const kldiv_problem &problem) {
    Nest batch;
    for (int i = 0; i < problem.batch_ndim; ++i) batch.push(problem.batch[i]);
    const double zero = 0;
    for (int64_t row = 0, rows = batch.size(); row < rows && problem.out != nullptr; ++row) {
        Cursor at = {nullptr, nullptr, nullptr, nullptr, static_cast<char *>(problem.out)};
        at.seek(batch, row);
        problem.out_dtype == KLDIV_FLOAT32 ? write<float>(&zero, 1, at.out, 0) : write<double>(&zero, 1, at.out, 0);
    }
}

bool has_empty_axis(const kldiv_axis *axes, int ndim) {
    return std::any_of(axes, axes + ndim, [](const kldiv_axis &axis) { return axis.extent == 0; });
}

}  // namespace
}  // namespace kldiv

using namespace kldiv;

kldiv_status kldiv_run(const kldiv_problem *problem, double *total) {
    const bool no_rows = has_empty_axis(problem->batch, problem->batch_ndim);
    if (no_rows || has_empty_axis(problem->classes, problem->class_ndim)) {
        if (!no_rows) run_empty(*problem);
        if (total != nullptr) *total = 0;
        return KLDIV_OK;
    }
    Plan plan = make_plan(*problem);
    Poll poll(problem->poll, problem->poll_data);
    return run_plan(plan, problem->num_threads, poll, total);
}

kldiv_status kldiv_flat(kldiv_dtype dtype, const void *y_true, const void *y_pred, int64_t n, double epsilon,
                        int num_threads, int (*poll)(void *), void *poll_data, double *total) {
    const char *t = static_cast<const char *>(y_true), *p = static_cast<const char *>(y_pred);
    const int64_t size = item_size(dtype);
    if (n <= kSmallBlock) {  // one task of one row
        choose_operations(1, epsilon, dtype).row_sums({t, p, 0, 0, 1, n, nullptr, 0}, choose_clip(1, epsilon), total);
        return KLDIV_OK;
    }
    Plan plan{};
    plan.t = {y_true, dtype, 0};
    plan.p = {y_pred, dtype, 0};
    plan.start = {t, p, nullptr, nullptr, nullptr};
    plan.plain = true;
    plan.row_axis = kSingle;
    plan.class_axis = {n, size, size, 0, 0, 0};
    complete(plan, 1, epsilon);
    Poll when(poll, poll_data);
    return run_plan(plan, num_threads, when, total);
}
