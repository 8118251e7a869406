// Kullback-Leibler of two rows of logits, t = softmax(a / T) and p = softmax(b / T). Included by row_kernel.cpp alone.
//
// The usual way, sum t (log t - log p) with rounded log-softmaxes, has no digits left where the rows nearly agree: each
// term's error is that of a logarithm, and the terms cancel. Instead, with any number c, with x = (a - b - c) / T and with
// e^a shifted by a's maximum,
//
//     S = sum e^a     E = sum e^a x / S     Psi = sum e^a (e^-x - 1 + x) / S     y = Psi - E
//     KL = Psi - (y - log(1 + y))
//
// whose terms are none of them negative, and cancel the less the nearer c is to the mean of a - b. The difference a - b is
// exact where the two are near each other. Rows that are far apart have all their digits without Psi:
//
//     KL = E + log(sum e^b / S)
//
// A row takes two passes: one for the maxima and the range of a - b, which c is read off, one for the sums, without Psi
// where that range is wide. Where the row is near all the same, or where that c turns out a bad one (two maxima that say
// little about the rest), a third with c moved by E.
//
// Gradients, with d = log(t / p):     a: t (d - KL) / T = t (x - E) / T     b: (p - t) / T = t (e^-d - 1) / T
#pragma once
#include "../math/exp.hpp"

namespace kldiv {
namespace {

struct KlLogits {
    // What a row's state holds beside its value.
    enum Held {
        kHighA,  // maxima and minima, of a, b and a - b
        kHighB,
        kHighD,
        kLowA,
        kLowD,
        kCenter,  // c, a number of the elements' format
        kS,       // the sums
        kE,
        kPsi,
        kOther,     // sum e^b, on the same scale; unless kIsNear
        kLogRatio,  // log(sum e^b / S)
        kIsNear,    // all |x| <= 1
        kIsClose,   // all |d| <= 1
    };
    enum Pass { kRange, kFarSums, kSums, kSumsAgain };
    // What is known of a row's x: nothing, that all |x| <= 1, or that all are finite and Psi need not be known.
    enum class Known { nothing, near, far };

    static bool flag(const RowState &state, Held which) { return state.held[which] != 0; }

    static void begin(const RowParameters &, RowState &state) {
        state.pass = kRange;
        state.held[kHighA] = state.held[kHighB] = state.held[kHighD] = -kInfinity;
        state.held[kLowA] = state.held[kLowD] = kInfinity;
    }

    static void merge(RowState &into, const RowState &from) {
        if (into.pass == kRange) {
            for (int high = kHighA; high <= kHighD; ++high) raise(into.held[high], from.held[high]);
            for (int low = kLowA; low <= kLowD; ++low) lower(into.held[low], from.held[low]);
        } else {
            for (int sum = kS; sum <= kOther; ++sum) into.held[sum] += from.held[sum];
        }
    }

    static void raise(double &into, double from) { into = from > into ? from : into; }
    static void lower(double &into, double from) { into = from < into ? from : into; }

    // ---- Passes over elements ----

    template <class V>
    static constexpr int kVectors = kLanes / V::lanes;

    template <class V>
    struct Range {
        using T = typename V::Element;
        static constexpr int kHighs = kHighD - kHighA + 1, kLows = kLowD - kLowA + 1;
        V high[kHighs][kVectors<V>], low[kLows][kVectors<V>];

        Range(const RowParameters &, const RowState &) {
            for (auto &vectors : high)
                for (V &x : vectors) x = V::splat(-kInfinity);
            for (auto &vectors : low)
                for (V &x : vectors) x = V::splat(kInfinity);
        }
        void show_last(int) {}
        void step(int k, V a, V b) {
            const V d = V::sub(a, b);
            high[0][k] = V::larger(a, high[0][k]);
            high[1][k] = V::larger(b, high[1][k]);
            high[2][k] = V::larger(d, high[2][k]);
            low[0][k] = V::smaller(a, low[0][k]);
            low[1][k] = V::smaller(d, low[1][k]);
        }
        void end_segment() {}
        void store(RowState &state) const {
            for (int i = 0; i < kHighs; ++i) {
                V all = high[i][0];
                for (int k = 1; k < kVectors<V>; ++k) all = V::larger(high[i][k], all);
                raise(state.held[kHighA + i], static_cast<double>(all.highest()));
            }
            for (int i = 0; i < kLows; ++i) {
                V all = low[i][0];
                for (int k = 1; k < kVectors<V>; ++k) all = V::smaller(low[i][k], all);
                lower(state.held[kLowA + i], -static_cast<double>(V::sub(V::splat(0), all).highest()));
            }
        }
    };

    // What a row's elements are compared with.
    template <class V>
    struct Scale {
        using T = typename V::Element;
        alignas(64) T high_a[kLanes], high_b[kLanes];  // infinite where no element is, whose exponential then is 0
        V center, shift, inverse;                      // shift: of b, to the scale of a

