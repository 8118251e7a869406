// Passes over rows that have a state, and their gradients: written once over the operations of rows/ and the vector classes
// of simd/. Included by row_kernel.cpp alone.
//
// An operation says what a row's state begins with, which pass over its elements is to be done (reduce), how the states of
// two parts of a row become one (merge), what comes after a pass over all of it (next: another, or its value) and, with the
// row's state complete, its gradients (map). Sums are those of separable.hpp: 16 lanes for a segment, then doubles.
#pragma once
#include <cstdint>
#include <cstring>

#include "kernel.hpp"

namespace kldiv {
namespace {

template <class V>
struct Widened {
    using T = typename V::Element;
    alignas(64) T elements[kSegment];

    // A segment's elements where the vectors can read them: in place, or here.
    template <class Load>
    const T *read(const char *src, int64_t n) {
        if constexpr (Load::size == sizeof(T)) {
            return reinterpret_cast<const T *>(src);
        } else {
            int64_t i = 0;
            for (; i + V::lanes <= n; i += V::lanes) Load::full(src + i * Load::size).store(elements + i);
            const int left = static_cast<int>(n - i);
            if (left > 0) Load::partial(src + i * Load::size, left).store_partial(elements + i, left);
            return elements;
        }
    }
};

// The last elements of a segment, in whole vectors.
template <class T>
struct Rest {
    alignas(64) T elements[kLanes];

    template <class Absent>
    Rest(const T *src, int64_t n, const Absent &absent) {
        for (int64_t l = 0; l < kLanes; ++l) elements[l] = l < n ? src[l] : absent(src[0]);
    }
    const char *at(int lane) const { return reinterpret_cast<const char *>(elements + lane); }
};

// One for each pass and format, whatever the elements were read from: not inlined where it is called.
template <class V, class Pass>
__attribute__((noinline)) void reduce_segment(const typename V::Element *t, const typename V::Element *p, int64_t n,
                                              Pass &pass) {
    using T = typename V::Element;
    constexpr int vectors = kLanes / V::lanes;
    Pass own(pass);  // in registers
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
        for (int k = 0; k < vectors; ++k)
            own.step(k, V::load(reinterpret_cast<const char *>(t + i + k * V::lanes)),
                     V::load(reinterpret_cast<const char *>(p + i + k * V::lanes)));
    if (i < n) {
        const Rest<T> last_t(t + i, n - i, Pass::absent), last_p(p + i, n - i, Pass::absent);
        for (int k = 0; k < vectors; ++k)
            own.last(k, V::load(last_t.at(k * V::lanes)), V::load(last_p.at(k * V::lanes)));
    }
    own.end_segment();
    pass = own;
}

template <class V, class Map>
__attribute__((noinline)) void map_segment(const typename V::Element *t, const typename V::Element *p, int64_t n,
                                           const Map &map, typename V::Element *grad_t,
                                           typename V::Element *grad_p) {
    using T = typename V::Element;
    int64_t i = 0;
    for (; i + V::lanes <= n; i += V::lanes) {
        const Gradients<V> grad = map.step(V::load(reinterpret_cast<const char *>(t + i)),
                                           V::load(reinterpret_cast<const char *>(p + i)));
        if (grad_t != nullptr) grad.t.store(grad_t + i);
        if (grad_p != nullptr) grad.p.store(grad_p + i);
    }
    if (i == n) return;
    const Rest<T> last_t(t + i, n - i, Map::absent), last_p(p + i, n - i, Map::absent);
    const Gradients<V> grad = map.step(V::load(last_t.at(0)), V::load(last_p.at(0)));
    if (grad_t != nullptr) grad.t.store_partial(grad_t + i, static_cast<int>(n - i));
    if (grad_p != nullptr) grad.p.store_partial(grad_p + i, static_cast<int>(n - i));
}

template <class Rows, class Load>
struct Rowwise {
    using V = typename Load::Vec;
    using T = typename V::Element;

    static void begin(RowState *states, int64_t rows) {
        for (int64_t r = 0; r < rows; ++r) Rows::begin(states[r]);
    }

    static void reduce(const Tile &tile, const Parameters &parameters, RowState *states) {
        for (int64_t r = 0; r < tile.rows; ++r) {
            if (states[r].pass == kRowDone) continue;
            const char *t = tile.t + r * tile.t_stride, *p = tile.p + r * tile.p_stride;
            Rows::template reduce<V>(parameters, states[r], [&](auto &pass) {
                Widened<V> wide_t, wide_p;
                for (int64_t i = 0; i < tile.cols; i += kSegment) {
                    const int64_t n = tile.cols - i < kSegment ? tile.cols - i : kSegment;
                    reduce_segment<V>(wide_t.template read<Load>(t + i * Load::size, n),
                                      wide_p.template read<Load>(p + i * Load::size, n), n, pass);
                }
            });
        }
    }

    static void merge(RowState &into, const RowState &from) { Rows::merge(into, from); }

    static bool next(const Parameters &parameters, RowState *states, int64_t rows) {
        bool again = false;
        for (int64_t r = 0; r < rows; ++r) {
            if (states[r].pass != kRowDone) Rows::template next<T>(parameters, states[r]);
            again |= states[r].pass != kRowDone;
        }
        return again;
    }

    static void map(const Tile &tile, const Parameters &parameters, const GradientTile &out, const RowState *states) {
        for (int64_t r = 0; r < tile.rows; ++r) {
            const T factor = static_cast<const T *>(out.factors)[r];
            T *grad_t = out.t == nullptr ? nullptr : reinterpret_cast<T *>(out.t + r * out.t_stride);
            T *grad_p = out.p == nullptr ? nullptr : reinterpret_cast<T *>(out.p + r * out.p_stride);
            if (factor == 0) {
                if (grad_t != nullptr) std::memset(grad_t, 0, tile.cols * sizeof(T));
                if (grad_p != nullptr) std::memset(grad_p, 0, tile.cols * sizeof(T));
                continue;
            }
            const char *t = tile.t + r * tile.t_stride, *p = tile.p + r * tile.p_stride;
            Rows::template map<V>(parameters, states[r], factor, [&](const auto &map) {
                Widened<V> wide_t, wide_p;
                for (int64_t i = 0; i < tile.cols; i += kSegment) {
                    const int64_t n = tile.cols - i < kSegment ? tile.cols - i : kSegment;
                    map_segment<V>(wide_t.template read<Load>(t + i * Load::size, n),
                                   wide_p.template read<Load>(p + i * Load::size, n), n, map,
                                   grad_t == nullptr ? nullptr : grad_t + i, grad_p == nullptr ? nullptr : grad_p + i);
                }
            });
        }
    }
};

}  // namespace
}  // namespace kldiv
