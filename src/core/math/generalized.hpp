// t log(t/p) - t + p, which is never negative, with the digits that its three parts have lost when they are added up near
// t = p. With t = near * 2^e, s = (near - p) / (near + p) and z = s * s as in log_ratio.hpp:
//
//     near log(near/p) - near + p = (near - p) s (1 + s (1 + s) Q(z))
//
// whose factors are exact to a rounding or two, and of one sign; and where e is not 0
//
//     t log(t/p) - t + p = t e ln2 + p (1 - 2^e) + 2^e (near log(near/p) - near + p)
//
// with ln2 in two parts: the first two terms cancel to a tenth. For e = 0 the second formula is the first, bit for bit.
#pragma once

#include "log_ratio.hpp"

namespace kldiv {
namespace {

// The value, and the logarithm beside it.
template <class V>
struct Generalized {
    V value;
    V log;
};

inline VecF32 ln2_high(VecF32) { return VecF32::splat(0x1.62e3p-1f); }
inline VecF32 ln2_low(VecF32) { return VecF32::splat(0x1.2fefa4p-17f); }
inline VecF64 ln2_high(VecF64) { return VecF64::splat(0x1.62e42feep-1); }
inline VecF64 ln2_low(VecF64) { return VecF64::splat(0x1.a39ef35793c76p-33); }

// For t and p normal, and so the power of two between them. `reduced`'s difference may be better than what subtraction
// gives; the logarithm is that of another exponent where that is not the whole of it.
template <class V>
inline Generalized<V> generalized(V t, V p, const Reduced<V> &reduced, V exponent) {
    const V one = V::splat(1), whole = V::mul(exponent, V::splat(1 / V::exponent_unit));
    const V s = V::div(reduced.difference, V::add(reduced.near, p));
    const V z = V::mul(s, s);
    const V q = atanh_polynomial(z);
    const V bracket = V::fma(V::mul(s, V::add(s, one)), q, one);
    const V near = V::mul(V::mul(reduced.difference, s), bracket);

    const V power = V::from_bits(V::add_bits(V::bits(one), reduced.e));
    V far = V::fma(V::sub(V::splat(0), power), p, p);
    far = V::fma(t, V::mul(whole, ln2_high(t)), far);
    far = V::fma(t, V::mul(whole, ln2_low(t)), far);
    const V half = half_log(exponent, V::fma(V::mul(s, z), q, s));
    return {V::fma(power, near, far), V::add(half, half)};
}

template <class V>
inline Generalized<V> generalized(V t, V p, const Reduced<V> &reduced) {
    return generalized(t, p, reduced, reduced.exponent());
}

// The same for any positive and finite t and p; `difference`: t - p. Where they are far apart nothing cancels.
template <class V>
inline Generalized<V> any_generalized(V t, V p, V difference) {
    V t_shift, p_shift;
    const V t_safe = towards_one(t, t_shift), p_safe = towards_one(p, p_shift);
    Reduced<V> reduced(t_safe, p_safe);
    const V exponent = V::add(reduced.exponent(), V::sub(t_shift, p_shift));
    const auto same_scale = V::equal(t_shift, p_shift);
    const V scale = V::select(V::equal(t, t_safe), V::splat(1), V::div(t_safe, t));
    reduced.difference =
        V::select(V::both(same_scale, V::equal(exponent, V::splat(0))), V::mul(difference, scale), reduced.difference);
    const Generalized<V> close = generalized(t_safe, p_safe, reduced, exponent);

    const V limit = V::splat(static_cast<typename V::Element>(2.5 * V::exponent_unit));
    const auto is_close =
        V::both(same_scale, V::both(V::less(V::sub(V::splat(0), limit), exponent), V::less(exponent, limit)));
    return {V::select(is_close, V::div(close.value, scale), V::fma(t, close.log, V::sub(p, t))), close.log};
}

// A divergence that is never negative beyond its domain: `positive` where both are, `at_zero` where one or both are 0;
// infinite where one is negative or infinite; NaN for NaN, and where both are infinite.
template <class V>
inline V in_domain(V t, V p, V positive, V at_zero) {
    const V zero = V::splat(0), infinity = V::splat(kInfinity);
    V value = V::select(V::both(V::less(zero, t), V::less(zero, p)), positive, at_zero);
    value = V::select(V::less(t, zero), infinity, V::select(V::less(p, zero), infinity, value));
    value = V::select(V::equal(t, infinity), infinity, V::select(V::equal(p, infinity), infinity, value));
    value = V::select(V::both(V::equal(t, infinity), V::equal(p, infinity)), V::sub(infinity, infinity), value);
    return V::select(V::unordered(t, p), V::add(t, p), value);
}

}  // namespace
}  // namespace kldiv
