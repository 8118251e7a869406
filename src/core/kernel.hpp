// The table that each ISA's object exports: operation x dtype. Included by kernel.cpp, dispatch and kldiv.cpp.
#pragma once
#include <cstdint>

#include "kldiv.h"

namespace kldiv {

// A block of rows that the kernel reads in place: elements side by side in a row (or, for column_sums, along `cols`).
struct Tile {
    const char *t;
    const char *p;
    int64_t t_stride;  // bytes from one row to the next
    int64_t p_stride;
    int64_t rows;
    int64_t cols;
    const uint8_t *mask;  // row_sums may leave out rows where it is 0; nullptr: none
    int64_t mask_stride;
};

// Where a tile's gradients go: rows of elements side by side, in the format that the kernel computes in (float64 for
// float64, else float32). A pointer may be null where the operation doesn't want that gradient.
struct GradientTile {
    char *t;  // with respect to y_true
    char *p;
    int64_t t_stride;
    int64_t p_stride;
    const void *factors;  // in the same format: one for each row, in column_gradients one for each column
};

// Which gradients, and whether the sums too. (y_true's gradient holds the logarithm, which is all that a sum costs.)
enum class Wanted { y_pred_alone, y_pred, y_true, both };
constexpr int kWanted = 4;

struct Clip {
    double low;
    double high;
};

// Columns that column_sums takes at once: a row of 16 KiB is enough for the prefetchers (at 4 KiB memory is half as
// fast), and the sums stay in the second-level cache.
constexpr int64_t kColumns = 4096;

struct Operations {
    // sums[r] = the sum of row r
    void (*row_sums)(const Tile &, Clip, double *sums);
    // sums[c] += the sum of column c, for at most kColumns columns
    void (*column_sums)(const Tile &, Clip, double *sums);
    // The same with gradients, by Wanted; of y_pred alone, no sum is computed (row_gradients writes 0).
    // column_gradients reads factors in whole vectors: 64 bytes more than there are columns.
    void (*row_gradients[kWanted])(const Tile &, Clip, const GradientTile &, double *sums);
    void (*column_gradients[kWanted])(const Tile &, Clip, const GradientTile &, double *sums);
};

// Kernel dtypes are the first four of kldiv_dtype, and index these tables.
constexpr int kKernelDtypes = 4;

struct Kernels {
    Operations clipped[kKernelDtypes];  // needs a clip whose lower bound is a normal number
    Operations general[kKernelDtypes];  // takes anything; the meaning of scipy.special.rel_entr
};

// A row is the sum, in order, of segments of this many elements: what is split or packed at multiples of it has the
// same bits as what is read in one go.
constexpr int64_t kSegment = 512;

}  // namespace kldiv
