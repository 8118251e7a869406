// Sums over elements, by rows and by columns, and their gradients in the same pass: written once over the terms of terms/
// and the vector classes of simd/. Included by kernel.cpp alone.
//
// A Term says, of vectors of clipped elements,
//     kHalf<General>      whether what it adds to a sum is half of the value (doubling is exact, and done once for a row)
//     kPredNeedsNoSum     whether y_pred's gradient is much cheaper alone than with the sum beside it
//     kGrowsWithLogT, P   see Kernels
//     add                 the sum with the terms added
//     add_with_gradients  the same, and both gradients or y_pred's, times a factor
//     grad_pred           y_pred's gradient alone, if kPredNeedsNoSum
// Elements that aren't there read as 1 on both sides, of which every divergence is 0.
//
// Beyond the clip's bounds an argument doesn't move t or p, and its gradient is 0; at the bounds it is the formula's, as in
// TensorFlow and PyTorch. Where the factor is 0 so is the gradient, whatever the row holds.
#pragma once
#include <cstdint>
#include <cstring>

#include "kernel.hpp"

namespace kldiv {
namespace {

// The parameters in every lane.
template <class V>
struct Constants {
    using T = typename V::Element;
    V low, high, beta, rest;
    explicit Constants(const Parameters &parameters)
        : low(V::splat(static_cast<T>(parameters.low))),
          high(V::splat(static_cast<T>(parameters.high))),
          beta(V::splat(static_cast<T>(parameters.beta))),
          rest(V::splat(static_cast<T>(1 - parameters.beta))) {}
};

// What happens to terms that have left the registers; `Half`: they are halves of terms.
template <class V, bool Half>
struct Terms {
    using T = typename V::Element;
    static constexpr int kVectors = kLanes / V::lanes;

    // What leaves the lanes: whole, and never -0.
    static double true_value(double sum) { return (Half ? sum + sum : sum) + 0.0; }

    static V load(const T *terms) { return V::load(reinterpret_cast<const char *>(terms)); }

    static void of_rows(const T *terms, int64_t rows, int64_t cols, double *sums) {
        switch (cols) {
            case 1: return sum_tiny_rows<1>(terms, rows, sums);
            case 2: return sum_tiny_rows<2>(terms, rows, sums);
            case 3: return sum_tiny_rows<3>(terms, rows, sums);
            case 4: return sum_tiny_rows<4>(terms, rows, sums);
            default: return sum_narrow_rows(terms, rows, cols, sums);
        }
    }

    static void sum_narrow_rows(const T *terms, int64_t rows, int64_t cols, double *sums) {
        T ones[kLanes];
        V present[kVectors];  // 1 in the lanes that the row's last terms fill
        const int64_t whole = cols / kLanes * kLanes;
        for (int64_t l = 0; l < kLanes; ++l) ones[l] = static_cast<T>(l < cols - whole ? 1 : 0);
        for (int k = 0; k < kVectors; ++k) present[k] = load(ones + k * V::lanes);
        for (int64_t r = 0; r < rows; ++r, terms += cols) {
            V sum[kVectors];
            for (int k = 0; k < kVectors; ++k) {
                const V last = load(terms + whole + k * V::lanes);
                sum[k] = V::select(V::equal(present[k], V::splat(1)), last, V::splat(0));
                for (int64_t i = 0; i < whole; i += kLanes) sum[k] = V::add(sum[k], load(terms + i + k * V::lanes));
            }
            sums[r] = true_value(V::tree_sum(sum));
        }
    }

    // The same tree for rows of so few terms that vectors are not worth it.
    template <int Cols>
    static void sum_tiny_rows(const T *terms, int64_t rows, double *sums) {
        for (int64_t r = 0; r < rows; ++r, terms += Cols) {
            double lanes[4] = {};
            for (int l = 0; l < Cols; ++l) lanes[l] += static_cast<double>(terms[l]);
            sums[r] = true_value((lanes[0] + lanes[2]) + (lanes[1] + lanes[3]));
        }
    }

    // Each row's factor, once for each of its elements, in whole vectors: the next row overwrites what is too much.
    static void repeat_factors(const T *factors, int64_t rows, int64_t cols, T *repeated) {
        for (int64_t r = 0; r < rows; ++r, repeated += cols)
            for (int64_t c = 0; c < cols; c += V::lanes) V::splat(factors[r]).store(repeated + c);
    }

