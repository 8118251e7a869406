// Jeffreys: (t - p) log(t/p), the sum of both directions' kl. Its slopes: log(t/p) + (t - p)/t and -log(t/p) - (t - p)/p.
#pragma once
#include "../math/generalized.hpp"

namespace kldiv {
namespace {

struct Jeffreys {
    template <bool General>
    static constexpr bool kHalf = !General;
    static constexpr bool kGrowsWithLogT = true, kGrowsWithLogP = true;
    static constexpr bool kPredNeedsNoSum = false;

    // The term, or half of it, of a difference and its logarithm or half of that.
    template <bool General, class V>
    static V add_term(V sum, V t, V p, V difference, V log) {
        if constexpr (!General) return V::fma(difference, log, sum);
        const V zero = V::splat(0);
        const V at_zero = V::select(V::both(V::equal(t, zero), V::equal(p, zero)), zero, V::splat(kInfinity));
        return V::add(sum, in_domain(t, p, V::mul(difference, log), at_zero));
    }

    template <bool General, class V, class Constants>
    static V add(V sum, V t, V p, const Constants &) {
        const V log = General ? any_log_ratio(t, p) : half_log_ratio(t, p);
        return add_term<General>(sum, t, p, V::sub(t, p), log);
    }

    template <bool General, bool True, class V, class Constants, class Gradients>
    static V add_with_gradients(V sum, V t, V p, V factor, const Constants &, bool wants_pred, Gradients &grad) {
        const V half = General ? any_log_ratio(t, p) : half_log_ratio(t, p);
        const V difference = V::sub(t, p);
        sum = add_term<General>(sum, t, p, difference, half);
        const V log = General ? log_with_infinities(t, p, half) : V::add(half, half);
        if constexpr (True) grad.t = slope<General>(t, p, factor, log, V::div(difference, t));
        if (wants_pred) grad.p = slope<General>(t, p, V::sub(V::splat(0), factor), log, V::div(difference, p));
        return sum;
    }

    template <bool General, class V>
    static V slope(V t, V p, V factor, V log, V relative) {
        const V gradient = V::mul(factor, V::add(log, relative));
        return General ? where_it_varies(t, p, gradient) : gradient;
    }
};

using Term = Jeffreys;

}  // namespace
}  // namespace kldiv
