// Passes over rows that have a state, and their gradients: written once over the operations of rows/ and the vector classes
// of simd/. Included by row_kernel.cpp alone.
//
// An operation (Rows) says what a row's state begins with, how the states of two parts of a row become one (merge), and what
// comes after a pass over all of it (next: another, or its value), of how many at most (most_passes); and for the vector class V of its elements
//     reduce<V>        the pass that a state wants, over some classes of its row, which come in order
//     map<V>           the gradients of a row that is done
// Those that read both sides side by side have them from reduce_row and map_row, whose Pass says
//     step             sixteen elements' part of it, V::lanes at a time
//     show_last        of the sixteen that follow, so many are there
//     end_segment, store
// Elements that aren't there read as one that is. Sums are those of separable.hpp: 16 lanes for a segment, then doubles.
#pragma once
#include <cstdint>
#include <cstring>

#include "kernel.hpp"

namespace kldiv {
namespace {

// Loops over a segment's vectors stay loops: unrolled they are four times the code, and no faster.
#if defined(__clang__)
#define KLDIV_KEEP_LOOP _Pragma("clang loop unroll(disable)")
#else
#define KLDIV_KEEP_LOOP _Pragma("GCC unroll 1")
#endif

// How a row's elements become vectors' elements: in place, or widened a segment at a time.
template <class T>
struct Reader {
    const T *(*read)(const char *src, int64_t n, T *widened);
    int64_t size;  // of an element, in bytes
};

template <class Load>
const typename Load::Vec::Element *read_segment(const char *src, int64_t n, typename Load::Vec::Element *widened) {
    using V = typename Load::Vec;
    if constexpr (Load::size == sizeof(typename V::Element)) {
        return reinterpret_cast<const typename V::Element *>(src);
    } else {
        int64_t i = 0;
        for (; i + V::lanes <= n; i += V::lanes) Load::full(src + i * Load::size).store(widened + i);
        const int left = static_cast<int>(n - i);
        if (left > 0) Load::partial(src + i * Load::size, left).store_partial(widened + i, left);
        return widened;
    }
}

// Some classes of one row.
struct RowPart {
    const char *t, *p;
    int64_t n, first;  // how many, and the first one's place
};

template <class T>
T element_at(const T *x, int64_t i) {  // whose address may be any
    T value;
    std::memcpy(&value, x + i, sizeof value);
    return value;
}

// While a segment is computed with, memory brings the next one of a row that is read in place: left to themselves processors
// would wait for it when it is due. An address that is none does no harm.
template <class T>
inline void prefetch_next(const T *x) {
    __builtin_prefetch(reinterpret_cast<const void *>(reinterpret_cast<uintptr_t>(x) + kSegment * sizeof(T)));
}

// visit(vector, its first element's number) for all of n elements; what is absent from the last vector reads as `absent`.
template <class W, class Visit>
inline void each_vector(const typename W::Element *x, int64_t n, typename W::Element absent, const Visit &visit) {
    int64_t i = 0;
    for (; i + W::lanes <= n; i += W::lanes) {
        prefetch_next(x + i);
        visit(W::load(reinterpret_cast<const char *>(x + i)), i);
    }
    if (i < n) visit(W::load_partial(reinterpret_cast<const char *>(x + i), static_cast<int>(n - i), absent), i);
}

// The sum of term(vector, its first element's number) in the lanes of all loops: of a segment at most.
template <class W, class Term>
inline double lane_sum(const typename W::Element *x, int64_t n, typename W::Element absent, const Term &term) {
    constexpr int kVectors = kLanes / W::lanes;
    W sums[kVectors];
    for (W &s : sums) s = W::splat(0);
    each_vector<W>(x, n, absent, [&](W v, int64_t i) {
        W &s = sums[i / W::lanes % kVectors];
        s = W::add(s, term(v, i));
    });
    return W::tree_sum(sums);
}

// The first n of sixteen elements, and `absent` for the others.
template <class V>
inline void copy_first(const typename V::Element *src, int64_t n, typename V::Element absent, typename V::Element *to) {
    for (int k = 0; k < kLanes; k += V::lanes) {
        const int count = static_cast<int>(n <= k ? 0 : n - k < V::lanes ? n - k : V::lanes);
        V::load_partial(reinterpret_cast<const char *>(src + (count == 0 ? 0 : k)), count, absent).store(to + k);
    }
}

// Both sides of a row, in sixteens.
template <class V>
struct Sixteens {
    using T = typename V::Element;
    alignas(64) T wide_t[kSegment], wide_p[kSegment], last_t[kLanes], last_p[kLanes];

