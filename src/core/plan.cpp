// See plan.hpp.
#include "plan.hpp"

#include <algorithm>
#include <cfloat>
#include <limits>

#include "convert.hpp"
#include "dispatch.hpp"

namespace kldiv {
namespace {

// Elements in one task, at least (when there are as many). Small problems give each of 16 threads two tasks or more; in
// large ones a longer run of neighbours feeds the prefetchers better (4 % from 32 to 128 Ki; no more beyond).
constexpr int64_t kLargeBlock = 128 * 1024;
constexpr int64_t kTasksInSmall = 64;
constexpr int64_t kMaxTasks = 4096;
constexpr int64_t kPacked = 512;      // elements in a tile that is packed: memory and kernel take short turns
constexpr int64_t kCrossedCols = 32;  // columns of a tile that is transposed while it is packed, and twice as many rows
constexpr int64_t kPackedColumns = 1024;  // columns of a tile that is packed in column mode
// Gradients of more bytes than this are written past the caches, which spares reading what is overwritten. (From 16 MB on
// a loop that only copies gains a sixth by it, though a last-level cache of 32 MB could hold them.)
constexpr int64_t kStreamed = int64_t{8} << 20;

int64_t block_size(int64_t elements) { return std::clamp(elements / kTasksInSmall, kSmallBlock, kLargeBlock); }

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
    plan.kernel_dtype = same && t && p ? plan.t.dtype : is_float64_work(plan.t, plan.p) ? KLDIV_FLOAT64 : KLDIV_FLOAT32;
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

// Rows stand nearer to each other than classes do, and there are enough of them, or they can be folded.
bool worth_columns(const Plan &plan) {
    const kldiv_axis &rows = plan.row_axis, &classes = plan.class_axis;
    if (reach(rows) == 0 || reach(rows) >= reach(classes)) return false;
    constexpr int64_t enough = 16;
    const int64_t n = rows.extent;
    return n >= enough || (classes.y_true == n * rows.y_true && classes.y_pred == n * rows.y_pred);
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

Wanted choose_wanted(const Cursor &start, bool value) {
    if (start.grad_p == nullptr) return Wanted::y_true;
    if (start.grad_t != nullptr) return Wanted::both;
    return value ? Wanted::y_pred : Wanted::y_pred_alone;
}

Way choose_way(const Plan &plan) {
    const kldiv_axis &along = plan.kernel_axis();
    const int64_t size = item_size(plan.work_dtype());
    const auto writable = [&](const char *grad, int64_t stride) {
        return grad == nullptr || (plan.grad_dtype == plan.work_dtype() && (stride == size || along.extent == 1));
    };
    if (!writable(plan.start.grad_t, along.grad_y_true) || !writable(plan.start.grad_p, along.grad_y_pred))
        return Way::scattered;
    const int64_t bytes = plan.elements() * size * (plan.wanted == Wanted::both ? 2 : 1);
    return !plan.columns && bytes >= kStreamed ? Way::streamed : Way::direct;
}

// From axes to a plan; the operands, start and nests are set.
void complete(Plan &plan, int clip, double epsilon) {
    choose_operands(plan);
    repeat_short_broadcast(plan);
    plan.ops = choose_operations(clip, epsilon, plan.kernel_dtype);
    plan.clip = choose_clip(clip, epsilon);
    if (plan.gradients) plan.way = choose_way(plan);
    cut(plan);
}

bool same_for_all_rows(const kldiv_problem &problem) {
    if (problem.upstream.data == nullptr) return true;
    return std::all_of(problem.batch, problem.batch + problem.batch_ndim,
                       [](const kldiv_axis &axis) { return axis.upstream == 0 || axis.extent == 1; });
}

// The strides of what is not there would keep axes apart.
kldiv_axis relevant(kldiv_axis axis, const Cursor &start) {
    if (start.weight == nullptr) axis.weight = 0;
    if (start.mask == nullptr) axis.mask = 0;
    if (start.out == nullptr) axis.out = 0;
    if (start.upstream == nullptr) axis.upstream = 0;
    if (start.grad_t == nullptr) axis.grad_y_true = 0;
    if (start.grad_p == nullptr) axis.grad_y_pred = 0;
    return axis;
}

}  // namespace

Operations choose_operations(int clip, double epsilon, kldiv_dtype dtype) {
    const Kernels &kernels = current_kernels();
    return (clip && normal(epsilon, dtype) ? kernels.clipped : kernels.general)[dtype];
}

Clip choose_clip(int clip, double epsilon) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    return clip ? Clip{epsilon, 1} : Clip{-infinity, infinity};
}

Plan make_plan(const kldiv_problem &problem, bool value_wanted) {
    static constexpr double one = 1;
    Plan plan;
    plan.t = problem.y_true;
    plan.p = problem.y_pred;
    plan.start = {static_cast<const char *>(problem.y_true.data),
                  static_cast<const char *>(problem.y_pred.data),
                  static_cast<const char *>(problem.weight.data),
                  reinterpret_cast<const char *>(problem.mask),
                  static_cast<char *>(problem.out),
                  static_cast<const char *>(problem.upstream.data),
                  static_cast<char *>(problem.grad_y_true),
                  static_cast<char *>(problem.grad_y_pred)};
    plan.gradients = problem.grad_y_true != nullptr || problem.grad_y_pred != nullptr;
    plan.plain = problem.weight.data == nullptr && problem.mask == nullptr && problem.out == nullptr &&
                 (!plan.gradients || same_for_all_rows(problem));
    plan.weight_is_float = problem.weight.dtype == KLDIV_FLOAT32;
    plan.out_is_float = problem.out_dtype == KLDIV_FLOAT32;
    for (int i = 0; i < problem.batch_ndim; ++i) plan.batch.push(relevant(problem.batch[i], plan.start));
    // A plain sum knows no rows: all axes are alike, and contiguous inputs become one long run.
    for (int i = 0; i < problem.class_ndim; ++i)
        (plan.plain ? plan.batch : plan.runs).push(relevant(problem.classes[i], plan.start));
    if (plan.gradients) {
        plan.wanted = choose_wanted(plan.start, value_wanted);
        plan.grad_dtype = problem.grad_dtype;
        plan.upstream_is_float = problem.upstream.data != nullptr && problem.upstream.dtype == KLDIV_FLOAT32;
        if (problem.upstream.data == nullptr) plan.start.upstream = reinterpret_cast<const char *>(&one);
    }
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

Plan make_flat_plan(kldiv_dtype dtype, const void *y_true, const void *y_pred, int64_t n, double epsilon) {
    Plan plan;
    plan.t = {y_true, dtype, 0};
    plan.p = {y_pred, dtype, 0};
    plan.start.t = static_cast<const char *>(y_true);
    plan.start.p = static_cast<const char *>(y_pred);
    plan.plain = true;
    plan.row_axis = plan.class_axis = kSingle;
    plan.class_axis.extent = n;
    plan.class_axis.y_true = plan.class_axis.y_pred = item_size(dtype);
    complete(plan, 1, epsilon);
    return plan;
}

}  // namespace kldiv
