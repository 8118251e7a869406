// Loop nests over strided operands, and the cursors that walk them. Included by kldiv.cpp.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "kldiv.h"

namespace kldiv {

constexpr kldiv_axis kSingle = {1, 0, 0, 0, 0, 0, 0, 0, 0};

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

// Where the operands stand: pointers that move together along an axis.
struct Cursor {
    const char *t;
    const char *p;
    const char *weight;
    const char *mask;
    char *out;
    const char *upstream;
    char *grad_t;
    char *grad_p;

    void advance(const kldiv_axis &axis, int64_t n) {
        t += n * axis.y_true;
        p += n * axis.y_pred;
        if (weight != nullptr) weight += n * axis.weight;
        if (mask != nullptr) mask += n * axis.mask;
        if (out != nullptr) out += n * axis.out;
        if (upstream != nullptr) upstream += n * axis.upstream;
        if (grad_t != nullptr) grad_t += n * axis.grad_y_true;
        if (grad_p != nullptr) grad_p += n * axis.grad_y_pred;
    }
    // To the element of that number, counted with the last axis fastest.
    void seek(const Nest &nest, int64_t number) {
        for (int i = nest.ndim - 1; i >= 0 && number > 0; --i) {
            advance(nest.axes[i], number % nest.axes[i].extent);
            number /= nest.axes[i].extent;
        }
    }
};

// How far the inputs move along an axis.
inline int64_t reach(const kldiv_axis &axis) { return std::llabs(axis.y_true) + std::llabs(axis.y_pred); }

// Backwards along an axis is forwards from its other end.
inline void flip_negative(Nest &nest, Cursor &start) {
    for (int i = 0; i < nest.ndim; ++i) {
        kldiv_axis &axis = nest.axes[i];
        if (axis.y_true > 0 || axis.y_pred > 0 || reach(axis) == 0) continue;
        start.advance(axis, axis.extent - 1);
        for (int64_t *stride : {&axis.y_true, &axis.y_pred, &axis.weight, &axis.mask, &axis.out, &axis.upstream,
                                &axis.grad_y_true, &axis.grad_y_pred})
            *stride = -*stride;
    }
}

inline bool continues(const kldiv_axis &outer, const kldiv_axis &inner) {
    const int64_t n = inner.extent;
    return outer.y_true == n * inner.y_true && outer.y_pred == n * inner.y_pred && outer.weight == n * inner.weight &&
           outer.mask == n * inner.mask && outer.out == n * inner.out && outer.upstream == n * inner.upstream &&
           outer.grad_y_true == n * inner.grad_y_true && outer.grad_y_pred == n * inner.grad_y_pred;
}

// Widest strides outermost, then neighbours that continue each other made one.
inline void coalesce(Nest &nest) {
    std::stable_sort(nest.axes, nest.axes + nest.ndim,
                     [](const kldiv_axis &a, const kldiv_axis &b) { return reach(a) > reach(b); });
    int kept = 0;
    for (int i = 0; i < nest.ndim; ++i) {
        kldiv_axis axis = nest.axes[i];
        if (axis.extent == 1) continue;
        if (kept > 0 && continues(nest.axes[kept - 1], axis)) {
            axis.extent *= nest.axes[kept - 1].extent;
            nest.axes[kept - 1] = axis;
        } else {
            nest.axes[kept++] = axis;
        }
    }
    nest.ndim = kept;
}

}  // namespace kldiv
