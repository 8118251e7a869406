// Gradients beside the sums, in one pass: what loops/sums.hpp does, and an element written for each pair that is read.
// The sums have the same bits as there. Included by kernel.cpp alone.
//
//     d row / d y_true = factor (log(t / p) + 1)      d row / d y_pred = -factor t / p      factor: the row's
//
// Beyond the clip's bounds an argument doesn't move t or p, and its gradient is 0; at the bounds it is the formula's, as in
// TensorFlow and PyTorch. Where the factor is 0 so is the gradient, whatever the row holds.
#pragma once
#include <cstdint>
#include <cstring>

#include "kernel.hpp"

namespace kldiv {
namespace {

template <class Load, bool General, Wanted wanted>
struct Gradients : Sums<Load, General> {
    using Base = Sums<Load, General>;
    using V = typename Base::V;
    using T = typename Base::T;
    using Bounds = typename Base::Bounds;
    using Base::kVectors;

    static constexpr bool kValue = wanted != Wanted::y_pred_alone;
    static constexpr bool kTrue = wanted == Wanted::y_true || wanted == Wanted::both;
    static constexpr bool kPred = wanted != Wanted::y_true;
    static constexpr int64_t kSize = sizeof(T);

    // Where gradients go; what is not wanted is never written.
    struct Target {
        T *t, *p;
        Target at(int64_t i) const { return {kTrue ? t + i : t, kPred ? p + i : p}; }
    };

    static Target target_of(const GradientTile &out, int64_t row) {
        return {reinterpret_cast<T *>(kTrue ? out.t + row * out.t_stride : out.t),
                reinterpret_cast<T *>(kPred ? out.p + row * out.p_stride : out.p)};
    }

    struct Vectors {
        V t, p;
    };

    static V where_moved(V raw, V clipped, V gradient) {
        return V::select(V::differ(raw, clipped), V::splat(0), gradient);
    }

    // sum + the terms of one vector of elements; `grad` gets their gradients.
    static V evaluate(V sum, V y_true, V y_pred, V factor, const Bounds &clip, Vectors &grad) {
        const V t = V::clip(y_true, clip.low, clip.high), p = V::clip(y_pred, clip.low, clip.high);
        if constexpr (kValue) {
            V log;
            if constexpr (General) {
                log = any_log_ratio(t, p);
                sum = V::add(sum, relative_entropy(t, p, log));
                log = log_with_infinities(t, p, log);
            } else {
                const V half = half_log_ratio(t, p);
                sum = V::fma(t, half, sum);
                log = V::add(half, half);
            }
            if constexpr (kTrue) {
                if constexpr (!General) log = V::fma(t, V::splat(0), log);  // a NaN in t may have got lost on the way
                grad.t = V::fma(factor, log, factor);
                if constexpr (General) grad.t = where_it_varies(t, p, grad.t);
                grad.t = where_moved(y_true, t, grad.t);
            }
        }
        if constexpr (kPred) {
            grad.p = V::div(V::mul(V::sub(V::splat(0), factor), t), p);
            if constexpr (General) grad.p = where_it_varies(t, p, grad.p);
            grad.p = where_moved(y_pred, p, grad.p);
        }
        return sum;
    }

    static void store(const Vectors &grad, Target to) {
        if constexpr (kTrue) grad.t.store(to.t);
        if constexpr (kPred) grad.p.store(to.p);
    }

    static void store_partial(const Vectors &grad, Target to, int n) {
        if constexpr (kTrue) grad.t.store_partial(to.t, n);
        if constexpr (kPred) grad.p.store_partial(to.p, n);
    }

    // ---- One factor: a segment of a long row, its sum in registers ----

    static double segment(const char *t, const char *p, int64_t n, V factor, const Bounds &clip, Target to) {
        V sum[kVectors];
        Vectors grad;
        for (int k = 0; k < kVectors; ++k) sum[k] = V::splat(0);
        int64_t i = 0;
        for (; i + kLanes <= n; i += kLanes)
            for (int k = 0; k < kVectors; ++k) {
                const int64_t at = i + k * V::lanes;
                sum[k] = evaluate(sum[k], Load::full(t + at * Load::size), Load::full(p + at * Load::size), factor,
                                  clip, grad);
                store(grad, to.at(at));
            }
        for (int k = 0; k < kVectors; ++k) {
            const int64_t at = i + k * V::lanes;
            const int64_t left = n - at;
            if (left <= 0) break;
            const int present = left < V::lanes ? static_cast<int>(left) : V::lanes;
            const V y_true = Load::partial(t + at * Load::size, present),
                    y_pred = Load::partial(p + at * Load::size, present);
            sum[k] = evaluate(sum[k], y_true, y_pred, factor, clip, grad);
            store_partial(grad, to.at(at), present);
        }
        return kValue ? Base::true_value(V::tree_sum(sum)) : 0;
    }

    static double row(const char *t, const char *p, int64_t n, T factor, const Bounds &clip, Target to) {
        double sum = 0;
        for (int64_t i = 0; i < n; i += kSegment) {
            const int64_t count = n - i < kSegment ? n - i : kSegment;
            sum += segment(t + i * Load::size, p + i * Load::size, count, V::splat(factor), clip, to.at(i));
        }
        return sum;
    }

