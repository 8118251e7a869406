// See plan.hpp.
#include "plan.hpp"

#include <algorithm>
#include <cfloat>
#include <limits>

#include "convert.hpp"
#include "dispatch.hpp"
#include "operations.hpp"

namespace kldiv {
namespace {

// Elements in one task, at least (when there are as many). Small problems give each of 16 threads two tasks or more; in
// large ones a longer run of neighbours feeds the prefetchers better (4 % from 32 to 128 Ki; no more beyond).
constexpr int64_t kLargeBlock = 128 * 1024;
constexpr int64_t kTasksInSmall = 64;
constexpr int64_t kMaxTasks = 4096;
// Rows with a state are cut as little as that allows: a row in pieces is read again from memory for each of its passes.
constexpr int64_t kLargestPass = 1024 * 1024;
constexpr int64_t kPacked = 512;      // elements in a tile that is packed: memory and kernel take short turns
constexpr int64_t kCrossedCols = 64;  // columns of a tile that is transposed while it is packed, and half as many rows
constexpr int64_t kPackedColumns = 1024;  // columns of a tile that is packed in column mode
// Gradients of more bytes than this are written past the caches, which spares reading what is overwritten. (From 16 MB on
// a loop that only copies gains a sixth by it, though a last-level cache of 32 MB could hold them.)
constexpr int64_t kStreamed = int64_t{8} << 20;

int64_t least_block(const Plan &plan) { return kSmallBlock / plan.cost(); }

int64_t block_size(const Plan &plan) {
    const int64_t most = plan.rowwise != nullptr ? kLargestPass : kLargeBlock;
    return std::clamp(plan.elements() / kTasksInSmall, least_block(plan), most);
}

bool normal(double epsilon, kldiv_dtype dtype) { return epsilon >= (dtype == KLDIV_FLOAT64 ? DBL_MIN : FLT_MIN); }

bool is_float64_work(const kldiv_operand &t, const kldiv_operand &p) {
    return t.dtype == KLDIV_FLOAT64 || p.dtype == KLDIV_FLOAT64 || p.dtype >= kKernelDtypes;
}

bool readable(const kldiv_operand &array, int64_t stride, int64_t extent) {
    return array.dtype < kKernelDtypes && !array.swapped && (stride == item_size(array.dtype) || extent == 1);
}

// Which dtype the kernel reads, and which operands it reads in place.
void choose_operands(Plan &plan) {
    const kldiv_axis &along = plan.kernel_axis();
    const kldiv_operand &y_true = plan.operands[KLDIV_Y_TRUE], &y_pred = plan.operands[KLDIV_Y_PRED];
    const bool as_they_are = !plan.has(KLDIV_WHERE);  // otherwise tiles are packed, without what is left out
    const bool t = as_they_are && readable(y_true, along.strides[KLDIV_Y_TRUE], along.extent),
               p = as_they_are && readable(y_pred, along.strides[KLDIV_Y_PRED], along.extent);
    const bool same = y_true.dtype == y_pred.dtype;
    // A count that is left out is -pseudocount, which float32 may not have.
    const bool wide = is_float64_work(y_true, y_pred) || (!as_they_are && plan.options.pseudocount != 0);
    plan.kernel_dtype = same && t && p ? y_true.dtype : wide ? KLDIV_FLOAT64 : KLDIV_FLOAT32;
    plan.t_in_place = t && y_true.dtype == plan.kernel_dtype;
    plan.p_in_place = p && y_pred.dtype == plan.kernel_dtype;
}

// One row of a broadcast operand, repeated, makes short rows one stream. (What is packed is float32 or float64.)
void repeat_short_broadcast(Plan &plan) {
    const int64_t most = plan.plain ? 128 : 15;
    if (plan.kernel_dtype > KLDIV_FLOAT64 || is_rowwise(plan.options)) return;
    if (plan.columns || !plan.in_place() || plan.class_axis.extent > most || plan.row_axis.extent == 1) return;
    const int64_t row_bytes = plan.class_axis.extent * item_size(plan.kernel_dtype);
    plan.t_in_place = !(plan.row_axis.strides[KLDIV_Y_TRUE] == 0 && plan.row_axis.strides[KLDIV_Y_PRED] == row_bytes);
    plan.p_in_place = !(plan.row_axis.strides[KLDIV_Y_PRED] == 0 && plan.row_axis.strides[KLDIV_Y_TRUE] == row_bytes);
}

// Rows stand nearer to each other than classes do, and there are enough of them, or they can be folded.
bool worth_columns(const Plan &plan) {
    const kldiv_axis &rows = plan.row_axis, &classes = plan.class_axis;
    if (reach(rows) == 0 || reach(rows) >= reach(classes)) return false;
    constexpr int64_t enough = 16;
    const int64_t n = rows.extent;
    return n >= enough || (classes.strides[KLDIV_Y_TRUE] == n * rows.strides[KLDIV_Y_TRUE] &&
                           classes.strides[KLDIV_Y_PRED] == n * rows.strides[KLDIV_Y_PRED]);
}

// What is packed goes tile by tile; where memory runs down the rows, in tiles that fill cache lines both ways.
void choose_tiles(Plan &plan) {
    const kldiv_axis &down = plan.row_axis, &along = plan.class_axis;
    const bool crossed = (!plan.t_in_place && runs_down(down.strides[KLDIV_Y_TRUE], along.strides[KLDIV_Y_TRUE])) ||
                         (!plan.p_in_place && runs_down(down.strides[KLDIV_Y_PRED], along.strides[KLDIV_Y_PRED]));
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
    const int64_t bound = ceil_div(plan.row_size(), plan.most_partials() / plan.group_rows);
    const int64_t least = std::max({int64_t{1}, block / plan.group_rows, bound});
    plan.piece_length = std::min(run, ceil_div(ceil_div(run, std::max<int64_t>(1, run / least)), unit) * unit);
    plan.pieces_per_run = ceil_div(run, plan.piece_length);
    plan.runs_per_piece = plan.pieces_per_run > 1 ? 1 : std::max<int64_t>(1, least / run);
    plan.pieces = ceil_div(plan.runs.size(), plan.runs_per_piece) * plan.pieces_per_run;
}

// What comes to one group of whole rows, one task, and where there are tiles one tile: without the divisions that tell so.
bool is_one_task(const Plan &plan) {
    if (plan.row_axis.extent > kGroupRows) return false;
    if (plan.in_place() && !plan.staged()) return plan.elements() <= least_block(plan);
    return plan.elements() <= kPacked && plan.class_axis.extent <= kCrossedCols;
}

void leave_whole(Plan &plan) {
    plan.tile_rows = plan.group_rows = plan.row_axis.extent;
    plan.tile_cols = plan.piece_length = plan.class_axis.extent;
    plan.groups_per_axis = plan.pieces_per_run = plan.pieces = 1;
    plan.groups = plan.groups_per_task = plan.batch.size();
    plan.runs_per_piece = plan.runs.size();
}

void cut(Plan &plan) {
    if (is_one_task(plan)) return leave_whole(plan);
    const int64_t block = block_size(plan);
    cut_into_groups(plan, block);
    cut_into_pieces(plan, block);
    const int64_t group_size = plan.group_rows * plan.row_size();
    plan.groups_per_task = std::max({int64_t{1}, block / group_size, ceil_div(plan.groups, kMaxTasks)});
}

Way choose_way(const Plan &plan) {
    if (plan.has(KLDIV_WHERE)) return Way::scattered;  // which is where zeros come in
    const kldiv_axis &along = plan.kernel_axis();
    const int64_t size = item_size(plan.work_dtype());
    int64_t bytes = 0;
    for (const kldiv_role grad : kGradients) {
        if (!plan.has(grad)) continue;
        const bool side_by_side = along.strides[grad] == size || along.extent == 1;
        if (plan.operands[grad].dtype != plan.work_dtype() || !side_by_side) return Way::scattered;
        bytes += plan.elements() * size;
    }
    return !plan.columns && bytes >= kStreamed ? Way::streamed : Way::direct;
}

Parameters unclipped(double beta) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    return {-infinity, infinity, beta};
}

// From axes to a plan; the operands, start and nests are set.
void complete(Plan &plan) {
    choose_operands(plan);
    repeat_short_broadcast(plan);
    if (is_rowwise(plan.options)) {
        plan.rowwise = &current_rowwise_kernels(rowwise_of(plan.options)).of[plan.kernel_dtype];
        plan.row_parameters = choose_row_parameters(plan.options, plan.row_size(), plan.kernel_dtype);
        plan.row_parameters.gradients[0] = plan.has(KLDIV_GRAD_Y_TRUE);
        plan.row_parameters.gradients[1] = plan.has(KLDIV_GRAD_Y_PRED);
    } else {
        plan.functions = choose_functions(plan.options, plan.kernel_dtype);
        plan.parameters = choose_parameters(plan.options);
    }
    if (plan.gradients()) plan.way = choose_way(plan);
    cut(plan);
}

}  // namespace

