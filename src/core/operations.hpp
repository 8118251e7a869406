// What the table of operations comes to for a call. Included by kldiv.cpp.
#pragma once
#include "kldiv.h"

namespace kldiv {

// Another operation that a call's comes to: at the ends of its parameter's range, perhaps with y_true and y_pred swapped,
// or for the forms of its inputs.
struct Limit {
    kldiv_operation operation;
    bool swapped;
};
Limit limit_of(const kldiv_options &options);

// The rows of KLDIV_ROWWISE, by number.
#define KLDIV_ROW(name, NAME, Y_TRUE, Y_PRED) +1
constexpr int kRowwiseCount = 0 KLDIV_ROWWISE(KLDIV_ROW);
#undef KLDIV_ROW
// The one for an operation on inputs of these forms, or -1: there is none.
int rowwise_of(kldiv_operation operation, kldiv_form y_true, kldiv_form y_pred);
// Whether rows have a state: neither input is what a separable operation reads.
inline bool is_rowwise(const kldiv_options &options) {
    return options.y_true_form != KLDIV_PROBS || options.y_pred_form != KLDIV_PROBS;
}

}  // namespace kldiv
