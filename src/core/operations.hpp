// What the table of operations comes to for a call. Included by kldiv.cpp.
#pragma once
#include "kldiv.h"

namespace kldiv {

// Another operation that a call's is at the ends of its parameter's range, perhaps with y_true and y_pred swapped.
struct Limit {
    kldiv_operation operation;
    bool swapped;
};
Limit limit_of(const kldiv_options &options);

}  // namespace kldiv
