// AVX-512 (x86-64-v4: F, BW, CD, DQ, VL). Included by kernel.cpp alone.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace kldiv {
namespace {

constexpr int kRegisters = 32;
constexpr bool kReadsHalves = true;

// Lane l plus lane l + 4, then l + 2, then l + 1.
inline double tree_of_8(__m512d x) {
    const __m256d four = _mm256_add_pd(_mm512_castpd512_pd256(x), _mm512_extractf64x4_pd(x, 1));
    const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

struct VecF32 {
    using Element = float;
    using Word = uint32_t;
    using Bits = __m512i;
    using Mask = __mmask16;
    static constexpr int lanes = 16;
    static constexpr int mantissa_bits = 23;
    static constexpr double exponent_unit = 0x1p23;
    __m512 v;

    static VecF32 splat(float x) { return {_mm512_set1_ps(x)}; }
    static VecF32 load(const char *src) { return {_mm512_loadu_ps(src)}; }
    static VecF32 load_partial(const char *src, int n, float absent = 1) {
        return {_mm512_mask_loadu_ps(_mm512_set1_ps(absent), static_cast<__mmask16>((1u << n) - 1), src)};
    }
    void store(float *dst) const { _mm512_storeu_ps(dst, v); }
    void store_partial(float *dst, int n) const {
        _mm512_mask_storeu_ps(dst, static_cast<__mmask16>((1u << n) - 1), v);
    }
    void add_to(double *dst) const {
        const __m256 high = _mm512_extractf32x8_ps(v, 1);
        _mm512_storeu_pd(dst, _mm512_add_pd(_mm512_loadu_pd(dst), _mm512_cvtps_pd(_mm512_castps512_ps256(v))));
        _mm512_storeu_pd(dst + 8, _mm512_add_pd(_mm512_loadu_pd(dst + 8), _mm512_cvtps_pd(high)));
    }

    static VecF32 add(VecF32 a, VecF32 b) { return {_mm512_add_ps(a.v, b.v)}; }
    static VecF32 sub(VecF32 a, VecF32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
    static VecF32 mul(VecF32 a, VecF32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
    static VecF32 div(VecF32 a, VecF32 b) { return {_mm512_div_ps(a.v, b.v)}; }
    static VecF32 fma(VecF32 a, VecF32 b, VecF32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
    // x stands second: of two operands one of which is NaN, MAXPS and MINPS return the second.
    static VecF32 clip(VecF32 x, VecF32 lo, VecF32 hi) { return {_mm512_min_ps(hi.v, _mm512_max_ps(lo.v, x.v))}; }
    // Of two one of which is NaN, the second.
    static VecF32 larger(VecF32 a, VecF32 b) { return {_mm512_max_ps(a.v, b.v)}; }
    static VecF32 smaller(VecF32 a, VecF32 b) { return {_mm512_min_ps(a.v, b.v)}; }
    float highest() const { return _mm512_reduce_max_ps(v); }

    static Bits bits(VecF32 x) { return _mm512_castps_si512(x.v); }
    static VecF32 from_bits(Bits x) { return {_mm512_castsi512_ps(x)}; }
    static Bits splat_bits(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
    static Bits add_bits(Bits a, Bits b) { return _mm512_add_epi32(a, b); }
    static Bits sub_bits(Bits a, Bits b) { return _mm512_sub_epi32(a, b); }
    static Bits and_bits(Bits a, Bits b) { return _mm512_and_si512(a, b); }
    static Bits to_exponent(Bits n) { return _mm512_slli_epi32(n, mantissa_bits); }
    static VecF32 exponent_to_float(Bits e) { return {_mm512_cvtepi32_ps(e)}; }

    static Mask less(VecF32 a, VecF32 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ); }
    static Mask equal(VecF32 a, VecF32 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ); }
    static Mask differ(VecF32 a, VecF32 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_NEQ_OQ); }
    static Mask unordered(VecF32 a, VecF32 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_UNORD_Q); }
    static Mask both(Mask a, Mask b) { return a & b; }
    static VecF32 select(Mask m, VecF32 a, VecF32 b) { return {_mm512_mask_blend_ps(m, b.v, a.v)}; }

    static double tree_sum(const VecF32 (&lanes16)[1]) {
        const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(lanes16[0].v));
        return tree_of_8(_mm512_add_pd(low, _mm512_cvtps_pd(_mm512_extractf32x8_ps(lanes16[0].v, 1))));
    }
};

struct VecF64 {
    using Element = double;
    using Word = uint64_t;
    using Bits = __m512i;
    using Mask = __mmask8;
    static constexpr int lanes = 8;
    static constexpr int mantissa_bits = 52;
    static constexpr double exponent_unit = 0x1p52;
    __m512d v;

