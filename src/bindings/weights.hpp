// What a mean divides by where rows have weights or a mask.
#pragma once
#include "arrays.hpp"

// How many elements of a mask are true.
int64_t count_rows(const arrays::Fields &mask);

// Whether two arrays, either of which may be nullptr, broadcast.
bool broadcast(const arrays::Fields *a, const arrays::Fields *b);

// The sum over float32 or float64 weights times a mask, of the shape that the two broadcast to, as exact as one rounding
// however many there are; either may be nullptr. Elements that the mask leaves out are not read.
double sum_of_weights(const arrays::Fields *weight, const arrays::Fields *mask);