    // visit(t, p, the first one's number in the row, how many there are) for each segment.
    template <class Visit>
    void each_segment(const Reader<T> &reader, const RowPart &row, const Visit &visit) {
        for (int64_t from = 0; from < row.n; from += kSegment) {
            const int64_t count = row.n - from < kSegment ? row.n - from : kSegment;
            visit(reader.read(row.t + from * reader.size, count, wide_t),
                  reader.read(row.p + from * reader.size, count, wide_p), from, count);
        }
    }
    // visit(t, p, their number in the segment, how many there are) for each sixteen of a segment.
    template <class Visit>
    void each(const T *t, const T *p, int64_t n, const Visit &visit) {
        int64_t i = 0;
        for (; i + kLanes <= n; i += kLanes) {
            prefetch_next(t + i), prefetch_next(p + i);
            visit(t + i, p + i, i, int64_t{kLanes});
        }
        if (i < n) visit(fill(t + i, n - i, last_t), fill(p + i, n - i, last_p), i, n - i);
    }
    // pass.step for all of a segment.
    template <class Pass>
    void step(const T *t, const T *p, int64_t n, Pass &pass) {
        each(t, p, n, [&](const T *at_t, const T *at_p, int64_t, int64_t present) {
            if (present < kLanes) pass.show_last(static_cast<int>(present));
            KLDIV_KEEP_LOOP
            for (int k = 0; k < kLanes / V::lanes; ++k)
                pass.step(k, load(at_t + k * V::lanes), load(at_p + k * V::lanes));
        });
    }
    static const T *fill(const T *src, int64_t n, T *last) {
        copy_first<V>(src, n, element_at(src, 0), last);
        return last;
    }
    static V load(const T *src) { return V::load(reinterpret_cast<const char *>(src)); }
};

// One for each pass and format, whatever the elements are read from.
template <class V, class Pass>
__attribute__((noinline)) void reduce_row(const Reader<typename V::Element> &reader, const RowPart &row,
                                          const RowParameters &parameters, RowState &state) {
    using T = typename V::Element;
    Sixteens<V> sixteens;
    Pass pass(parameters, state);
    sixteens.each_segment(reader, row, [&](const T *t, const T *p, int64_t, int64_t n) {
        sixteens.step(t, p, n, pass);
        pass.end_segment();
    });
    pass.store(state);
}

template <class V, class Map>
__attribute__((noinline)) void map_row(const Reader<typename V::Element> &reader, const RowPart &row, const Map &map,
                                       typename V::Element *grad_t, typename V::Element *grad_p) {
    using T = typename V::Element;
    Sixteens<V> sixteens;
    sixteens.each_segment(reader, row, [&](const T *t, const T *p, int64_t from, int64_t n) {
        sixteens.each(t, p, n, [&](const T *at_t, const T *at_p, int64_t i, int64_t present) {
            KLDIV_KEEP_LOOP
            for (int l = 0; l < present; l += V::lanes) {
                const Gradients<V> grad = map.step(Sixteens<V>::load(at_t + l), Sixteens<V>::load(at_p + l));
                const int left = static_cast<int>(present - l);
                const auto store = [&](V x, T *to) {
                    if (to == nullptr) return;
                    to += from + i + l;
                    left < V::lanes ? x.store_partial(to, left) : x.store(to);
                };
                store(grad.t, grad_t);
                store(grad.p, grad_p);
            }
        });
    });
}

inline RowPart row_of(const Tile &tile, int64_t r) {
    return {tile.t + r * tile.t_stride, tile.p + r * tile.p_stride, tile.cols, tile.first};
}

template <class Rows, class V>
struct Rowwise {
    using T = typename V::Element;

    // Rows that want another pass.
    static void reduce(const Reader<T> &reader, const Tile &tile, const RowParameters &parameters, RowState *states) {
        for (int64_t r = 0; r < tile.rows; ++r)
            if (states[r].pass != kRowDone) Rows::template reduce<V>(reader, row_of(tile, r), parameters, states[r]);
    }

    static void map(const Reader<T> &reader, const Tile &tile, const RowParameters &parameters, const GradientTile &out,
                    const RowState *states) {
        for (int64_t r = 0; r < tile.rows; ++r) {
            const T factor = static_cast<const T *>(out.factors)[r];
            T *grad_t = out.t == nullptr ? nullptr : reinterpret_cast<T *>(out.t + r * out.t_stride);
            T *grad_p = out.p == nullptr ? nullptr : reinterpret_cast<T *>(out.p + r * out.p_stride);
            if (factor != 0) {
                Rows::template map<V>(reader, row_of(tile, r), parameters, states[r], factor, grad_t, grad_p);
                continue;
            }
            if (grad_t != nullptr) std::memset(grad_t, 0, tile.cols * sizeof(T));
            if (grad_p != nullptr) std::memset(grad_p, 0, tile.cols * sizeof(T));
        }
    }
};

template <class Rows, class T>
bool next_passes(const RowParameters &parameters, RowState *states, int64_t rows) {
    bool again = false;
    for (int64_t r = 0; r < rows; ++r) {
        if (states[r].pass != kRowDone) Rows::template next<T>(parameters, states[r]);
        again |= states[r].pass != kRowDone;
    }
    return again;
}

// What the table holds, for elements as Load reads them.
template <class Rows, class Load>
struct RowwiseOf {
    using V = typename Load::Vec;
    using T = typename V::Element;
    static constexpr Reader<T> kReader = {read_segment<Load>, Load::size};
    static constexpr auto begin = Rows::begin;
    static constexpr auto merge = Rows::merge;
    static constexpr auto next = next_passes<Rows, T>;
    static constexpr auto most_passes = Rows::most_passes;

    static void reduce(const Tile &tile, const RowParameters &parameters, RowState *states) {
        Rowwise<Rows, V>::reduce(kReader, tile, parameters, states);
    }
    static void map(const Tile &tile, const RowParameters &parameters, const GradientTile &out,
                    const RowState *states) {
        Rowwise<Rows, V>::map(kReader, tile, parameters, out, states);
    }
};

}  // namespace
}  // namespace kldiv
