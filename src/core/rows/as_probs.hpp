// Rows of any pair of forms: a segment at a time they are made probabilities, which the operation's own loops then read. So
// every divergence of the table takes every form.
//
//     probs  t = x      counts  t = (x + c) / sum (x + c)      log_probs  t = e^x      logits  t = e^((x - max x) / T) / their sum
//     labels  t = 1 for the label's class, or what smoothing leaves of it
//
// Up to three passes: the maxima of logits, what a row is divided by, the terms. And then perhaps two again: where neither side is given as
// probabilities, two rows of numbers that nearly agree make probabilities that do so to more digits than float32 has:
// rows of float32 that turn out to be near are done again, in float64; and all whose gradients are wanted, where slopes
// and their mean may be as near.
//
// An exponential that would leave the format's range is that of kFloor instead; what log t then lacks is added to the row,
// times the other side, where the term grows like that (see Kernels). For -inf it is 0.
//
// Gradients, from the slopes g by t that the operation's loops give, with G = sum t g:
//
//     probs  g          counts  (g - G) / sum x    log_probs  t g       logits  t (g - G) / T
#pragma once
#include "../math/exp.hpp"

namespace kldiv {
namespace {

enum Side { kTrue, kPred, kSides };

inline bool is_log(kldiv_form form) { return form == KLDIV_LOG_PROBS || form == KLDIV_LOGITS; }
inline bool is_normalised(kldiv_form form) { return form == KLDIV_COUNTS || form == KLDIV_LOGITS; }
inline bool makes_both(const RowParameters &parameters) {
    return parameters.forms[kTrue] != KLDIV_PROBS && parameters.forms[kPred] != KLDIV_PROBS;
}

// What a row's state holds. kSum: what a side is divided by. kComesTo: the sum of log-probabilities' own, which are not.
// (Infinite where a side has probabilities near the format's least.) kIsWide: this time in float64, whatever the inputs
// are. kIsFar: the value is known from the time before.
struct ProbsState {
    enum Held {
        kHigh,
        kSum = kHigh + kSides,
        kComesTo = kSum + kSides,
        kDot = kComesTo + kSides,
        kTerms = kDot + kSides,
        kLacking,
        kIsWide,
        kIsFar
    };
    enum Pass { kHighest, kSums, kAll };

    static void begin(const RowParameters &parameters, RowState &state) {
        bool logits = false, normalised = false;
        for (int side = 0; side < kSides; ++side) {
            const kldiv_form form = parameters.forms[side];
            logits |= form == KLDIV_LOGITS;
            normalised |= is_normalised(form);
            state.held[kHigh + side] = form == KLDIV_LOGITS ? -static_cast<double>(kInfinity) : 0;
        }
        clear(state);
        state.held[kIsWide] = state.held[kIsFar] = 0;
        state.pass = logits ? kHighest : normalised ? kSums : kAll;
    }

    static void clear(RowState &state) {
        for (int total = kSum; total <= kLacking; ++total) state.held[total] = 0;
    }

    static void merge(const RowParameters &, RowState &into, const RowState &from) {
        for (int side = 0; side < kSides; ++side) {
            double &high = into.held[kHigh + side], &sum = into.held[kSum + side];
            if (into.pass == kHighest) high = from.held[kHigh + side] > high ? from.held[kHigh + side] : high;
            if (into.pass == kSums) sum += from.held[kSum + side];
        }
        if (into.pass != kAll) return;
        for (int side = 0; side < kSides; ++side) into.held[kComesTo + side] += from.held[kComesTo + side];
        for (int total = kDot; total <= kLacking; ++total) into.held[total] += from.held[total];
    }

