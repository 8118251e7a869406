// A tile of a plan's rows: where the kernels read it, in place or packed, and where they write its gradients. Included by
// the tasks and kldiv.cpp.
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

// Of a worker, or null: the plan needs none.
inline Scratch *scratch_of(const Plan &plan, int worker) {
    return plan.scratch == nullptr ? nullptr : plan.scratch + worker;
}

// What a task packs into, and from where, so that what is broadcast is packed once.
struct Packed {
    alignas(64) double elements[kLargestTile];
    const char *source = nullptr;
    int64_t rows = 0, cols = 0;
};

struct TileBuffers {
    Packed t, p;
    Scratch *scratch;

    explicit TileBuffers(Scratch *own) : scratch(own) {}
};

// The tile that starts at `at`, of so many rows and columns.
Tile tile_at(const Plan &plan, const Cursor &at, int64_t rows, int64_t cols, TileBuffers &work);

// Row after row without a gap.
bool gapless(const Plan &plan, const Tile &tile);
bool gapless(const Plan &plan, const GradientTile &out, int64_t cols);

struct Output {
    GradientTile gradients;
    bool staged;
};

// Where the kernel is to write the gradients of the tile that starts at `at`. With `together` the tile's rows are read as
// one, or several to a vector, which sums depend on: where gradients have gaps they are staged for its sake, if they fit.
Output output_at(const Plan &plan, const Cursor &at, const Tile &tile, bool together, const char *factors,
                 TileBuffers &work);

// What stands staged goes where it belongs.
void deliver(const Plan &plan, const Cursor &at, int64_t rows, int64_t cols, const TileBuffers &work);

}  // namespace kldiv
