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

}  // namespace kldiv
