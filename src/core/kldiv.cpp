// The contract's functions: a plan, its tasks on threads, and their partial sums folded in order.
#include "kldiv.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>
#include <utility>

#include "arithmetic.hpp"
#include "convert.hpp"
#include "executor.hpp"
#include "group.hpp"
#include "one_tile.hpp"
#include "operations.hpp"
#include "passes.hpp"
#include "plan.hpp"
#include "resolved.hpp"
#include "row_task.hpp"
#include "task.hpp"
#include "tile.hpp"

namespace kldiv {
namespace {

template <class T>
std::unique_ptr<T[]> allocate(int64_t n) {
    return std::unique_ptr<T[]>(new (std::nothrow) T[static_cast<size_t>(n)]);
}

kldiv_status run_on(Plan &plan, int threads, int64_t tasks, Poll &poll, Job::Run run) {
    const std::unique_ptr<Scratch[]> scratch = plan.needs_scratch() ? allocate<Scratch>(threads) : nullptr;
    if (plan.needs_scratch() && !scratch) return KLDIV_NO_MEMORY;
    plan.scratch = scratch.get();
    return run_tasks(threads, tasks, poll, run, &plan);
}

kldiv_status run_whole_rows(Plan &plan, int requested, Poll &poll, double &total) {
    const int64_t tasks = ceil_div(plan.groups, plan.groups_per_task);
    const std::unique_ptr<double[]> partials = tasks == 1 ? nullptr : allocate<double>(tasks);
    if (tasks > 1 && !partials) return KLDIV_NO_MEMORY;
    plan.partial = tasks == 1 ? &plan.alone : partials.get();
    const int threads = choose_threads(requested, plan.cost() * plan.elements(), tasks);
    const kldiv_status status =
        run_on(plan, threads, tasks, poll, plan.rowwise != nullptr ? run_row_groups : run_groups);
    if (status != KLDIV_OK) return status;
    for (int64_t i = 0; i < tasks; ++i) total += plan.partial[i];
    return KLDIV_OK;
}

// As many groups at a time as there is room for partial sums.
kldiv_status run_in_pieces(Plan &plan, int requested, Poll &poll, double &total) {
    const int64_t slots = plan.pieces * plan.group_rows;  // of one group
    const int64_t at_once = std::min(plan.groups, std::max<int64_t>(1, kMaxPartials / slots));
    const std::unique_ptr<double[]> partials = allocate<double>(at_once * slots);
    if (!partials) return KLDIV_NO_MEMORY;
    plan.partial = partials.get();
    for (plan.first_group = 0; plan.first_group < plan.groups; plan.first_group += at_once) {
        const int64_t count = std::min(at_once, plan.groups - plan.first_group);
        const int64_t tasks = count * plan.pieces;
        poll.cover(static_cast<double>(plan.first_group) / static_cast<double>(plan.groups),
                   static_cast<double>(plan.first_group + count) / static_cast<double>(plan.groups));
        const int threads = choose_threads(requested, count * plan.group_rows * plan.row_size(), tasks);
        const kldiv_status status = run_on(plan, threads, tasks, poll, run_piece);
        if (status != KLDIV_OK) return status;
        for (int64_t g = 0; g < count; ++g) {
            const Group group = group_at(plan, plan.first_group + g);
            double *sums = plan.partial + g * slots;
            for (int64_t piece = 1; piece < plan.pieces; ++piece)
                for (int64_t r = 0; r < group.rows; ++r) sums[r] += sums[piece * plan.group_rows + r];
            total += finish(plan.rows(), group, sums);
        }
    }
    return KLDIV_OK;
}

// ---- Rows with a state ----

// The partial states of a pass's pieces made one, in order. Whether any row wants another pass.
bool merge_pieces(Plan &plan, int64_t groups) {
    bool again = false;
    for (int64_t g = 0; g < groups; ++g) {
        const int64_t rows = group_at(plan, plan.first_group + g).rows;
        RowState *states = plan.states + g * plan.group_rows;
        const RowState *partial = plan.partial_states + g * plan.pieces * plan.group_rows;
        for (int64_t r = 0; r < rows; ++r) {
            if (states[r].pass == kRowDone) continue;
            states[r] = partial[r];
            for (int64_t piece = 1; piece < plan.pieces; ++piece)
                plan.rowwise->merge(plan.row_parameters, states[r], partial[piece * plan.group_rows + r]);
        }
        again |= plan.rowwise->next(plan.row_parameters, states, rows);
    }
    return again;
}

// Pass after pass over some groups, all pieces of each; then their gradients.
kldiv_status run_passes_over(Plan &plan, int requested, Poll &poll, int64_t groups) {
    const double from = static_cast<double>(plan.first_group) / static_cast<double>(plan.groups),
                 to = static_cast<double>(plan.first_group + groups) / static_cast<double>(plan.groups);
    double done = from;
    const auto run = [&] {
        poll.cover(done, (done + to) / 2);  // nobody knows how many are left
        done = (done + to) / 2;
        const int64_t elements = groups * plan.group_rows * plan.row_size();
        const int threads = choose_threads(requested, plan.cost() * elements, groups * plan.pieces);
        return run_on(plan, threads, groups * plan.pieces, poll, run_row_piece);
    };
    kldiv_status status;
    plan.mapping = false;
    do status = run();
    while (status == KLDIV_OK && merge_pieces(plan, groups));
    plan.mapping = true;
    return status == KLDIV_OK && plan.gradients() ? run() : status;
}

kldiv_status run_rows_in_pieces(Plan &plan, int requested, Poll &poll, double &total) {
    const int64_t slots = plan.pieces * plan.group_rows;  // of one group
    const int64_t at_once = std::min(plan.groups, std::max<int64_t>(1, kMaxStates / slots));
    const std::unique_ptr<RowState[]> states = allocate<RowState>(at_once * plan.group_rows),
                                      partial_states = allocate<RowState>(at_once * slots);
    if (!states || !partial_states) return KLDIV_NO_MEMORY;
    plan.states = states.get(), plan.partial_states = partial_states.get();
    for (plan.first_group = 0; plan.first_group < plan.groups; plan.first_group += at_once) {
        const int64_t count = std::min(at_once, plan.groups - plan.first_group);
        for (int64_t g = 0; g < count; ++g)
            begin_states(plan, group_at(plan, plan.first_group + g), plan.states + g * plan.group_rows);
        const kldiv_status status = run_passes_over(plan, requested, poll, count);
        if (status != KLDIV_OK) return status;
        for (int64_t g = 0; g < count; ++g) {
            const Group group = group_at(plan, plan.first_group + g);
            double values[kGroupRows];
            for (int64_t r = 0; r < group.rows; ++r) values[r] = plan.states[g * plan.group_rows + r].value;
            total += finish(plan.rows(), group, values);
        }
    }
    return KLDIV_OK;
}

kldiv_status run_plan(Plan &plan, double *total) {
    Poll poll(plan.options.poll, plan.options.poll_data);
    const auto run = plan.pieces == 1 ? run_whole_rows : plan.rowwise != nullptr ? run_rows_in_pieces : run_in_pieces;
    double sum = 0;
    const kldiv_status status = run(plan, plan.options.num_threads, poll, sum);
    if (status == KLDIV_OK && total != nullptr) *total = sum * plan.options.scale;
    return status;
}

// ---- Passes: one, if the gradients can come beside the values ----

kldiv_problem without(kldiv_problem problem, std::initializer_list<kldiv_role> roles) {
    for (const kldiv_role role : roles) problem.operands[role].data = nullptr;
    return problem;
}

kldiv_status run_once(const kldiv_problem &problem, double *total) {
    Plan plan = make_plan(problem, has(problem, KLDIV_OUT) || total != nullptr);
    return run_plan(plan, total);
}

kldiv_status run_gradient(const kldiv_problem &problem) { return run_once(problem, nullptr); }

kldiv_status run_passes(const kldiv_problem &problem, double *total) {
    if (run_one_tile(problem, total)) return KLDIV_OK;
    if (!has_gradients(problem)) return run_once(problem, total);
    const bool values = has(problem, KLDIV_OUT) || total != nullptr;
    const bool sums = is_summed(problem, KLDIV_GRAD_Y_TRUE) || is_summed(problem, KLDIV_GRAD_Y_PRED);
    if (!sums && (!values || gradients_follow_inputs(problem))) return run_once(problem, total);
    kldiv_status status = KLDIV_OK;
    if (values) status = run_once(without(problem, {KLDIV_UPSTREAM, KLDIV_GRAD_Y_TRUE, KLDIV_GRAD_Y_PRED}), total);
    if (status == KLDIV_OK && !sums) return run_gradient(without(problem, {KLDIV_OUT}));
    for (const kldiv_role grad : kGradients) {
        if (status != KLDIV_OK || !has(problem, grad)) continue;
        const kldiv_role other = grad == KLDIV_GRAD_Y_TRUE ? KLDIV_GRAD_Y_PRED : KLDIV_GRAD_Y_TRUE;
        const kldiv_problem alone = without(problem, {KLDIV_OUT, other});
        status = is_summed(problem, grad) ? sum_gradient(alone, grad, run_gradient) : run_gradient(alone);
    }
    return status;
}

// ---- What is no work ----

// No classes: every row is the empty sum.
void write_zeros(const kldiv_problem &problem, int ndim, kldiv_role role) {
    if (!has(problem, role)) return;
    Nest nest;
    for (int i = 0; i < ndim; ++i) nest.push(relevant(problem.axes[i], problem.operands));
    const int64_t size = item_size(problem.operands[role].dtype);
    char *const data = static_cast<char *>(problem.operands[role].data);
    for (int64_t i = 0, n = nest.size(); i < n; ++i) std::memset(data + offset_of(nest, i, role), 0, size);
}

bool has_empty_axis(const kldiv_axis *axes, int ndim) {
    return std::any_of(axes, axes + ndim, [](const kldiv_axis &axis) { return axis.extent == 0; });
}

}  // namespace
}  // namespace kldiv

