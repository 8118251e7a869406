// Reading what the kernels can't read in place, a block at a time. Included by kldiv.cpp.
#pragma once
#include <cstdint>
#include <cstdlib>

#include "kldiv.h"

namespace kldiv {

int64_t item_size(kldiv_dtype dtype);

// A grid of elements somewhere in memory; strides in bytes, of any size and sign.
struct Grid {
    const char *data;
    int64_t rows, row_stride;
    int64_t cols, col_stride;
};

// Whether a column's neighbours stand nearer to each other than a row's: reading in rows would waste cache lines.
inline bool runs_down(int64_t row_stride, int64_t col_stride) {
    return row_stride != 0 && std::llabs(row_stride) < std::llabs(col_stride);
}

// The grid's elements of `source.dtype`, row after row, into side-by-side float32 or float64 at dst.
void pack(const kldiv_array &source, const Grid &grid, kldiv_dtype to, void *dst);

}  // namespace kldiv
