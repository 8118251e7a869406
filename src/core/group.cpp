// See group.hpp.
#include "group.hpp"

#include <algorithm>

namespace kldiv {
namespace {

template <class Value>
double value_at(const char *data) {
    return static_cast<double>(*reinterpret_cast<const Value *>(data));
}

// What each row is multiplied by: the scale, and what it has of an operand.
void multiply(const RowOperands &rows, const Group &group, kldiv_role role, double *values) {
    if (!rows.has(role)) return;
    const char *data = group.at.at[role];
    const int64_t stride = rows.axis.strides[role];
    const bool is_float = rows.operands[role].dtype == KLDIV_FLOAT32;
    for (int64_t r = 0; r < group.rows; ++r)
        values[r] *= is_float ? value_at<float>(data + r * stride) : value_at<double>(data + r * stride);
}

template <class Factor>
void store_factors(const RowOperands &rows, const Group &group, const double *values, void *to) {
    for (int64_t r = 0; r < group.rows; ++r)
        static_cast<Factor *>(to)[r] = is_masked(rows, group, r) ? 0 : static_cast<Factor>(values[r]);
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

}  // namespace

bool is_masked(const RowOperands &rows, const Group &group, int64_t row) {
    return rows.has(KLDIV_MASK) && group.at.at[KLDIV_MASK][row * rows.axis.strides[KLDIV_MASK]] == 0;
}

Span span_of(const Plan &plan, int64_t piece) {
    if (plan.pieces == 1) return {0, plan.runs.size(), 0, plan.class_axis.extent};
    const int64_t first = piece / plan.pieces_per_run * plan.runs_per_piece;
    const int64_t from = piece % plan.pieces_per_run * plan.piece_length;
    return {first, std::min(first + plan.runs_per_piece, plan.runs.size()), from,
            std::min(plan.piece_length, plan.class_axis.extent - from)};
}

Group group_at(const Plan &plan, int64_t number) {
    if (plan.groups == 1) return {plan.start, plan.row_axis.extent};
    Group group = {plan.start, 0};
    const int64_t from = number % plan.groups_per_axis * plan.group_rows;
    group.at.seek(plan.batch, number / plan.groups_per_axis);
    group.at.advance(plan.row_axis, from);
    group.rows = std::min(plan.group_rows, plan.row_axis.extent - from);
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
    if (rows.has(KLDIV_MASK))
        for (int64_t r = 0; r < group.rows; ++r) sums[r] = is_masked(rows, group, r) ? 0 : sums[r];
    if (!rows.has(KLDIV_OUT)) return sum_of(sums, group.rows);
    if (rows.scale != 1)
        for (int64_t r = 0; r < group.rows; ++r) sums[r] *= rows.scale;
    char *out = group.at.at[KLDIV_OUT];
    const int64_t stride = rows.axis.strides[KLDIV_OUT];
    rows.operands[KLDIV_OUT].dtype == KLDIV_FLOAT32 ? write<float>(sums, group.rows, out, stride)
                                                    : write<double>(sums, group.rows, out, stride);
    return 0;
}

}  // namespace kldiv
