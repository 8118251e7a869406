// NEON of 64-bit Arm. Included by kernel.cpp alone.
#pragma once
#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace kldiv {
namespace {

constexpr int kRegisters = 32;
constexpr bool kReadsHalves = true;

// The 16 virtual lanes as doubles, two by two: lane l plus lane l + 8, then l + 4, l + 2, l + 1.
inline double tree_of_16(const float64x2_t (&x)[8]) {
    float64x2_t four[4], two[2];
    for (int k = 0; k < 4; ++k) four[k] = vaddq_f64(x[k], x[k + 4]);
    for (int k = 0; k < 2; ++k) two[k] = vaddq_f64(four[k], four[k + 2]);
    const float64x2_t one = vaddq_f64(two[0], two[1]);
    return vgetq_lane_f64(one, 0) + vgetq_lane_f64(one, 1);
}

struct VecF32 {
    using Element = float;
    using Word = uint32_t;
    using Bits = uint32x4_t;
    using Mask = uint32x4_t;
    static constexpr int lanes = 4;
    static constexpr int mantissa_bits = 23;
    static constexpr double exponent_unit = 0x1p23;
    float32x4_t v;

    static VecF32 splat(float x) { return {vdupq_n_f32(x)}; }
    static VecF32 load(const char *src) {
        return {vreinterpretq_f32_u8(vld1q_u8(reinterpret_cast<const uint8_t *>(src)))};
    }
    static VecF32 load_partial(const char *src, int n, float absent = 1) {
        float buffer[lanes] = {absent, absent, absent, absent};
        std::memcpy(buffer, src, n * sizeof(float));
        return {vld1q_f32(buffer)};
    }
    void store(float *dst) const { vst1q_f32(dst, v); }
    void store_partial(float *dst, int n) const {
        float buffer[lanes];
        store(buffer);
        std::memcpy(dst, buffer, n * sizeof(float));
    }
    void add_to(double *dst) const {
        vst1q_f64(dst, vaddq_f64(vld1q_f64(dst), vcvt_f64_f32(vget_low_f32(v))));
        vst1q_f64(dst + 2, vaddq_f64(vld1q_f64(dst + 2), vcvt_high_f64_f32(v)));
    }