        Scale(const RowParameters &parameters, const RowState &state)
            : center(of(state.held[kCenter])),
              shift(of((state.held[kHighB] - state.held[kHighA]) + state.held[kCenter])),
              inverse(V::splat(inverse_in_format<T>(parameters.inverse_temperature))) {
            for (int l = 0; l < kLanes; l += V::lanes) {
                of(state.held[kHighA]).store(high_a + l);
                of(state.held[kHighB]).store(high_b + l);
            }
        }
        static V of(double x) { return V::splat(static_cast<T>(x)); }
        static V at(const T (&high)[kLanes], int k) {
            return V::load(reinterpret_cast<const char *>(high + k * V::lanes));
        }
        void show_last(int present) {
            copy_first<V>(high_a, present, static_cast<T>(kInfinity), high_a);
            copy_first<V>(high_b, present, static_cast<T>(kInfinity), high_b);
        }
        V exp_a(int k, V a) const { return bounded_exponential(V::mul(V::sub(a, at(high_a, k)), inverse)); }
        V exponent_b(int k, V b) const { return V::mul(V::add(V::sub(b, at(high_b, k)), shift), inverse); }
        V exp_b(int k, V b) const { return exponential(exponent_b(k, b)); }
        V difference(V a, V b) const { return V::mul(V::sub(V::sub(a, b), center), inverse); }
        // For any a and b. Where a is no part of the row, any number beyond 1, for its weight is 0.
        V any_difference(V a, V b) const {
            constexpr T largest = sizeof(T) == 4 ? T(0x1.fffffep127) : T(0x1.fffffffffffffp1023);
            const V x = V::clip(difference(a, b), V::splat(-largest), V::splat(largest));
            return V::select(V::equal(a, V::splat(-kInfinity)), V::splat(2), x);
        }
    };

    template <class V, Known Of>
    struct Sums {
        using T = typename V::Element;
        static constexpr int kCount = kOther - kS + 1;
        static constexpr int kUnused = Of == Known::near ? kOther - kS : Of == Known::far ? kPsi - kS : kCount;
        Scale<V> scale;
        V sums[kCount][kVectors<V>];
        double totals[kCount] = {};

        Sums(const RowParameters &parameters, const RowState &state) : scale(parameters, state) { clear(); }
        void clear() {
            for (auto &vectors : sums)
                for (V &x : vectors) x = V::splat(0);
        }
        void show_last(int present) { scale.show_last(present); }
        void step(int k, V a, V b) {
            const V x = Of == Known::nothing ? scale.any_difference(a, b) : scale.difference(a, b);
            const V weight = scale.exp_a(k, a), weighted = V::mul(weight, x);
            V &s = sums[0][k], &e = sums[kE - kS][k], &psi = sums[kPsi - kS][k], &others = sums[kOther - kS][k];
            s = V::add(s, weight);
            e = V::add(e, weighted);
            if constexpr (Of == Known::far) {  // of exponents near 0 at most: see looks_far
                others = V::add(others, bounded_exponential(scale.exponent_b(k, b)));
                return;
            }
            const V near = V::fma(V::mul(weighted, x), bregman_quotient(x), psi);
            if constexpr (Of == Known::near) {
                psi = near;
                return;
            }
            const V other = scale.exp_b(k, b);
            const V far = V::add(psi, V::add(V::sub(other, weight), weighted));
            psi = V::select(V::less(V::mul(x, x), V::splat(1)), near, far);
            others = V::add(others, other);
        }
        void end_segment() {
            for (int i = 0; i < kCount; ++i)
                if (i != kUnused) totals[i] += V::tree_sum(sums[i]);
            clear();
        }
        void store(RowState &state) const {
            for (int i = 0; i < kCount; ++i) state.held[kS + i] += totals[i];
        }
    };

    template <class V>
    static void reduce(const Reader<typename V::Element> &reader, const RowPart &row, const RowParameters &parameters,
                       RowState &state) {
        if (state.pass == kRange) return reduce_row<V, Range<V>>(reader, row, parameters, state);
        const auto sums = state.pass == kFarSums ? reduce_row<V, Sums<V, Known::far>>
                          : flag(state, kIsNear) ? reduce_row<V, Sums<V, Known::near>>
                                                 : reduce_row<V, Sums<V, Known::nothing>>;
        sums(reader, row, parameters, state);
    }

    // ---- Between passes ----

    template <class T>
    static void center_at(RowState &state, double center, const RowParameters &parameters) {
        const double c = static_cast<double>(static_cast<T>(center));
        state.held[kCenter] = c > -kInfinity && c < kInfinity ? c : 0;  // else the row is a special case
        state.held[kIsNear] = within_one(state, parameters, 0);
        for (int sum = kS; sum <= kOther; ++sum) state.held[sum] = 0;
    }

