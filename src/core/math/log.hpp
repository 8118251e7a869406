// log x of a single number, written once over the vector classes of simd/. Included by kernels alone.
//
// The bits of x less those of 2/3, rounded down to a whole exponent, are e, and x 2^-e lies in [2/3, 4/3). Its difference
// from 1 is r, and log x = e ln2 + r Q(r). What is given is y = x - 1, so that r = y 2^-e + (2^-e - 1) is y itself near
// x = 1, where the logarithm keeps all digits of y.
#pragma once

#include "log_ratio.hpp"

namespace kldiv {
namespace {

// Coefficients of Q: tools/make_coefficients.py.
inline VecF32 log_polynomial(VecF32 r) {
    constexpr double c[] = {0x1p0,          -0x1.ffffd2p-2, 0x1.5554e6p-2, -0x1.00150ap-2, 0x1.99d838p-3,
                            -0x1.50224ep-3, 0x1.1e7794p-3,  -0x1.3b751p-3, 0x1.1fde82p-3};
    return polynomial(r, c);
}

inline VecF64 log_polynomial(VecF64 r) {
    constexpr double c[] = {0x1p0,
                            -0x1.ffffffffffff8p-2,
                            0x1.5555555555b1p-2,
                            -0x1.00000000014fp-2,
                            0x1.99999998c6618p-3,
                            -0x1.5555555359342p-3,
                            0x1.24924982d17eep-3,
                            -0x1.000000b03f434p-3,
                            0x1.c71c472a4014bp-4,
                            -0x1.9999569afc87dp-4,
                            0x1.74629ae286446p-4,
                            -0x1.555cf4920ccd3p-4,
                            0x1.3aa51973450b9p-4,
                            -0x1.2408005aaf67p-4,
                            0x1.1660d1cb7ad22p-4,
                            -0x1.061fe50eab5b8p-4,
                            0x1.9472040b66ad4p-5,
                            -0x1.73a9e2461d806p-5,
                            0x1.6c6c115424ec4p-4,
                            -0x1.63f9fd4d26a83p-4};
    return polynomial(r, c);
}

// log x, x = 1 + y, for x normal; something finite for x = 0.
template <class V>
inline V log_of(V x, V y) {
    using Element = typename V::Element;
    using Word = typename V::Word;
    const V one = V::splat(1);
    const typename V::Bits whole = V::splat_bits(~((Word{1} << V::mantissa_bits) - 1));
    const typename V::Bits e =
        V::and_bits(V::sub_bits(V::bits(x), V::bits(V::splat(static_cast<Element>(2.0 / 3)))), whole);
    const V scale = V::from_bits(V::sub_bits(V::bits(one), e));
    const V r = V::fma(y, scale, V::sub(scale, one));
    constexpr double ln2 = 0x1.62e42fefa39efp-1;
    return V::fma(V::exponent_to_float(e), V::splat(static_cast<Element>(ln2 / V::exponent_unit)),
                  V::mul(r, log_polynomial(r)));
}

}  // namespace
}  // namespace kldiv