Wanted choose_wanted(const kldiv_problem &problem, bool value) {
    if (has(problem, KLDIV_GRAD_Y_TRUE)) return Wanted::both;
    if (!has(problem, KLDIV_GRAD_Y_PRED)) return Wanted::none;
    return value ? Wanted::pred : Wanted::pred_alone;
}

const Functions &choose_functions(const kldiv_options &options, kldiv_dtype dtype) {
    const Kernels &kernels = current_kernels(options.operation);
    return (options.clip && normal(options.epsilon, dtype) ? kernels.clipped : kernels.general)[dtype];
}

Parameters choose_parameters(const kldiv_options &options) {
    return options.clip ? Parameters{options.epsilon, 1, options.beta} : unclipped(options.beta);
}

RowParameters choose_row_parameters(const kldiv_options &options, int64_t classes, kldiv_dtype dtype) {
    const Kernels &kernels = current_kernels(terms_of(options));
    const double cold = options.smoothing / static_cast<double>(classes);
    const bool clipped = options.clip && reads_probs(options);
    return {clipped ? Parameters{options.epsilon, 1, options.beta} : unclipped(options.beta),
            1 / options.temperature,
            options.pseudocount,
            1 - options.smoothing + cold,
            cold,
            {options.y_true_form, options.y_pred_form},
            {},
            &kernels,
            clipped && normal(options.epsilon, dtype) ? kernels.clipped : kernels.general};
}