    static VecF32 add(VecF32 a, VecF32 b) { return {vaddq_f32(a.v, b.v)}; }
    static VecF32 sub(VecF32 a, VecF32 b) { return {vsubq_f32(a.v, b.v)}; }
    static VecF32 mul(VecF32 a, VecF32 b) { return {vmulq_f32(a.v, b.v)}; }
    static VecF32 div(VecF32 a, VecF32 b) { return {vdivq_f32(a.v, b.v)}; }
    static VecF32 fma(VecF32 a, VecF32 b, VecF32 c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
    // FMAX and FMIN propagate NaN, whichever operand it is.
    static VecF32 clip(VecF32 x, VecF32 lo, VecF32 hi) { return {vminq_f32(hi.v, vmaxq_f32(lo.v, x.v))}; }
    // Of two one of which is NaN, the second.
    static VecF32 larger(VecF32 a, VecF32 b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
    static VecF32 smaller(VecF32 a, VecF32 b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
    float highest() const { return vmaxvq_f32(v); }

    static Bits bits(VecF32 x) { return vreinterpretq_u32_f32(x.v); }
    static VecF32 from_bits(Bits x) { return {vreinterpretq_f32_u32(x)}; }
    static Bits splat_bits(uint32_t x) { return vdupq_n_u32(x); }
    static Bits add_bits(Bits a, Bits b) { return vaddq_u32(a, b); }
    static Bits sub_bits(Bits a, Bits b) { return vsubq_u32(a, b); }
    static Bits and_bits(Bits a, Bits b) { return vandq_u32(a, b); }
    static Bits to_exponent(Bits n) { return vshlq_n_u32(n, mantissa_bits); }
    static VecF32 exponent_to_float(Bits e) { return {vcvtq_f32_s32(vreinterpretq_s32_u32(e))}; }

    static Mask less(VecF32 a, VecF32 b) { return vcltq_f32(a.v, b.v); }
    static Mask equal(VecF32 a, VecF32 b) { return vceqq_f32(a.v, b.v); }
    static Mask differ(VecF32 a, VecF32 b) { return vorrq_u32(vcltq_f32(a.v, b.v), vcgtq_f32(a.v, b.v)); }
    static Mask unordered(VecF32 a, VecF32 b) { return vmvnq_u32(vandq_u32(vceqq_f32(a.v, a.v), vceqq_f32(b.v, b.v))); }
    static Mask both(Mask a, Mask b) { return vandq_u32(a, b); }
    static VecF32 select(Mask m, VecF32 a, VecF32 b) { return {vbslq_f32(m, a.v, b.v)}; }

    static double tree_sum(const VecF32 (&lanes16)[4]) {
        float64x2_t x[8];
        for (int k = 0; k < 4; ++k) {
            x[2 * k] = vcvt_f64_f32(vget_low_f32(lanes16[k].v));
            x[2 * k + 1] = vcvt_high_f64_f32(lanes16[k].v);
        }
        return tree_of_16(x);
    }
};

struct VecF64 {
    using Element = double;
    using Word = uint64_t;
    using Bits = uint64x2_t;
    using Mask = uint64x2_t;
    static constexpr int lanes = 2;
    static constexpr int mantissa_bits = 52;
    static constexpr double exponent_unit = 0x1p52;
    float64x2_t v;

    static VecF64 splat(double x) { return {vdupq_n_f64(x)}; }
    static VecF64 load(const char *src) {
        return {vreinterpretq_f64_u8(vld1q_u8(reinterpret_cast<const uint8_t *>(src)))};
    }
    static VecF64 load_partial(const char *src, int n, double absent = 1) {
        double buffer[lanes] = {absent, absent};
        std::memcpy(buffer, src, n * sizeof(double));
        return {vld1q_f64(buffer)};
    }
    void store(double *dst) const { vst1q_f64(dst, v); }
    void store_partial(double *dst, int n) const {
        double buffer[lanes];
        store(buffer);
        std::memcpy(dst, buffer, n * sizeof(double));
    }
    void add_to(double *dst) const { vst1q_f64(dst, vaddq_f64(vld1q_f64(dst), v)); }

    static VecF64 add(VecF64 a, VecF64 b) { return {vaddq_f64(a.v, b.v)}; }
    static VecF64 sub(VecF64 a, VecF64 b) { return {vsubq_f64(a.v, b.v)}; }
    static VecF64 mul(VecF64 a, VecF64 b) { return {vmulq_f64(a.v, b.v)}; }
    static VecF64 div(VecF64 a, VecF64 b) { return {vdivq_f64(a.v, b.v)}; }
    static VecF64 fma(VecF64 a, VecF64 b, VecF64 c) { return {vfmaq_f64(c.v, a.v, b.v)}; }
    static VecF64 clip(VecF64 x, VecF64 lo, VecF64 hi) { return {vminq_f64(hi.v, vmaxq_f64(lo.v, x.v))}; }
    static VecF64 larger(VecF64 a, VecF64 b) { return {vbslq_f64(vcgtq_f64(a.v, b.v), a.v, b.v)}; }
    static VecF64 smaller(VecF64 a, VecF64 b) { return {vbslq_f64(vcltq_f64(a.v, b.v), a.v, b.v)}; }
    double highest() const { return vmaxvq_f64(v); }

    static Bits bits(VecF64 x) { return vreinterpretq_u64_f64(x.v); }
    static VecF64 from_bits(Bits x) { return {vreinterpretq_f64_u64(x)}; }
    static Bits splat_bits(uint64_t x) { return vdupq_n_u64(x); }
    static Bits add_bits(Bits a, Bits b) { return vaddq_u64(a, b); }
    static Bits sub_bits(Bits a, Bits b) { return vsubq_u64(a, b); }
    static Bits and_bits(Bits a, Bits b) { return vandq_u64(a, b); }
    static Bits to_exponent(Bits n) { return vshlq_n_u64(n, mantissa_bits); }
    static VecF64 exponent_to_float(Bits e) { return {vcvtq_f64_s64(vreinterpretq_s64_u64(e))}; }

    static Mask less(VecF64 a, VecF64 b) { return vcltq_f64(a.v, b.v); }
    static Mask equal(VecF64 a, VecF64 b) { return vceqq_f64(a.v, b.v); }
    static Mask differ(VecF64 a, VecF64 b) { return vorrq_u64(vcltq_f64(a.v, b.v), vcgtq_f64(a.v, b.v)); }
    static Mask unordered(VecF64 a, VecF64 b) {
        const uint64x2_t ordered = vandq_u64(vceqq_f64(a.v, a.v), vceqq_f64(b.v, b.v));
        return veorq_u64(ordered, vdupq_n_u64(~uint64_t{0}));
    }
    static Mask both(Mask a, Mask b) { return vandq_u64(a, b); }
    static VecF64 select(Mask m, VecF64 a, VecF64 b) { return {vbslq_f64(m, a.v, b.v)}; }

    static double tree_sum(const VecF64 (&lanes16)[8]) {
        float64x2_t x[8];
        for (int k = 0; k < 8; ++k) x[k] = lanes16[k].v;
        return tree_of_16(x);
    }
};

inline uint16x4_t load_4_halves(const char *src, int n, uint16_t one) {
    uint16_t buffer[4] = {one, one, one, one};
    std::memcpy(buffer, src, n * sizeof(uint16_t));
    return vld1_u16(buffer);
}
inline VecF32 load_float16(const char *src, int n) {
    return {vcvt_f32_f16(vreinterpret_f16_u16(load_4_halves(src, n, 0x3c00)))};
}
inline VecF32 load_bfloat16(const char *src, int n) {
    return {vreinterpretq_f32_u32(vshll_n_u16(load_4_halves(src, n, 0x3f80), 16))};
}

}  // namespace
}  // namespace kldiv
