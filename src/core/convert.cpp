// See convert.hpp. One loop, instantiated for every pair of a source type and a kernel type.
#include "convert.hpp"

#include <algorithm>
#include <cstring>

#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#define KLDIV_STREAMS 1
#endif

#include "simd/halves.hpp"

namespace kldiv {
namespace {

struct Float16 {
    uint16_t bits;
    operator double() const { return float16_to_float(bits); }
};
struct BFloat16 {
    uint16_t bits;
    operator double() const { return bfloat16_to_float(bits); }
};
struct Bool {
    uint8_t byte;
    operator double() const { return byte != 0; }
};

template <class Source>
Source read(const char *src) {
    Source x;
    std::memcpy(&x, src, sizeof x);
    return x;
}

// One row. The strides that matter most are constants, so that the compiler can use vectors.
template <class Source, class Target>
void pack_row(const char *src, int64_t stride, int64_t n, Target *dst) {
    constexpr int64_t size = sizeof(Source);
    const auto element = [](const char *at) { return static_cast<Target>(read<Source>(at)); };
    if (stride == size)
        for (int64_t i = 0; i < n; ++i) dst[i] = element(src + i * size);
    else if (stride == 2 * size)
        for (int64_t i = 0; i < n; ++i) dst[i] = element(src + i * 2 * size);
    else if (stride == 0)
        std::fill_n(dst, n, element(src));
    else
        for (int64_t i = 0; i < n; ++i) dst[i] = element(src + i * stride);
}

// ---- Columns of elements side by side, on their way to rows: a square of 16 bytes' elements at a time ----

template <class Source, class Target>
constexpr int kSquare = 1;  // elements along a side; 1: no squares

#if defined(KLDIV_STREAMS)
template <>
constexpr int kSquare<float, float> = 4;
template <>
constexpr int kSquare<double, double> = 2;

inline void turn_square(const char *src, int64_t col_stride, float *dst, int64_t cols) {
    const auto column = [&](int c) { return _mm_loadu_ps(reinterpret_cast<const float *>(src + c * col_stride)); };
    __m128 a = column(0), b = column(1), c = column(2), d = column(3);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(dst, a);
    _mm_storeu_ps(dst + cols, b);
    _mm_storeu_ps(dst + 2 * cols, c);
    _mm_storeu_ps(dst + 3 * cols, d);
}

inline void turn_square(const char *src, int64_t col_stride, double *dst, int64_t cols) {
    const __m128d first = _mm_loadu_pd(reinterpret_cast<const double *>(src)),
                  second = _mm_loadu_pd(reinterpret_cast<const double *>(src + col_stride));
    _mm_storeu_pd(dst, _mm_unpacklo_pd(first, second));
    _mm_storeu_pd(dst + cols, _mm_unpackhi_pd(first, second));
}
#endif

template <class Source, class Target>
void pack_columns(const Grid &grid, Target *dst) {
    constexpr int side = kSquare<Source, Target>;
    int64_t c = 0;
    if constexpr (side > 1) {
        if (grid.row_stride == sizeof(Source) && grid.rows % side == 0)
            for (; c + side <= grid.cols; c += side)
                for (int64_t r = 0; r < grid.rows; r += side)
                    turn_square(grid.data + r * grid.row_stride + c * grid.col_stride, grid.col_stride,
                                dst + r * grid.cols + c, grid.cols);
    }
    for (; c < grid.cols; ++c)
        for (int64_t r = 0; r < grid.rows; ++r) {
            const char *at = grid.data + r * grid.row_stride + c * grid.col_stride;
            dst[r * grid.cols + c] = static_cast<Target>(read<Source>(at));
        }
}

template <class Source, class Target>
void pack_grid(const Grid &grid, Target *dst) {
    if (runs_down(grid.row_stride, grid.col_stride)) {
        pack_columns<Source, Target>(grid, dst);
    } else if (grid.row_stride == grid.cols * grid.col_stride) {
        pack_row<Source, Target>(grid.data, grid.col_stride, grid.rows * grid.cols, dst);
    } else if (grid.row_stride == 0) {
        pack_row<Source, Target>(grid.data, grid.col_stride, grid.cols, dst);
        for (int64_t r = 1; r < grid.rows; ++r) std::memcpy(dst + r * grid.cols, dst, grid.cols * sizeof(Target));
    } else {
        for (int64_t r = 0; r < grid.rows; ++r)
            pack_row<Source, Target>(grid.data + r * grid.row_stride, grid.col_stride, grid.cols, dst + r * grid.cols);
    }
}

template <class Source>
void pack_from(const Grid &grid, kldiv_dtype to, void *dst) {
    if (to == KLDIV_FLOAT32)
        pack_grid<Source>(grid, static_cast<float *>(dst));
    else
        pack_grid<Source>(grid, static_cast<double *>(dst));
}

void pack_native(kldiv_dtype from, const Grid &grid, kldiv_dtype to, void *dst) {
    switch (from) {
        case KLDIV_FLOAT32: return pack_from<float>(grid, to, dst);
        case KLDIV_FLOAT64: return pack_from<double>(grid, to, dst);
        case KLDIV_FLOAT16: return pack_from<Float16>(grid, to, dst);
        case KLDIV_BFLOAT16: return pack_from<BFloat16>(grid, to, dst);
        case KLDIV_BOOL: return pack_from<Bool>(grid, to, dst);
        case KLDIV_INT8: return pack_from<int8_t>(grid, to, dst);
        case KLDIV_UINT8: return pack_from<uint8_t>(grid, to, dst);
        case KLDIV_INT16: return pack_from<int16_t>(grid, to, dst);
        case KLDIV_UINT16: return pack_from<uint16_t>(grid, to, dst);
        case KLDIV_INT32: return pack_from<int32_t>(grid, to, dst);
        case KLDIV_UINT32: return pack_from<uint32_t>(grid, to, dst);
        case KLDIV_INT64: return pack_from<int64_t>(grid, to, dst);
        case KLDIV_UINT64: return pack_from<uint64_t>(grid, to, dst);
    }
}

// ---- Foreign byte orders: some elements of a row at a time are turned round, of whatever type they are ----

uint16_t turned(uint16_t x) { return static_cast<uint16_t>(x << 8 | x >> 8); }
uint32_t turned(uint32_t x) {
    return static_cast<uint32_t>(turned(static_cast<uint16_t>(x))) << 16 | turned(static_cast<uint16_t>(x >> 16));
}
uint64_t turned(uint64_t x) {
    return static_cast<uint64_t>(turned(static_cast<uint32_t>(x))) << 32 | turned(static_cast<uint32_t>(x >> 32));
}

template <class Bits>
void turn_row(const char *src, int64_t stride, int64_t n, void *dst) {
    Bits *to = static_cast<Bits *>(dst);
    for (int64_t i = 0; i < n; ++i) to[i] = turned(read<Bits>(src + i * stride));
}

constexpr int64_t kTurned = 256;  // elements that are turned together

void pack_swapped(kldiv_dtype from, const Grid &grid, kldiv_dtype to, void *dst) {
    const int64_t size = item_size(from);
    const auto turn_some = size == 2 ? turn_row<uint16_t> : size == 4 ? turn_row<uint32_t> : turn_row<uint64_t>;
    uint64_t block[kTurned];
    const bool is_one_row = grid.row_stride == grid.cols * grid.col_stride;
    const int64_t rows = is_one_row ? 1 : grid.rows, cols = is_one_row ? grid.rows * grid.cols : grid.cols;
    char *at = static_cast<char *>(dst);
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; c += kTurned) {
            const int64_t n = std::min(kTurned, cols - c);
            turn_some(grid.data + r * grid.row_stride + c * grid.col_stride, grid.col_stride, n, block);
            pack_native(from, {reinterpret_cast<char *>(block), 1, n * size, n, size}, to, at);
            at += n * item_size(to);
        }
}

template <class Source, class Target>
void unpack_grid(const void *src, const Grid &grid) {
    const Source *from = static_cast<const Source *>(src);
    for (int64_t r = 0; r < grid.rows; ++r, from += grid.cols) {
        char *row = grid.data + r * grid.row_stride;
        for (int64_t c = 0; c < grid.cols; ++c)
            *reinterpret_cast<Target *>(row + c * grid.col_stride) = static_cast<Target>(from[c]);
    }
}

#if defined(KLDIV_STREAMS)
// Whole 16 bytes go to the write-combining buffers, what stands before and behind them goes by the cache.
void stream_bytes(char *dst, const char *src, int64_t n) {
    const int64_t before = std::min<int64_t>(-reinterpret_cast<intptr_t>(dst) & 15, n);
    std::memcpy(dst, src, before);
    int64_t i = before;
    for (; i + 16 <= n; i += 16)
        _mm_stream_si128(reinterpret_cast<__m128i *>(dst + i),
                         _mm_loadu_si128(reinterpret_cast<const __m128i *>(src + i)));
    std::memcpy(dst + i, src + i, n - i);
}
#else
void stream_bytes(char *dst, const char *src, int64_t n) { std::memcpy(dst, src, n); }
#endif

}  // namespace

