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
// A row takes one pass where its first segment tells what to add up: where that is far from the other's, E and both sums
// of exponentials; where it is near, E and Psi. Each segment is added up once its maxima are known, relative to the largest
// numbers so far, about the c of the first one. Other rows take two passes: one for the maxima and the range of a - b, which
// c is read off, one for the sums. Where c turns out a bad one (two maxima that say little about the rest), there is one
// more, with c moved by E.
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
        kOther,     // sum e^b, on the same scale, but in the first pass on its own; unless kIsNear
        kLogRatio,  // log(sum e^b / S)
        kIsNear,    // all |x| <= 1
        kIsClose,   // all |d| <= 1
        kAhead,     // what the first pass adds up (an Ahead), about the c of the row's beginning,
        kMoved,     // and how far that was, at most, from the c that the sums are now about, over T
    };
    enum Pass { kRange, kSums, kSumsAgain };
    enum Ahead { kUndecided, kNearSums, kFarSums, kGaveUp };

    static bool flag(const RowState &state, Held which) { return state.held[which] != 0; }

    static void begin(const RowParameters &, RowState &state) {
        state.pass = kRange;
        state.held[kHighA] = state.held[kHighB] = state.held[kHighD] = -kInfinity;
        state.held[kLowA] = state.held[kLowD] = kInfinity;
        for (int sum = kS; sum <= kOther; ++sum) state.held[sum] = 0;
        state.held[kIsNear] = state.held[kMoved] = 0;
        state.held[kAhead] = kUndecided;
    }

    static __attribute__((cold)) void merge(const RowParameters &parameters, RowState &into, const RowState &from) {
        if (into.pass == kRange) return merge_first_pass(parameters, into, from);
        add_sums(into, from);
    }
    static void merge_first_pass(const RowParameters &parameters, RowState &into, RowState from) {
        const double high_a = into.held[kHighA], high_b = into.held[kHighB];
        const double from_high_a = from.held[kHighA], from_high_b = from.held[kHighB];
        for (int high = kHighA; high <= kHighD; ++high)
            into.held[high] = from.held[high] = larger(into.held[high], from.held[high]);
        for (int low = kLowA; low <= kLowD; ++low) into.held[low] = smaller(into.held[low], from.held[low]);
        if (into.held[kAhead] != kFarSums || from.held[kAhead] != kFarSums) {
            into.held[kAhead] = kGaveUp;
            return;
        }
        shrink_sums(parameters, into, high_a, high_b);
        shrink_sums(parameters, from, from_high_a, from_high_b);
        move_center(parameters, from, into.held[kCenter]);
        into.held[kMoved] = larger(into.held[kMoved], from.held[kMoved]);
        add_sums(into, from);
    }
    static void add_sums(RowState &into, const RowState &from) {
        for (int sum = kS; sum <= kOther; ++sum) into.held[sum] += from.held[sum];
    }

    static double larger(double a, double b) { return a > b ? a : b; }
    static double smaller(double a, double b) { return a < b ? a : b; }

    // ---- The sums of the first pass, which move with the row's maxima ----

    // What was added up is smaller beside the row's new maxima.
    static void shrink_sums(const RowParameters &parameters, RowState &state, double from_a, double from_b) {
        double *held = state.held;
        const double of_a = shrinking(parameters, from_a, held[kHighA]),
                     of_b = shrinking(parameters, from_b, held[kHighB]);
        held[kS] *= of_a, held[kE] *= of_a, held[kPsi] *= of_a, held[kOther] *= of_b;
    }
    static double shrinking(const RowParameters &parameters, double from, double to) {
        return from < to && from > -kInfinity ? exponential_of((from - to) * parameters.inverse_temperature) : 1;
    }

    static void move_center(const RowParameters &parameters, RowState &state, double to) {
        const double by = (state.held[kCenter] - to) * parameters.inverse_temperature;
        state.held[kE] += by * state.held[kS];
        state.held[kMoved] += by < 0 ? -by : by;
        state.held[kCenter] = to;
    }

    // ---- Passes over elements ----

    template <class V>
    static constexpr int kVectors = kLanes / V::lanes;

    template <class V>
    struct Range {
        using T = typename V::Element;
        static constexpr int kHighs = kHighD - kHighA + 1, kLows = kLowD - kLowA + 1;
        V high[kHighs][kVectors<V>], low[kLows][kVectors<V>];

        Range() {
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
        double highest(Held which) const {
            const V(&vectors)[kVectors<V>] = high[which - kHighA];
            V all = vectors[0];
            for (int k = 1; k < kVectors<V>; ++k) all = V::larger(vectors[k], all);
            return static_cast<double>(all.highest());
        }
        double lowest(Held which) const {
            const V(&vectors)[kVectors<V>] = low[which - kLowA];
            V all = vectors[0];
            for (int k = 1; k < kVectors<V>; ++k) all = V::smaller(vectors[k], all);
            return -static_cast<double>(V::sub(V::splat(0), all).highest());
        }
        void store(RowState &state) const {
            double *held = state.held;
            for (int i = kHighA; i <= kHighD; ++i) held[i] = larger(highest(static_cast<Held>(i)), held[i]);
            for (int i = kLowA; i <= kLowD; ++i) held[i] = smaller(lowest(static_cast<Held>(i)), held[i]);
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
        V exp_b(int k, V b) const { return exponential(V::mul(V::add(V::sub(b, at(high_b, k)), shift), inverse)); }
        // On b's own scale.
        V own_exp_b(int k, V b) const { return bounded_exponential(V::mul(V::sub(b, at(high_b, k)), inverse)); }
        V difference(V a, V b) const { return V::mul(V::sub(V::sub(a, b), center), inverse); }
        // For any a and b. Where a is no part of the row, any number beyond 1, for its weight is 0.
        V any_difference(V a, V b) const {
            constexpr T largest = sizeof(T) == 4 ? T(0x1.fffffep127) : T(0x1.fffffffffffffp1023);
            const V x = V::clip(difference(a, b), V::splat(-largest), V::splat(largest));
            return V::select(V::equal(a, V::splat(-kInfinity)), V::splat(2), x);
        }
    };

    // The sums of a segment, and of the row. `Near`: all |x| <= 1.
    template <class V, bool Near>
    struct Sums {
        using T = typename V::Element;
        static constexpr int kCount = Near ? kPsi - kS + 1 : kOther - kS + 1;
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
            const V x = Near ? scale.difference(a, b) : scale.any_difference(a, b);
            const V weight = scale.exp_a(k, a), weighted = V::mul(weight, x);
            V &s = sums[0][k], &e = sums[kE - kS][k], &psi = sums[kPsi - kS][k];
            s = V::add(s, weight);
            e = V::add(e, weighted);
            const V near = V::fma(V::mul(weighted, x), bregman_quotient(x), psi);
            if constexpr (Near) {
                psi = near;
            } else {
                V &others = sums[kOther - kS][k];
                const V other = scale.exp_b(k, b);
                const V far = V::add(psi, V::add(V::sub(other, weight), weighted));
                psi = V::select(V::less(V::mul(x, x), V::splat(1)), near, far);
                others = V::add(others, other);
            }
        }
        void end_segment() {
            for (int i = 0; i < kCount; ++i) totals[i] += V::tree_sum(sums[i]);
            clear();
        }
        void store(RowState &state) const {
            for (int i = 0; i < kCount; ++i) state.held[kS + i] += totals[i];
        }
    };

    // The sums of a segment of rows that are far apart, on the scales that the first pass has come to.
    template <class V>
    struct FarSums {
        Scale<V> scale;
        V s[kVectors<V>], e[kVectors<V>], others[kVectors<V>];

        FarSums(const RowParameters &parameters, const RowState &state) : scale(parameters, state) {
            for (int k = 0; k < kVectors<V>; ++k) s[k] = e[k] = others[k] = V::splat(0);
        }
        void show_last(int present) { scale.show_last(present); }
        void step(int k, V a, V b) {
            const V weight = scale.exp_a(k, a);
            s[k] = V::add(s[k], weight);
            e[k] = V::fma(weight, scale.difference(a, b), e[k]);
            others[k] = V::add(others[k], scale.own_exp_b(k, b));
        }
        void end_segment() {}
        void store(RowState &state) {
            state.held[kS] += V::tree_sum(s);
            state.held[kE] += V::tree_sum(e);
            state.held[kOther] += V::tree_sum(others);
        }
    };

    template <class Part, class V, class T>
    static void add_segment(Sixteens<V> &sixteens, const T *a, const T *b, int64_t n, const RowParameters &parameters,
                            RowState &state) {
        Part sums(parameters, state);
        sixteens.step(a, b, n, sums);
        sums.end_segment();
        sums.store(state);
    }

    // The first pass. What it adds up is read off the row's first segment.
    template <class V>
    static __attribute__((noinline)) void look_ahead(const Reader<typename V::Element> &reader, const RowPart &row,
                                                     const RowParameters &parameters, RowState &state) {
        using T = typename V::Element;
        Sixteens<V> sixteens;
        Range<V> range;
        bool is_stored = true;
        sixteens.each_segment(reader, row, [&](const T *a, const T *b, int64_t, int64_t n) {
            sixteens.step(a, b, n, range);
            double *held = state.held;
            is_stored = held[kAhead] != kGaveUp;
            if (!is_stored) return;
            const double high_a = held[kHighA], high_b = held[kHighB];
            range.store(state);
            if (held[kAhead] == kUndecided) {
                held[kAhead] = what_to_add(state, parameters);
                held[kCenter] = static_cast<double>(static_cast<T>(held[kHighA] - held[kHighB]));
            }
            if (held[kAhead] == kNearSums && !within_one(state, parameters, 0)) held[kAhead] = kGaveUp;
            if (held[kAhead] == kGaveUp) return;
            shrink_sums(parameters, state, high_a, high_b);
            held[kAhead] == kFarSums ? add_segment<FarSums<V>>(sixteens, a, b, n, parameters, state)
                                     : add_segment<Sums<V, true>>(sixteens, a, b, n, parameters, state);
        });
        if (!is_stored) range.store(state);
    }

    template <class V>
    static void reduce(const Reader<typename V::Element> &reader, const RowPart &row, const RowParameters &parameters,
                       RowState &state) {
        if (state.pass == kRange) return look_ahead<V>(reader, row, parameters, state);
        const auto sums = flag(state, kIsNear) ? reduce_row<V, Sums<V, true>> : reduce_row<V, Sums<V, false>>;
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

    // By a row's first differences. If they are so various the rows can hardly be near each other (of 500 normal ones, kl is
    // then 0.2 or more); if so alike all may be.
    static Ahead what_to_add(const RowState &state, const RowParameters &parameters) {
        const double x = (state.held[kHighD] - state.held[kLowD]) * parameters.inverse_temperature;
        return x <= 0.5 ? kNearSums : x > 4 && is_bounded(state, parameters) ? kFarSums : kGaveUp;
    }

    // Whether a - b is not beyond what the format's products and sums hold: as c is one of the differences, or between two,
    // their range is the largest |a - b - c|.
    static bool is_bounded(const RowState &state, const RowParameters &parameters) {
        const double range = state.held[kHighD] - state.held[kLowD];
        return range * parameters.inverse_temperature < 0x1p64 && range < 0x1p64;
    }

    // The value of rows that are far apart, and what it is the sum of.
    struct Far {
        double mean, log_ratio, value;
        explicit Far(const RowState &state)
            : mean(state.held[kE] / state.held[kS]),
              log_ratio(log_of(state.held[kOther] / state.held[kS])),
              value(mean + log_ratio) {}
        // Both have errors of their own size, which the value is to be not much less than.
        bool has_all_digits(double moved) const {
            return value > 0.125 * (1 + (mean < 0 ? -mean : mean)) + 0.5 * moved;
        }
    };

    // Whether the first pass was the only one: a and b are finite and far apart, and the c of the row's beginning was as good
    // as the one that the sums are then moved to, which makes both maxima 1.
    template <class T>
    static bool is_done_ahead(const RowParameters &parameters, RowState &state) {
        double *held = state.held;
        if (held[kAhead] != kFarSums || !(held[kLowA] > -kInfinity) || !is_bounded(state, parameters)) return false;
        move_center(parameters, state, static_cast<double>(static_cast<T>(held[kHighA] - held[kHighB])));
        const double off = ((held[kHighB] - held[kHighA]) + held[kCenter]) * parameters.inverse_temperature;
        if (!(off <= 1 && off >= -1 && held[kMoved] <= 8)) return false;
        if (off != 0) held[kOther] *= exponential_of(off);
        const Far far(state);
        if (!far.has_all_digits(held[kMoved])) return false;
        finish(parameters, state, far.value, far.log_ratio);
        return true;
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
            if (is_done_ahead<T>(parameters, state)) return;
            held[kIsNear] = held[kAhead] == kNearSums && within_one(state, parameters, 0);
            if (!flag(state, kIsNear)) {
                center_at<T>(state, held[kHighA] - held[kHighB], parameters);
                state.pass = kSums;
                return;
            }
        }
        if (flag(state, kIsNear)) held[kOther] = (held[kS] - held[kE]) + held[kPsi];
        const Far far(state);
        if (far.has_all_digits(0)) return finish(parameters, state, far.value, far.log_ratio);
        const double psi = held[kPsi] / held[kS], y = psi - far.mean, gap = log1p_gap(y), near = psi - gap;
        const bool is_off = psi > 16 * near || far.mean > 1 || far.mean < -1;
        if (is_off && state.pass != kSumsAgain) {
            center_at<T>(state, held[kCenter] + far.mean / parameters.inverse_temperature, parameters);
            state.pass = kSumsAgain;
            return;
        }
        finish(parameters, state, near < 0 ? 0 : near, y > -0.3 && y < 0.3 ? y - gap : far.log_ratio);
    }

    static int most_passes(const RowParameters &, bool) { return kSumsAgain + 1; }

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
