// The log-ratio of one ISA, out of its kernel: compiled as kernel.cpp is, for exhaustive.cpp to call.
#include <cstdint>

#define KLDIV_STRING_(x) #x
#define KLDIV_STRING(x) KLDIV_STRING_(x)
// clang-format off: the order matters, and so do the spaces that are not there
#include KLDIV_STRING(simd/KLDIV_ISA.hpp)
#include "math/log_ratio.hpp"
// clang-format on

#define KLDIV_NAME_(isa) log_ratios_##isa
#define KLDIV_NAME(isa) KLDIV_NAME_(isa)

// n is a multiple of 16.
void KLDIV_NAME(KLDIV_ISA)(const float *t, const float *p, int64_t n, float *out) {
    using kldiv::VecF32;
    for (int64_t i = 0; i < n; i += VecF32::lanes) {
        const VecF32 a = VecF32::load(reinterpret_cast<const char *>(t + i)),
                     b = VecF32::load(reinterpret_cast<const char *>(p + i));
        const VecF32 half = kldiv::half_log_ratio(a, b);
        VecF32::add(half, half).store(out + i);
    }
}
