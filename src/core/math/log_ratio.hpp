// log(t/p) for positive t and p, written once over the vector classes of simd/. Included by kernel.cpp alone.
//
// The quotient t/p is never formed: rounding it is what costs every peer its digits when the two are nearly equal.
//   1. The difference of the two bit patterns is log2(t/p) to within 0.09, in units of the exponent field. Rounded to
//      a whole exponent it is e, and an integer subtraction gives t' = t * 2^-e, exactly, with t'/p in [2/3, 3/2].
//   2. t' - p is exact (Sterbenz' lemma), so s = (t' - p) / (t' + p) carries two roundings and no cancellation.
//   3. log(t'/p) / 2 = atanh(s) = s + s z Q(z), z = s*s in [0, 0.04].
//   4. log(t/p) / 2 = e ln2 / 2 + log(t'/p) / 2.
// Halves are summed up: doubling is exact, and costs nothing where it is done once for many terms.
// There is no table and no branch, and every step is a correctly rounded operation: all ISAs with FMA give the same bits.
#pragma once

#include <cmath>
#include <cstdint>

namespace kldiv {
namespace {

constexpr float kInfinity = HUGE_VALF;

// By Horner's rule, coefficients lowest first. Recursive, because compilers unroll a loop only after they have chosen what to
// inline.
template <int K = 0, class V, int N>
inline V polynomial(V x, const double (&coefficients)[N]) {
    const V last = V::splat(static_cast<typename V::Element>(coefficients[K]));
    if constexpr (K + 1 == N)
        return last;
    else
        return V::fma(polynomial<K + 1>(x, coefficients), x, last);
}

// Coefficients of Q: tools/make_coefficients.py.
inline VecF32 atanh_polynomial(VecF32 z) {
    constexpr double c[] = {0x1.5555b4p-2, 0x1.992b42p-3, 0x1.36e09p-3};
    return polynomial(z, c);
}

inline VecF64 atanh_polynomial(VecF64 z) {
    constexpr double c[] = {0x1.555555555554fp-2, 0x1.999999999c0cdp-3, 0x1.24924921ee414p-3, 0x1.c71c748716b31p-4,
                            0x1.745c4cdb1238ap-4, 0x1.3b358064c8987p-4, 0x1.0dcfc38d2a632p-4, 0x1.1b65975ab1be0p-4};
    return polynomial(z, c);
}

// t = near * 2^e with near/p in [2/3, 3/2]; all exact.
template <class V>
struct Reduced {
    V near;
    V difference;  // near - p
    typename V::Bits e;