    template <class T>
    static void next(const RowParameters &parameters, RowState &state) {
        if (state.pass != kAll) {
            ++state.pass;
            return;
        }
        if (state.held[kIsFar] == 0) state.value = state.held[kTerms] + state.held[kLacking];
        state.pass = kRowDone;
        if (sizeof(T) != sizeof(float) || !makes_both(parameters) || state.held[kIsWide] != 0) return;
        const bool far = is_far(state);
        if (far && !parameters.gradients[kTrue] && !parameters.gradients[kPred]) return;
        state.pass = first_again(parameters);
        state.held[kIsFar] = far;
        state.held[kIsWide] = 1;
        clear(state);
    }

    // Where a row begins that is done again.
    static Pass first_again(const RowParameters &parameters) {
        return is_normalised(parameters.forms[kTrue]) || is_normalised(parameters.forms[kPred]) ? kSums : kAll;
    }

    static int most_passes(const RowParameters &parameters, bool is_float64) {
        RowState state;
        begin(parameters, state);
        const int again = !is_float64 && makes_both(parameters) ? kAll + 1 - first_again(parameters) : 0;
        return static_cast<int>(kAll + 1 - state.pass) + again;
    }

    // Whether float32's probabilities t and p have digits enough. Where both sum to 1, the relative error of kl is at most
    // t's times (sum of t |log(t/p)|) / kl, which is 1 + sqrt(2 / kl), and p's times (sum of |t - p|) / kl, sqrt(2 / kl):
    // 5 times in all at the bound.
    static bool is_far(const RowState &state) {
        double most = 1;
        for (int side = 0; side < kSides; ++side)
            if (state.held[kComesTo + side] > most) most = state.held[kComesTo + side];
        return state.value >= 0.5 * most && state.value < kInfinity;
    }
};

// One side of a row, whose elements are W's.
template <class W>
struct ToProbs {
    using E = typename W::Element;
    static constexpr E kFloor = sizeof(E) == 4 ? -80 : -700;
    static constexpr E kHighest = ExpConstants<E>::highest;

    const kldiv_form form;
    const E high, inverse, pseudocount, factor, hot, cold;

    ToProbs(const RowParameters &parameters, const RowState &state, int side)
        : form(parameters.forms[side]),
          high(static_cast<E>(state.held[ProbsState::kHigh + side])),
          inverse(inverse_in_format<E>(form == KLDIV_LOGITS ? parameters.inverse_temperature : 1)),
          pseudocount(static_cast<E>(parameters.pseudocount)),
          factor(static_cast<E>(
              is_normalised(form) && state.pass != ProbsState::kSums ? 1 / state.held[ProbsState::kSum + side] : 1)),
          hot(static_cast<E>(parameters.hot)),
          cold(static_cast<E>(parameters.cold)) {}

    W exponent(W x) const { return W::mul(W::sub(x, W::splat(high)), W::splat(inverse)); }

    // e^z of logarithms that aren't -inf, in any range; of those the factor's 0, or NaN.
    W power(W x, W z) const {
        const W e = exponential(W::clip(z, W::splat(kFloor), W::splat(kHighest)));
        const W bounded = W::select(W::less(W::splat(kHighest), z), W::splat(static_cast<E>(kInfinity)), e);
        return W::mul(W::select(is_nothing(x), W::splat(0), bounded), W::splat(factor));
    }
    static typename W::Mask is_nothing(W x) { return W::equal(x, W::splat(static_cast<E>(-kInfinity))); }

    double highest(const E *x, int64_t n) const {
        W all = W::splat(static_cast<E>(-kInfinity));
        each_vector<W>(x, n, static_cast<E>(-kInfinity), [&](W v, int64_t) { all = W::larger(v, all); });
        return static_cast<double>(all.highest());
    }

    // What the row is divided by, of a segment; before there is a factor.
    double sum(const E *x, int64_t n) const {
        const bool logs = is_log(form);
        return lane_sum<W>(x, n, logs ? static_cast<E>(-kInfinity) : -pseudocount, [&](W v, int64_t) {
            return logs ? power(v, exponent(v)) : W::add(v, W::splat(pseudocount));
        });
    }