    static VecF64 splat(double x) { return {_mm512_set1_pd(x)}; }
    static VecF64 load(const char *src) { return {_mm512_loadu_pd(src)}; }
    static VecF64 load_partial(const char *src, int n, double absent = 1) {
        return {_mm512_mask_loadu_pd(_mm512_set1_pd(absent), static_cast<__mmask8>((1u << n) - 1), src)};
    }
    void store(double *dst) const { _mm512_storeu_pd(dst, v); }
    void store_partial(double *dst, int n) const {
        _mm512_mask_storeu_pd(dst, static_cast<__mmask8>((1u << n) - 1), v);
    }
    void add_to(double *dst) const { _mm512_storeu_pd(dst, _mm512_add_pd(_mm512_loadu_pd(dst), v)); }

    static VecF64 add(VecF64 a, VecF64 b) { return {_mm512_add_pd(a.v, b.v)}; }
    static VecF64 sub(VecF64 a, VecF64 b) { return {_mm512_sub_pd(a.v, b.v)}; }
    static VecF64 mul(VecF64 a, VecF64 b) { return {_mm512_mul_pd(a.v, b.v)}; }
    static VecF64 div(VecF64 a, VecF64 b) { return {_mm512_div_pd(a.v, b.v)}; }
    static VecF64 fma(VecF64 a, VecF64 b, VecF64 c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
    static VecF64 clip(VecF64 x, VecF64 lo, VecF64 hi) { return {_mm512_min_pd(hi.v, _mm512_max_pd(lo.v, x.v))}; }
    static VecF64 larger(VecF64 a, VecF64 b) { return {_mm512_max_pd(a.v, b.v)}; }
    static VecF64 smaller(VecF64 a, VecF64 b) { return {_mm512_min_pd(a.v, b.v)}; }
    double highest() const { return _mm512_reduce_max_pd(v); }

    static Bits bits(VecF64 x) { return _mm512_castpd_si512(x.v); }
    static VecF64 from_bits(Bits x) { return {_mm512_castsi512_pd(x)}; }
    static Bits splat_bits(uint64_t x) { return _mm512_set1_epi64(static_cast<long long>(x)); }
    static Bits add_bits(Bits a, Bits b) { return _mm512_add_epi64(a, b); }
    static Bits sub_bits(Bits a, Bits b) { return _mm512_sub_epi64(a, b); }
    static Bits and_bits(Bits a, Bits b) { return _mm512_and_si512(a, b); }
    static Bits to_exponent(Bits n) { return _mm512_slli_epi64(n, mantissa_bits); }
    static VecF64 exponent_to_float(Bits e) { return {_mm512_cvtepi64_pd(e)}; }

    static Mask less(VecF64 a, VecF64 b) { return _mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ); }
    static Mask equal(VecF64 a, VecF64 b) { return _mm512_cmp_pd_mask(a.v, b.v, _CMP_EQ_OQ); }
    static Mask differ(VecF64 a, VecF64 b) { return _mm512_cmp_pd_mask(a.v, b.v, _CMP_NEQ_OQ); }
    static Mask unordered(VecF64 a, VecF64 b) { return _mm512_cmp_pd_mask(a.v, b.v, _CMP_UNORD_Q); }
    static Mask both(Mask a, Mask b) { return a & b; }
    static VecF64 select(Mask m, VecF64 a, VecF64 b) { return {_mm512_mask_blend_pd(m, b.v, a.v)}; }

    static double tree_sum(const VecF64 (&lanes16)[2]) { return tree_of_8(_mm512_add_pd(lanes16[0].v, lanes16[1].v)); }
};

inline __m256i load_16_halves(const char *src, int n, short one) {
    const __mmask16 present = static_cast<__mmask16>((1u << n) - 1);
    return _mm256_mask_loadu_epi16(_mm256_set1_epi16(one), present, src);
}
inline VecF32 load_float16(const char *src, int n) { return {_mm512_cvtph_ps(load_16_halves(src, n, 0x3c00))}; }
inline VecF32 load_bfloat16(const char *src, int n) {
    const __m512i wide = _mm512_cvtepu16_epi32(load_16_halves(src, n, 0x3f80));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}

}  // namespace
}  // namespace kldiv