    Reduced(V t, V p) : near(t), difference(t), e(V::bits(t)) {
        using Word = typename V::Word;
        const typename V::Bits half = V::splat_bits(Word{1} << (V::mantissa_bits - 1));
        const typename V::Bits whole = V::splat_bits(~((Word{1} << V::mantissa_bits) - 1));
        e = V::and_bits(V::add_bits(V::sub_bits(V::bits(t), V::bits(p)), half), whole);
        near = V::from_bits(V::sub_bits(V::bits(t), e));
        difference = V::sub(near, p);
    }
    V exponent() const { return V::exponent_to_float(e); }  // in V::exponent_unit
};

// log(t/p) in two parts: a whole exponent, in V::exponent_unit, and half the log of what it leaves.
template <class V>
struct LogParts {
    V exponent;
    V near_zero;
};

template <class V>
inline LogParts<V> log_parts(const Reduced<V> &t, V p) {
    const V s = V::div(t.difference, V::add(t.near, p));
    const V z = V::mul(s, s);
    return {t.exponent(), V::fma(V::mul(s, z), atanh_polynomial(z), s)};
}

template <class V>
inline V half_log(V exponent, V near_zero) {
    constexpr double half_ln2 = 0x1.62e42fefa39efp-2;
    return V::fma(exponent, V::splat(static_cast<typename V::Element>(half_ln2 / V::exponent_unit)), near_zero);
}

// log(t/p) / 2 for t and p normal: what a clip to [epsilon, 1] leaves when epsilon is normal.
template <class V>
inline V half_log_ratio(V t, V p) {
    const LogParts<V> log = log_parts(Reduced<V>(t, p), p);
    return half_log(log.exponent, log.near_zero);
}

// x moved away from both ends of its format's range; `shift` gathers what that did to log2(x).
template <class V>
inline V towards_one(V x, double low, double high, double scale, double log2_scale, V &shift) {
    const V small = V::select(V::less(x, V::splat(low)), V::splat(1), V::splat(0));
    const V large = V::select(V::less(V::splat(high), x), V::splat(1), V::splat(0));
    const V scaled_up = V::select(V::less(x, V::splat(low)), V::mul(x, V::splat(scale)), x);
    const V unit = V::splat(static_cast<typename V::Element>(log2_scale * V::exponent_unit));
    shift = V::mul(V::sub(large, small), unit);
    return V::select(V::less(V::splat(high), x), V::mul(x, V::splat(1 / scale)), scaled_up);
}

inline VecF32 towards_one(VecF32 x, VecF32 &shift) { return towards_one(x, 0x1p-90, 0x1p90, 0x1p48, 48, shift); }
inline VecF64 towards_one(VecF64 x, VecF64 &shift) { return towards_one(x, 0x1p-900, 0x1p900, 0x1p400, 400, shift); }

// log(t/p), whole, for any positive and finite t and p.
template <class V>
inline V any_log_ratio(V t, V p) {
    V t_shift, p_shift;
    const V t_safe = towards_one(t, t_shift);
    const V p_safe = towards_one(p, p_shift);
    const LogParts<V> log = log_parts(Reduced<V>(t_safe, p_safe), p_safe);
    const V shift = V::sub(t_shift, p_shift);
    const V half = half_log(V::add(log.exponent, shift), log.near_zero);
    return V::add(half, half);
}

// t log(t/p), whole, for any t and p at all, with the meaning of scipy.special.rel_entr; log: any_log_ratio(t, p).
template <class V>
inline V relative_entropy(V t, V p, V log) {
    const V zero = V::splat(0);
    const V infinity = V::splat(kInfinity);
    const V regular = V::mul(t, log);  // a subnormal product doubled would be a rounding off

    const auto t_positive = V::less(zero, t);
    const auto p_not_negative = V::select(V::less(p, zero), zero, V::splat(1));
    V r = infinity;  // what is left: a negative, or positive over zero
    r = V::select(V::both(V::equal(t, zero), V::equal(p_not_negative, V::splat(1))), zero, r);
    r = V::select(V::both(t_positive, V::less(zero, p)), regular, r);
    const auto finite_over_infinity = V::both(V::both(t_positive, V::less(t, infinity)), V::equal(p, infinity));
    r = V::select(finite_over_infinity, V::sub(zero, infinity), r);
    return V::select(V::unordered(t, p), V::add(t, p), r);
}

// any_log_ratio with the limits at infinity: inf/p is inf, t/inf is -inf, inf/inf is NaN.
template <class V>
inline V log_with_infinities(V t, V p, V log) {
    const V infinity = V::splat(kInfinity);
    const V of_t = V::select(V::equal(t, infinity), infinity, V::splat(0));
    log = V::select(V::equal(t, infinity), infinity, log);
    return V::select(V::equal(p, infinity), V::sub(of_t, infinity), log);
}

// A gradient of relative_entropy: the given one where t and p are positive, 0 where the value is a constant (0 or
// infinity), NaN for NaN.
template <class V>
inline V where_it_varies(V t, V p, V gradient) {
    const V zero = V::splat(0);
    const V g = V::select(V::both(V::less(zero, t), V::less(zero, p)), gradient, zero);
    return V::select(V::unordered(t, p), V::add(t, p), g);
}

}  // namespace
}  // namespace kldiv
