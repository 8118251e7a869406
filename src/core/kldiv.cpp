// The contract's functions: a plan, its tasks on threads, and their partial sums folded in order.
#include "kldiv.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "arithmetic.hpp"
#include "convert.hpp"
#include "executor.hpp"
#include "plan.hpp"
#include "task.hpp"

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
    const std::unique_ptr<double[]> partials = allocate<double>(tasks);
    if (!partials) return KLDIV_NO_MEMORY;
    plan.partial = partials.get();
    const int threads = choose_threads(requested, plan.elements(), tasks);
    const kldiv_status status = run_on(plan, threads, tasks, poll, run_groups);
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
            total += finish(plan, group, sums);
        }
    }
    return KLDIV_OK;
}

kldiv_status run_plan(Plan &plan, int requested, Poll &poll, double *total) {
    double sum = 0;
    const kldiv_status status =
        plan.pieces > 1 ? run_in_pieces(plan, requested, poll, sum) : run_whole_rows(plan, requested, poll, sum);
    if (status == KLDIV_OK && total != nullptr) *total = sum;
    return status;
}

// No classes: every row is the empty sum.
void run_empty(const kldiv_problem &problem) {
    Nest batch;
    for (int i = 0; i < problem.batch_ndim; ++i) batch.push(problem.batch[i]);
    for (int64_t row = 0, rows = batch.size(); row < rows && problem.out != nullptr; ++row) {
        Cursor at{};
        at.out = static_cast<char *>(problem.out);
        at.seek(batch, row);
        std::memset(at.out, 0, item_size(problem.out_dtype));
    }
}

bool has_empty_axis(const kldiv_axis *axes, int ndim) {
    return std::any_of(axes, axes + ndim, [](const kldiv_axis &axis) { return axis.extent == 0; });
}

}  // namespace
}  // namespace kldiv

using namespace kldiv;

kldiv_status kldiv_run(const kldiv_problem *problem, double *total) {
    const PlainArithmetic plain;
    const bool no_rows = has_empty_axis(problem->batch, problem->batch_ndim);
    if (no_rows || has_empty_axis(problem->classes, problem->class_ndim)) {
        if (!no_rows) run_empty(*problem);
        if (total != nullptr) *total = 0;
        return KLDIV_OK;
    }
    Plan plan = make_plan(*problem, problem->out != nullptr || total != nullptr);
    Poll poll(problem->poll, problem->poll_data);
    return run_plan(plan, problem->num_threads, poll, total);
}

kldiv_status kldiv_flat(kldiv_dtype dtype, const void *y_true, const void *y_pred, int64_t n, double epsilon,
                        int num_threads, int (*poll)(void *, double), void *poll_data, double *total) {
    const PlainArithmetic plain;
    if (n <= kSmallBlock) {  // one task of one row
        const Tile tile = {
            static_cast<const char *>(y_true), static_cast<const char *>(y_pred), 0, 0, 1, n, nullptr, 0};
        choose_operations(1, epsilon, dtype).row_sums(tile, choose_clip(1, epsilon), total);
        return KLDIV_OK;
    }
    Plan plan = make_flat_plan(dtype, y_true, y_pred, n, epsilon);
    Poll when(poll, poll_data);
    return run_plan(plan, num_threads, when, total);
}

kldiv_status kldiv_rows(kldiv_dtype dtype, const void *y_true, const void *y_pred, int64_t rows, int64_t classes,
                        int clip, double epsilon, const void *upstream, int num_threads, int (*poll)(void *, double),
                        void *poll_data, void *out, void *grad_y_true, void *grad_y_pred) {
    const kldiv_dtype result = dtype == KLDIV_FLOAT64 ? KLDIV_FLOAT64 : KLDIV_FLOAT32;
    const int64_t size = item_size(dtype), result_size = item_size(result);
    kldiv_problem problem{};
    problem.batch_ndim = problem.class_ndim = 1;
    problem.batch[0] = {rows,        classes * size,        classes * size,       0, 0, result_size,
                        result_size, classes * result_size, classes * result_size};
    problem.classes[0] = {classes, size, size, 0, 0, 0, 0, result_size, result_size};
    problem.y_true = {y_true, dtype, 0};
    problem.y_pred = {y_pred, dtype, 0};
    problem.out = out;
    problem.upstream = {upstream, result, 0};
    problem.grad_y_true = grad_y_true;
    problem.grad_y_pred = grad_y_pred;
    problem.out_dtype = problem.grad_dtype = result;
    problem.clip = clip;
    problem.epsilon = epsilon;
    problem.num_threads = num_threads;
    problem.poll = poll;
    problem.poll_data = poll_data;
    return kldiv_run(&problem, nullptr);
}
