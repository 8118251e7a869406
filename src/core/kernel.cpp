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

    // At most kFlush elements, added into the double lanes. Absent elements of the last vector read as 1: 1 log 1 = 0.
    static void add_block(const char *t, const char *p, int64_t n, V low, V high, double *lanes) {
        V sum[kVectors];
        for (int k = 0; k < kVectors; ++k) sum[k] = V::splat(0);
        int64_t i = 0;
        for (; i + kLanes <= n; i += kLanes)
            for (int k = 0; k < kVectors; ++k) {
                const int64_t at = (i + k * V::lanes) * Load::size;
                sum[k] = accumulate<General>(sum[k], Load::full(t + at), Load::full(p + at), low, high);
            }
        for (int k = 0; k < kVectors; ++k) {
            const int64_t first = i + k * V::lanes;
            const int64_t left = n - first;
            if (left <= 0) break;
            const int present = left < V::lanes ? static_cast<int>(left) : V::lanes;
            sum[k] = accumulate<General>(sum[k], Load::partial(t + first * Load::size, present),
                                         Load::partial(p + first * Load::size, present), low, high);
        }
        T spilled[kLanes];
        for (int k = 0; k < kVectors; ++k) sum[k].store(spilled + k * V::lanes);
        for (int l = 0; l < kLanes; ++l) lanes[l] += static_cast<double>(spilled[l]);
    }

    static double segment_sum(const char *t, const char *p, int64_t n, V low, V high) {
        double lanes[kLanes] = {};
        for (int64_t i = 0; i < n; i += kFlush) {
            const int64_t count = n - i < kFlush ? n - i : kFlush;
            add_block(t + i * Load::size, p + i * Load::size, count, low, high, lanes);
        }
        for (int width = kLanes / 2; width > 0; width /= 2)
            for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
        return lanes[0];
    }

    static void row_sums(const Tile &tile, Clip clip, double *sums) {
        const V low = V::splat(static_cast<T>(clip.low)), high = V::splat(static_cast<T>(clip.high));
        for (int64_t r = 0; r < tile.rows; ++r) {
            const char *t = tile.t + r * tile.t_stride;
            const char *p = tile.p + r * tile.p_stride;
            double sum = 0;
            for (int64_t i = 0; i < tile.cols; i += kSegment) {
                const int64_t count = tile.cols - i < kSegment ? tile.cols - i : kSegment;
                sum += segment_sum(t + i * Load::size, p + i * Load::size, count, low, high);
            }
            sums[r] = sum;
        }
    }

    // Four rows at a time, so that the sums are read and written once for four terms.
    static constexpr int kRowsAtOnce = 4;

    static void add_columns(const Tile &tile, int64_t first_row, int rows, V low, V high, double *sums) {
        for (int64_t c = 0; c < tile.cols; c += V::lanes) {
            const int64_t left = tile.cols - c;
            const int present = left < V::lanes ? static_cast<int>(left) : V::lanes;
            V sum = V::splat(0);
            for (int r = 0; r < rows; ++r) {
                const char *t = tile.t + (first_row + r) * tile.t_stride + c * Load::size;
                const char *p = tile.p + (first_row + r) * tile.p_stride + c * Load::size;
                const bool whole = present == V::lanes;
                sum = accumulate<General>(sum, whole ? Load::full(t) : Load::partial(t, present),
                                          whole ? Load::full(p) : Load::partial(p, present), low, high);
            }
            T spilled[V::lanes];
            sum.store(spilled);
            for (int l = 0; l < present; ++l) sums[c + l] += static_cast<double>(spilled[l]);
        }
    }

    static void column_sums(const Tile &tile, Clip clip, double *sums) {
        const V low = V::splat(static_cast<T>(clip.low)), high = V::splat(static_cast<T>(clip.high));
        int64_t r = 0;
        for (; r + kRowsAtOnce <= tile.rows; r += kRowsAtOnce) add_columns(tile, r, kRowsAtOnce, low, high, sums);
        for (; r < tile.rows; ++r) add_columns(tile, r, 1, low, high, sums);
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
