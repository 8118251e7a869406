// Exponentials, written once over the vector classes of simd/. Included by kernels alone.
//
//   1. n = z / ln2 to the nearest whole number, by adding what leaves no room for a fraction; r = z - n ln2, in two steps
//      of which the first is exact.
//   2. e^r = 1 + (r + r^2 Q(r)), times 2^n, whose exponent field is in the last bits of that sum: n and the field's bias.
//      (A product, for an integer's sum could make a number of a NaN.)
//
// Every step is a correctly rounded operation: all ISAs with FMA give the same bits.
#pragma once

#include <cstdint>

#include "log_ratio.hpp"

namespace kldiv {
namespace {

// Coefficients: tools/make_coefficients.py.
template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
    static constexpr double lowest = -86, highest = 88, magic = 0x1.8p23 + 127;
    static constexpr double ln2_high = 0x1.62e4p-1, ln2_low = 0x1.7f7d1cp-20;
    static constexpr double q[] = {0x1.fffffcp-2, 0x1.555492p-3, 0x1.5558f2p-5, 0x1.1239d4p-7, 0x1.6a2448p-10};
};

template <>
struct ExpConstants<double> {
    static constexpr double lowest = -707, highest = 709, magic = 0x1.8p52 + 1023;
    static constexpr double ln2_high = 0x1.62e42fefap-1, ln2_low = 0x1.cf79abc9e3b3ap-40;
    static constexpr double q[] = {0x1.000000000000ap-1,  0x1.55555555554fap-3,  0x1.555555555088cp-5,
                                   0x1.1111111127b9cp-7,  0x1.6c16c18426638p-10, 0x1.a01a012a69225p-13,
                                   0x1.a0199a16f795fp-16, 0x1.71df253bfc308p-19, 0x1.28ad6891e5edep-22,
                                   0x1.ad7f776bb18e9p-26};
};

// e^z to 2 ulp, of z at most `highest`; 0 where it would be near the least normal number (of weights relative to a largest
// of 1 that is nothing), NaN of NaN.
template <class V>
inline V bounded_exponential(V z) {
    using T = typename V::Element;
    using C = ExpConstants<T>;
    constexpr double log2_e = 0x1.71547652b82fep0;
    const V magic = V::splat(static_cast<T>(C::magic));
    const V shifted = V::fma(z, V::splat(static_cast<T>(log2_e)), magic);
    const V n = V::sub(shifted, magic);
    V r = V::fma(n, V::splat(static_cast<T>(-C::ln2_high)), z);
    r = V::fma(n, V::splat(static_cast<T>(-C::ln2_low)), r);
    const V near = V::add(V::fma(V::mul(r, r), polynomial(r, C::q), r), V::splat(1));
    const V power = V::mul(near, V::from_bits(V::to_exponent(V::bits(shifted))));
    return V::select(V::less(z, V::splat(static_cast<T>(C::lowest))), V::splat(0), power);
}

// The same of any z: that of `highest` beyond it.
template <class V>
inline V exponential(V z) {
    using T = typename V::Element;
    return bounded_exponential(V::smaller(V::splat(static_cast<T>(ExpConstants<T>::highest)), z));
}

// The factor that logits have, as the format has it: one that it lacks is the nearest, for nothing, or -inf, times 0 or
// infinity would be NaN.
template <class T>
inline T inverse_in_format(double inverse) {
    constexpr double least = sizeof(T) == 4 ? 0x1p-126 : 0x1p-1022,
                     most = sizeof(T) == 4 ? 0x1.fffffep127 : 0x1.fffffffffffffp1023;
    return static_cast<T>(inverse < least ? least : inverse > most ? most : inverse);
}

// (e^-x - 1 + x) / x^2 for x in [-1, 1]: between 0.36 and 0.72, so that nothing cancels where it is used.
inline VecF32 bregman_quotient(VecF32 x) {
    constexpr double q[] = {0x1p-1,         -0x1.55557cp-3,  0x1.555504p-5, -0x1.10fce8p-7,
                            0x1.6c272cp-10, -0x1.aa419cp-13, 0x1.a2c5ep-16};
    return polynomial(x, q);
}
inline VecF64 bregman_quotient(VecF64 x) {
    constexpr double q[] = {0x1p-1,
                            -0x1.5555555555555p-3,
                            0x1.5555555555506p-5,
                            -0x1.111111111124bp-7,
                            0x1.6c16c16c20d88p-10,
                            -0x1.a01a019ff4eefp-13,
                            0x1.a01a0190d4e30p-16,
                            -0x1.71de3a72396edp-19,
                            0x1.27e50672b2ea1p-22,
                            -0x1.ae6442bf7d260p-26,
                            0x1.1ee5774d439c0p-29,
                            -0x1.6128d47a4b00dp-33,
                            0x1.997e1d4cfef23p-37,
                            -0x1.b054467812871p-41};
    return polynomial(x, q);
}

// ---- Of one number, as all ISAs with FMA compute it ----

inline double first_of(VecF64 x) {
    double lanes[VecF64::lanes];
    x.store(lanes);
    return lanes[0];
}

inline double log_of(double x) {
    if (x != x) return x;
    const VecF64 half = half_log_ratio(VecF64::splat(x), VecF64::splat(1));
    return 2 * first_of(half);
}

// Called, not copied: without vectors it is long, and it is seldom wanted.
__attribute__((noinline)) inline double exponential_of(double z) { return first_of(exponential(VecF64::splat(z))); }

// y - log(1 + y), with all its digits near 0, where with s = y / (2 + y) it is s (y - 2 s^2 Q(s^2)).
inline double log1p_gap(double y) {
    if (!(y > -1.0 / 3 && y < 0.5)) return y - log_of(1 + y);
    const double s = y / (2 + y);
    return s * (y - 2 * (s * s) * first_of(atanh_polynomial(VecF64::splat(s * s))));
}

}  // namespace
}  // namespace kldiv