    static void clear(Target to, int64_t n) {
        if constexpr (kTrue) std::memset(to.t, 0, n * kSize);
        if constexpr (kPred) std::memset(to.p, 0, n * kSize);
    }

    // ---- A factor for each element: short rows side by side, and columns ----

    // terms[i] += term i, or with `Fresh` = term i. Terms and factors are read and written in whole vectors, beyond n.
    template <bool Fresh>
    static void add_terms(const char *t, const char *p, int64_t n, const T *factors, const Bounds &clip, T *terms,
                          Target to) {
        Vectors grad;
        const auto evaluate_at = [&](int64_t i, V y_true, V y_pred) {
            const V factor = Base::load_terms(factors + i);
            const V before = Fresh ? V::splat(0) : Base::load_terms(terms + i);
            evaluate(before, y_true, y_pred, factor, clip, grad).store(terms + i);
            const auto zero_factor = V::equal(factor, V::splat(0));
            if constexpr (kTrue) grad.t = V::select(zero_factor, factor, grad.t);
            if constexpr (kPred) grad.p = V::select(zero_factor, factor, grad.p);
        };
        int64_t i = 0;
        for (; i + V::lanes <= n; i += V::lanes) {
            evaluate_at(i, Load::full(t + i * Load::size), Load::full(p + i * Load::size));
            store(grad, to.at(i));
        }
        if (i == n) return;
        const int left = static_cast<int>(n - i);
        evaluate_at(i, Load::partial(t + i * Load::size, left), Load::partial(p + i * Load::size, left));
        store_partial(grad, to.at(i), left);
    }

    static void narrow_row_gradients(const Tile &tile, const Bounds &clip, const GradientTile &out, double *sums) {
        alignas(64) T terms[Base::kTerms + kLanes], factors[Base::kTerms + kLanes];
        const int64_t rows_at_once = Base::kTerms / tile.cols;
        for (int64_t first = 0; first < tile.rows; first += rows_at_once) {
            const int64_t rows = tile.rows - first < rows_at_once ? tile.rows - first : rows_at_once;
            const int64_t n = rows * tile.cols;
            repeat_factors(static_cast<const T *>(out.factors) + first, rows, tile.cols, factors);
            add_terms<true>(tile.t + first * tile.t_stride, tile.p + first * tile.p_stride, n, factors, clip, terms,
                            target_of(out, first));
            for (int64_t i = n; i < n + kLanes; ++i) terms[i] = 0;  // absent elements add +-0: what follows wants +0
            Base::sum_rows_of_terms(terms, rows, tile.cols, sums + first);
        }
    }

    // Each row's factor, once for each of its elements, in whole vectors: the next row overwrites what is too much.
    static void repeat_factors(const T *factors, int64_t rows, int64_t cols, T *repeated) {
        for (int64_t r = 0; r < rows; ++r, repeated += cols)
            for (int64_t c = 0; c < cols; c += V::lanes) V::splat(factors[r]).store(repeated + c);
    }

    static void row_gradients(const Tile &tile, Clip bounds, const GradientTile &out, double *sums) {
        const Bounds clip(bounds);
        const bool gapless =
            (!kTrue || out.t_stride == tile.cols * kSize) && (!kPred || out.p_stride == tile.cols * kSize);
        if (gapless && Base::is_narrow(tile)) return narrow_row_gradients(tile, clip, out, sums);
        for (int64_t r = 0; r < tile.rows; ++r) {
            const char *t = tile.t + r * tile.t_stride, *p = tile.p + r * tile.p_stride;
            const T factor = static_cast<const T *>(out.factors)[r];
            if (factor != 0) {
                sums[r] = row(t, p, tile.cols, factor, clip, target_of(out, r));
            } else {
                const bool skip = tile.mask != nullptr && tile.mask[r * tile.mask_stride] == 0;
                clear(target_of(out, r), tile.cols);
                sums[r] = skip || !kValue ? 0 : Base::row_sum(t, p, tile.cols, clip);
            }
        }
    }

    static void column_gradients(const Tile &tile, Clip bounds, const GradientTile &out, double *sums) {
        const Bounds clip(bounds);
        const T *factors = static_cast<const T *>(out.factors);
        alignas(64) T terms[kColumns];
        for (int64_t first = 0; first < tile.rows; first += Base::kRowsInTerms) {
            const int64_t last = tile.rows - first < Base::kRowsInTerms ? tile.rows : first + Base::kRowsInTerms;
            for (int64_t c = 0; c < tile.cols; c += V::lanes) V::splat(0).store(terms + c);
            for (int64_t r = first; r < last; ++r)
                add_terms<false>(tile.t + r * tile.t_stride, tile.p + r * tile.p_stride, tile.cols, factors, clip,
                                 terms, target_of(out, r));
            if constexpr (kValue) Base::add_to_columns(terms, tile.cols, sums);
        }
    }
};

}  // namespace
}  // namespace kldiv
