// From a problem to blocks: which axis is innermost, what is read in place, how the work is cut. The cut depends on
// shapes and strides alone, never on the number of threads, and partial sums are folded in order: the same bits always.
#include "kldiv.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <memory>
#include <new>

#include "convert.hpp"
#include "dispatch.hpp"
#include "kernel.hpp"
#include "parallel.hpp"

namespace kldiv {
namespace {

// Elements in one task, at least (when there are as many). Small problems give each of 16 threads two tasks or more; in
// large ones a longer run of neighbours feeds the prefetchers better (4 % from 32 to 128 Ki; no more beyond).
constexpr int64_t kSmallBlock = 8 * kSegment;
constexpr int64_t kLargeBlock = 32 * kSegment;
constexpr int64_t kTasksInSmall = 64;
constexpr int64_t kMaxTasks = 4096;           // bounds the memory for partial sums
constexpr int64_t kColumns = 1024;            // columns whose sums stay in the first-level cache
constexpr int64_t kTileRows = 64;             // rows whose sums are kept at a time

int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

int64_t block_size(int64_t elements) { return std::clamp(elements / kTasksInSmall, kSmallBlock, kLargeBlock); }

struct Nest {
    kldiv_axis axes[KLDIV_MAX_AXES];
    int ndim = 0;

    void push(const kldiv_axis &axis) { axes[ndim++] = axis; }
    int64_t size() const {
        int64_t n = 1;
        for (int i = 0; i < ndim; ++i) n *= axes[i].extent;
        return n;
    }
};

// Where the operands stand: pointers that move together along an axis.
struct Cursor {
    const char *t;
    const char *p;
    const char *weight;
    const char *mask;
    char *out;

    void advance(const kldiv_axis &axis, int64_t n) {
        t += n * axis.y_true;
        p += n * axis.y_pred;
        if (weight != nullptr) weight += n * axis.weight;
        if (mask != nullptr) mask += n * axis.mask;
        if (out != nullptr) out += n * axis.out;
    }
    // To the element of that number, counted with the last axis fastest, over the first `ndim` axes.
    void seek(const Nest &nest, int ndim, int64_t number) {
        for (int i = ndim - 1; i >= 0; --i) {
            advance(nest.axes[i], number % nest.axes[i].extent);
            number /= nest.axes[i].extent;
        }
    }
};

int64_t reach(const kldiv_axis &axis) { return std::llabs(axis.y_true) + std::llabs(axis.y_pred); }

// Backwards along an axis is forwards from its other end.
void flip_negative(Nest &nest, Cursor &start) {
    for (int i = 0; i < nest.ndim; ++i) {
        kldiv_axis &axis = nest.axes[i];
        if (axis.y_true > 0 || axis.y_pred > 0 || reach(axis) == 0) continue;
        start.advance(axis, axis.extent - 1);
        axis = {axis.extent, -axis.y_true, -axis.y_pred, -axis.weight, -axis.mask, -axis.out};
    }
}

bool continues(const kldiv_axis &outer, const kldiv_axis &inner) {
    const int64_t n = inner.extent;
    return outer.y_true == n * inner.y_true && outer.y_pred == n * inner.y_pred && outer.weight == n * inner.weight &&
           outer.mask == n * inner.mask && outer.out == n * inner.out;
}

// Widest strides outermost, then neighbours that continue each other made one.
void coalesce(Nest &nest) {
    std::stable_sort(nest.axes, nest.axes + nest.ndim,
                     [](const kldiv_axis &a, const kldiv_axis &b) { return reach(a) > reach(b); });
    Nest merged;
    for (int i = 0; i < nest.ndim; ++i) {
        kldiv_axis axis = nest.axes[i];
        if (axis.extent == 1) continue;
        if (merged.ndim > 0 && continues(merged.axes[merged.ndim - 1], axis)) {
            axis.extent *= merged.axes[merged.ndim - 1].extent;
            merged.axes[merged.ndim - 1] = axis;
        } else {
            merged.push(axis);
        }
    }
    nest = merged;
}

kldiv_axis take_innermost(Nest &nest) {
    if (nest.ndim == 0) return {1, 0, 0, 0, 0, 0};
    return nest.axes[--nest.ndim];
}

// Everything that a task needs, made once for a call.
struct Plan {
    kldiv_array t, p;
    Cursor start;
    Nest batch;        // rows; in column mode without `inner`
    Nest classes;      // class axes; in row mode without `inner`
    kldiv_axis inner;  // the axis that the kernel runs along
    bool columns;      // inner is a batch axis
    kldiv_dtype kernel_dtype;
    bool t_in_place, p_in_place;
    Operations ops;
    Clip clip;
    bool weight_is_float, out_is_float;

