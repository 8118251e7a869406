// Kullback-Leibler: t log(t/p). Its slopes: log(t/p) + 1 and -t/p. Without a clip the meaning of scipy.special.rel_entr.
#pragma once
#include "../math/log_ratio.hpp"

namespace kldiv {
namespace {

struct Kl {
    template <bool General>
    static constexpr bool kHalf = !General;
    static constexpr bool kGrowsWithLogT = false, kGrowsWithLogP = true;
    static constexpr bool kPredNeedsNoSum = true;  // nor a logarithm

    template <bool General, class V, class Constants>
    static V add(V sum, V t, V p, const Constants &) {
        if constexpr (General)
            return V::add(sum, relative_entropy(t, p, any_log_ratio(t, p)));
        else
            return V::fma(t, half_log_ratio(t, p), sum);
    }

    template <bool General, bool True, class V, class Constants, class Gradients>
    static V add_with_gradients(V sum, V t, V p, V factor, const Constants &, bool wants_pred, Gradients &grad) {
        V log;
        if constexpr (General) {
            log = any_log_ratio(t, p);
            sum = V::add(sum, relative_entropy(t, p, log));
            log = log_with_infinities(t, p, log);
        } else {
            const V half = half_log_ratio(t, p);
            sum = V::fma(t, half, sum);
            log = V::add(half, half);
        }
        if constexpr (True) {
            if constexpr (!General) log = V::fma(t, V::splat(0), log);  // a NaN in t may have got lost on the way
            grad.t = V::fma(factor, log, factor);
            if constexpr (General) grad.t = where_it_varies(t, p, grad.t);
        }
        if (wants_pred) grad.p = grad_pred<General>(t, p, factor);
        return sum;
    }

    template <bool General, class V>
    static V grad_pred(V t, V p, V factor) {
        const V gradient = V::div(V::mul(V::sub(V::splat(0), factor), t), p);
        return General ? where_it_varies(t, p, gradient) : gradient;
    }
};

using Term = Kl;

}  // namespace
}  // namespace kldiv
