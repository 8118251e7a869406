// See group.hpp.
#include "group.hpp"

#include <algorithm>
#include <cstring>

namespace kldiv {
namespace {

// visit(row, its element) for each row of the group, of an operand that stands beside the rows.
template <class Visit>
void each_row(const RowOperands &rows, const Group &group, kldiv_role role, const Visit &visit) {
    char *const start = group.at.at[role];
    if (rows.parts == nullptr) {
        for (int64_t r = 0; r < group.rows; ++r) visit(r, start + r * rows.axis.strides[role]);
        return;
    }
    const kldiv_axis &inner = rows.parts->axes[rows.parts->ndim - 1];
    for (int64_t r = 0; r < group.rows;) {
        char *const run = start + offset_of(*rows.parts, group.first + r, role);
        const int64_t n = std::min(group.rows - r, inner.extent - (group.first + r) % inner.extent);
        for (int64_t i = 0; i < n; ++i) visit(r + i, run + i * inner.strides[role]);
        r += n;
    }
}

template <class Value>
double value_at(const char *data) {
    return static_cast<double>(*reinterpret_cast<const Value *>(data));
}

// What each row is multiplied by: the scale, and what it has of an operand.
void multiply(const RowOperands &rows, const Group &group, kldiv_role role, double *values) {
    if (!rows.has(role)) return;
    const bool is_float = rows.operands[role].dtype == KLDIV_FLOAT32;
    each_row(rows, group, role, [&](int64_t r, const char *data) {
        values[r] *= is_float ? value_at<float>(data) : value_at<double>(data);
    });
}

// values[r] = 0 where the mask is.
template <class Value>
void clear_masked(const RowOperands &rows, const Group &group, Value *values) {
    if (!rows.has(KLDIV_MASK)) return;
    each_row(rows, group, KLDIV_MASK, [&](int64_t r, const char *kept) { values[r] = *kept == 0 ? 0 : values[r]; });
}

template <class Factor>
void store_factors(const RowOperands &rows, const Group &group, const double *values, void *to) {
    for (int64_t r = 0; r < group.rows; ++r) static_cast<Factor *>(to)[r] = static_cast<Factor>(values[r]);
    clear_masked(rows, group, static_cast<Factor *>(to));
}

template <class Out>
void write(const RowOperands &rows, const Group &group, const double *sums) {
    each_row(rows, group, KLDIV_OUT,
             [&](int64_t r, char *out) { *reinterpret_cast<Out *>(out) = static_cast<Out>(sums[r]); });
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

void read_mask(const RowOperands &rows, const Group &group, uint8_t *mask) {
    each_row(rows, group, KLDIV_MASK, [&](int64_t r, const char *kept) { mask[r] = *kept != 0; });
}

void read_labels(const RowOperands &rows, const Group &group, int64_t *labels) {
    each_row(rows, group, KLDIV_LABEL,
             [&](int64_t r, const char *label) { std::memcpy(&labels[r], label, sizeof *labels); });
}

void read_places(const RowOperands &rows, const Group &group, char **places) {
    each_row(rows, group, KLDIV_OUT, [&](int64_t r, char *place) { places[r] = place; });
}

bool all_masked(const RowOperands &rows, const Group &group) {
    if (!rows.has(KLDIV_MASK)) return false;
    bool any = false;
    each_row(rows, group, KLDIV_MASK, [&](int64_t, const char *kept) { any |= *kept != 0; });
    return !any;
}

Span span_of(const Plan &plan, int64_t piece) {
    if (plan.pieces == 1) return {0, plan.runs.size(), 0, plan.class_axis.extent};
    const int64_t first = piece / plan.pieces_per_run * plan.runs_per_piece;
    const int64_t from = piece % plan.pieces_per_run * plan.piece_length;
    return {first, std::min(first + plan.runs_per_piece, plan.runs.size()), from,
            std::min(plan.piece_length, plan.class_axis.extent - from)};
}

Group group_at(const Plan &plan, int64_t number) {
    if (plan.groups == 1) return {plan.start, plan.row_axis.extent, 0};
    Group group = {plan.start, 0, number % plan.groups_per_axis * plan.group_rows};
    group.at.seek(plan.batch, number / plan.groups_per_axis);
    group.at.advance(plan.row_axis, group.first);
    group.rows = std::min(plan.group_rows, plan.row_axis.extent - group.first);
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
    clear_masked(rows, group, sums);
    if (!rows.has(KLDIV_OUT)) return sum_of(sums, group.rows);
    if (rows.scale != 1)
        for (int64_t r = 0; r < group.rows; ++r) sums[r] *= rows.scale;
    rows.operands[KLDIV_OUT].dtype == KLDIV_FLOAT32 ? write<float>(rows, group, sums)
                                                    : write<double>(rows, group, sums);
    return 0;
}

}  // namespace kldiv
