// Kullback-Leibler of a label beside logits, the cross-entropy: with z = (x - max x) / T, of the label's class l,
//
//     R = sum of e^z over all other classes     KL = log(1 + R / e^z_l) = log(R + e^z_l) - z_l
//
// R has no part of the label's own, so that a loss near 0 keeps its digits, and so has its gradient. Two passes: the largest
// logit and the label's, then R. Included by row_kernel.cpp alone.
//
// Gradient, with q = e^z / (R + e^z_l): q / T, of the label's class -R / (R + e^z_l) / T.
#pragma once
#include "../math/exp.hpp"

namespace kldiv {
namespace {

struct KlLabels {
    enum Held { kHigh, kAtLabel, kOthers };
    enum Pass { kRange, kSum };

    static void begin(const RowParameters &, RowState &state) {
        state.pass = kRange;
        state.held[kHigh] = -static_cast<double>(kInfinity);
        state.held[kAtLabel] = state.held[kOthers] = 0;
    }

    static void merge(const RowParameters &, RowState &into, const RowState &from) {
        if (into.pass == kSum) {
            into.held[kOthers] += from.held[kOthers];
            return;
        }
        if (from.held[kHigh] > into.held[kHigh]) into.held[kHigh] = from.held[kHigh];
        into.held[kAtLabel] += from.held[kAtLabel];  // 0 of parts that don't have it
    }

    // z_l and e^z_l, in double.
    struct AtLabel {
        double z, power;
        AtLabel(const RowParameters &parameters, const RowState &state)
            : z((state.held[kAtLabel] - state.held[kHigh]) * parameters.inverse_temperature),
              power(first_of(exponential(VecF64::splat(z)))) {}
    };

    template <class T>
    static void next(const RowParameters &parameters, RowState &state) {
        if (state.pass == kRange) {
            state.pass = kSum;
            return;
        }
        const AtLabel label(parameters, state);
        const double others = state.held[kOthers], y = others / label.power;
        state.value = y < 0.5 ? y - log1p_gap(y) : log_of(others + label.power) - label.z;
        state.pass = kRowDone;
    }

    static int most_passes(const RowParameters &, bool) { return kSum + 1; }

    // The exponents of a row's elements.
    template <class V>
    struct Exponents {
        using T = typename V::Element;
        V high, inverse;
        Exponents(const RowParameters &parameters, const RowState &state)
            : high(V::splat(static_cast<T>(state.held[kHigh]))),
              inverse(V::splat(inverse_in_format<T>(parameters.inverse_temperature))) {}
        V operator()(V x) const { return V::mul(V::sub(x, high), inverse); }
    };

    // The vector of the elements from number i on; element `label`, if it is among them, as nothing.
    template <class V>
    static V without(V x, int64_t i, int64_t label) {
        using T = typename V::Element;
        if (static_cast<uint64_t>(label - i) >= static_cast<uint64_t>(V::lanes)) return x;
        alignas(64) T elements[V::lanes];
        x.store(elements);
        elements[label - i] = static_cast<T>(-kInfinity);
        return V::load(reinterpret_cast<const char *>(elements));
    }

    // visit(elements, how many, their first one's number in `row`) for each segment of y_pred's.
    template <class T, class Visit>
    static void each_segment(const Reader<T> &reader, const RowPart &row, const Visit &visit) {
        alignas(64) T wide[kSegment];
        for (int64_t from = 0; from < row.n; from += kSegment) {
            const int64_t count = row.n - from < kSegment ? row.n - from : kSegment;
            visit(reader.read(row.p + from * reader.size, count, wide), count, from);
        }
    }

    template <class V>
    static __attribute__((noinline)) void reduce(const Reader<typename V::Element> &reader, const RowPart &row,
                                                 const RowParameters &parameters, RowState &state) {
        using T = typename V::Element;
        const Exponents<V> exponents(parameters, state);
        const T nothing = static_cast<T>(-kInfinity);
        each_segment<T>(reader, row, [&](const T *x, int64_t n, int64_t from) {
            const int64_t label = state.label - row.first - from;
            if (state.pass == kSum) {
                state.held[kOthers] += lane_sum<V>(
                    x, n, nothing, [&](V v, int64_t i) { return exponential(exponents(without(v, i, label))); });
                return;
            }
            V high = V::splat(nothing);
            each_vector<V>(x, n, nothing, [&](V v, int64_t) { high = V::larger(v, high); });
            if (const double h = static_cast<double>(high.highest()); h > state.held[kHigh]) state.held[kHigh] = h;
            if (label >= 0 && label < n) state.held[kAtLabel] = static_cast<double>(element_at(x, label));
        });
    }

    template <class V, class T>
    static __attribute__((noinline)) void map(const Reader<T> &reader, const RowPart &row,
                                              const RowParameters &parameters, const RowState &state, T factor, T *,
                                              T *grad_p) {
        const Exponents<V> exponents(parameters, state);
        const AtLabel at_label(parameters, state);
        const double others = state.held[kOthers];
        const double scale = static_cast<double>(factor) * parameters.inverse_temperature / (others + at_label.power);
        each_segment<T>(reader, row, [&](const T *x, int64_t n, int64_t from) {
            const V scales = V::splat(static_cast<T>(scale));
            each_vector<V>(x, n, 0, [&](V v, int64_t i) {
                const V gradient = V::mul(exponential(exponents(v)), scales);
                const int left = static_cast<int>(n - i < V::lanes ? n - i : V::lanes);
                left < V::lanes ? gradient.store_partial(grad_p + from + i, left) : gradient.store(grad_p + from + i);
            });
            const int64_t label = state.label - row.first - from;
            if (label >= 0 && label < n) grad_p[from + label] = static_cast<T>(-others * scale);
        });
    }
};

template <class Load>
using Loops = RowwiseOf<KlLabels, Load>;

}  // namespace
}  // namespace kldiv