void pack(const kldiv_operand &source, const Grid &grid, kldiv_dtype to, void *dst) {
    const bool is_foreign = source.swapped && item_size(source.dtype) > 1;
    (is_foreign ? pack_swapped : pack_native)(source.dtype, grid, to, dst);
}

void unpack(const void *src, kldiv_dtype from, kldiv_dtype to, const Grid &grid) {
    if (from == KLDIV_FLOAT32)
        to == KLDIV_FLOAT32 ? unpack_grid<float, float>(src, grid) : unpack_grid<float, double>(src, grid);
    else
        to == KLDIV_FLOAT32 ? unpack_grid<double, float>(src, grid) : unpack_grid<double, double>(src, grid);
}

void stream(const void *src, int64_t size, const Grid &grid) {
    const char *from = static_cast<const char *>(src);
    const int64_t row_bytes = grid.cols * size;
    if (grid.row_stride == row_bytes) return stream_bytes(grid.data, from, grid.rows * row_bytes);
    for (int64_t r = 0; r < grid.rows; ++r)
        stream_bytes(grid.data + r * grid.row_stride, from + r * row_bytes, row_bytes);
}

void end_streams() {
#if defined(KLDIV_STREAMS)
    _mm_sfence();
#endif
}

}  // namespace kldiv
