// AVX2 with FMA and F16C (x86-64-v3). Included by kernel.cpp alone.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace kldiv {
namespace {

constexpr int kRegisters = 16;
constexpr bool kReadsHalves = true;

// Eight words of ones then eight of zeros: a load at offset 8 - n is a mask of the first n lanes.
alignas(64) constexpr int32_t kFirstLanes[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

inline __m256i first_lanes(int words) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(kFirstLanes + 8 - words));
}

// Lane l plus lane l + 4, then l + 2, then l + 1.
inline double tree_of_8(__m256d low, __m256d high) {
    const __m256d four = _mm256_add_pd(low, high);
    const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

struct VecF32 {
    using Element = float;
    using Word = uint32_t;
    using Bits = __m256i;
    using Mask = __m256;
    static constexpr int lanes = 8;
    static constexpr int mantissa_bits = 23;
    static constexpr double exponent_unit = 0x1p23;
    __m256 v;

    static VecF32 splat(float x) { return {_mm256_set1_ps(x)}; }
    static VecF32 load(const char *src) { return {_mm256_loadu_ps(reinterpret_cast<const float *>(src))}; }
    static VecF32 load_partial(const char *src, int n, float absent = 1) {
        const __m256i present = first_lanes(n);
        const __m256 x = _mm256_maskload_ps(reinterpret_cast<const float *>(src), present);
        return {_mm256_blendv_ps(_mm256_set1_ps(absent), x, _mm256_castsi256_ps(present))};
    }
    void store(float *dst) const { _mm256_storeu_ps(dst, v); }
    void store_partial(float *dst, int n) const { _mm256_maskstore_ps(dst, first_lanes(n), v); }
    void add_to(double *dst) const {
        const __m128 high = _mm256_extractf128_ps(v, 1);
        _mm256_storeu_pd(dst, _mm256_add_pd(_mm256_loadu_pd(dst), _mm256_cvtps_pd(_mm256_castps256_ps128(v))));
        _mm256_storeu_pd(dst + 4, _mm256_add_pd(_mm256_loadu_pd(dst + 4), _mm256_cvtps_pd(high)));
    }

    static VecF32 add(VecF32 a, VecF32 b) { return {_mm256_add_ps(a.v, b.v)}; }
    static VecF32 sub(VecF32 a, VecF32 b) { return {_mm256_sub_ps(a.v, b.v)}; }
    static VecF32 mul(VecF32 a, VecF32 b) { return {_mm256_mul_ps(a.v, b.v)}; }
    static VecF32 div(VecF32 a, VecF32 b) { return {_mm256_div_ps(a.v, b.v)}; }
    static VecF32 fma(VecF32 a, VecF32 b, VecF32 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
    // x stands second: of two operands one of which is NaN, MAXPS and MINPS return the second.
    static VecF32 clip(VecF32 x, VecF32 lo, VecF32 hi) { return {_mm256_min_ps(hi.v, _mm256_max_ps(lo.v, x.v))}; }
    // Of two one of which is NaN, the second.
    static VecF32 larger(VecF32 a, VecF32 b) { return {_mm256_max_ps(a.v, b.v)}; }
    static VecF32 smaller(VecF32 a, VecF32 b) { return {_mm256_min_ps(a.v, b.v)}; }
    float highest() const {
        const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
    }

    static Bits bits(VecF32 x) { return _mm256_castps_si256(x.v); }
    static VecF32 from_bits(Bits x) { return {_mm256_castsi256_ps(x)}; }
    static Bits splat_bits(uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
    static Bits add_bits(Bits a, Bits b) { return _mm256_add_epi32(a, b); }
    static Bits sub_bits(Bits a, Bits b) { return _mm256_sub_epi32(a, b); }
    static Bits and_bits(Bits a, Bits b) { return _mm256_and_si256(a, b); }
    static Bits to_exponent(Bits n) { return _mm256_slli_epi32(n, mantissa_bits); }
    static VecF32 exponent_to_float(Bits e) { return {_mm256_cvtepi32_ps(e)}; }

    static Mask less(VecF32 a, VecF32 b) { return _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ); }
    static Mask equal(VecF32 a, VecF32 b) { return _mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ); }
    static Mask differ(VecF32 a, VecF32 b) { return _mm256_cmp_ps(a.v, b.v, _CMP_NEQ_OQ); }
    static Mask unordered(VecF32 a, VecF32 b) { return _mm256_cmp_ps(a.v, b.v, _CMP_UNORD_Q); }
    static Mask both(Mask a, Mask b) { return _mm256_and_ps(a, b); }
    static VecF32 select(Mask m, VecF32 a, VecF32 b) { return {_mm256_blendv_ps(b.v, a.v, m)}; }

    static double tree_sum(const VecF32 (&lanes16)[2]) {
        const auto low = [](VecF32 x) { return _mm256_cvtps_pd(_mm256_castps256_ps128(x.v)); };
        const auto high = [](VecF32 x) { return _mm256_cvtps_pd(_mm256_extractf128_ps(x.v, 1)); };
        return tree_of_8(_mm256_add_pd(low(lanes16[0]), low(lanes16[1])),
                         _mm256_add_pd(high(lanes16[0]), high(lanes16[1])));
    }
};

struct VecF64 {
    using Element = double;
    using Word = uint64_t;
    using Bits = __m256i;
    using Mask = __m256d;
    static constexpr int lanes = 4;
    static constexpr int mantissa_bits = 52;
    // AVX2 converts only 32-bit integers: exponents are taken from the upper word, where their unit is 2^20.
    static constexpr double exponent_unit = 0x1p20;
    __m256d v;

    static VecF64 splat(double x) { return {_mm256_set1_pd(x)}; }
    static VecF64 load(const char *src) { return {_mm256_loadu_pd(reinterpret_cast<const double *>(src))}; }
    static VecF64 load_partial(const char *src, int n, double absent = 1) {
        const __m256i present = first_lanes(2 * n);
        const __m256d x = _mm256_maskload_pd(reinterpret_cast<const double *>(src), present);
        return {_mm256_blendv_pd(_mm256_set1_pd(absent), x, _mm256_castsi256_pd(present))};
    }
    void store(double *dst) const { _mm256_storeu_pd(dst, v); }
    void store_partial(double *dst, int n) const { _mm256_maskstore_pd(dst, first_lanes(2 * n), v); }
    void add_to(double *dst) const { _mm256_storeu_pd(dst, _mm256_add_pd(_mm256_loadu_pd(dst), v)); }

    static VecF64 add(VecF64 a, VecF64 b) { return {_mm256_add_pd(a.v, b.v)}; }
    static VecF64 sub(VecF64 a, VecF64 b) { return {_mm256_sub_pd(a.v, b.v)}; }
    static VecF64 mul(VecF64 a, VecF64 b) { return {_mm256_mul_pd(a.v, b.v)}; }
    static VecF64 div(VecF64 a, VecF64 b) { return {_mm256_div_pd(a.v, b.v)}; }
    static VecF64 fma(VecF64 a, VecF64 b, VecF64 c) { return {_mm256_fmadd_pd(a.v, b.v, c.v)}; }
    static VecF64 clip(VecF64 x, VecF64 lo, VecF64 hi) { return {_mm256_min_pd(hi.v, _mm256_max_pd(lo.v, x.v))}; }
    static VecF64 larger(VecF64 a, VecF64 b) { return {_mm256_max_pd(a.v, b.v)}; }
    static VecF64 smaller(VecF64 a, VecF64 b) { return {_mm256_min_pd(a.v, b.v)}; }
    double highest() const {
        const __m128d two = _mm_max_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
        return _mm_cvtsd_f64(_mm_max_sd(two, _mm_unpackhi_pd(two, two)));
    }

    static Bits bits(VecF64 x) { return _mm256_castpd_si256(x.v); }
    static VecF64 from_bits(Bits x) { return {_mm256_castsi256_pd(x)}; }
    static Bits splat_bits(uint64_t x) { return _mm256_set1_epi64x(static_cast<long long>(x)); }
    static Bits add_bits(Bits a, Bits b) { return _mm256_add_epi64(a, b); }
    static Bits sub_bits(Bits a, Bits b) { return _mm256_sub_epi64(a, b); }
    static Bits and_bits(Bits a, Bits b) { return _mm256_and_si256(a, b); }
    static Bits to_exponent(Bits n) { return _mm256_slli_epi64(n, mantissa_bits); }
    static VecF64 exponent_to_float(Bits e) {
        const __m256i upper = _mm256_permutevar8x32_epi32(e, _mm256_setr_epi32(1, 3, 5, 7, 1, 3, 5, 7));
        return {_mm256_cvtepi32_pd(_mm256_castsi256_si128(upper))};
    }

    static Mask less(VecF64 a, VecF64 b) { return _mm256_cmp_pd(a.v, b.v, _CMP_LT_OQ); }
    static Mask equal(VecF64 a, VecF64 b) { return _mm256_cmp_pd(a.v, b.v, _CMP_EQ_OQ); }
    static Mask differ(VecF64 a, VecF64 b) { return _mm256_cmp_pd(a.v, b.v, _CMP_NEQ_OQ); }
    static Mask unordered(VecF64 a, VecF64 b) { return _mm256_cmp_pd(a.v, b.v, _CMP_UNORD_Q); }
    static Mask both(Mask a, Mask b) { return _mm256_and_pd(a, b); }
    static VecF64 select(Mask m, VecF64 a, VecF64 b) { return {_mm256_blendv_pd(b.v, a.v, m)}; }

    static double tree_sum(const VecF64 (&lanes16)[4]) {
        return tree_of_8(_mm256_add_pd(lanes16[0].v, lanes16[2].v), _mm256_add_pd(lanes16[1].v, lanes16[3].v));
    }
};

inline __m128i load_8_halves(const char *src, int n, short one) {
    __m128i halves = _mm_set1_epi16(one);
    if (n == 8)
        halves = _mm_loadu_si128(reinterpret_cast<const __m128i *>(src));
    else
        std::memcpy(&halves, src, n * sizeof(uint16_t));
    return halves;
}
inline VecF32 load_float16(const char *src, int n) { return {_mm256_cvtph_ps(load_8_halves(src, n, 0x3c00))}; }
inline VecF32 load_bfloat16(const char *src, int n) {
    const __m256i wide = _mm256_cvtepu16_epi32(load_8_halves(src, n, 0x3f80));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
}

}  // namespace
}  // namespace kldiv