    static void add_to_columns(const T *terms, int64_t cols, double *sums) {
        int64_t c = 0;
        for (; c + V::lanes <= cols; c += V::lanes) {
            const V sum = load(terms + c);
            (Half ? V::add(sum, sum) : sum).add_to(sums + c);
        }
        for (; c < cols; ++c) sums[c] += true_value(terms[c]);
    }
};

template <class Term, class Load, bool General, Wanted wanted>
struct Separable {
    using V = typename Load::Vec;
    using T = typename V::Element;
    using Parts = Constants<V>;
    using Sums = Terms<V, Term::template kHalf<General>>;
    static constexpr int kVectors = kLanes / V::lanes;
    static constexpr bool kValue = wanted != Wanted::pred_alone;
    static constexpr bool kTrue = wanted == Wanted::both;
    static constexpr bool kPred = wanted != Wanted::none;
    static constexpr int64_t kSize = sizeof(T);

    // ---- Where gradients go; what is not wanted is never written ----

    struct Target {
        T *t, *p;
        // Columns have functions for both gradients alone, whichever is wanted.
        bool wants_true() const { return kTrue && t != nullptr; }
        bool wants_pred() const { return kPred && (!kTrue || p != nullptr); }
        Target at(int64_t i) const { return {wants_true() ? t + i : t, wants_pred() ? p + i : p}; }
        void store(const Gradients<V> &grad) const {
            if (wants_true()) grad.t.store(t);
            if (wants_pred()) grad.p.store(p);
        }
        void store_partial(const Gradients<V> &grad, int n) const {
            if (wants_true()) grad.t.store_partial(t, n);
            if (wants_pred()) grad.p.store_partial(p, n);
        }
        void clear(int64_t n) const {
            if (wants_true()) std::memset(t, 0, n * kSize);
            if (wants_pred()) std::memset(p, 0, n * kSize);
        }
    };

    static Target target_of(const GradientTile &out, int64_t row) {
        Target to = {reinterpret_cast<T *>(out.t), reinterpret_cast<T *>(out.p)};
        if (to.wants_true()) to.t = reinterpret_cast<T *>(out.t + row * out.t_stride);
        if (to.wants_pred()) to.p = reinterpret_cast<T *>(out.p + row * out.p_stride);
        return to;
    }

    // ---- One vector of elements ----

    static V where_moved(V raw, V clipped, V gradient) {
        return V::select(V::differ(raw, clipped), V::splat(0), gradient);
    }

    // sum + the terms; `grad` gets the gradients.
    static V evaluate(V sum, V y_true, V y_pred, V factor, const Parts &parts, bool wants_pred, Gradients<V> &grad) {
        const V t = V::clip(y_true, parts.low, parts.high), p = V::clip(y_pred, parts.low, parts.high);
        if constexpr (!kPred)
            return Term::template add<General>(sum, t, p, parts);
        else if constexpr (!kValue)
            grad.p = Term::template grad_pred<General>(t, p, factor);
        else
            sum = Term::template add_with_gradients<General, kTrue>(sum, t, p, factor, parts, wants_pred, grad);
        if constexpr (kTrue) grad.t = where_moved(y_true, t, grad.t);
        if (wants_pred) grad.p = where_moved(y_pred, p, grad.p);
        return sum;
    }

    // ---- A row with one factor, its sum in registers ----

    // The sum of at most one segment: its lanes never leave the registers.
    static double segment(const char *t, const char *p, int64_t n, V factor, const Parts &parts, Target to) {
        V sum[kVectors];
        Gradients<V> grad;
        for (int k = 0; k < kVectors; ++k) sum[k] = V::splat(0);
        int64_t i = 0;
        for (; i + kLanes <= n; i += kLanes)
            for (int k = 0; k < kVectors; ++k) {
                const int64_t at = i + k * V::lanes;
                sum[k] = evaluate(sum[k], Load::full(t + at * Load::size), Load::full(p + at * Load::size), factor,
                                  parts, to.wants_pred(), grad);
                if constexpr (kPred) to.at(at).store(grad);
            }
        for (int k = 0; k < kVectors; ++k) {
            const int64_t at = i + k * V::lanes;
            const int64_t left = n - at;
            if (left <= 0) break;
            const int present = left < V::lanes ? static_cast<int>(left) : V::lanes;
            const V y_true = Load::partial(t + at * Load::size, present),
                    y_pred = Load::partial(p + at * Load::size, present);
            sum[k] = evaluate(sum[k], y_true, y_pred, factor, parts, to.wants_pred(), grad);
            if constexpr (kPred) to.at(at).store_partial(grad, present);
        }
        return kValue ? Sums::true_value(V::tree_sum(sum)) : 0;
    }

