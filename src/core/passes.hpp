// Gradients that can't be had in the pass that computes the values. Included by kldiv.cpp.
#pragma once
#include "kldiv.h"

namespace kldiv {

// Whether values keep their bits when gradients are computed beside them. They depend on the order of summation, and a
// plan makes one axis of two, and one row of several, only where inputs and gradients allow it.
bool gradients_follow_inputs(const kldiv_problem &problem);

// Whether a gradient is a sum over what its argument is repeated along.
bool is_summed(const kldiv_problem &problem, kldiv_role grad);

// Such a gradient, in float64 and in an order that depends on shapes alone, in memory that doesn't grow with them.
// run: kldiv_run for a gradient that is not summed.
kldiv_status sum_gradient(const kldiv_problem &problem, kldiv_role grad, kldiv_status (*run)(const kldiv_problem &));

}  // namespace kldiv