using namespace kldiv;

kldiv_status kldiv_run(const kldiv_problem *problem, double *total) {
    const PlainArithmetic plain;
    const int ndim = problem->batch_ndim + problem->class_ndim;
    if (has_empty_axis(problem->axes, ndim)) {
        write_zeros(*problem, problem->batch_ndim, KLDIV_OUT);
        write_zeros(*problem, ndim, KLDIV_GRAD_Y_TRUE);
        write_zeros(*problem, ndim, KLDIV_GRAD_Y_PRED);
        if (total != nullptr) *total = 0;
        return KLDIV_OK;
    }
    if (!is_resolved(problem->options)) return run_passes(Resolved(*problem).problem, total);
    return run_passes(*problem, total);
}

kldiv_status kldiv_flat(const kldiv_options *options, kldiv_dtype dtype, const void *y_true, const void *y_pred,
                        int64_t n, double *total) {
    if (const Limit limit = limit_of(*options); limit.operation != options->operation) {
        kldiv_options actual = *options;
        actual.operation = limit.operation;
        if (limit.swapped) std::swap(y_true, y_pred);
        return kldiv_flat(&actual, dtype, y_true, y_pred, n, total);
    }
    const PlainArithmetic plain;
    const auto row_sums = choose_functions(*options, dtype).row_sums;
    if (n <= kSmallBlock && row_sums != nullptr) {  // one task of one row
        const Tile tile = {
            static_cast<const char *>(y_true), static_cast<const char *>(y_pred), 0, 0, 1, n, nullptr, 0};
        row_sums(tile, choose_parameters(*options), total);
        *total *= options->scale;
        return KLDIV_OK;
    }
    kldiv_operand operands[KLDIV_OPERANDS] = {};
    operands[KLDIV_Y_TRUE] = {const_cast<void *>(y_true), dtype, 0};
    operands[KLDIV_Y_PRED] = {const_cast<void *>(y_pred), dtype, 0};
    Plan plan = make_flat_plan(*options, operands, n);
    return run_plan(plan, total);
}

