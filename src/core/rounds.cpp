// Rows whose classes come in blocks: see kldiv.h. Of a sum a state is the sum; otherwise it is a RowState's bytes, whose
// `label`, which every round reads anew, says between rounds what dtype the row is computed in.
#include <cstring>

#include "arithmetic.hpp"
#include "dispatch.hpp"
#include "executor.hpp"
#include "operations.hpp"
#include "plan.hpp"
#include "resolved.hpp"
#include "row_task.hpp"

namespace kldiv {
namespace {

constexpr int64_t kSize = sizeof(RowState) / sizeof(int64_t);
static_assert(kSize * sizeof(int64_t) == sizeof(RowState));

// What is done to the states of rows that are computed in one dtype.
struct RoundFunctions {
    RowParameters parameters;
    const RowwiseFunctions &rowwise;

    RoundFunctions(const kldiv_options &options, kldiv_dtype dtype)
        : parameters(choose_row_parameters(options, 1, dtype)),
          rowwise(current_rowwise_kernels(rowwise_of(options)).of[dtype]) {}
};

// visit(its functions, row, its state) for each row, whose states are then what that leaves. All are of one dtype.
template <class Visit>
void each_state(const kldiv_options &options, int64_t rows, int64_t *states, const Visit &visit) {
    if (rows == 0) return;
    RowState state;
    std::memcpy(&state, states, sizeof state);
    const RoundFunctions functions(options, state.label == KLDIV_FLOAT64 ? KLDIV_FLOAT64 : KLDIV_FLOAT32);
    for (int64_t r = 0; r < rows; ++r) {
        std::memcpy(&state, states + r * kSize, sizeof state);
        visit(functions, r, state);
        std::memcpy(states + r * kSize, &state, sizeof state);
    }
}

double sum_at(const int64_t *state) {
    double sum;
    std::memcpy(&sum, state, sizeof sum);
    return sum;
}

kldiv_status run_round(const kldiv_problem &problem, int64_t classes, bool is_first) {
    Plan plan = make_plan(problem, true);
    plan.row_parameters = choose_row_parameters(problem.options, classes, plan.kernel_dtype);
    plan.pieces = 1;
    plan.begins = is_first;
    const int64_t tasks = ceil_div(plan.groups, plan.groups_per_task);
    const int threads = choose_threads(problem.options.num_threads, plan.cost() * plan.elements(), tasks);
    Poll poll(problem.options.poll, problem.options.poll_data);
    return run_tasks(threads, tasks, poll, run_row_round, &plan);
}

}  // namespace
}  // namespace kldiv

using namespace kldiv;

int64_t kldiv_state_size(const kldiv_options *options) { return is_rowwise(*options) ? kSize : 1; }

int kldiv_most_rounds(const kldiv_options *options, kldiv_dtype dtype) {
    if (!is_rowwise(*options)) return 1;
    const kldiv_options actual = resolved(*options);
    return current_rowwise_kernels(rowwise_of(actual))
        .most_passes(choose_row_parameters(actual, 1, dtype), dtype == KLDIV_FLOAT64);
}

kldiv_status kldiv_reduce(const kldiv_problem *problem, int64_t classes, int is_first) {
    kldiv_problem round = *problem;
    round.options.scale = 1;
    if (!is_rowwise(problem->options)) {
        round.operands[KLDIV_OUT].dtype = KLDIV_FLOAT64;
        return kldiv_run(&round, nullptr);
    }
    const PlainArithmetic plain;
    return run_round(Resolved(round).problem, classes, is_first != 0);
}

void kldiv_merge(const kldiv_options *options, int64_t rows, int64_t *into, const int64_t *from) {
    const PlainArithmetic plain;
    if (!is_rowwise(*options)) {
        for (int64_t r = 0; r < rows; ++r) {
            const double sum = sum_at(into + r) + sum_at(from + r);
            std::memcpy(into + r, &sum, sizeof sum);
        }
        return;
    }
    each_state(resolved(*options), rows, into, [&](const RoundFunctions &functions, int64_t r, RowState &state) {
        if (state.pass == kRowDone) return;
        RowState other;
        std::memcpy(&other, from + r * kSize, sizeof other);
        functions.rowwise.merge(functions.parameters, state, other);
    });
}

void kldiv_next(const kldiv_options *options, int64_t rows, int64_t *states, double *values) {
    const PlainArithmetic plain;
    if (!is_rowwise(*options)) {
        for (int64_t r = 0; r < rows && values != nullptr; ++r) values[r] = sum_at(states + r) * options->scale;
        return;
    }
    each_state(resolved(*options), rows, states, [&](const RoundFunctions &functions, int64_t r, RowState &state) {
        functions.rowwise.next(functions.parameters, &state, 1);
        if (values != nullptr) values[r] = state.value * options->scale;
    });
}
