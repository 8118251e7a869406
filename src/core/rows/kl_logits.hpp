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
// exact where the two are near each other. A row takes two passes: one for the maxima and the range of a - b, which c is
// read off, one for the sums; where that c turns out a bad one (two maxima that say little about the rest), a third with
// c moved by E. Rows that are far apart have log p's normaliser from sum e^b, which needs no c.
//
// Gradients, with d = log(t / p):     a: t (d - KL) / T     b: (p - t) / T = t (e^-d - 1) / T
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
    enum Pass { kRange, kSums, kSumsAgain };

    static bool flag(const RowState &state, Held which) { return state.held[which] != 0; }

    static void begin(RowState &state) {
        state.pass = kRange;
        state.held[kHighA] = state.held[kHighB] = state.held[kHighD] = -kInfinity;
        state.held[kLowA] = state.held[kLowD] = kInfinity;
    }

    static void merge(RowState &into, const RowState &from) {
        if (into.pass == kRange) {
            for (int high = kHighA; high <= kHighD; ++high) raise(into.held[high], from.held[high], 1);
            for (int low = kLowA; low <= kLowD; ++low) raise(into.held[low], from.held[low], -1);
        } else {
            for (int sum = kS; sum <= kOther; ++sum) into.held[sum] += from.held[sum];
        }
    }

    static void raise(double &into, double from, int sign) {
        if (sign * from > sign * into) into = from;
    }

    // ---- Passes over elements ----

    template <class V>
    static constexpr int kVectors = kLanes / V::lanes;

    template <class V>
    struct Range {
        using T = typename V::Element;
        V high_a[kVectors<V>], high_b[kVectors<V>], low_a[kVectors<V>], high_d[kVectors<V>], low_d[kVectors<V>];

        Range() {
            for (int k = 0; k < kVectors<V>; ++k) {
                high_a[k] = high_b[k] = high_d[k] = V::splat(-kInfinity);
                low_a[k] = low_d[k] = V::splat(kInfinity);
            }
        }
        // What stands for elements that aren't there: one that is.
        static T absent(T present) { return present; }
        void step(int k, V a, V b) {
            const V d = V::sub(a, b);
            high_a[k] = V::larger(a, high_a[k]);
            high_b[k] = V::larger(b, high_b[k]);
            low_a[k] = V::smaller(a, low_a[k]);
            high_d[k] = V::larger(d, high_d[k]);
            low_d[k] = V::smaller(d, low_d[k]);
        }
        void last(int k, V a, V b) { step(k, a, b); }
        void end_segment() {}
        static double extreme(const V (&x)[kVectors<V>], int sign) {
            T lanes[kLanes];
            for (int k = 0; k < kVectors<V>; ++k) x[k].store(lanes + k * V::lanes);
            for (int l = 1; l < kLanes; ++l)
                if (sign * lanes[l] > sign * lanes[0]) lanes[0] = lanes[l];
            return lanes[0];
        }
        void store(RowState &state) const {
            RowState part;
            part.held[kHighA] = extreme(high_a, 1), part.held[kLowA] = extreme(low_a, -1);
            part.held[kHighB] = extreme(high_b, 1);
            part.held[kHighD] = extreme(high_d, 1), part.held[kLowD] = extreme(low_d, -1);
            merge(state, part);
        }
    };

    // What a row's elements are compared with.
    template <class V>
    struct Scale {
        using T = typename V::Element;
        V high_a, high_b, center, shift, inverse;  // shift: of b, to the scale of a

        Scale(const Parameters &parameters, const RowState &state)
            : high_a(of(state.held[kHighA])),
              high_b(of(state.held[kHighB])),
              center(of(state.held[kCenter])),
              shift(of((state.held[kHighB] - state.held[kHighA]) + state.held[kCenter])),
              inverse(of(parameters.inverse_temperature)) {}
        static V of(double x) { return V::splat(static_cast<T>(x)); }
        V exp_a(V a) const { return exponential(V::mul(V::sub(a, high_a), inverse)); }
        V exp_b(V b) const { return exponential(V::mul(V::add(V::sub(b, high_b), shift), inverse)); }
        V difference(V a, V b) const { return V::mul(V::sub(V::sub(a, b), center), inverse); }
        // For any a and b. Where a is no part of the row, any number beyond 1, for its weight is 0.
        V any_difference(V a, V b) const {
            constexpr T largest = sizeof(T) == 4 ? T(0x1.fffffep127) : T(0x1.fffffffffffffp1023);
            const V x = V::clip(difference(a, b), V::splat(-largest), V::splat(largest));
            return V::select(V::equal(a, V::splat(-kInfinity)), V::splat(2), x);
        }
    };

    // `Near`: all |x| <= 1, which spares the second exponential.
    template <class V, bool Near>
    struct Sums {
        using T = typename V::Element;
        Scale<V> scale;
        V s[kVectors<V>], e[kVectors<V>], psi[kVectors<V>], other[kVectors<V>];
        double totals[kOther - kS + 1] = {};

        Sums(const Parameters &parameters, const RowState &state) : scale(parameters, state) { clear(); }
        void clear() {
            for (int k = 0; k < kVectors<V>; ++k) s[k] = e[k] = psi[k] = other[k] = V::splat(0);
        }
        static T absent(T) { return -static_cast<T>(kInfinity); }
        void step(int k, V a, V b) { Near ? step_near(k, a, b) : last(k, a, b); }
        void step_near(int k, V a, V b) {
            const V x = scale.difference(a, b), weight = scale.exp_a(a), weighted = V::mul(weight, x);
            s[k] = V::add(s[k], weight);
            e[k] = V::add(e[k], weighted);
            psi[k] = V::fma(V::mul(weighted, x), bregman_quotient(x), psi[k]);
        }
        // Any elements, absent ones too; of near ones the same bits.
        void last(int k, V a, V b) {
            const V x = scale.any_difference(a, b), weight = scale.exp_a(a), weighted = V::mul(weight, x);
            const V x2 = V::mul(x, x), b_weight = scale.exp_b(b);
            const V near = V::fma(V::mul(weighted, x), bregman_quotient(x), psi[k]);
            const V far = V::add(psi[k], V::add(V::sub(b_weight, weight), weighted));
            s[k] = V::add(s[k], weight);
            e[k] = V::add(e[k], weighted);
            psi[k] = V::select(V::less(x2, V::splat(kNearBound)), near, far);
            other[k] = V::add(other[k], b_weight);
        }
        // A bit more than 1, for what rounding does to those that next() has found near.
        static constexpr T kNearBound = static_cast<T>(1.0001);
        void end_segment() {
            totals[0] += V::tree_sum(s);
            totals[1] += V::tree_sum(e);
            totals[2] += V::tree_sum(psi);
            if constexpr (!Near) totals[3] += V::tree_sum(other);
            clear();
        }
        void store(RowState &state) const {
            for (int sum = kS; sum <= kOther; ++sum) state.held[sum] += totals[sum - kS];
        }
    };

    // walk(pass) visits the row's elements.
    template <class V, class Walk>
    static void reduce(const Parameters &parameters, RowState &state, const Walk &walk) {
        const auto run = [&](auto pass) {
            walk(pass);
            pass.store(state);
        };
        if (state.pass == kRange)
            run(Range<V>());
        else if (flag(state, kIsNear))
            run(Sums<V, true>(parameters, state));
        else
            run(Sums<V, false>(parameters, state));
    }

    // ---- Between passes ----

    template <class T>
    static void center_at(RowState &state, double center, const Parameters &parameters) {
        const double c = static_cast<double>(static_cast<T>(center));
        state.held[kCenter] = c - c == 0 ? c : 0;  // finite, or the row is a special case
        state.held[kIsNear] = within_one(state, parameters, 0);
        for (int sum = kS; sum <= kOther; ++sum) state.held[sum] = 0;
    }

    // Whether all |x + shift| <= 1, and a is finite.
    static bool within_one(const RowState &state, const Parameters &parameters, double shift) {
        const auto at = [&](Held d) {
            return (state.held[d] - state.held[kCenter]) * parameters.inverse_temperature + shift;
        };
        return state.held[kLowA] > -kInfinity && at(kLowD) >= -1 && at(kHighD) <= 1;
    }

    // After a pass over all of a row: its value, or what the next pass wants.
    template <class T>
    static void next(const Parameters &parameters, RowState &state) {
        if (state.pass == kRange) {
            center_at<T>(state, state.held[kHighA] - state.held[kHighB], parameters);
            state.pass = kSums;
            return;
        }
        double *held = state.held;
        if (flag(state, kIsNear)) held[kOther] = (held[kS] - held[kE]) + held[kPsi];
        const double mean = held[kE] / held[kS], psi = held[kPsi] / held[kS], y = psi - mean;
        const double log_ratio = log_of(held[kOther] / held[kS]), far = mean + log_ratio;
        const double near = psi - log1p_gap(y);
        // Where the rows are far apart the logarithm of the ratio has the digits.
        const double magnitude = mean < 0 ? -mean : mean;
        const bool is_far = far > 0.125 * (1 + magnitude);
        const bool is_off = psi > 16 * near || magnitude > 1;
        if (!is_far && is_off && state.pass == kSums) {
            center_at<T>(state, held[kCenter] + mean / parameters.inverse_temperature, parameters);
            state.pass = kSumsAgain;
            return;
        }
        state.pass = kRowDone;
        state.value = is_far ? far : near < 0 ? 0 : near;
        held[kLogRatio] = y > -0.3 && y < 0.3 ? y - log1p_gap(y) : log_ratio;
        const double sums = held[kS] + held[kOther];
        // Nothing of p where t has something.
        if (held[kHighD] == kInfinity) state.value = kInfinity;
        if (sums != sums) state.value = sums;
        held[kIsClose] = within_one(state, parameters, held[kLogRatio]);
    }

    // ---- Gradients ----

    // `Close`: all |d| <= 1.
    template <class V, bool Close>
    struct Map {
        using T = typename V::Element;
        const Scale<V> scale;
        const V factor, value, log_ratio, of_a, of_b;

        Map(const Parameters &parameters, const RowState &state, T row_factor)
            : scale(parameters, state),
              factor(Scale<V>::of(static_cast<double>(row_factor) * parameters.inverse_temperature)),
              value(Scale<V>::of(state.value)),
              log_ratio(Scale<V>::of(state.held[kLogRatio])),
              of_a(Scale<V>::of(1 / state.held[kS])),
              of_b(Scale<V>::of(1 / state.held[kOther])) {}
        static T absent(T present) { return present; }
        Gradients<V> step(V a, V b) const {
            const V t = V::mul(scale.exp_a(a), of_a), d = V::add(scale.difference(a, b), log_ratio);
            const V zero = V::splat(0), d2 = V::mul(d, d);
            V p_minus_t = V::mul(t, V::sub(V::mul(d2, bregman_quotient(d)), d));
            if constexpr (!Close) {
                const V far = V::sub(V::mul(scale.exp_b(b), of_b), t);
                p_minus_t = V::select(V::less(d2, V::splat(1)), p_minus_t, far);
            }
            V slope = V::mul(t, V::sub(d, value));
            if constexpr (!Close) slope = V::select(V::equal(t, zero), zero, slope);
            return {V::mul(factor, slope), V::mul(factor, p_minus_t)};
        }
    };

    template <class V, class Walk>
    static void map(const Parameters &parameters, const RowState &state, typename V::Element factor, const Walk &walk) {
        flag(state, kIsClose) ? walk(Map<V, true>(parameters, state, factor))
                              : walk(Map<V, false>(parameters, state, factor));
    }
};

using Rows = KlLogits;

}  // namespace
}  // namespace kldiv