kldiv_status kldiv_rows(const kldiv_options *options, kldiv_dtype dtype, const void *y_true, const void *y_pred,
                        int64_t rows, int64_t classes, const void *upstream, void *out, void *grad_y_true,
                        void *grad_y_pred) {
    const kldiv_dtype result = dtype == KLDIV_FLOAT64 ? KLDIV_FLOAT64 : KLDIV_FLOAT32;
    const int64_t size = item_size(dtype), result_size = item_size(result);
    kldiv_axis axes[2] = {{rows, {}}, {classes, {}}};
    kldiv_problem problem = {1, 1, axes, {}, *options};
    const auto add = [&](kldiv_role role, const void *data, kldiv_dtype of, int64_t row, int64_t element) {
        problem.operands[role] = {const_cast<void *>(data), of, 0};
        axes[0].strides[role] = row;
        axes[1].strides[role] = element;
    };
    if (options->y_true_form == KLDIV_LABELS)
        add(KLDIV_Y_TRUE, y_true, KLDIV_INT64, item_size(KLDIV_INT64), 0);
    else
        add(KLDIV_Y_TRUE, y_true, dtype, classes * size, size);
    add(KLDIV_Y_PRED, y_pred, dtype, classes * size, size);
    add(KLDIV_UPSTREAM, upstream, result, result_size, 0);
    add(KLDIV_OUT, out, result, result_size, 0);
    add(KLDIV_GRAD_Y_TRUE, grad_y_true, result, classes * result_size, result_size);
    add(KLDIV_GRAD_Y_PRED, grad_y_pred, result, classes * result_size, result_size);
    return kldiv_run(&problem, nullptr);
}