    // A segment's probabilities: `to`, which has room for whole vectors, or x itself. `lowest`: of the exponents, or of
    // what is no power.
    const E *operator()(const E *x, int64_t n, E *to, E &lowest) const {
        if (form == KLDIV_PROBS) return x;
        if (form == KLDIV_COUNTS) {
            W low = W::splat(1);
            each_vector<W>(x, n, -pseudocount, [&](W v, int64_t i) {
                const W count = W::add(v, W::splat(pseudocount)), t = W::mul(count, W::splat(factor));
                t.store(to + i);
                low = W::smaller(W::select(W::equal(count, W::splat(0)), W::splat(1), t), low);
            });
            lowest = -W::sub(W::splat(0), low).highest();
            return to;
        }
        W low = W::splat(0);
        each_vector<W>(x, n, static_cast<E>(-kInfinity), [&](W v, int64_t i) {
            const W z = exponent(v);
            power(v, z).store(to + i);
            low = W::smaller(W::select(is_nothing(v), W::splat(0), z), low);
        });
        lowest = -W::sub(W::splat(0), low).highest();
        return to;
    }

    // The same of a label that is so many classes on from the segment's first.
    const E *one_hot(int64_t label, int64_t n, E *to) const {
        for (int64_t i = 0; i < n; i += W::lanes) W::splat(cold).store(to + i);
        if (label >= 0 && label < n) to[label] = hot;
        return to;
    }

    static constexpr E kLeast = E(0x1p-126);
    static bool is_subnormal(E x) { return x != 0 && x < kLeast; }

    // A segment's part of kComesTo.
    double comes_to(const E *t, int64_t n, E lowest) const {
        const bool is_lost = form == KLDIV_COUNTS ? lowest < E(0x1p-100) || factor < kLeast || is_subnormal(pseudocount)
                             : form == KLDIV_LABELS ? is_subnormal(cold)
                                                    : false;
        if (is_lost) return kInfinity;
        return form == KLDIV_LOG_PROBS ? lane_sum<W>(t, n, 0, [](W v, int64_t) { return v; }) : 0;
    }

    // What the logarithms of a segment lack, times the other side.
    double lacking(const E *x, const E *other, int64_t n) const {
        double sum = 0;
        for (int64_t i = 0; i < n; ++i) {
            const E z = (element_at(x, i) - high) * inverse;
            if (z < kFloor && element_at(x, i) > static_cast<E>(-kInfinity))
                sum +=
                    static_cast<double>(element_at(other, i)) * (static_cast<double>(kFloor) - static_cast<double>(z));
        }
        return sum;
    }

    // The gradient by the input, from that by the probabilities t.
    W slope(W t, W g, W dot) const {
        if (is_normalised(form)) g = W::sub(g, dot);
        if (form == KLDIV_COUNTS) return W::mul(g, W::splat(factor));
        return is_log(form) ? W::mul(W::mul(t, g), W::splat(inverse)) : g;
    }
};

// Rows whose elements V reads, in the format that W computes in.
template <class V, class W>
struct AsProbsIn {
    using T = typename V::Element;
    using E = typename W::Element;
    static constexpr kldiv_dtype kFormat = sizeof(E) == 4 ? KLDIV_FLOAT32 : KLDIV_FLOAT64;

    struct Buffers {
        alignas(64) T narrow[kSegment + kLanes];
        alignas(64) E wide[kSides][kSegment + kLanes], probs[kSides][kSegment + kLanes],
            slopes[kSides][kSegment + kLanes];
    };

    // A segment of one side's elements.
    static const E *read(const Reader<T> &reader, const char *src, int64_t n, T *narrow, E *wide) {
        if constexpr (sizeof(T) == sizeof(E)) {
            return reader.read(src, n, wide);
        } else {
            const T *x = reader.read(src, n, narrow);
            each_vector<V>(x, n, 0, [&](V v, int64_t i) {
                std::memset(wide + i, 0, V::lanes * sizeof(E));
                v.add_to(wide + i);
            });
            return wide;
        }
    }

