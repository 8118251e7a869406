// From a problem to a plan: which axis is innermost, what is read in place, how the work is cut. The cut depends on shapes
// and the inputs' strides, never on the number of threads or on what stands beside the rows: the same bits always. Included
// by kldiv.cpp, plan.cpp and task.cpp.
#pragma once
#include <cstdint>

#include "kernel.hpp"
#include "kldiv.h"
#include "nest.hpp"

namespace kldiv {

constexpr int64_t kMaxPartials = 1 << 16;  // partial sums kept at a time: 512 KiB, twice that at the very worst
constexpr int64_t kMaxStates = kMaxPartials * 8 / sizeof(RowState);
constexpr int64_t kGroupRows = 512;       // rows whose sums are kept at a time
constexpr int64_t kFold = 16;             // classes, side by side, that few columns are read as: whole vectors always
constexpr int64_t kFoldedColumns = 1024;  // kFold classes of few columns fill at most so many
constexpr int64_t kLargestTile = 2048;    // elements of any tile that is packed or staged

// An element of a row with a state takes about as long as so many of a plain sum.
constexpr int64_t kStateCost = 8;

// How one gradient leaves the kernel: written where it belongs, or by way of a tile that is then scattered or converted,
// or copied past the caches.
enum class Way { direct, scattered, streamed };

// Operands that move with rows: along the rows' axis, or where that has parts along those.
struct RowOperands {
    const kldiv_operand *operands;
    const kldiv_axis &axis;
    const Nest *parts;  // nullptr: none
    double scale;

    bool has(kldiv_role role) const { return operands[role].data != nullptr; }
};

// The order in which a plan comes to a row's classes, which are numbered with the last class axis fastest.
class ClassOrder {
    struct Axis {
        int64_t extent, step;  // from one class to the next along it, in numbers
        int64_t place;         // the same in the plan's order
        bool backwards;
    };
    Axis axes_[KLDIV_MAX_AXES];
    int ndim_ = 0;

public:
    ClassOrder() {}                  // the axes stay unset: see nest.hpp
    void set(const Nest &numbered);  // the class axes as they are given
    int64_t place_of(int64_t number) const {
        int64_t place = 0;
        for (int i = 0; i < ndim_; ++i) {
            const Axis &axis = axes_[i];
            const int64_t at = i == ndim_ - 1 ? number : number / axis.step;  // the last one's step is 1
            number -= at * axis.step;
            place += (axis.backwards ? axis.extent - 1 - at : at) * axis.place;
        }
        return place;
    }
};

// Everything that a task needs, made once for a call. The unit of work is a group of neighbouring rows times a piece
// of their classes. It is read in tiles: by row_sums, along the classes, or in column mode by column_sums, along the rows.
struct Plan {
    kldiv_options options;
    kldiv_operand operands[KLDIV_OPERANDS];
    Cursor start;
    bool plain = false;  // only the sum over everything is wanted, with one factor for all gradients: rows mean nothing
    bool columns = false;
    Nest batch;           // batch axes but row_axis
    kldiv_axis row_axis;  // a group's rows are neighbours along it
    Nest row_parts;       // see pop_rows
    Nest runs;            // class axes but class_axis
    kldiv_axis class_axis;
    kldiv_dtype kernel_dtype;
    bool t_in_place, p_in_place;
    Functions functions;                        // of a separable operation,
    const RowwiseFunctions *rowwise = nullptr;  // or of one whose rows have a state
    Parameters parameters;
    RowParameters row_parameters;  // where rows have a state
    ClassOrder class_order;        // of labels

    Wanted wanted = Wanted::none;
    Way way = Way::direct;

    int64_t tile_rows, tile_cols;  // of what is packed or staged
    int64_t group_rows, groups_per_axis, groups;
    int64_t piece_length, pieces_per_run, runs_per_piece, pieces;
    int64_t groups_per_task;             // with one piece
    int64_t first_group = 0;             // with several
    double *partial = nullptr;           // what each task leaves
    double alone = 0;                    // its place where there is one task
    RowState *states = nullptr;          // of the rows of some groups,
    RowState *partial_states = nullptr;  // and what each task leaves of them
    bool mapping = false;                // the states are complete: gradients alone are left to do
    bool begins = false;                 // of a round: states do not exist yet
    struct Scratch *scratch = nullptr;   // one for each worker, if the plan needs any

    // The nests' axes stay unset: see nest.hpp.
    Plan(const kldiv_options &options, const kldiv_operand *operands);

    bool has(kldiv_role role) const { return operands[role].data != nullptr; }
    RowOperands rows() const { return {operands, row_axis, row_parts.ndim == 0 ? nullptr : &row_parts, options.scale}; }
    bool gradients() const { return wanted != Wanted::none; }
    int64_t most_partials() const { return rowwise != nullptr ? kMaxStates : kMaxPartials; }

    int64_t row_size() const { return runs.size() * class_axis.extent; }
    int64_t elements() const { return batch.size() * row_axis.extent * row_size(); }
    // Of an element, in those of a plain sum.
    int64_t cost() const { return rowwise != nullptr ? kStateCost : 1; }
    bool in_place() const { return t_in_place && p_in_place; }
    bool staged() const { return gradients() && way != Way::direct; }
    bool needs_scratch() const { return gradients() && (columns || staged() || !in_place()); }
    const kldiv_axis &kernel_axis() const { return columns ? row_axis : class_axis; }
    const kldiv_axis &other_axis() const { return columns ? class_axis : row_axis; }
    // What the kernel computes in.
    kldiv_dtype work_dtype() const { return kernel_dtype == KLDIV_FLOAT64 ? KLDIV_FLOAT64 : KLDIV_FLOAT32; }
};

inline int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

// Problems this small, flat, are one task of one row: no plan is needed.
constexpr int64_t kSmallBlock = 32 * 1024;

// No axis may be empty.
Plan make_plan(const kldiv_problem &problem, bool value_wanted);
Plan make_flat_plan(const kldiv_options &options, const kldiv_operand *operands, int64_t n);

// What is written beside the sums; `value`: whether anybody wants those.
Wanted choose_wanted(const kldiv_problem &problem, bool value);

// The functions and the parameters that a call's options ask for.
const Functions &choose_functions(const kldiv_options &options, kldiv_dtype dtype);
Parameters choose_parameters(const kldiv_options &options);
// The same of rows with a state, without gradients.
RowParameters choose_row_parameters(const kldiv_options &options, int64_t classes, kldiv_dtype dtype);

}  // namespace kldiv
