// What all loops share: the order of summation, and what an element's gradients are. Included by the kernels alone.
#pragma once

namespace kldiv {
namespace {

// The order of summation, the same on every ISA: element i of a segment goes to virtual lane i % 16, in the element's
// own format; at the segment's end the lanes become doubles and a tree adds them.
constexpr int kLanes = 16;

template <class V>
struct Gradients {
    V t, p;
};

}  // namespace
}  // namespace kldiv