    // visit(both sides' elements, how many, where the label is among them) for each segment. Labels have no elements.
    template <class Visit>
    static void each_segment(const Reader<T> &reader, const RowPart &row, const RowParameters &parameters,
                             const RowState &state, Buffers &buffers, const Visit &visit) {
        for (int64_t from = 0; from < row.n; from += kSegment) {
            const int64_t count = row.n - from < kSegment ? row.n - from : kSegment;
            const char *const sides[] = {row.t + from * reader.size, row.p + from * reader.size};
            const E *x[kSides] = {};
            for (int side = 0; side < kSides; ++side)
                if (parameters.forms[side] != KLDIV_LABELS)
                    x[side] = read(reader, sides[side], count, buffers.narrow, buffers.wide[side]);
            visit(x, count, from, state.label - row.first - from);
        }
    }

    static __attribute__((noinline)) void reduce(const Reader<T> &reader, const RowPart &row,
                                                 const RowParameters &parameters, RowState &state) {
        using S = ProbsState;
        Buffers buffers;
        const ToProbs<W> sides[] = {{parameters, state, kTrue}, {parameters, state, kPred}};
        const auto visit = [&](const E *const(&x)[kSides], int64_t count, int64_t, int64_t label) {
            if (state.pass == S::kAll) return add_terms(sides, x, count, label, parameters, buffers, state);
            for (int side = 0; side < kSides; ++side) {
                if (state.pass == S::kSums) {
                    if (is_normalised(sides[side].form)) state.held[S::kSum + side] += sides[side].sum(x[side], count);
                } else if (sides[side].form == KLDIV_LOGITS) {
                    const double high = sides[side].highest(x[side], count);
                    if (high > state.held[S::kHigh + side]) state.held[S::kHigh + side] = high;
                }
            }
        };
        each_segment(reader, row, parameters, state, buffers, visit);
    }

    // The operation's terms of a segment, and what gradients want to know of all of the row.
    static void add_terms(const ToProbs<W> (&sides)[kSides], const E *const (&x)[kSides], int64_t n, int64_t label,
                          const RowParameters &parameters, Buffers &buffers, RowState &state) {
        using S = ProbsState;
        const E *probs[kSides];
        E lowest[kSides];
        make_probs(sides, x, n, label, buffers, probs, lowest);
        const bool is_last =  // of the rounds over a row; see next
            sizeof(E) == sizeof(double) || !makes_both(parameters);
        const bool dots = is_last && ((parameters.gradients[kTrue] && is_normalised(parameters.forms[kTrue])) ||
                                      (parameters.gradients[kPred] && is_normalised(parameters.forms[kPred])));
        state.held[S::kTerms] += dots ? slopes(probs, n, parameters, buffers) : terms(probs, n, parameters);
        const bool grows[] = {parameters.kernels->grows_with_log_t, parameters.kernels->grows_with_log_p};
        for (int side = 0; side < kSides; ++side) {
            state.held[S::kComesTo + side] += sides[side].comes_to(probs[side], n, lowest[side]);
            if (grows[side] && is_log(sides[side].form) && lowest[side] < ToProbs<W>::kFloor)
                state.held[S::kLacking] += sides[side].lacking(x[side], probs[1 - side], n);
            if (dots && is_normalised(parameters.forms[side]))
                state.held[S::kDot + side] += dot(probs[side], buffers.slopes[side], n);
        }
    }

    static void make_probs(const ToProbs<W> (&sides)[kSides], const E *const (&x)[kSides], int64_t n, int64_t label,
                           Buffers &buffers, const E *(&probs)[kSides], E (&lowest)[kSides]) {
        for (int side = 0; side < kSides; ++side) {
            E *const to = buffers.probs[side];
            lowest[side] = 0;
            probs[side] = sides[side].form == KLDIV_LABELS ? sides[side].one_hot(label, n, to)
                                                           : sides[side](x[side], n, to, lowest[side]);
        }
    }

