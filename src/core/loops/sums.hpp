// The sums of rows and of columns, written once over the vector classes of simd/. Included by kernel.cpp alone.
#pragma once
#include <cstdint>

#include "kernel.hpp"

namespace kldiv {
namespace {

// The order of summation, the same on every ISA: element i of a segment goes to virtual lane i % 16, in the element's
// own format; at the segment's end the lanes become doubles and a tree adds them.
constexpr int kLanes = 16;

// sum + t log(t/p), of clipped t and p; without General, half of it.
template <bool General, class V>
inline V accumulate(V sum, V t, V p, V low, V high) {
    t = V::clip(t, low, high);
    p = V::clip(p, low, high);
    if constexpr (General)
        return V::add(sum, relative_entropy(t, p, any_log_ratio(t, p)));
    else
        return V::fma(t, half_log_ratio(t, p), sum);
}

template <class Load, bool General>
struct Sums {
    using V = typename Load::Vec;
    using T = typename V::Element;
    static constexpr int kVectors = kLanes / V::lanes;

    // What leaves the lanes: whole, and never -0.
    static double true_value(double sum) { return (General ? sum : sum + sum) + 0.0; }

    // The clip's bounds in every lane.
    struct Bounds {
        V low, high;
        explicit Bounds(Clip clip)
            : low(V::splat(static_cast<T>(clip.low))), high(V::splat(static_cast<T>(clip.high))) {}
    };

    static V add_whole(V sum, const char *t, const char *p, const Bounds &clip) {
        return accumulate<General>(sum, Load::full(t), Load::full(p), clip.low, clip.high);
    }
    // Absent elements read as 1: 1 log 1 = 0.
    static V add_partial(V sum, const char *t, const char *p, int present, const Bounds &clip) {
        return accumulate<General>(sum, Load::partial(t, present), Load::partial(p, present), clip.low, clip.high);
    }

    // The terms of n elements, added up in the virtual lanes.
    static void add_terms(const char *t, const char *p, int64_t n, const Bounds &clip, V (&sum)[kVectors]) {
        for (int k = 0; k < kVectors; ++k) sum[k] = V::splat(0);
        int64_t i = 0;
        for (; i + kLanes <= n; i += kLanes)
            for (int k = 0; k < kVectors; ++k) {
                const int64_t at = (i + k * V::lanes) * Load::size;
                sum[k] = add_whole(sum[k], t + at, p + at, clip);
            }
        for (int k = 0; k < kVectors; ++k) {
            const int64_t first = i + k * V::lanes;
            const int64_t left = n - first;
            if (left <= 0) break;
            const int present = left < V::lanes ? static_cast<int>(left) : V::lanes;
            sum[k] = add_partial(sum[k], t + first * Load::size, p + first * Load::size, present, clip);
        }
    }

    // The sum of at most one segment: its lanes never leave the registers.
    static double segment_sum(const char *t, const char *p, int64_t n, const Bounds &clip) {
        V sum[kVectors];
        add_terms(t, p, n, clip, sum);
        return true_value(V::tree_sum(sum));
    }

    // One loop for whole segments and for the last: prefetchers follow a load by its address in the code, and lose the
    // stream where two loops take turns (two and a half times slower from memory at 1,000 classes).
    static double row_sum(const char *t, const char *p, int64_t n, const Bounds &clip) {
        double sum = 0;
        for (int64_t i = 0; i < n; i += kSegment) {
            const int64_t count = n - i < kSegment ? n - i : kSegment;
            sum += segment_sum(t + i * Load::size, p + i * Load::size, count, clip);
        }
        return sum;
    }

    // Rows side by side that would leave lanes empty: whole vectors of terms, whatever the rows, then each row's sum.
    static constexpr int64_t kNarrow = 48;
    static constexpr int64_t kTerms = 1024;

    static bool is_narrow(const Tile &tile) {
        const int64_t row_bytes = tile.cols * Load::size;
        return tile.cols < kNarrow && tile.rows > 1 && tile.t_stride == row_bytes && tile.p_stride == row_bytes;
    }

    static void narrow_row_sums(const Tile &tile, const Bounds &clip, double *sums) {
        alignas(64) T terms[kTerms + kLanes];
        const int64_t rows_at_once = kTerms / tile.cols;
        for (int64_t first = 0; first < tile.rows; first += rows_at_once) {
            const int64_t rows = tile.rows - first < rows_at_once ? tile.rows - first : rows_at_once;
            const int64_t n = rows * tile.cols;
            store_terms(tile.t + first * tile.t_stride, tile.p + first * tile.p_stride, n, clip, terms);
            for (int64_t l = n; l < n + kLanes; ++l) terms[l] = 0;  // what the last row's vectors read beyond it
            sum_rows_of_terms(terms, rows, tile.cols, sums + first);
        }
    }

    static void sum_rows_of_terms(const T *terms, int64_t rows, int64_t cols, double *sums) {
        switch (cols) {
            case 1: return sum_tiny_rows<1>(terms, rows, sums);
            case 2: return sum_tiny_rows<2>(terms, rows, sums);
            case 3: return sum_tiny_rows<3>(terms, rows, sums);
            case 4: return sum_tiny_rows<4>(terms, rows, sums);
            default: return sum_narrow_rows(terms, rows, cols, sums);
        }
    }