    int64_t rows_per_task;     // row mode, whole rows
    int64_t runs_per_piece;    // row mode, rows in pieces: either several runs ...
    int64_t piece_length;      // ... or a part of one
    int64_t pieces_per_run;
    int64_t pieces_per_row;
    int64_t column_blocks;
    int64_t first_task;
    double *partial;

    int64_t rows() const { return batch.size() * (columns ? inner.extent : 1); }
    int64_t row_size() const { return classes.size() * (columns ? 1 : inner.extent); }
};

double weight_at(const Plan &plan, const Cursor &at) {
    if (at.weight == nullptr) return 1;
    return plan.weight_is_float ? *reinterpret_cast<const float *>(at.weight)
                                : *reinterpret_cast<const double *>(at.weight);
}

bool masked(const Cursor &at) { return at.mask != nullptr && *at.mask == 0; }

// One row is known: write it, or give back what it adds to the total.
double finish_row(const Plan &plan, const Cursor &at, double row) {
    const double value = masked(at) ? 0 : at.weight == nullptr ? row : row * weight_at(plan, at);
    if (at.out == nullptr) return value;
    if (plan.out_is_float)
        *reinterpret_cast<float *>(at.out) = static_cast<float>(value);
    else
        *reinterpret_cast<double *>(at.out) = value;
    return 0;
}

// The kernels' view of one operand: in place, or packed into `buffer`.
struct Operand {
    const char *data;
    int64_t stride;
};

Operand operand(const Plan &plan, const kldiv_array &array, bool in_place, const char *src, int64_t stride,
                int64_t inner_stride, int64_t rows, int64_t cols, double *buffer) {
    if (in_place) return {src, stride};
    const int64_t size = item_size(plan.kernel_dtype);
    char *dst = reinterpret_cast<char *>(buffer);
    if (stride == inner_stride * cols && rows > 1)
        pack(array, src, inner_stride, rows * cols, plan.kernel_dtype, dst);
    else
        for (int64_t r = 0; r < rows; ++r)
            pack(array, src + r * stride, inner_stride, cols, plan.kernel_dtype, dst + r * cols * size);
    return {dst, cols * size};
}

struct Buffers {
    alignas(64) double t[kSegment];
    alignas(64) double p[kSegment];
};

Tile tile_at(const Plan &plan, const char *t, const char *p, const kldiv_axis &rows_axis, int64_t rows, int64_t cols,
             Buffers &buffers) {
    const Operand a = operand(plan, plan.t, plan.t_in_place, t, rows_axis.y_true, plan.inner.y_true, rows, cols, buffers.t);
    const Operand b = operand(plan, plan.p, plan.p_in_place, p, rows_axis.y_pred, plan.inner.y_pred, rows, cols, buffers.p);
    return {a.data, b.data, a.stride, b.stride, rows, cols};
}

// sums[r] += a run of `cols` elements of each of `rows` rows. What is packed goes segment by segment.
void add_runs(const Plan &plan, const Cursor &at, const kldiv_axis &rows_axis, int64_t rows, int64_t cols, double *sums,
              Buffers &buffers) {
    double run[kTileRows];
    const bool in_place = plan.t_in_place && plan.p_in_place;
    const int64_t step = in_place ? cols : std::min(cols, kSegment);
    for (int64_t c = 0; c < cols; c += step) {
        const int64_t count = std::min(step, cols - c);
        const char *t = at.t + c * plan.inner.y_true;
        const char *p = at.p + c * plan.inner.y_pred;
        plan.ops.row_sums(tile_at(plan, t, p, rows_axis, rows, count, buffers), plan.clip, run);
        for (int64_t r = 0; r < rows; ++r) sums[r] += run[r];
    }
}

// Row mode, whole rows: task i does rows [i, i + 1) * rows_per_task, a tile of neighbours at a time.
void whole_rows(const Plan &plan, int64_t task, Buffers &buffers) {
    const int64_t first = task * plan.rows_per_task;
    const int64_t last = std::min(first + plan.rows_per_task, plan.rows());
    const kldiv_axis none = {1, 0, 0, 0, 0, 0};
    const kldiv_axis &axis = plan.batch.ndim > 0 ? plan.batch.axes[plan.batch.ndim - 1] : none;
    const bool in_place = plan.t_in_place && plan.p_in_place;
    const int64_t fits = in_place ? kTileRows : std::max<int64_t>(1, std::min(kTileRows, kSegment / plan.inner.extent));
    const int64_t runs = plan.classes.size();

    double total = 0;
    for (int64_t row = first; row < last;) {
        Cursor at = plan.start;
        at.seek(plan.batch, plan.batch.ndim, row);
        int64_t rows = std::min({fits, last - row, axis.extent - row % axis.extent});
        if (at.mask != nullptr) {  // a masked row is not read
            const bool skip = masked(at);
            Cursor next = at;
            int64_t same = 0;
            for (; same < rows && masked(next) == skip; ++same) next.advance(axis, 1);
            rows = same;
        }
        double sums[kTileRows] = {};
        if (!masked(at))
            for (int64_t o = 0; o < runs; ++o) {
                Cursor run = at;
                run.seek(plan.classes, plan.classes.ndim, o);
                add_runs(plan, run, axis, rows, plan.inner.extent, sums, buffers);
            }
        for (int64_t r = 0; r < rows; ++r, at.advance(axis, 1)) total += finish_row(plan, at, sums[r]);
        row += rows;
    }
    plan.partial[task] = total;
}

// Row mode, long rows: task i does one piece of one row.
void row_piece(const Plan &plan, int64_t task, Buffers &buffers) {
    const int64_t number = plan.first_task + task;
    const int64_t piece = number % plan.pieces_per_row;
    Cursor row = plan.start;
    row.seek(plan.batch, plan.batch.ndim, number / plan.pieces_per_row);
    double sum = 0;
    if (!masked(row)) {
        const kldiv_axis none = {1, 0, 0, 0, 0, 0};
        const int64_t first_run = piece / plan.pieces_per_run * plan.runs_per_piece;
        const int64_t last_run = std::min(first_run + plan.runs_per_piece, plan.classes.size());
        const int64_t from = piece % plan.pieces_per_run * plan.piece_length;
        const int64_t count = std::min(plan.piece_length, plan.inner.extent - from);
        for (int64_t o = first_run; o < last_run; ++o) {
            Cursor run = row;
            run.seek(plan.classes, plan.classes.ndim, o);
            run.advance(plan.inner, from);
            add_runs(plan, run, none, 1, count, &sum, buffers);
        }
    }
    plan.partial[task] = sum;
}

// Column mode: task i does a block of neighbouring rows, for all their classes.
void column_block(const Plan &plan, int64_t task, Buffers &buffers) {
    const int64_t from = task % plan.column_blocks * kColumns;
    const int64_t cols = std::min(kColumns, plan.inner.extent - from);
    Cursor at = plan.start;
    at.seek(plan.batch, plan.batch.ndim, task / plan.column_blocks);
    at.advance(plan.inner, from);

    double sums[kColumns] = {};
    Nest outer = plan.classes;
    const kldiv_axis along = take_innermost(outer);
    const bool in_place = plan.t_in_place && plan.p_in_place;
    const int64_t step = in_place ? along.extent : kSegment / kColumns;
    bool any = at.mask == nullptr;
    Cursor look = at;
    for (int64_t c = 0; c < cols && !any; ++c, look.advance(plan.inner, 1)) any = !masked(look);
    for (int64_t o = 0, runs = any ? outer.size() : 0; o < runs; ++o) {
        Cursor run = at;
        run.seek(outer, outer.ndim, o);
        for (int64_t k = 0; k < along.extent; k += step) {
            const int64_t rows = std::min(step, along.extent - k);
            plan.ops.column_sums(tile_at(plan, run.t, run.p, along, rows, cols, buffers), plan.clip, sums);
            run.advance(along, step);
        }
    }
    double total = 0;
    for (int64_t c = 0; c < cols; ++c, at.advance(plan.inner, 1)) total += finish_row(plan, at, sums[c]);
    plan.partial[task] = total;
}

void run_columns(void *context, int64_t task) {
    Buffers buffers;
    column_block(*static_cast<const Plan *>(context), task, buffers);
}
void run_rows(void *context, int64_t task) {
    Buffers buffers;
    whole_rows(*static_cast<const Plan *>(context), task, buffers);
}
void run_pieces(void *context, int64_t task) {
    Buffers buffers;
    row_piece(*static_cast<const Plan *>(context), task, buffers);
}

bool normal(double epsilon, kldiv_dtype dtype) { return epsilon >= (dtype == KLDIV_FLOAT64 ? DBL_MIN : FLT_MIN); }

bool is_float64_work(const kldiv_problem &problem) {
    const auto wide = [](kldiv_dtype d) { return d == KLDIV_FLOAT64; };
    const auto real = [](kldiv_dtype d) { return d < kKernelDtypes; };
    return wide(problem.y_true.dtype) || wide(problem.y_pred.dtype) || !real(problem.y_pred.dtype);
}

bool readable(const kldiv_array &array, int64_t stride, int64_t extent) {
    return array.dtype < kKernelDtypes && !array.swapped && (stride == item_size(array.dtype) || extent == 1);
}

// Which dtype the kernel reads, and which operands it reads in place.
void choose_operands(Plan &plan, bool float64_work) {
    const bool same = plan.t.dtype == plan.p.dtype;
    plan.t_in_place = readable(plan.t, plan.inner.y_true, plan.inner.extent);
    plan.p_in_place = readable(plan.p, plan.inner.y_pred, plan.inner.extent);
    plan.kernel_dtype = same && plan.t_in_place && plan.p_in_place ? plan.t.dtype
                        : float64_work                             ? KLDIV_FLOAT64
                                                                   : KLDIV_FLOAT32;
    plan.t_in_place = plan.t_in_place && plan.t.dtype == plan.kernel_dtype;
    plan.p_in_place = plan.p_in_place && plan.p.dtype == plan.kernel_dtype;
}

Operations choose_operations(int clip, double epsilon, kldiv_dtype dtype) {
    const Kernels &kernels = current_kernels();
    return (clip && normal(epsilon, dtype) ? kernels.clipped : kernels.general)[dtype];
}

Clip choose_clip(int clip, double epsilon) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    return clip ? Clip{epsilon, 1} : Clip{-infinity, infinity};
}

Plan make_plan(const kldiv_problem &problem) {
    Plan plan{};
    plan.t = problem.y_true;
    plan.p = problem.y_pred;
    plan.start = {static_cast<const char *>(problem.y_true.data), static_cast<const char *>(problem.y_pred.data),
                  static_cast<const char *>(problem.weight.data), reinterpret_cast<const char *>(problem.mask),
                  static_cast<char *>(problem.out)};
    for (int i = 0; i < problem.batch_ndim; ++i) plan.batch.push(problem.batch[i]);
    for (int i = 0; i < problem.class_ndim; ++i) plan.classes.push(problem.classes[i]);

    // A plain sum knows no rows: all axes are alike, and contiguous inputs become one long run.
    const bool plain = problem.weight.data == nullptr && problem.mask == nullptr && problem.out == nullptr;
    if (plain) {
        for (int i = 0; i < plan.classes.ndim; ++i) plan.batch.push(plan.classes.axes[i]);
        plan.classes.ndim = 0;
    }
    flip_negative(plan.batch, plan.start);
    flip_negative(plan.classes, plan.start);
    coalesce(plan.batch);
    coalesce(plan.classes);

    const auto innermost = [](const Nest &nest) { return nest.axes[nest.ndim - 1]; };
    constexpr int64_t kWorthColumns = 16;
    plan.columns = !plain && plan.batch.ndim > 0 && plan.classes.ndim > 0 &&
                   innermost(plan.batch).extent >= kWorthColumns && reach(innermost(plan.batch)) != 0 &&
                   reach(innermost(plan.batch)) < reach(innermost(plan.classes));
    plan.inner = take_innermost(plan.columns || plain ? plan.batch : plan.classes);

    choose_operands(plan, is_float64_work(problem));
    plan.ops = choose_operations(problem.clip, problem.epsilon, plan.kernel_dtype);
    plan.clip = choose_clip(problem.clip, problem.epsilon);
    plan.weight_is_float = problem.weight.dtype == KLDIV_FLOAT32;
    plan.out_is_float = problem.out_dtype == KLDIV_FLOAT32;
    return plan;
}

// Pieces of a row longer than a block: whole segments of a long run, or several short runs.
void cut_rows(Plan &plan) {
    const int64_t least = std::max(block_size(plan.row_size()), ceil_div(plan.row_size(), kMaxTasks));
    const int64_t run = plan.inner.extent;
    plan.piece_length = std::min(run, ceil_div(least, kSegment) * kSegment);
    plan.pieces_per_run = ceil_div(run, plan.piece_length);
    plan.runs_per_piece = plan.pieces_per_run > 1 ? 1 : std::max<int64_t>(1, least / run);
    plan.pieces_per_row = ceil_div(plan.classes.size(), plan.runs_per_piece) * plan.pieces_per_run;
}

using Partials = std::unique_ptr<double[]>;

Partials allocate(int64_t n) { return Partials(new (std::nothrow) double[static_cast<size_t>(n)]); }

kldiv_status run_in_pieces(Plan &plan, int requested, Poll &poll, double *total) {
    const int64_t rows = plan.rows();
    // Rows in groups, so that the partial sums of a group fit; a row of very many short runs may need more.
    const int64_t group = std::max<int64_t>(1, kMaxTasks / plan.pieces_per_row);
    const Partials partials = allocate(std::min(group, rows) * plan.pieces_per_row);
    if (!partials) return KLDIV_NO_MEMORY;
    plan.partial = partials.get();
    double sum = 0;
    for (int64_t row = 0; row < rows; row += group) {
        const int64_t count = std::min(group, rows - row);
        const int64_t tasks = count * plan.pieces_per_row;
        plan.first_task = row * plan.pieces_per_row;
        const int threads = choose_threads(requested, count * plan.row_size(), tasks);
        const kldiv_status status = run_tasks(threads, tasks, poll, run_pieces, &plan);
        if (status != KLDIV_OK) return status;
        for (int64_t r = 0; r < count; ++r) {
            double value = 0;
            for (int64_t i = 0; i < plan.pieces_per_row; ++i) value += plan.partial[r * plan.pieces_per_row + i];
            Cursor at = plan.start;
            at.seek(plan.batch, plan.batch.ndim, row + r);
            sum += finish_row(plan, at, value);
        }
    }
    if (total != nullptr) *total = sum;
    return KLDIV_OK;
}

kldiv_status run_whole(Plan &plan, int requested, Poll &poll, int64_t tasks, void (*run)(void *, int64_t), double *total) {
    const Partials partials = allocate(tasks);
    if (!partials) return KLDIV_NO_MEMORY;
    plan.partial = partials.get();
    const int threads = choose_threads(requested, plan.rows() * plan.row_size(), tasks);
    const kldiv_status status = run_tasks(threads, tasks, poll, run, &plan);
    if (status != KLDIV_OK) return status;
    double sum = 0;
    for (int64_t i = 0; i < tasks; ++i) sum += plan.partial[i];
    if (total != nullptr) *total = sum;
    return KLDIV_OK;
}

kldiv_status run_plan(Plan &plan, int requested, Poll &poll, double *total) {
    if (plan.columns) {
        plan.column_blocks = ceil_div(plan.inner.extent, kColumns);
        return run_whole(plan, requested, poll, plan.batch.size() * plan.column_blocks, run_columns, total);
    }
    if (plan.row_size() > kSmallBlock) {
        cut_rows(plan);
        return run_in_pieces(plan, requested, poll, total);
    }
    const int64_t rows = plan.rows();
    plan.rows_per_task = std::max(block_size(rows * plan.row_size()) / plan.row_size(), ceil_div(rows, kMaxTasks));
    return run_whole(plan, requested, poll, ceil_div(rows, plan.rows_per_task), run_rows, total);
}

// No classes: every row is the empty sum.
kldiv_status run_empty(Plan &plan, double *total) {
    for (int64_t row = 0, rows = plan.batch.size(); row < rows && plan.start.out != nullptr; ++row) {
        Cursor at = plan.start;
        at.seek(plan.batch, plan.batch.ndim, row);
        finish_row(plan, at, 0);
    }
    if (total != nullptr) *total = 0;
    return KLDIV_OK;
}

}  // namespace
}  // namespace kldiv