Plan::Plan(const kldiv_options &what, const kldiv_operand *of) : options(what) {
    std::copy_n(of, KLDIV_OPERANDS, operands);
    for (int k = 0; k < KLDIV_OPERANDS; ++k) start.at[k] = static_cast<char *>(of[k].data);
}

void ClassOrder::set(const Nest &numbered) {
    Nest sorted;
    for (int i = 0; i < numbered.ndim; ++i) {
        sorted.push(numbered.axes[i]);
        sorted.axes[i].strides[KLDIV_LABEL] = i;  // which along classes means nothing
    }
    sort_by_reach(sorted);
    ndim_ = numbered.ndim;
    int64_t step = 1, place = 1;
    for (int i = ndim_ - 1; i >= 0; --i) {
        const kldiv_axis &axis = numbered.axes[i];
        axes_[i].extent = axis.extent, axes_[i].step = step, axes_[i].backwards = is_backwards(axis);
        step *= axis.extent;
    }
    for (int i = ndim_ - 1; i >= 0; --i) {
        axes_[sorted.axes[i].strides[KLDIV_LABEL]].place = place;
        place *= sorted.axes[i].extent;
    }
}

Plan make_plan(const kldiv_problem &problem, bool value_wanted) {
    Plan plan(problem.options, problem.operands);
    plan.wanted = choose_wanted(problem, value_wanted);
    const bool rowwise = is_rowwise(problem.options);
    plan.plain = !rowwise && !keeps_rows(problem) && (!plan.gradients() || has_one_upstream(problem));
    // A plain sum knows no rows: all axes are alike, and contiguous inputs become one long run.
    Nest &classes = plan.plain ? plan.batch : plan.runs;
    const int ndim = problem.batch_ndim + problem.class_ndim;
    for (int i = 0; i < ndim; ++i)
        (i < problem.batch_ndim ? plan.batch : classes).push(relevant(problem.axes[i], problem.operands));
    if (plan.has(KLDIV_LABEL)) plan.class_order.set(plan.runs);
    for (Nest *nest : {&plan.batch, &plan.runs}) {
        flip_negative(*nest, plan.start);
        coalesce(*nest);
    }
    plan.class_axis = classes.pop();
    plan.row_axis = pop_rows(plan.batch, plan.row_parts);
    plan.columns = !plan.plain && !rowwise && worth_columns(plan);
    complete(plan);
    return plan;
}

Plan make_flat_plan(const kldiv_options &options, const kldiv_operand *operands, int64_t n) {
    Plan plan(options, operands);
    plan.plain = true;
    plan.row_axis = plan.class_axis = kSingle;
    plan.class_axis.extent = n;
    for (const kldiv_role input : kInputs) plan.class_axis.strides[input] = item_size(operands[input].dtype);
    complete(plan);
    return plan;
}

}  // namespace kldiv