    static void store_terms(const char *t, const char *p, int64_t n, const Bounds &clip, T *terms) {
        int64_t i = 0;
        for (; i + V::lanes <= n; i += V::lanes)
            add_whole(V::splat(0), t + i * Load::size, p + i * Load::size, clip).store(terms + i);
        if (i == n) return;
        const int left = static_cast<int>(n - i);
        add_partial(V::splat(0), t + i * Load::size, p + i * Load::size, left, clip).store(terms + i);
    }

    static V load_terms(const T *terms) { return V::load(reinterpret_cast<const char *>(terms)); }

    static void sum_narrow_rows(const T *terms, int64_t rows, int64_t cols, double *sums) {
        T ones[kLanes];
        V present[kVectors];  // 1 in the lanes that the row's last terms fill
        const int64_t whole = cols / kLanes * kLanes;
        for (int64_t l = 0; l < kLanes; ++l) ones[l] = static_cast<T>(l < cols - whole ? 1 : 0);
        for (int k = 0; k < kVectors; ++k) present[k] = load_terms(ones + k * V::lanes);
        for (int64_t r = 0; r < rows; ++r, terms += cols) {
            V sum[kVectors];
            for (int k = 0; k < kVectors; ++k) {
                const V last = load_terms(terms + whole + k * V::lanes);
                sum[k] = V::select(V::equal(present[k], V::splat(1)), last, V::splat(0));
                for (int64_t i = 0; i < whole; i += kLanes)
                    sum[k] = V::add(sum[k], load_terms(terms + i + k * V::lanes));
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

    static void row_sums(const Tile &tile, Clip bounds, double *sums) {
        const Bounds clip(bounds);
        if (is_narrow(tile)) return narrow_row_sums(tile, clip, sums);
        const char *t = tile.t, *p = tile.p;
        if (tile.cols <= kSegment) {
            for (int64_t r = 0; r < tile.rows; ++r, t += tile.t_stride, p += tile.p_stride)
                sums[r] = segment_sum(t, p, tile.cols, clip);
            return;
        }
        for (int64_t r = 0; r < tile.rows; ++r, t += tile.t_stride, p += tile.p_stride) {
            const bool skip = tile.mask != nullptr && tile.mask[r * tile.mask_stride] == 0;
            sums[r] = skip ? 0 : row_sum(t, p, tile.cols, clip);
        }
    }

    // A column's terms are added in their own format for as many rows as a lane takes from a segment, then as doubles.
    static constexpr int64_t kRowsInTerms = kSegment / kLanes;

    static void column_sums(const Tile &tile, Clip bounds, double *sums) {
        const Bounds clip(bounds);
        alignas(64) T terms[kColumns];
        for (int64_t first = 0; first < tile.rows; first += kRowsInTerms) {
            const int64_t last = tile.rows - first < kRowsInTerms ? tile.rows : first + kRowsInTerms;
            for (int64_t c = 0; c < tile.cols; c += V::lanes) V::splat(0).store(terms + c);
            int64_t r = first;
            for (; tile.cols > kStream && r + kRowsAtOnce <= last; r += kRowsAtOnce)
                add_rows<kRowsAtOnce>(tile, r, clip, terms);
            for (; r < last; ++r) add_rows<1>(tile, r, clip, terms);
            add_to_columns(terms, tile.cols, sums);
        }
    }

    static void add_to_columns(const T *terms, int64_t cols, double *sums) {
        int64_t c = 0;
        for (; c + V::lanes <= cols; c += V::lanes) {
            const V sum = load_terms(terms + c);
            (General ? sum : V::add(sum, sum)).add_to(sums + c);
        }
        for (; c < cols; ++c) sums[c] += true_value(terms[c]);
    }

    // Row after row, as memory lies: several rows at once are several streams in a page, which prefetchers don't follow
    // (half the speed). Rows of several pages are another matter: four at once save most of the traffic of the sums.
    static constexpr int64_t kStream = 1024;
    static constexpr int kRowsAtOnce = 4;

    template <int Rows>
    static void add_rows(const Tile &tile, int64_t first, const Bounds &clip, T *terms) {
        const char *t = tile.t + first * tile.t_stride, *p = tile.p + first * tile.p_stride;
        int64_t c = 0;
        for (; c + V::lanes <= tile.cols; c += V::lanes, t += V::lanes * Load::size, p += V::lanes * Load::size) {
            V sum = load_terms(terms + c);
            for (int r = 0; r < Rows; ++r) sum = add_whole(sum, t + r * tile.t_stride, p + r * tile.p_stride, clip);
            sum.store(terms + c);
        }
        if (c == tile.cols) return;
        const int left = static_cast<int>(tile.cols - c);
        V sum = load_terms(terms + c);
        for (int r = 0; r < Rows; ++r) sum = add_partial(sum, t + r * tile.t_stride, p + r * tile.p_stride, left, clip);
        sum.store(terms + c);
    }
};

}  // namespace
}  // namespace kldiv
