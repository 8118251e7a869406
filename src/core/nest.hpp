// A problem's operands, loop nests over them, and the cursors that walk those. Included by plan.hpp and passes.cpp.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "kldiv.h"

namespace kldiv {

constexpr kldiv_axis kSingle = {1, {}};
constexpr kldiv_role kInputs[] = {KLDIV_Y_TRUE, KLDIV_Y_PRED};
constexpr kldiv_role kGradients[] = {KLDIV_GRAD_Y_TRUE, KLDIV_GRAD_Y_PRED};
constexpr kldiv_role kBesideRows[] = {KLDIV_WEIGHT, KLDIV_MASK, KLDIV_LABEL, KLDIV_UPSTREAM, KLDIV_OUT};

// ---- What there is ----

inline bool has(const kldiv_problem &problem, kldiv_role role) { return problem.operands[role].data != nullptr; }

inline bool has_gradients(const kldiv_problem &problem) {
    return has(problem, KLDIV_GRAD_Y_TRUE) || has(problem, KLDIV_GRAD_Y_PRED);
}

// To a sum over everything rows mean nothing.
inline bool keeps_rows(const kldiv_problem &problem) {
    return has(problem, KLDIV_OUT) || has(problem, KLDIV_WEIGHT) || has(problem, KLDIV_MASK);
}

// Whether all rows' gradients have one factor, as far as `upstream` goes.
inline bool has_one_upstream(const kldiv_problem &problem) {
    return !has(problem, KLDIV_UPSTREAM) ||
           std::all_of(problem.axes, problem.axes + problem.batch_ndim,
                       [](const kldiv_axis &axis) { return axis.strides[KLDIV_UPSTREAM] == 0 || axis.extent == 1; });
}

// ---- Nests and cursors ----

struct Nest {
    kldiv_axis axes[KLDIV_MAX_AXES];
    int ndim;

    Nest() : ndim(0) {}  // the axes stay unset: clearing them would cost more than a small call's work
    void push(const kldiv_axis &axis) { axes[ndim++] = axis; }
    kldiv_axis pop() { return ndim == 0 ? kSingle : axes[--ndim]; }
    int64_t size() const {
        int64_t n = 1;
        for (int i = 0; i < ndim; ++i) n *= axes[i].extent;
        return n;
    }
};

// Where the operands stand: pointers that move together along an axis. One that is null has strides of 0: see relevant.
struct Cursor {
    char *at[KLDIV_OPERANDS];

    void advance(const kldiv_axis &axis, int64_t n) {
        for (int k = 0; k < KLDIV_OPERANDS; ++k) at[k] += n * axis.strides[k];
    }
    // To the element of that number, counted with the last axis fastest.
    void seek(const Nest &nest, int64_t number) {
        for (int i = nest.ndim - 1; i >= 0 && number > 0; --i) {
            advance(nest.axes[i], number % nest.axes[i].extent);
            number /= nest.axes[i].extent;
        }
    }
};

// How far one operand moves to the element of that number.
inline int64_t offset_of(const Nest &nest, int64_t number, kldiv_role role) {
    int64_t offset = 0;
    for (int i = nest.ndim - 1; i >= 0 && number > 0; --i) {
        offset += number % nest.axes[i].extent * nest.axes[i].strides[role];
        number /= nest.axes[i].extent;
    }
    return offset;
}

// An axis along which what is not there doesn't move.
inline kldiv_axis relevant(kldiv_axis axis, const kldiv_operand *operands) {
    for (int k = 0; k < KLDIV_OPERANDS; ++k)
        if (operands[k].data == nullptr) axis.strides[k] = 0;
    return axis;
}

// How far the inputs move along an axis.
inline int64_t reach(const kldiv_axis &axis) {
    return std::llabs(axis.strides[KLDIV_Y_TRUE]) + std::llabs(axis.strides[KLDIV_Y_PRED]);
}

// Whether the inputs go backwards along an axis.
inline bool is_backwards(const kldiv_axis &axis) {
    return axis.strides[KLDIV_Y_TRUE] <= 0 && axis.strides[KLDIV_Y_PRED] <= 0 && reach(axis) != 0;
}

// Backwards along an axis is forwards from its other end.
inline void flip_negative(Nest &nest, Cursor &start) {
    for (int i = 0; i < nest.ndim; ++i) {
        kldiv_axis &axis = nest.axes[i];
        if (!is_backwards(axis)) continue;
        start.advance(axis, axis.extent - 1);
        for (int64_t &stride : axis.strides) stride = -stride;
    }
}

// Whether operand k goes on from the inner axis to the outer one.
inline bool continues(const kldiv_axis &outer, const kldiv_axis &inner, int k) {
    return outer.strides[k] == inner.extent * inner.strides[k];
}

inline bool all_continue(const kldiv_axis &outer, const kldiv_axis &inner) {
    for (int k = 0; k < KLDIV_OPERANDS; ++k)
        if (!continues(outer, inner, k)) return false;
    return true;
}

// The same of what has elements, whatever stands beside the rows.
inline bool elements_continue(const kldiv_axis &outer, const kldiv_axis &inner) {
    for (const kldiv_role k : kInputs)
        if (!continues(outer, inner, k)) return false;
    for (const kldiv_role k : kGradients)
        if (!continues(outer, inner, k)) return false;
    return continues(outer, inner, KLDIV_WHERE);
}

// Widest strides outermost, others as they come. (std::stable_sort takes memory for its buffer, and a tenth of a small call.)
inline void sort_by_reach(Nest &nest) {
    for (int i = 1; i < nest.ndim; ++i) {
        if (reach(nest.axes[i - 1]) >= reach(nest.axes[i])) continue;
        const kldiv_axis axis = nest.axes[i];
        int at = i;
        for (; at > 0 && reach(nest.axes[at - 1]) < reach(axis); --at) nest.axes[at] = nest.axes[at - 1];
        nest.axes[at] = axis;
    }
}

// Widest strides outermost, then neighbours that continue each other made one.
inline void coalesce(Nest &nest) {
    sort_by_reach(nest);
    int kept = 0;
    for (int i = 0; i < nest.ndim; ++i) {
        kldiv_axis axis = nest.axes[i];
        if (axis.extent == 1) continue;
        if (kept > 0 && all_continue(nest.axes[kept - 1], axis)) {
            axis.extent *= nest.axes[kept - 1].extent;
            nest.axes[kept - 1] = axis;
        } else {
            nest.axes[kept++] = axis;
        }
    }
    nest.ndim = kept;
}

// The last axis, made one with those before it that inputs and gradients go on over: how the work is cut must not depend
// on what stands beside the rows. Where that doesn't go on, it moves along `parts` alone, which number the rows alike.
inline kldiv_axis pop_rows(Nest &nest, Nest &parts) {
    int first = nest.ndim - 1;
    while (first > 0 && elements_continue(nest.axes[first - 1], nest.axes[first])) --first;
    if (first >= nest.ndim - 1) return nest.pop();
    kldiv_axis rows = nest.axes[nest.ndim - 1];
    for (int i = first; i < nest.ndim; ++i) parts.push(nest.axes[i]);
    rows.extent = parts.size();
    for (const kldiv_role k : kBesideRows) rows.strides[k] = 0;
    nest.ndim = first;
    return rows;
}

}  // namespace kldiv
