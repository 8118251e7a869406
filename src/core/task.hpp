// A task of a plan: tiles in, row sums and gradients out. Included by kldiv.cpp and one_tile.cpp.
#pragma once
#include <cstdint>

#include "plan.hpp"

namespace kldiv {

// What a worker needs for gradients beyond its stack, for the length of a call.
struct Scratch {
    alignas(64) double t[kLargestTile];  // a tile of gradients, in the kernel's format, on its way to where it belongs
    alignas(64) double p[kLargestTile];
    alignas(64) double factors[kColumns + 8];       // of a group's rows, in the kernel's format; read in whole vectors
    alignas(64) double folded[kFoldedColumns + 8];  // the same, once for each class of a fold
};

struct Group {
    Cursor at;  // of the first row; where the rows' axis has parts, what stands beside the rows is at that axis's start
    int64_t rows;
    int64_t first;  // row along that axis
};
Group group_at(const Plan &plan, int64_t number);

// Each row's factor of its gradients, in the kernel's format. `scratch`: a double for each row.
void read_factors(const RowOperands &rows, const Group &group, kldiv_dtype format, double *scratch, void *to);

// A group's rows are known: write them, or give back what they add to the total.
double finish(const RowOperands &rows, const Group &group, double *sums);

// Rows in one piece: task i does several groups and leaves what they add to the total.
void run_groups(void *plan, int worker, int64_t task);

// Rows in several pieces: task i does one piece of one group and leaves its sums.
void run_piece(void *plan, int worker, int64_t task);

}  // namespace kldiv