    static Tile tile_of(const E *const (&probs)[kSides], int64_t n) {
        const auto bytes = [](const E *x) { return reinterpret_cast<const char *>(x); };
        return {bytes(probs[kTrue]), bytes(probs[kPred]), 0, 0, 1, n, nullptr, 0};
    }
    static double terms(const E *const (&probs)[kSides], int64_t n, const RowParameters &parameters) {
        double sum;
        parameters.functions[kFormat].row_sums(tile_of(probs, n), parameters.of_probs, &sum);
        return sum;
    }
    // The same, and the slopes by both in the buffers.
    static double slopes(const E *const (&probs)[kSides], int64_t n, const RowParameters &parameters,
                         Buffers &buffers) {
        double sum;
        const E one = 1;
        const auto bytes = [](E *x) { return reinterpret_cast<char *>(x); };
        const GradientTile to = {bytes(buffers.slopes[kTrue]), bytes(buffers.slopes[kPred]), 0, 0, &one};
        const auto row_gradients = parameters.functions[kFormat].row_gradients[static_cast<int>(Wanted::both)];
        row_gradients(tile_of(probs, n), parameters.of_probs, to, &sum);
        return sum;
    }
    static double dot(const E *t, const E *g, int64_t n) {
        return lane_sum<W>(t, n, 0, [&](W v, int64_t i) {
            const W product = W::mul(v, W::load(reinterpret_cast<const char *>(g + i)));
            return W::select(W::equal(v, W::splat(0)), v, product);  // g beyond the row is anything
        });
    }

    static __attribute__((noinline)) void map(const Reader<T> &reader, const RowPart &row,
                                              const RowParameters &parameters, const RowState &state, T factor,
                                              T *grad_t, T *grad_p) {
        Buffers buffers;
        const ToProbs<W> sides[] = {{parameters, state, kTrue}, {parameters, state, kPred}};
        T *const grads[] = {grad_t, grad_p};
        const auto visit = [&](const E *const(&x)[kSides], int64_t count, int64_t from, int64_t label) {
            const E *probs[kSides];
            E lowest[kSides];
            make_probs(sides, x, count, label, buffers, probs, lowest);
            slopes(probs, count, parameters, buffers);
            for (int side = 0; side < kSides; ++side) {
                if (grads[side] == nullptr) continue;
                const W dot = W::splat(static_cast<E>(state.held[ProbsState::kDot + side]));
                E *const slope = buffers.slopes[side];
                each_vector<W>(probs[side], count, 0, [&](W v, int64_t i) {
                    const W g = W::load(reinterpret_cast<const char *>(slope + i));
                    W::mul(sides[side].slope(v, g, dot), W::splat(static_cast<E>(factor))).store(slope + i);
                });
                for (int64_t i = 0; i < count; ++i) grads[side][from + i] = static_cast<T>(slope[i]);
            }
        };
        each_segment(reader, row, parameters, state, buffers, visit);
    }
};

struct AsProbs : ProbsState {
    template <class V>
    static void reduce(const Reader<typename V::Element> &reader, const RowPart &row, const RowParameters &parameters,
                       RowState &state) {
        const auto pass = state.held[kIsWide] != 0 ? AsProbsIn<V, VecF64>::reduce : AsProbsIn<V, V>::reduce;
        pass(reader, row, parameters, state);
    }

    template <class V, class T>
    static void map(const Reader<T> &reader, const RowPart &row, const RowParameters &parameters, const RowState &state,
                    T factor, T *grad_t, T *grad_p) {
        const auto one = state.held[kIsWide] != 0 ? AsProbsIn<V, VecF64>::map : AsProbsIn<V, V>::map;
        one(reader, row, parameters, state, factor, grad_t, grad_p);
    }
};

template <class Load>
using Loops = RowwiseOf<AsProbs, Load>;

}  // namespace
}  // namespace kldiv
