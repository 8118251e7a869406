// See resolved.hpp.
#include "resolved.hpp"

#include <utility>

#include "operations.hpp"

namespace kldiv {
namespace {

constexpr std::pair<kldiv_role, kldiv_role> kSides[] = {{KLDIV_Y_TRUE, KLDIV_Y_PRED},
                                                        {KLDIV_GRAD_Y_TRUE, KLDIV_GRAD_Y_PRED}};

// Beside rows, as a weight is; what stands in for y_true is not read.
void move_labels(kldiv_problem &problem, Nest &axes) {
    problem.operands[KLDIV_LABEL] = problem.operands[KLDIV_Y_TRUE];
    problem.operands[KLDIV_Y_TRUE] = problem.operands[KLDIV_Y_PRED];
    for (int i = 0; i < axes.ndim; ++i) {
        int64_t *strides = axes.axes[i].strides;
        strides[KLDIV_LABEL] = std::exchange(strides[KLDIV_Y_TRUE], strides[KLDIV_Y_PRED]);
    }
}

}  // namespace

bool is_resolved(const kldiv_options &options) {
    return limit_of(options).operation == options.operation && options.y_true_form != KLDIV_LABELS;
}

kldiv_options resolved(kldiv_options options) {
    const Limit limit = limit_of(options);
    options.operation = limit.operation;
    if (limit.swapped) std::swap(options.y_true_form, options.y_pred_form);
    return options;
}

Resolved::Resolved(const kldiv_problem &given) : problem(given) {
    for (int i = 0; i < given.batch_ndim + given.class_ndim; ++i) axes_.push(given.axes[i]);
    problem.axes = axes_.axes;
    if (given.options.y_true_form == KLDIV_LABELS) move_labels(problem, axes_);
    problem.options = resolved(given.options);
    if (!limit_of(given.options).swapped) return;
    for (const auto &[a, b] : kSides) {
        std::swap(problem.operands[a], problem.operands[b]);
        for (int i = 0; i < axes_.ndim; ++i) std::swap(axes_.axes[i].strides[a], axes_.axes[i].strides[b]);
    }
}

}  // namespace kldiv