    // One loop for whole segments and for the last: prefetchers follow a load by its address in the code, and lose the
    // stream where two loops take turns (two and a half times slower from memory at 1,000 classes).
    static double row(const char *t, const char *p, int64_t n, T factor, const Parts &parts, Target to) {
        double sum = 0;
        for (int64_t i = 0; i < n; i += kSegment) {
            const int64_t count = n - i < kSegment ? n - i : kSegment;
            sum += segment(t + i * Load::size, p + i * Load::size, count, V::splat(factor), parts, to.at(i));
        }
        return sum;
    }

    // ---- Terms in memory, with a factor for each element: short rows side by side, and columns ----

    // terms[i] += term i of each of so many rows, or with `Fresh` = term i. Terms and factors are read and written in whole
    // vectors, beyond n. Row after row of a column's, as memory lies: see kRowsAtOnce.
    template <bool Fresh, int Rows = 1>
    static void add_terms(const char *t, int64_t t_stride, const char *p, int64_t p_stride, int64_t n, const T *factors,
                          const Parts &parts, T *terms, Target to) {
        static_assert(!kPred || Rows == 1);
        Gradients<V> grad;
        const auto add = [&](int64_t i, const auto &load) {
            const V factor = kPred ? Sums::load(factors + i) : V::splat(0);
            V sum = Fresh ? V::splat(0) : Sums::load(terms + i);
            for (int r = 0; r < Rows; ++r)
                sum = evaluate(sum, load(t + r * t_stride + i * Load::size), load(p + r * p_stride + i * Load::size),
                               factor, parts, to.wants_pred(), grad);
            sum.store(terms + i);
            const auto zero_factor = V::equal(factor, V::splat(0));
            if constexpr (kTrue) grad.t = V::select(zero_factor, factor, grad.t);
            if (to.wants_pred()) grad.p = V::select(zero_factor, factor, grad.p);
        };
        int64_t i = 0;
        for (; i + V::lanes <= n; i += V::lanes) {
            add(i, [](const char *src) { return Load::full(src); });
            if constexpr (kPred) to.at(i).store(grad);
        }
        if (i == n) return;
        const int left = static_cast<int>(n - i);
        add(i, [left](const char *src) { return Load::partial(src, left); });
        if constexpr (kPred) to.at(i).store_partial(grad, left);
    }

    // ---- Rows side by side that would leave lanes empty: whole vectors of terms, whatever the rows, then their sums ----

    static constexpr int64_t kNarrow = 48;
    static constexpr int64_t kTerms = 1024;

    static bool is_narrow(const Tile &tile, const GradientTile &out) {
        const int64_t row_bytes = tile.cols * Load::size, grad_bytes = tile.cols * kSize;
        const bool wants_pred = kPred && (!kTrue || out.p != nullptr);
        return tile.cols < kNarrow && tile.rows > 1 && tile.t_stride == row_bytes && tile.p_stride == row_bytes &&
               (!kTrue || out.t_stride == grad_bytes) && (!wants_pred || out.p_stride == grad_bytes);
    }

    static void narrow_rows(const Tile &tile, const Parts &parts, const GradientTile &out, double *sums) {
        alignas(64) T terms[kTerms + kLanes], factors[kPred ? kTerms + kLanes : 1];
        const int64_t rows_at_once = kTerms / tile.cols;
        for (int64_t first = 0; first < tile.rows; first += rows_at_once) {
            const int64_t rows = tile.rows - first < rows_at_once ? tile.rows - first : rows_at_once;
            const int64_t n = rows * tile.cols;
            if constexpr (kPred)
                Sums::repeat_factors(static_cast<const T *>(out.factors) + first, rows, tile.cols, factors);
            add_terms<true>(tile.t + first * tile.t_stride, 0, tile.p + first * tile.p_stride, 0, n, factors, parts,
                            terms, target_of(out, first));
            // What the last row's vectors read beyond it: absent elements add +-0, and what follows wants +0.
            for (int64_t l = n; l < n + kLanes; ++l) terms[l] = 0;
            Sums::of_rows(terms, rows, tile.cols, sums + first);
        }
    }

