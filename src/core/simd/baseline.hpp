// The baseline: 16 bytes of the compiler's own vectors (GCC's and Clang's), which every processor has or is given. On
// x86-64 that is SSE2. Without hardware FMA `fma` rounds twice, so this ISA may differ from the others in the last bits.
// Included by kernel.cpp alone.
#pragma once
#include <cstdint>
#include <cstring>

#include "halves.hpp"

namespace kldiv {
namespace {

constexpr int kRegisters = 16;
constexpr bool kReadsHalves = false;  // no instruction converts them: convert.cpp, once for all loops, is faster

template <class T, class W>
struct Vec16 {
    using Element = T;
    using Word = W;
    typedef T Values __attribute__((vector_size(16)));
    typedef W Bits __attribute__((vector_size(16)));
    using Mask = decltype(Values() < Values());
    static constexpr int lanes = 16 / sizeof(T);
    Values v;

    static Vec16 splat(T x) { return {Values{} + x}; }
    static Vec16 load(const char *src) {
        Vec16 r;
        std::memcpy(&r.v, src, sizeof r.v);
        return r;
    }
    static Vec16 load_partial(const char *src, int n) {
        Vec16 r = splat(1);
        std::memcpy(&r.v, src, n * sizeof(T));
        return r;
    }
    // Apart: with one function for both GCC inlines otherwise, and float16's gradients take a fourth more instructions.
    static Vec16 load_partial(const char *src, int n, T absent) {
        Vec16 r = splat(absent);
        std::memcpy(&r.v, src, n * sizeof(T));
        return r;
    }
    void store(T *dst) const { std::memcpy(dst, &v, sizeof v); }
    void store_partial(T *dst, int n) const { std::memcpy(dst, &v, n * sizeof(T)); }
    void add_to(double *dst) const {
        for (int i = 0; i < lanes; ++i) dst[i] += static_cast<double>(v[i]);
    }

    static Vec16 add(Vec16 a, Vec16 b) { return {a.v + b.v}; }
    static Vec16 sub(Vec16 a, Vec16 b) { return {a.v - b.v}; }
    static Vec16 mul(Vec16 a, Vec16 b) { return {a.v * b.v}; }
    static Vec16 div(Vec16 a, Vec16 b) { return {a.v / b.v}; }
    static Vec16 fma(Vec16 a, Vec16 b, Vec16 c) { return {a.v * b.v + c.v}; }
    // Written so that a NaN in x stays, as MAXPS and MINPS do it: of two operands one of which is NaN, the second.
    static Vec16 clip(Vec16 x, Vec16 lo, Vec16 hi) {
        const Values raised = lo.v > x.v ? lo.v : x.v;
        return {hi.v < raised ? hi.v : raised};
    }

    // Of two one of which is NaN, the second.
    static Vec16 larger(Vec16 a, Vec16 b) { return {a.v > b.v ? a.v : b.v}; }
    static Vec16 smaller(Vec16 a, Vec16 b) { return {a.v < b.v ? a.v : b.v}; }
    T highest() const {
        T high = v[0];
        for (int i = 1; i < lanes; ++i) high = v[i] > high ? v[i] : high;
        return high;
    }

    static Bits bits(Vec16 x) { return reinterpret<Bits>(x.v); }
    static Vec16 from_bits(Bits x) { return {reinterpret<Values>(x)}; }
    static Bits splat_bits(W x) { return Bits{} + x; }
    static Bits add_bits(Bits a, Bits b) { return a + b; }
    static Bits sub_bits(Bits a, Bits b) { return a - b; }
    static Bits and_bits(Bits a, Bits b) { return a & b; }
    static Bits to_exponent(Bits n) { return n << mantissa_bits; }

