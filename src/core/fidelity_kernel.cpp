// The loops over rows of logits of two models, compiled as kernel.cpp is: once on each ISA. CMake defines KLDIV_ISA (one of
// simd/).
#include "fidelity_kernel.hpp"

#include "kernel.hpp"

#define KLDIV_STRING_(x) #x
#define KLDIV_STRING(x) KLDIV_STRING_(x)
// clang-format off: the order matters, and so do the spaces that are not there
#include KLDIV_STRING(simd/KLDIV_ISA.hpp)
#include "loops/lanes.hpp"
#include "loops/loads.hpp"
#include "loops/rowwise.hpp"
#include "loops/fidelity.hpp"
// clang-format on

namespace kldiv {

#define KLDIV_TABLE_(isa) fidelity_kernels_##isa
#define KLDIV_TABLE(isa) KLDIV_TABLE_(isa)
extern const FidelityKernels KLDIV_TABLE(KLDIV_ISA);
constexpr FidelityKernels KLDIV_TABLE(KLDIV_ISA) = {read, add_up, compare};

}  // namespace kldiv
