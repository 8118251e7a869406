// The tables that the kernels' objects export, one for each operation on each ISA. Included by the kernels, dispatch, plan
// and the tasks.
#pragma once
#include <cstdint>

#include "kldiv.h"

// For what a loop's step is made of, where the compiler, left to itself, would call it.
#define KLDIV_INLINE inline __attribute__((always_inline))

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
    int64_t first = 0;  // the place of the first column among the row's classes; for labels alone
};

// Where a tile's gradients go: rows of elements side by side, in the format that the kernel computes in (float64 for
// float64, else float32). A pointer may be null where the function doesn't want that gradient.
struct GradientTile {
    char *t;  // with respect to y_true
    char *p;
    int64_t t_stride;
    int64_t p_stride;
    const void *factors;  // in the same format: one for each row, in column_gradients one for each column
};

// What is written beside the sums. y_true's gradient alone is `both` with a null pointer for y_pred's.
enum class Wanted { pred_alone, pred, both, none };
constexpr int kWanted = 3;  // of them gradients

struct Parameters {
    double low;  // the clip's bounds
    double high;
    double beta;
};

// Columns that column_sums takes at once: a row of 16 KiB is enough for the prefetchers (at 4 KiB memory is half as
// fast), and the sums stay in the second-level cache.
constexpr int64_t kColumns = 4096;

// Each may be nullptr of a 16-bit dtype, whose elements are then widened for float32's.
struct Functions {
    // sums[r] = the sum of row r
    void (*row_sums)(const Tile &, const Parameters &, double *sums);
    // sums[c] += the sum of column c, for at most kColumns columns
    void (*column_sums)(const Tile &, const Parameters &, double *sums);
    // The same with gradients, by Wanted. pred_alone need not compute a sum (row_gradients writes 0 then).
    void (*row_gradients[kWanted])(const Tile &, const Parameters &, const GradientTile &, double *sums);
    // Reads factors in whole vectors: 64 bytes more than there are columns.
    void (*column_gradients)(const Tile &, const Parameters &, const GradientTile &, double *sums);
};

// Kernel dtypes are the first four of kldiv_dtype, and index these tables.
constexpr int kKernelDtypes = 4;

struct Kernels {
    Functions clipped[kKernelDtypes];  // needs a clip whose lower bound is a normal number
    Functions general[kKernelDtypes];  // takes anything
    // Whether an element's term goes on like the other side times -log t (of p) as t (p) goes to 0.
    bool grows_with_log_t, grows_with_log_p;
};

// What a call asks of rows that have a state.
struct RowParameters {
    Parameters of_probs;
    double inverse_temperature;  // of logits
    double pseudocount;          // of counts
    double hot, cold;            // the probabilities of a label's class, and of all others
    kldiv_form forms[2];         // y_true's and y_pred's
    bool gradients[2];           // whether those with respect to them are wanted
    const Kernels *kernels;      // of the operation that adds up terms of probabilities,
    const Functions *functions;  // and those of them, by dtype, that are to be used
};

// What passes over a row's elements have left, where a row is more than a sum; and in the end its value.
struct RowState {
    double value;
    int64_t pass;     // the next one, or kRowDone
    int64_t label;    // its class's place among the row's
    double held[15];  // the operation's own
};
constexpr int64_t kRowDone = -1;

// `states`: one for each row of the tile. What is done, or was set to be, is not read.
struct RowwiseFunctions {
    void (*begin)(const RowParameters &, RowState &);
    // One pass over the rows' elements; a state may be that of a part of its row.
    void (*reduce)(const Tile &, const RowParameters &, RowState *states);
    // Of two parts of a row, after the same pass.
    void (*merge)(const RowParameters &, RowState &into, const RowState &from);
    // After a pass over whole rows: whether any wants another one.
    bool (*next)(const RowParameters &, RowState *states, int64_t rows);
    // Gradients, of rows that are done.
    void (*map)(const Tile &, const RowParameters &, const GradientTile &, const RowState *states);
};

struct RowwiseKernels {
    RowwiseFunctions of[kKernelDtypes];
    // The most passes that a row can take, which is computed in float64 or in float32.
    int (*most_passes)(const RowParameters &, bool is_float64);
};

// A row is the sum, in order, of segments of this many elements: what is split or packed at multiples of it has the
// same bits as what is read in one go.
constexpr int64_t kSegment = 512;
// A column's terms are added in their own format for as many rows as a lane takes from a segment, then as doubles.
constexpr int64_t kRowsInTerms = 32;

}  // namespace kldiv