using namespace kldiv;

kldiv_status kldiv_run(const kldiv_problem *problem, double *total) {
    for (int i = 0; i < problem->batch_ndim; ++i)
        if (problem->batch[i].extent == 0) {
            if (total != nullptr) *total = 0;
            return KLDIV_OK;
        }
    for (int i = 0; i < problem->class_ndim; ++i)
        if (problem->classes[i].extent == 0) {
            Plan plan{};
            plan.start = {nullptr, nullptr, nullptr, nullptr, static_cast<char *>(problem->out)};
            plan.out_is_float = problem->out_dtype == KLDIV_FLOAT32;
            for (int k = 0; k < problem->batch_ndim; ++k) plan.batch.push(problem->batch[k]);
            return run_empty(plan, total);
        }
    Plan plan = make_plan(*problem);
    Poll poll(problem->poll, problem->poll_data);
    return run_plan(plan, problem->num_threads, poll, total);
}

kldiv_status kldiv_flat(kldiv_dtype dtype, const void *y_true, const void *y_pred, int64_t n, double epsilon,
                        int num_threads, int (*poll)(void *), void *poll_data, double *total) {
    if (n <= kSmallBlock) {
        const int64_t bytes = n * item_size(dtype);
        const Tile tile = {static_cast<const char *>(y_true), static_cast<const char *>(y_pred), bytes, bytes, 1, n};
        double sum = 0;
        choose_operations(1, epsilon, dtype).row_sums(tile, choose_clip(1, epsilon), &sum);
        *total = sum;
        return KLDIV_OK;
    }
    Plan plan{};
    plan.t = {y_true, dtype, 0};
    plan.p = {y_pred, dtype, 0};
    plan.start = {static_cast<const char *>(y_true), static_cast<const char *>(y_pred), nullptr, nullptr, nullptr};
    plan.inner = {n, item_size(dtype), item_size(dtype), 0, 0, 0};
    choose_operands(plan, dtype == KLDIV_FLOAT64);
    plan.ops = choose_operations(1, epsilon, plan.kernel_dtype);
    plan.clip = choose_clip(1, epsilon);
    Poll when(poll, poll_data);
    return run_plan(plan, num_threads, when, total);
}
