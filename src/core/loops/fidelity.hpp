// Two rows of logits beside each other. Included by fidelity_kernel.cpp alone.
//
// A row is read twice: for its normaliser, and, while it is still in the cache, beside the other. All sums of the second
// pass are of terms that are never negative, and of which nothing cancels where the two nearly agree. With r = e^-x = q / p
//
//     |x| <= 1:  psi = p x^2 B(x)   back = p x^2 (1 - (1 + x) B(x))   jsd = p x^2 J(x)        r - 1 + x = x^2 B(x)
//     beyond:    psi = q - p + p x  back = p - q - q x   jsd = ((p + q) (log 2 - log(1 + t)) - t max(p, q) |x|) / 2
//
// where t = min(p, q) / max(p, q) < 1/e. Elements that aren't there read as -inf on both sides, which adds nothing.
#pragma once
#include "../fidelity_kernel.hpp"
#include "../math/exp.hpp"

namespace kldiv {
namespace {

using V = VecF32;
constexpr int kVectors = kLanes / V::lanes;
constexpr int64_t kBlock = 64;  // elements that are looked at together: whether all are near

inline V load(const float *x) { return V::load(reinterpret_cast<const char *>(x)); }
inline int64_t whole_lanes(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// ---- Elements ----

inline void decode(const char *codes, int64_t n, float scale, float least, float *to) {
    for (int64_t i = 0; i < n; ++i) {
        uint16_t code;
        std::memcpy(&code, codes + i * sizeof code, sizeof code);
        to[i] = scale * static_cast<float>(code) + least;
    }
}

__attribute__((noinline)) const float *read(const LogitsRow &row, int64_t first, int64_t n, float *widened) {
    const char *const src = row.data + first * (row.dtype == KLDIV_FLOAT32 ? 4 : 2);
    switch (row.dtype) {
        case KLDIV_FLOAT32:
            if (n % kLanes == 0) return reinterpret_cast<const float *>(src);
            std::memcpy(widened, src, n * sizeof(float));
            break;
        case KLDIV_FLOAT16: read_segment<LoadF16>(src, n, widened); break;
        case KLDIV_BFLOAT16: read_segment<LoadBF16>(src, n, widened); break;
        default: decode(src, n, row.scale, row.least, widened);
    }
    for (int64_t i = n; i < whole_lanes(n); ++i) widened[i] = -kInfinity;
    return widened;
}

// visit(elements, how many with those that aren't there, the first one's number) for each segment.
template <class Visit>
inline void each_segment(int64_t classes, const Visit &visit) {
    for (int64_t first = 0; first < classes; first += kSegment)
        visit(first, classes - first < kSegment ? classes - first : kSegment);
}

// ---- The first pass ----

inline float highest_of(const float *x, int64_t n) {
    V high[kVectors];
    for (V &h : high) h = V::splat(-kInfinity);
    for (int64_t i = 0; i < n; i += kLanes)
        for (int k = 0; k < kVectors; ++k) high[k] = V::larger(load(x + i + k * V::lanes), high[k]);
    for (int k = 1; k < kVectors; ++k) high[0] = V::larger(high[k], high[0]);
    return high[0].highest();
}

inline double sum_of_powers(const float *x, int64_t n, V high, V inverse) {
    V sums[kVectors];
    for (V &s : sums) s = V::splat(0);
    for (int64_t i = 0; i < n; i += kLanes)
        for (int k = 0; k < kVectors; ++k)
            sums[k] = V::add(sums[k], bounded_exponential(V::mul(V::sub(load(x + i + k * V::lanes), high), inverse)));
    return V::tree_sum(sums);
}

// Each segment is added up beside the greatest number so far. NaN and infinity make the sum NaN.
LogitsSum add_up(const LogitsRow &row, int64_t classes, float inverse_temperature, float *maxima) {
    constexpr float lowest = -0x1.fffffep127f;
    alignas(64) float widened[kSegment];
    LogitsSum sum = {static_cast<double>(lowest), 0};
    each_segment(classes, [&](int64_t first, int64_t n) {
        const float *const x = read(row, first, n, widened);
        const float top = highest_of(x, whole_lanes(n));
        maxima[first / kSegment] = top;
        const double before = sum.high;
        if (top > before) {
            sum.high = top;
            if (sum.sum > 0) sum.sum *= exponential_of((before - top) * inverse_temperature);
        }
        if (row.dtype == KLDIV_UINT16) return;
        sum.sum +=
            sum_of_powers(x, whole_lanes(n), V::splat(static_cast<float>(sum.high)), V::splat(inverse_temperature));
    });
    return sum;
}

// ---- The second pass ----

// Coefficients: tools/make_coefficients.py.
inline V jsd_quotient(V x) {  // of x in [-1, 1]
    constexpr double q[] = {0x1p-3,         -0x1.fffffcp-5,  0x1.000004p-6, -0x1.55584cp-9,
                            0x1.c71b8ep-12, -0x1.6b0c52p-14, 0x1.6b7b24p-17};
    return polynomial(x, q);
}
inline V log1p_quotient(V t) {  // of t in [0, 1/e]
    constexpr double q[] = {0x1p0,         -0x1.ffffaap-2, 0x1.554632p-2, -0x1.fdfcb4p-3,
                            0x1.88e4d8p-3, -0x1.0abaa6p-3, 0x1.af56e0p-5};
    return polynomial(t, q);
}

class Beside {
public:
    explicit Beside(const OneScale &scale)
        : high_a_(V::splat(scale.high_a)),
          high_b_(V::splat(scale.high_b)),
          shift_(V::splat(scale.shift)),
          center_(V::splat(scale.center)),
          inverse_(V::splat(scale.inverse_temperature)),
          least_(V::splat(scale.least)) {
        clear();
    }

    void add_segment(const float *a, const float *b, int64_t n) {
        for (int64_t i = 0; i < n; i += kBlock) {
            const int64_t count = n - i < kBlock ? n - i : kBlock;
            is_near(a + i, b + i, count) ? add_block<true>(a + i, b + i, count) : add_block<false>(a + i, b + i, count);
        }
        totals_.forward += V::tree_sum(forward_);
        totals_.psi += V::tree_sum(psi_);
        totals_.back += V::tree_sum(back_);
        totals_.jsd += V::tree_sum(jsd_);
        clear();
    }
    FidelitySums sums() {
        for (int k = 1; k < kVectors; ++k)
            high_x_[0] = V::larger(high_x_[k], high_x_[0]), low_x_[0] = V::smaller(low_x_[k], low_x_[0]);
        totals_.high_x = high_x_[0].highest();
        totals_.low_x = -V::sub(V::splat(0), low_x_[0]).highest();
        return totals_;
    }

private:
    static constexpr float kMost = 1e30f;  // of |x|: beyond any that finite numbers make, and times p no infinity

    void clear() {
        for (int k = 0; k < kVectors; ++k) forward_[k] = psi_[k] = back_[k] = jsd_[k] = V::splat(0);
    }
    V ratio(V a, V b) const { return V::mul(V::sub(V::sub(a, b), center_), inverse_); }
    // Of x that is NaN, where neither has a probability, the most.
    static V size(V x) {
        const V without_sign = V::from_bits(V::and_bits(V::bits(x), V::splat_bits(0x7fffffffu)));
        return V::smaller(without_sign, V::splat(kMost));
    }
    bool is_near(const float *a, const float *b, int64_t n) const {
        V most = V::splat(0);
        for (int64_t i = 0; i < n; i += V::lanes) most = V::larger(size(ratio(load(a + i), load(b + i))), most);
        return most.highest() <= 1;
    }

    template <bool Near>
    void add_block(const float *a, const float *b, int64_t n) {
        for (int64_t i = 0; i < n; i += kLanes)
            for (int k = 0; k < kVectors; ++k) {
                const float *const at_a = a + i + k * V::lanes, *const at_b = b + i + k * V::lanes;
                Near ? add_near(k, load(at_a), load(at_b)) : add_any(k, load(at_a), load(at_b));
            }
    }
    struct Terms {
        V psi, back, jsd;
    };
    static Terms near_terms(V p, V x) {
        const V pxx = V::mul(V::mul(p, x), x), quotient = bregman_quotient(x);
        const V rest = V::fma(V::sub(V::splat(-1), x), quotient, V::splat(1));
        return {V::mul(pxx, quotient), V::mul(pxx, rest), V::mul(pxx, jsd_quotient(x))};
    }
    void add(int k, const Terms &terms) {
        psi_[k] = V::add(psi_[k], terms.psi);
        back_[k] = V::add(back_[k], terms.back);
        jsd_[k] = V::add(jsd_[k], terms.jsd);
    }
    void add_near(int k, V a, V b) {
        const V x = ratio(a, b), log_p = V::mul(V::sub(a, high_a_), inverse_), p = bounded_exponential(log_p);
        forward_[k] = V::add(forward_[k], V::select(V::less(least_, log_p), V::mul(p, x), V::splat(0)));
        add(k, near_terms(p, x));
    }
    void add_any(int k, V a, V b) {
        const V given = ratio(a, b), y = size(given);
        const V x = V::smaller(V::larger(given, V::splat(-kMost)), V::splat(kMost));
        const V log_p = V::mul(V::sub(a, high_a_), inverse_), p = bounded_exponential(log_p);
        const V q = bounded_exponential(V::mul(V::add(V::sub(b, high_b_), shift_), inverse_));
        const auto is_counted = V::less(least_, log_p);
        const V zero = V::splat(0);
        forward_[k] = V::add(forward_[k], V::select(is_counted, V::mul(p, x), zero));
        high_x_[k] = V::larger(V::select(is_counted, given, zero), high_x_[k]);
        low_x_[k] = V::smaller(given, low_x_[k]);

        const V less = V::smaller(p, q), t = V::div(less, V::larger(V::larger(p, q), V::splat(0x1p-126f)));
        const V gap = V::fma(V::sub(zero, t), log1p_quotient(t), V::splat(0x1.62e43p-1f));
        const V twice = V::fma(V::add(p, q), gap, V::sub(zero, V::mul(less, y)));
        const Terms near = near_terms(p, x);
        const V psi = V::fma(p, x, V::sub(q, p)), back = V::fma(V::sub(zero, q), x, V::sub(p, q));
        const auto is_near = V::less(y, V::splat(1));
        add(k, {V::select(is_near, near.psi, psi), V::select(is_near, near.back, back),
                V::select(is_near, near.jsd, V::mul(V::splat(0.5f), twice))});
    }

    const V high_a_, high_b_, shift_, center_, inverse_, least_;
    V forward_[kVectors], psi_[kVectors], back_[kVectors], jsd_[kVectors];
    V high_x_[kVectors] = {}, low_x_[kVectors] = {};
    FidelitySums totals_ = {};
};

FidelitySums compare(const LogitsRow &a, const LogitsRow &b, int64_t classes, const OneScale &scale) {
    alignas(64) float wide_a[kSegment], wide_b[kSegment];
    Beside beside(scale);
    each_segment(classes, [&](int64_t first, int64_t n) {
        beside.add_segment(read(a, first, n, wide_a), read(b, first, n, wide_b), whole_lanes(n));
    });
    return beside.sums();
}

}  // namespace
}  // namespace kldiv
