// Jensen-Shannon: beta kl(t, m) + (1 - beta) kl(p, m) with m = beta t + (1 - beta) p. Element by element that is the same
// with generalized_kl for kl, because beta (t - m) + (1 - beta) (p - m) is 0: never negative, and exact near t = p, where
// t - m = (1 - beta) (t - p) and p - m = -beta (t - p). Its slopes: beta log(t/m) and (1 - beta) log(p/m).
#pragma once
#include "../math/generalized.hpp"

namespace kldiv {
namespace {

struct Jsd {
    template <bool General>
    static constexpr bool kHalf = false;
    static constexpr bool kGrowsWithLogT = false, kGrowsWithLogP = false;
    static constexpr bool kPredNeedsNoSum = false;

    // generalized_kl of x and the mixture m, and its logarithm; `difference`: x - m.
    template <bool General, class V>
    static KLDIV_INLINE Generalized<V> side(V x, V m, V difference) {
        if constexpr (General) {
            const Generalized<V> g = any_generalized(x, m, difference);
            return {V::select(V::equal(x, V::splat(0)), m, g.value), log_with_infinities(x, m, g.log)};
        } else {
            Reduced<V> reduced(x, m);
            const auto near = V::equal(reduced.exponent(), V::splat(0));
            reduced.difference = V::select(near, difference, reduced.difference);
            return generalized(x, m, reduced);
        }
    }

    template <bool General, class V>
    struct Sides {
        Generalized<V> t, p;
        template <class Constants>
        KLDIV_INLINE Sides(V y_true, V y_pred, const Constants &c) {
            V m = V::fma(c.beta, y_true, V::mul(c.rest, y_pred));
            if constexpr (General)  // beside the smallest subnormals the mixture is lost
                m = V::select(V::equal(m, V::splat(0)), V::select(V::less(y_true, y_pred), y_pred, y_true), m);
            const V difference = V::sub(y_true, y_pred);
            t = side<General>(y_true, m, V::mul(c.rest, difference));
            p = side<General>(y_pred, m, V::sub(V::splat(0), V::mul(c.beta, difference)));
        }
        template <class Constants>
        KLDIV_INLINE V value(V y_true, V y_pred, const Constants &c) const {
            const V mixed = V::fma(c.beta, t.value, V::mul(c.rest, p.value));
            if constexpr (!General) return mixed;
            const V zero = V::splat(0);
            const V at_zero = V::select(V::both(V::equal(y_true, zero), V::equal(y_pred, zero)), zero, mixed);
            return in_domain(y_true, y_pred, mixed, at_zero);
        }
    };

    template <bool General, class V, class Constants>
    static V add(V sum, V t, V p, const Constants &c) {
        return V::add(sum, Sides<General, V>(t, p, c).value(t, p, c));
    }

    template <bool General, bool True, class V, class Constants, class Gradients>
    static V add_with_gradients(V sum, V t, V p, V factor, const Constants &c, bool wants_pred, Gradients &grad) {
        const Sides<General, V> sides(t, p, c);
        if constexpr (True) grad.t = slope<General>(t, p, V::mul(factor, c.beta), sides.t.log);
        if (wants_pred) grad.p = slope<General>(p, t, V::mul(factor, c.rest), sides.p.log);
        return V::add(sum, sides.value(t, p, c));
    }

    // Where x is 0 its slope would be minus infinity.
    template <bool General, class V>
    static V slope(V x, V other, V factor, V log) {
        const V gradient = V::mul(factor, log);
        if constexpr (!General) return gradient;
        const V zero = V::splat(0);
        const V inside = V::select(V::less(other, zero), zero, gradient);
        return V::select(V::unordered(x, other), V::add(x, other), V::select(V::less(zero, x), inside, zero));
    }
};

using Term = Jsd;

}  // namespace
}  // namespace kldiv