    // ---- What the table holds ----

    static void row_sums(const Tile &tile, const Parameters &parameters, double *sums) {
        const Parts parts(parameters);
        if (is_narrow(tile, {})) return narrow_rows(tile, parts, {}, sums);
        const char *t = tile.t, *p = tile.p;
        if (tile.cols <= kSegment) {
            for (int64_t r = 0; r < tile.rows; ++r, t += tile.t_stride, p += tile.p_stride)
                sums[r] = segment(t, p, tile.cols, V::splat(0), parts, {});
            return;
        }
        for (int64_t r = 0; r < tile.rows; ++r, t += tile.t_stride, p += tile.p_stride) {
            const bool skip = tile.mask != nullptr && tile.mask[r * tile.mask_stride] == 0;
            sums[r] = skip ? 0 : row(t, p, tile.cols, 0, parts, {});
        }
    }

    static void row_gradients(const Tile &tile, const Parameters &parameters, const GradientTile &out, double *sums) {
        const Parts parts(parameters);
        if (is_narrow(tile, out)) return narrow_rows(tile, parts, out, sums);
        for (int64_t r = 0; r < tile.rows; ++r) {
            const char *t = tile.t + r * tile.t_stride, *p = tile.p + r * tile.p_stride;
            const T factor = static_cast<const T *>(out.factors)[r];
            if (factor != 0) {
                sums[r] = row(t, p, tile.cols, factor, parts, target_of(out, r));
            } else {
                const bool skip = tile.mask != nullptr && tile.mask[r * tile.mask_stride] == 0;
                target_of(out, r).clear(tile.cols);
                sums[r] = skip || !kValue
                              ? 0
                              : Separable<Term, Load, General, Wanted::none>::row(t, p, tile.cols, 0, parts, {});
            }
        }
    }

    // Row after row, as memory lies: several rows at once are several streams in a page, which prefetchers don't follow
    // (half the speed). Rows of several pages are another matter: four at once save most of the traffic of the sums.
    static constexpr int64_t kStream = 1024;
    static constexpr int kRowsAtOnce = 4;

    static void column_sums(const Tile &tile, const Parameters &parameters, double *sums) {
        columns(tile, parameters, {}, sums);
    }

    static void column_gradients(const Tile &tile, const Parameters &parameters, const GradientTile &out,
                                 double *sums) {
        columns(tile, parameters, out, sums);
    }

    static void columns(const Tile &tile, const Parameters &parameters, const GradientTile &out, double *sums) {
        const Parts parts(parameters);
        const T *factors = static_cast<const T *>(out.factors);
        alignas(64) T terms[kColumns];
        for (int64_t first = 0; first < tile.rows; first += kRowsInTerms) {
            const int64_t last = tile.rows - first < kRowsInTerms ? tile.rows : first + kRowsInTerms;
            const char *t = tile.t + first * tile.t_stride, *p = tile.p + first * tile.p_stride;
            for (int64_t c = 0; c < tile.cols; c += V::lanes) V::splat(0).store(terms + c);
            int64_t r = first;
            if constexpr (!kPred)
                for (; tile.cols > kStream && r + kRowsAtOnce <= last; r += kRowsAtOnce) {
                    add_terms<false, kRowsAtOnce>(t, tile.t_stride, p, tile.p_stride, tile.cols, nullptr, parts, terms,
                                                  {});
                    t += kRowsAtOnce * tile.t_stride, p += kRowsAtOnce * tile.p_stride;
                }
            for (; r < last; ++r, t += tile.t_stride, p += tile.p_stride)
                add_terms<false>(t, 0, p, 0, tile.cols, factors, parts, terms, target_of(out, r));
            Sums::add_to_columns(terms, tile.cols, sums);
        }
    }
};

}  // namespace
}  // namespace kldiv