    // Whether all of a and b are finite, and their differences so various that the rows can hardly be near each other (of
    // normal ones of 1,000 classes, kl is then 0.4 or more), yet not beyond what the format's products and sums hold. As c
    // is one of the differences, or between two, their range is the largest |a - b - c|.
    static bool looks_far(const RowState &state, const RowParameters &parameters) {
        const double *held = state.held, inverse = parameters.inverse_temperature;
        const double range = held[kHighD] - held[kLowD], off = (held[kHighB] - held[kHighA]) + held[kCenter];
        const bool makes_maxima_one = off * inverse <= 1 && off * inverse >= -1;
        return held[kLowA] > -kInfinity && range * inverse > 6 && range * inverse < 0x1p64 && range < 0x1p64 &&
               makes_maxima_one;
    }

    // Whether all |x + shift| <= 1, and a is finite.
    static bool within_one(const RowState &state, const RowParameters &parameters, double shift) {
        const auto at = [&](Held d) {
            return (state.held[d] - state.held[kCenter]) * parameters.inverse_temperature + shift;
        };
        return state.held[kLowA] > -kInfinity && at(kLowD) >= -1 && at(kHighD) <= 1;
    }

    // After a pass over all of a row: its value, or what the next pass wants.
    template <class T>
    static void next(const RowParameters &parameters, RowState &state) {
        double *held = state.held;
        if (state.pass == kRange) {
            center_at<T>(state, held[kHighA] - held[kHighB], parameters);
            state.pass = looks_far(state, parameters) ? kFarSums : kSums;
            return;
        }
        if (flag(state, kIsNear)) held[kOther] = (held[kS] - held[kE]) + held[kPsi];
        const double mean = held[kE] / held[kS], magnitude = mean < 0 ? -mean : mean;
        const double log_ratio = log_of(held[kOther] / held[kS]), far = mean + log_ratio;
        if (far > 0.125 * (1 + magnitude)) return finish(parameters, state, far, log_ratio);
        const double psi = held[kPsi] / held[kS], y = psi - mean, gap = log1p_gap(y), near = psi - gap;
        const bool only_looked_far = state.pass == kFarSums, is_off = psi > 16 * near || magnitude > 1;
        if (only_looked_far || (is_off && state.pass != kSumsAgain)) {
            const double by = magnitude > 1 || !only_looked_far ? mean / parameters.inverse_temperature : 0;
            center_at<T>(state, held[kCenter] + by, parameters);
            state.pass = only_looked_far && by == 0 ? kSums : kSumsAgain;
            return;
        }
        finish(parameters, state, near < 0 ? 0 : near, y > -0.3 && y < 0.3 ? y - gap : log_ratio);
    }

    static void finish(const RowParameters &parameters, RowState &state, double value, double log_ratio) {
        const double sums = state.held[kS] + state.held[kOther];
        // Infinite: nothing of p where t has something.
        state.value = sums != sums ? sums : state.held[kHighD] == kInfinity ? kInfinity : value;
        state.pass = kRowDone;
        state.held[kLogRatio] = log_ratio;
        state.held[kIsClose] = within_one(state, parameters, log_ratio);
    }

    // ---- Gradients ----

    // `Close`: all |d| <= 1.
    template <class V, bool Close>
    struct Map {
        using T = typename V::Element;
        const Scale<V> scale;
        const V factor, mean, log_ratio, of_a, of_b;

        Map(const RowParameters &parameters, const RowState &state, T row_factor)
            : scale(parameters, state),
              factor(Scale<V>::of(static_cast<double>(row_factor) * parameters.inverse_temperature)),
              mean(Scale<V>::of(state.held[kE] / state.held[kS])),
              log_ratio(Scale<V>::of(state.held[kLogRatio])),
              of_a(Scale<V>::of(1 / state.held[kS])),
              of_b(Scale<V>::of(1 / state.held[kOther])) {}
        // Lanes of k = 0 all hold the row's maximum; those that aren't there are not stored.
        Gradients<V> step(V a, V b) const {
            const V x = scale.difference(a, b), d = V::add(x, log_ratio);
            const V t = V::mul(scale.exp_a(0, a), of_a);
            const V zero = V::splat(0), d2 = V::mul(d, d);
            V p_minus_t = V::mul(t, V::sub(V::mul(d2, bregman_quotient(d)), d));
            V slope = V::mul(t, V::sub(x, mean));
            if constexpr (!Close) {
                const V far = V::sub(V::mul(scale.exp_b(0, b), of_b), t);
                p_minus_t = V::select(V::less(d2, V::splat(1)), p_minus_t, far);
                slope = V::select(V::equal(t, zero), zero, slope);
            }
            return {V::mul(factor, slope), V::mul(factor, p_minus_t)};
        }
    };

    template <class V, class T>
    static void map(const Reader<T> &reader, const RowPart &row, const RowParameters &parameters, const RowState &state,
                    T factor, T *grad_t, T *grad_p) {
        flag(state, kIsClose) ? map_row<V>(reader, row, Map<V, true>(parameters, state, factor), grad_t, grad_p)
                              : map_row<V>(reader, row, Map<V, false>(parameters, state, factor), grad_t, grad_p);
    }
};

template <class Load>
using Loops = RowwiseOf<KlLogits, Load>;

}  // namespace
}  // namespace kldiv