    static Mask less(Vec16 a, Vec16 b) { return a.v < b.v; }
    static Mask equal(Vec16 a, Vec16 b) { return a.v == b.v; }
    // Neither equal nor NaN.
    static Mask differ(Vec16 a, Vec16 b) { return (a.v < b.v) | (a.v > b.v); }
    static Mask unordered(Vec16 a, Vec16 b) { return ~(ordered(a) & ordered(b)); }
    static Mask both(Mask a, Mask b) { return a & b; }
    static Vec16 select(Mask m, Vec16 a, Vec16 b) { return {m ? a.v : b.v}; }

    static constexpr int mantissa_bits = sizeof(T) == 4 ? 23 : 52;
    // There is no conversion of 64-bit integers: exponents are taken from the upper word, where their unit is 2^20.
    static constexpr double exponent_unit = sizeof(T) == 4 ? 0x1p23 : 0x1p20;
    static Vec16 exponent_to_float(Bits e) {
        if constexpr (sizeof(T) == 4) {
            typedef int32_t Signed __attribute__((vector_size(16)));
            return {__builtin_convertvector(reinterpret<Signed>(e), Values)};
        } else {
            // The word, made unsigned by 2^31, as the last bits of 2^52 + word.
            constexpr W offset = W{1} << 31;
            const Bits word = (e >> 32) ^ splat_bits(offset);
            return {reinterpret<Values>(word | splat_bits(W{0x433} << 52)) - (0x1p52 + 0x1p31)};
        }
    }

    static double tree_sum(const Vec16 (&lanes16)[16 / lanes]) {
        double x[16];
        for (int l = 0; l < 16; ++l) x[l] = static_cast<double>(lanes16[l / lanes].v[l % lanes]);
        for (int width = 8; width > 0; width /= 2)
            for (int l = 0; l < width; ++l) x[l] += x[l + width];
        return x[0];
    }

private:
    // Not NaN: on one side of 0, or 0.
    static Mask ordered(Vec16 a) { return (a.v <= Values{}) | (a.v >= Values{}); }

    template <class To, class From>
    static To reinterpret(From x) {
        To r;
        static_assert(sizeof r == sizeof x);
        std::memcpy(&r, &x, sizeof r);
        return r;
    }
};

using VecF32 = Vec16<float, uint32_t>;
using VecF64 = Vec16<double, uint64_t>;

// The first n of four 16-bit elements, in 32 bits each; `one` in the others.
__attribute__((always_inline)) inline VecF32::Bits load_4_halves(const char *src, int n, uint16_t one) {
    uint16_t h[4] = {one, one, one, one};
    std::memcpy(h, src, n * sizeof h[0]);
    return VecF32::Bits{h[0], h[1], h[2], h[3]};
}

// Inlined at -O2 too, where a compiler takes them for too long.
//
// Normal ones by their exponent, 112 more in a float's field; subnormal ones by their integer: multiplying what would be
// subnormal floats, as float16_to_float does, costs a processor some 150 cycles for each.
__attribute__((always_inline)) inline VecF32 load_float16(const char *src, int n) {
    typedef int32_t Signed __attribute__((vector_size(16)));
    const VecF32::Bits h = load_4_halves(src, n, 0x3c00);
    const Signed magnitude = reinterpret_cast<Signed>(h & 0x7fffu);
    const Signed normal = (magnitude << 13) + (112 << 23);
    const Signed subnormal = reinterpret_cast<Signed>(__builtin_convertvector(magnitude, VecF32::Values) * 0x1p-24f);
    const Signed infinity = normal | 0x7f800000;  // or NaN
    const Signed finite = magnitude < 0x400 ? subnormal : normal;
    const Signed value = magnitude < 0x7c00 ? finite : infinity;
    return VecF32::from_bits(reinterpret_cast<VecF32::Bits>(value) | ((h & 0x8000u) << 16));
}

__attribute__((always_inline)) inline VecF32 load_bfloat16(const char *src, int n) {
    return VecF32::from_bits(load_4_halves(src, n, 0x3f80) << 16);
}

}  // namespace
}  // namespace kldiv
