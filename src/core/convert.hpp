// Reading what the kernels can't read in place, and writing what they can't write in place, a tile at a time.
// Included by kldiv.cpp, plan.cpp and task.cpp.
#pragma once
#include <cstdint>
#include <cstdlib>

#include "kldiv.h"

namespace kldiv {

inline int64_t item_size(kldiv_dtype dtype) {
    constexpr int64_t sizes[] = {4, 8, 2, 2, 1, 1, 1, 2, 2, 4, 4, 8, 8};
    return sizes[dtype];
}

// A grid of elements somewhere in memory; strides in bytes, of any size and sign.
struct Grid {
    char *data;
    int64_t rows, row_stride;
    int64_t cols, col_stride;
};

// Whether a column's neighbours stand nearer to each other than a row's: reading in rows would waste cache lines.
inline bool runs_down(int64_t row_stride, int64_t col_stride) {
    return row_stride != 0 && std::llabs(row_stride) < std::llabs(col_stride);
}

// The grid's elements of `source.dtype`, row after row, into side-by-side float32 or float64 at dst.
void pack(const kldiv_operand &source, const Grid &grid, kldiv_dtype to, void *dst);

// The way back: row after row of side-by-side elements, float32 or float64 both `from` and `to`, into the grid.
void unpack(const void *src, kldiv_dtype from, kldiv_dtype to, const Grid &grid);

// The same for a grid of elements side by side and of one size in both places, past the caches where the processor can.
void stream(const void *src, int64_t size, const Grid &grid);
// After the last of them, before another thread may read.
void end_streams();

}  // namespace kldiv
