// The two 16-bit formats decoded in portable C++: for the baseline kernel, for tails, and for block conversion.
#pragma once
#include <cstdint>
#include <cstring>

namespace kldiv {
namespace {

inline float float_from_bits(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

inline float bfloat16_to_float(uint16_t h) { return float_from_bits(static_cast<uint32_t>(h) << 16); }

inline float float16_to_float(uint16_t h) {
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
    const uint32_t magnitude = h & 0x7fffu;
    // Moved to a float's field, the exponent is 112 too small; a multiplication by 2^112 mends that, subnormals too.
    const float x = float_from_bits(magnitude << 13) * float_from_bits(0x77800000u);
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if (magnitude >= 0x7c00u) bits |= 0x7f800000u;  // infinity or NaN
    return float_from_bits(sign | bits);
}

}  // namespace
}  // namespace kldiv
