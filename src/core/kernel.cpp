// The loops, written once and compiled once for each ISA: CMake defines KLDIV_ISA (avx512, avx2, neon, scalar) and the
// matching flags. Everything here but the one exported table has internal linkage, and nothing comes from std::, so
// that no function compiled for a newer machine can be picked by the linker for an older one.
#include "kernel.hpp"

#define KLDIV_STRING_(x) #x
#define KLDIV_STRING(x) KLDIV_STRING_(x)
#include KLDIV_STRING(simd/KLDIV_ISA.hpp)
#include "math/log_ratio.hpp"

namespace kldiv {
namespace {

// The order of summation, the same on every ISA: element i of a segment goes to virtual lane i % 16. Float lanes are
// added in float for 512 elements, then into 16 double lanes; a tree adds those at the segment's end.
constexpr int kLanes = 16;
constexpr int64_t kFlush = 32 * kLanes;

struct LoadF32 {
    using Vec = VecF32;
    static constexpr int size = 4;
    static Vec full(const char *src) { return Vec::load(src); }
    static Vec partial(const char *src, int n) { return Vec::load_partial(src, n); }
};
struct LoadF64 {
    using Vec = VecF64;
    static constexpr int size = 8;
    static Vec full(const char *src) { return Vec::load(src); }
    static Vec partial(const char *src, int n) { return Vec::load_partial(src, n); }
};
struct LoadF16 {
    using Vec = VecF32;
    static constexpr int size = 2;
    static Vec full(const char *src) { return load_float16(src, Vec::lanes); }
    static Vec partial(const char *src, int n) { return load_float16(src, n); }
};
struct LoadBF16 {
    using Vec = VecF32;
    static constexpr int size = 2;
    static Vec full(const char *src) { return load_bfloat16(src, Vec::lanes); }
    static Vec partial(const char *src, int n) { return load_bfloat16(src, n); }
};

// sum + t log(t/p), of clipped t and p.
template <bool General, class V>
inline V accumulate(V sum, V t, V p, V low, V high) {
    t = V::clip(t, low, high);
    p = V::clip(p, low, high);
    if constexpr (General)
        return V::add(sum, relative_entropy(t, p));
    else
        return V::fma(t, log_ratio(t, p), sum);
}

template <class Load, bool General>
struct Loops {
    using V = typename Load::Vec;
    using T = typename V::Element;
    static constexpr int kVectors = kLanes / V::lanes;

    // The clip's bounds in every lane.
    struct Bounds {
        V low, high;
        explicit Bounds(Clip clip) : low(V::splat(static_cast<T>(clip.low))), high(V::splat(static_cast<T>(clip.high))) {}
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

    static double segment_sum(const char *t, const char *p, int64_t n, const Bounds &clip) {
        V sum[kVectors];
        double lanes[kLanes] = {};
        for (int64_t i = 0; i < n; i += kFlush) {
            const int64_t count = n - i < kFlush ? n - i : kFlush;
            add_terms(t + i * Load::size, p + i * Load::size, count, clip, sum);
            T spilled[kLanes];
            for (int k = 0; k < kVectors; ++k) sum[k].store(spilled + k * V::lanes);
            for (int l = 0; l < kLanes; ++l) lanes[l] += static_cast<double>(spilled[l]);
        }
        for (int width = kLanes / 2; width > 0; width /= 2)
            for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
        return lanes[0];
    }

    // One flush is all that a short row needs: its lanes never leave the registers.
    static double short_row_sum(const char *t, const char *p, int64_t n, const Bounds &clip) {
        V sum[kVectors];
        add_terms(t, p, n, clip, sum);
        return 0.0 + V::tree_sum(sum);  // 0 + (-0) = 0
    }

    static double row_sum(const char *t, const char *p, int64_t n, const Bounds &clip) {
        if (n <= kFlush) return short_row_sum(t, p, n, clip);
        double sum = 0;
        for (int64_t i = 0; i < n; i += kSegment) {
            const int64_t count = n - i < kSegment ? n - i : kSegment;
            sum += segment_sum(t + i * Load::size, p + i * Load::size, count, clip);
        }
        return sum;
    }

