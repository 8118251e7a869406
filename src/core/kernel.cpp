// The loops, written once and compiled once for each operation on each ISA: CMake defines KLDIV_OPERATION (a file of
// terms/), KLDIV_ISA (one of simd/) and the matching flags. An object for each, so that the compiler's limits of inlining
// and the bits of one operation know nothing of the others. Everything here but the one exported table has internal linkage,
// and nothing comes from std::, so that no function compiled for a newer machine can be picked by the linker for an older
// one.
#include "kernel.hpp"

#define KLDIV_STRING_(x) #x
#define KLDIV_STRING(x) KLDIV_STRING_(x)
// clang-format off: the order matters, and so do the spaces that are not there
#include KLDIV_STRING(simd/KLDIV_ISA.hpp)
#include "math/log_ratio.hpp"
#include KLDIV_STRING(terms/KLDIV_OPERATION.hpp)
#include "loops/lanes.hpp"
#include "loops/loads.hpp"
#include "loops/separable.hpp"
// clang-format on

namespace kldiv {
namespace {

template <class Load, bool General, Wanted wanted>
using Loops = Separable<Term, Load, General, wanted>;

// Of 16-bit elements only what training wants has functions of its own: float32's do the rest (task.cpp).
template <class Load, bool General, Wanted wanted>
constexpr auto row_gradients() {
    if constexpr (Load::size == 2 && wanted == Wanted::both)
        return nullptr;
    else if constexpr (wanted == Wanted::pred_alone && !Term::kPredNeedsNoSum)
        return Loops<Load, General, Wanted::pred>::row_gradients;
    else
        return Loops<Load, General, wanted>::row_gradients;
}

template <class Load, bool General>
constexpr auto column_gradients() {
    if constexpr (Load::size == 2)
        return nullptr;
    else
        return Loops<Load, General, Wanted::both>::column_gradients;
}

template <class Load, bool General>
constexpr Functions functions() {
    if constexpr (Load::size == 2 && (General || !kReadsHalves))
        return {};
    else
        return {Loops<Load, General, Wanted::none>::row_sums,
                Loops<Load, General, Wanted::none>::column_sums,
                {row_gradients<Load, General, Wanted::pred_alone>(), row_gradients<Load, General, Wanted::pred>(),
                 row_gradients<Load, General, Wanted::both>()},
                column_gradients<Load, General>()};
}

}  // namespace

#define KLDIV_TABLE_(isa, operation) kernels_##isa##_##operation
#define KLDIV_TABLE(isa, operation) KLDIV_TABLE_(isa, operation)
extern const Kernels KLDIV_TABLE(KLDIV_ISA, KLDIV_OPERATION);
// In the order of kldiv_dtype: float32, float64, float16, bfloat16.
constexpr Kernels KLDIV_TABLE(KLDIV_ISA, KLDIV_OPERATION) = {
    {functions<LoadF32, false>(), functions<LoadF64, false>(), functions<LoadF16, false>(),
     functions<LoadBF16, false>()},
    {functions<LoadF32, true>(), functions<LoadF64, true>(), functions<LoadF16, true>(), functions<LoadBF16, true>()},
    Term::kGrowsWithLogT,
    Term::kGrowsWithLogP,
};

}  // namespace kldiv
