// The loops, written once and compiled once for each ISA: CMake defines KLDIV_ISA (avx512, avx2, neon, scalar) and the
// matching flags. Everything here but the one exported table has internal linkage, and nothing comes from std::, so
// that no function compiled for a newer machine can be picked by the linker for an older one.
#include "kernel.hpp"

#define KLDIV_STRING_(x) #x
#define KLDIV_STRING(x) KLDIV_STRING_(x)
// clang-format off: the order matters, and so do the spaces that are not there
#include KLDIV_STRING(simd/KLDIV_ISA.hpp)
#include "math/log_ratio.hpp"
#include "loops/loads.hpp"
#include "loops/sums.hpp"
#include "loops/gradients.hpp"
// clang-format on

namespace kldiv {
namespace {

template <bool General, class Load>
constexpr Operations operations() {
    return {Sums<Load, General>::row_sums,
            Sums<Load, General>::column_sums,
            {Gradients<Load, General, Wanted::y_pred_alone>::row_gradients,
             Gradients<Load, General, Wanted::y_pred>::row_gradients,
             Gradients<Load, General, Wanted::y_true>::row_gradients,
             Gradients<Load, General, Wanted::both>::row_gradients},
            {Gradients<Load, General, Wanted::y_pred_alone>::column_gradients,
             Gradients<Load, General, Wanted::y_pred>::column_gradients,
             Gradients<Load, General, Wanted::y_true>::column_gradients,
             Gradients<Load, General, Wanted::both>::column_gradients}};
}

}  // namespace

#define KLDIV_TABLE_(isa) kernels_##isa
#define KLDIV_TABLE(isa) KLDIV_TABLE_(isa)
extern const Kernels KLDIV_TABLE(KLDIV_ISA);
// In the order of kldiv_dtype: float32, float64, float16, bfloat16.
constexpr Kernels KLDIV_TABLE(KLDIV_ISA) = {
    {operations<false, LoadF32>(), operations<false, LoadF64>(), operations<false, LoadF16>(),
     operations<false, LoadBF16>()},
    {operations<true, LoadF32>(), operations<true, LoadF64>(), operations<true, LoadF16>(),
     operations<true, LoadBF16>()},
};

}  // namespace kldiv
