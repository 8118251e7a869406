// The portable baseline: four lanes of plain C++ that any compiler can vectorise. Included by kernel.cpp alone.
// Without hardware FMA `fma` rounds twice, so this ISA may differ from the others in the last bits.
#pragma once
#include <cstdint>
#include <cstring>

#include "halves.hpp"

namespace kldiv {
namespace {

template <class T, class B, int MantissaBits>
struct ScalarVec {
    using Element = T;
    using Word = B;
    static constexpr int lanes = 4;
    static constexpr int mantissa_bits = MantissaBits;
    static constexpr double exponent_unit = static_cast<double>(B{1} << MantissaBits);
    T v[lanes];

    struct Bits {
        B v[lanes];
    };
    struct Mask {
        bool v[lanes];
    };

#define KLDIV_LANES(expr)                                \
    do {                                                 \
        ScalarVec r;                                     \
        for (int i = 0; i < lanes; ++i) r.v[i] = (expr); \
        return r;                                        \
    } while (0)
#define KLDIV_BIT_LANES(type, expr)                      \
    do {                                                 \
        type r;                                          \
        for (int i = 0; i < lanes; ++i) r.v[i] = (expr); \
        return r;                                        \
    } while (0)

    static ScalarVec splat(T x) { KLDIV_LANES(x); }
    static ScalarVec load(const char *src) {
        ScalarVec r;
        std::memcpy(r.v, src, sizeof r.v);
        return r;
    }
    static ScalarVec load_partial(const char *src, int n) {
        ScalarVec r = splat(1);
        std::memcpy(r.v, src, n * sizeof(T));
        return r;
    }
    template <float (*Decode)(uint16_t)>
    static ScalarVec load_halves(const char *src, int n) {
        uint16_t h[lanes];
        std::memcpy(h, src, n * sizeof h[0]);
        KLDIV_LANES(i < n ? Decode(h[i]) : T(1));
    }
    void store(T *dst) const { std::memcpy(dst, v, sizeof v); }
    void store_partial(T *dst, int n) const { std::memcpy(dst, v, n * sizeof(T)); }
    void add_to(double *dst) const {
        for (int i = 0; i < lanes; ++i) dst[i] += static_cast<double>(v[i]);
    }

    static ScalarVec add(ScalarVec a, ScalarVec b) { KLDIV_LANES(a.v[i] + b.v[i]); }
    static ScalarVec sub(ScalarVec a, ScalarVec b) { KLDIV_LANES(a.v[i] - b.v[i]); }
    static ScalarVec mul(ScalarVec a, ScalarVec b) { KLDIV_LANES(a.v[i] * b.v[i]); }
    static ScalarVec div(ScalarVec a, ScalarVec b) { KLDIV_LANES(a.v[i] / b.v[i]); }
    static ScalarVec fma(ScalarVec a, ScalarVec b, ScalarVec c) { KLDIV_LANES(a.v[i] * b.v[i] + c.v[i]); }
    // Written so that a NaN in x stays: both comparisons are false for it.
    static ScalarVec clip(ScalarVec x, ScalarVec lo, ScalarVec hi) {
        KLDIV_LANES(x.v[i] < lo.v[i] ? lo.v[i] : (x.v[i] > hi.v[i] ? hi.v[i] : x.v[i]));
    }

    static Bits bits(ScalarVec x) {
        Bits r;
        std::memcpy(r.v, x.v, sizeof r.v);
        return r;
    }
    static ScalarVec from_bits(Bits x) {
        ScalarVec r;
        std::memcpy(r.v, x.v, sizeof r.v);
        return r;
    }
    static Bits splat_bits(B x) { KLDIV_BIT_LANES(Bits, x); }
    static Bits add_bits(Bits a, Bits b) { KLDIV_BIT_LANES(Bits, a.v[i] + b.v[i]); }
    static Bits sub_bits(Bits a, Bits b) { KLDIV_BIT_LANES(Bits, a.v[i] - b.v[i]); }
    static Bits and_bits(Bits a, Bits b) { KLDIV_BIT_LANES(Bits, a.v[i] & b.v[i]); }
    static ScalarVec exponent_to_float(Bits e) {
        using Signed = typename SignedOf<sizeof(B)>::type;
        KLDIV_LANES(static_cast<T>(static_cast<Signed>(e.v[i])));
    }

    static Mask less(ScalarVec a, ScalarVec b) { KLDIV_BIT_LANES(Mask, a.v[i] < b.v[i]); }
    static Mask equal(ScalarVec a, ScalarVec b) { KLDIV_BIT_LANES(Mask, a.v[i] == b.v[i]); }
    // Neither equal nor NaN.
    static Mask differ(ScalarVec a, ScalarVec b) { KLDIV_BIT_LANES(Mask, a.v[i] < b.v[i] || a.v[i] > b.v[i]); }
    static Mask unordered(ScalarVec a, ScalarVec b) { KLDIV_BIT_LANES(Mask, a.v[i] != a.v[i] || b.v[i] != b.v[i]); }
    static Mask both(Mask a, Mask b) { KLDIV_BIT_LANES(Mask, a.v[i] && b.v[i]); }
    static ScalarVec select(Mask m, ScalarVec a, ScalarVec b) { KLDIV_LANES(m.v[i] ? a.v[i] : b.v[i]); }

    static double tree_sum(const ScalarVec (&lanes16)[16 / lanes]) {
        double x[16];
        for (int l = 0; l < 16; ++l) x[l] = static_cast<double>(lanes16[l / lanes].v[l % lanes]);
        for (int width = 8; width > 0; width /= 2)
            for (int l = 0; l < width; ++l) x[l] += x[l + width];
        return x[0];
    }
#undef KLDIV_LANES
#undef KLDIV_BIT_LANES

private:
    template <int Size, class = void>
    struct SignedOf {
        using type = int32_t;
    };
    template <class Unused>
    struct SignedOf<8, Unused> {
        using type = int64_t;
    };
};

using VecF32 = ScalarVec<float, uint32_t, 23>;
using VecF64 = ScalarVec<double, uint64_t, 52>;

VecF32 load_float16(const char *src, int n) { return VecF32::load_halves<float16_to_float>(src, n); }
VecF32 load_bfloat16(const char *src, int n) { return VecF32::load_halves<bfloat16_to_float>(src, n); }

}  // namespace
}  // namespace kldiv