    // Rows that would leave lanes empty, side by side: whole vectors of terms, whatever the rows, then each row's sum.
    static void narrow_row_sums(const Tile &tile, const Bounds &clip, double *sums) {
        constexpr int64_t most = 512;
        alignas(64) T terms[most + 2 * kLanes];
        const int64_t cols = tile.cols;
        V present[kVectors];  // 1 in the lanes that a row fills
        for (int64_t l = 0; l < kLanes; ++l) terms[l] = static_cast<T>(l < cols ? 1 : 0);
        for (int k = 0; k < kVectors; ++k) present[k] = V::load(reinterpret_cast<const char *>(terms + k * V::lanes));

        const int64_t rows_at_once = most / cols;
        for (int64_t first = 0; first < tile.rows; first += rows_at_once) {
            const int64_t rows = tile.rows - first < rows_at_once ? tile.rows - first : rows_at_once;
            const int64_t n = rows * cols;
            const char *t = tile.t + first * tile.t_stride;
            const char *p = tile.p + first * tile.p_stride;
            int64_t i = 0;
            for (; i + V::lanes <= n; i += V::lanes)
                add_whole(V::splat(0), t + i * Load::size, p + i * Load::size, clip).store(terms + i);
            if (i < n) {
                const int left = static_cast<int>(n - i);
                add_partial(V::splat(0), t + i * Load::size, p + i * Load::size, left, clip).store(terms + i);
            }
            for (int64_t l = n; l < n + kLanes; ++l) terms[l] = 0;  // what the last row's vectors read beyond it
            for (int64_t r = 0; r < rows; ++r) {
                V sum[kVectors];
                for (int k = 0; k < kVectors; ++k) {
                    const V term = V::load(reinterpret_cast<const char *>(terms + r * cols + k * V::lanes));
                    sum[k] = V::select(V::equal(present[k], V::splat(1)), term, V::splat(0));
                }
                sums[first + r] = 0.0 + V::tree_sum(sum);
            }
        }
    }

    static void row_sums(const Tile &tile, Clip bounds, double *sums) {
        const Bounds clip(bounds);
        const int64_t row_bytes = tile.cols * Load::size;
        if (tile.cols < kLanes && tile.rows > 1 && tile.t_stride == row_bytes && tile.p_stride == row_bytes)
            return narrow_row_sums(tile, clip, sums);
        // A mispredicted branch costs as much as a few hundred elements: only long rows are worth leaving out.
        const bool may_skip = tile.mask != nullptr && tile.cols >= kSegment / 2;
        for (int64_t r = 0; r < tile.rows; ++r) {
            const bool skip = may_skip && tile.mask[r * tile.mask_stride] == 0;
            sums[r] = skip ? 0 : row_sum(tile.t + r * tile.t_stride, tile.p + r * tile.p_stride, tile.cols, clip);
        }
    }

    // Several rows at a time, so that the sums are read and written once for as many terms.
    static constexpr int kRowsAtOnce = 8;

    static void add_columns(const Tile &tile, int64_t first_row, int rows, const Bounds &clip, double *sums) {
        const char *t = tile.t + first_row * tile.t_stride;
        const char *p = tile.p + first_row * tile.p_stride;
        for (int64_t c = 0; c < tile.cols; c += V::lanes, t += V::lanes * Load::size, p += V::lanes * Load::size) {
            const int64_t left = tile.cols - c;
            V sum = V::splat(0);
            T spilled[V::lanes];
            if (left >= V::lanes) {
                for (int r = 0; r < rows; ++r) sum = add_whole(sum, t + r * tile.t_stride, p + r * tile.p_stride, clip);
                sum.store(spilled);
                for (int l = 0; l < V::lanes; ++l) sums[c + l] += static_cast<double>(spilled[l]);
            } else {
                const int present = static_cast<int>(left);
                for (int r = 0; r < rows; ++r)
                    sum = add_partial(sum, t + r * tile.t_stride, p + r * tile.p_stride, present, clip);
                sum.store(spilled);
                for (int l = 0; l < present; ++l) sums[c + l] += static_cast<double>(spilled[l]);
            }
        }
    }

    static void column_sums(const Tile &tile, Clip bounds, double *sums) {
        const Bounds clip(bounds);
        int64_t r = 0;
        for (; r + kRowsAtOnce <= tile.rows; r += kRowsAtOnce) add_columns(tile, r, kRowsAtOnce, clip, sums);
        if (r < tile.rows) add_columns(tile, r, static_cast<int>(tile.rows - r), clip, sums);
    }
};

template <bool General, class Load>
constexpr Operations operations() {
    return {Loops<Load, General>::row_sums, Loops<Load, General>::column_sums};
}

}  // namespace

#define KLDIV_TABLE_(isa) kernels_##isa
#define KLDIV_TABLE(isa) KLDIV_TABLE_(isa)
extern const Kernels KLDIV_TABLE(KLDIV_ISA);
// In the order of kldiv_dtype: float32, float64, float16, bfloat16.
constexpr Kernels KLDIV_TABLE(KLDIV_ISA) = {
    {operations<false, LoadF32>(), operations<false, LoadF64>(), operations<false, LoadF16>(), operations<false, LoadBF16>()},
    {operations<true, LoadF32>(), operations<true, LoadF64>(), operations<true, LoadF16>(), operations<true, LoadBF16>()},
};

}  // namespace kldiv
