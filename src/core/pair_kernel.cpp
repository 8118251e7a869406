// The loops over pairs of rows, compiled as kernel.cpp is: once on each ISA. CMake defines KLDIV_ISA (one of simd/).
#include "pair_kernel.hpp"

#define KLDIV_STRING_(x) #x
#define KLDIV_STRING(x) KLDIV_STRING_(x)
// clang-format off: the order matters, and so do the spaces that are not there
#include KLDIV_STRING(simd/KLDIV_ISA.hpp)
#include "loops/pairs.hpp"
// clang-format on

namespace kldiv {
namespace {

constexpr int kRows = kRegisters == 32 ? 12 : 6;  // whose sums, two vectors each, leave registers for what is added

template <class V>
constexpr PairFunctions functions() {
    return {kRows,
            2 * V::lanes,
            prepare_left<V>,
            prepare_right<V>,
            {add_pairs<V, Product, kRows, kRows>, add_pairs<V, Mixture, kRows, 2>}};
}

}  // namespace

#define KLDIV_TABLE_(isa) pair_kernels_##isa
#define KLDIV_TABLE(isa) KLDIV_TABLE_(isa)
extern const PairKernels KLDIV_TABLE(KLDIV_ISA);
constexpr PairKernels KLDIV_TABLE(KLDIV_ISA) = {functions<VecF32>(), functions<VecF64>()};

}  // namespace kldiv
