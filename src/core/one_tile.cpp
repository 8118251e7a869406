// See one_tile.hpp.
#include "one_tile.hpp"

#include "convert.hpp"
#include "group.hpp"
#include "operations.hpp"
#include "plan.hpp"

namespace kldiv {
namespace {

bool is_small(const kldiv_problem &problem) {
    if (problem.batch_ndim != 1 || problem.class_ndim != 1) return false;
    const int64_t rows = problem.axes[0].extent;
    return rows <= kGroupRows && problem.axes[1].extent <= kSmallBlock / rows;
}

// Element by element, and no rows that repeat, go backwards or stand nearer to each other than classes do.
bool lie_side_by_side(const kldiv_problem &problem) {
    const kldiv_operand &t = problem.operands[KLDIV_Y_TRUE], &p = problem.operands[KLDIV_Y_PRED];
    if (t.dtype != p.dtype || t.dtype >= kKernelDtypes || t.swapped || p.swapped) return false;
    const int64_t size = item_size(t.dtype);
    for (const kldiv_role input : kInputs)
        if (problem.axes[1].strides[input] != size || problem.axes[0].strides[input] < size) return false;
    return true;
}

bool is_gapless(const kldiv_problem &problem, kldiv_role role) {
    const kldiv_axis &rows = problem.axes[0], &along = problem.axes[1];
    const int64_t size = item_size(problem.operands[role].dtype);
    return along.strides[role] == size && rows.strides[role] == along.extent * size;
}

// Gradients that the kernel writes where they belong, row after row as it reads the inputs.
bool follow_inputs(const kldiv_problem &problem) {
    const kldiv_dtype dtype = problem.operands[KLDIV_Y_TRUE].dtype;
    if (dtype > KLDIV_FLOAT64) return false;
    for (const kldiv_role input : kInputs)
        if (!is_gapless(problem, input)) return false;
    for (const kldiv_role grad : kGradients)
        if (has(problem, grad) && (problem.operands[grad].dtype != dtype || !is_gapless(problem, grad))) return false;
    return keeps_rows(problem) || has_one_upstream(problem);
}

bool is_one_tile(const kldiv_problem &problem) {
    return is_small(problem) && lie_side_by_side(problem) && !has(problem, KLDIV_WHERE) &&
           (has_gradients(problem) ? follow_inputs(problem) : keeps_rows(problem));
}

// 16-bit elements may have to be widened, which takes a plan; their gradients always do.
bool has_function(const kldiv_problem &problem, const Functions &functions) {
    return has_gradients(problem) || functions.row_sums != nullptr;
}

}  // namespace

bool run_one_tile(const kldiv_problem &problem, double *total) {
    if (is_rowwise(problem.options) || !is_one_tile(problem)) return false;
    const kldiv_axis &rows = problem.axes[0];
    const kldiv_options &options = problem.options;
    const kldiv_dtype dtype = problem.operands[KLDIV_Y_TRUE].dtype;
    const Functions &functions = choose_functions(options, dtype);
    if (!has_function(problem, functions)) return false;
    Group group;
    for (int k = 0; k < KLDIV_OPERANDS; ++k) group.at.at[k] = static_cast<char *>(problem.operands[k].data);
    // All rows of a plain sum are one.
    group.rows = keeps_rows(problem) ? rows.extent : 1;
    const int64_t cols = keeps_rows(problem) ? problem.axes[1].extent : rows.extent * problem.axes[1].extent;
    const auto at = [&](kldiv_role role) { return group.at.at[role]; };
    const Tile tile = {at(KLDIV_Y_TRUE),
                       at(KLDIV_Y_PRED),
                       rows.strides[KLDIV_Y_TRUE],
                       rows.strides[KLDIV_Y_PRED],
                       group.rows,
                       cols,
                       reinterpret_cast<const uint8_t *>(at(KLDIV_MASK)),
                       rows.strides[KLDIV_MASK]};
    const RowOperands beside = {problem.operands, rows, nullptr, options.scale};
    const bool values = total != nullptr || has(problem, KLDIV_OUT);
    double sums[kGroupRows], factors[kGroupRows];
    if (has_gradients(problem)) {
        read_factors(beside, group, dtype, sums, factors);
        const GradientTile gradients = {at(KLDIV_GRAD_Y_TRUE), at(KLDIV_GRAD_Y_PRED), rows.strides[KLDIV_GRAD_Y_TRUE],
                                        rows.strides[KLDIV_GRAD_Y_PRED], factors};
        functions.row_gradients[static_cast<int>(choose_wanted(problem, values))](tile, choose_parameters(options),
                                                                                  gradients, sums);
    } else {
        functions.row_sums(tile, choose_parameters(options), sums);
    }
    if (!values) return true;
    const double sum = finish(beside, group, sums);
    if (total != nullptr && !has(problem, KLDIV_OUT)) *total = sum * options.scale;
    return true;
}

}  // namespace kldiv
