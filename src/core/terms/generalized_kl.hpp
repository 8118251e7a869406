// Generalized Kullback-Leibler: t log(t/p) - t + p. Its slopes: log(t/p) and 1 - t/p. Without a clip the meaning of
// scipy.special.kl_div.
#pragma once
#include "../math/generalized.hpp"

namespace kldiv {
namespace {

struct GeneralizedKl {
    template <bool General>
    static constexpr bool kHalf = false;
    static constexpr bool kGrowsWithLogT = false, kGrowsWithLogP = true;
    static constexpr bool kPredNeedsNoSum = false;

    template <bool General, class V>
    static Generalized<V> term(V t, V p) {
        if constexpr (!General) return generalized(t, p, Reduced<V>(t, p));
        const V zero = V::splat(0);
        const Generalized<V> g = any_generalized(t, p, V::sub(t, p));
        const V at_zero = V::select(V::equal(t, zero), p, V::splat(kInfinity));
        return {in_domain(t, p, g.value, at_zero), log_with_infinities(t, p, g.log)};
    }

    template <bool General, class V, class Constants>
    static V add(V sum, V t, V p, const Constants &) {
        return V::add(sum, term<General>(t, p).value);
    }

    template <bool General, bool True, class V, class Constants, class Gradients>
    static V add_with_gradients(V sum, V t, V p, V factor, const Constants &, bool wants_pred, Gradients &grad) {
        const Generalized<V> g = term<General>(t, p);
        if constexpr (True) {
            grad.t = V::mul(factor, V::fma(t, V::splat(0), g.log));  // a NaN in t may have got lost on the way
            if constexpr (General) grad.t = where_it_varies(t, p, V::mul(factor, g.log));
        }
        if (wants_pred) {
            grad.p = V::mul(factor, V::div(V::sub(p, t), p));
            // Where t is 0 the value is p.
            if constexpr (General) {
                const V at_zero =
                    V::select(V::both(V::equal(t, V::splat(0)), V::less(V::splat(0), p)), factor, V::splat(0));
                const auto varies = V::both(V::less(V::splat(0), t), V::less(V::splat(0), p));
                grad.p = V::select(V::unordered(t, p), V::add(t, p), V::select(varies, grad.p, at_zero));
            }
        }
        return V::add(sum, g.value);
    }
};

using Term = GeneralizedKl;

}  // namespace
}  // namespace kldiv
