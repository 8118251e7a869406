// The loops over rows with a state, compiled as kernel.cpp is: once for each row of KLDIV_ROWWISE on each ISA. CMake defines
// KLDIV_ROWS (a file of rows/) and KLDIV_ISA (one of simd/).
#include "kernel.hpp"

#define KLDIV_STRING_(x) #x
#define KLDIV_STRING(x) KLDIV_STRING_(x)
// clang-format off: the order matters, and so do the spaces that are not there
#include KLDIV_STRING(simd/KLDIV_ISA.hpp)
#include "loops/lanes.hpp"
#include "loops/loads.hpp"
#include "loops/rowwise.hpp"
#include KLDIV_STRING(rows/KLDIV_ROWS.hpp)
// clang-format on

namespace kldiv {
namespace {

template <class Load>
constexpr RowwiseFunctions functions() {
    return {Loops<Load>::begin, Loops<Load>::reduce, Loops<Load>::merge, Loops<Load>::next, Loops<Load>::map};
}

}  // namespace

#define KLDIV_TABLE_(isa, rows) row_kernels_##isa##_##rows
#define KLDIV_TABLE(isa, rows) KLDIV_TABLE_(isa, rows)
extern const RowwiseKernels KLDIV_TABLE(KLDIV_ISA, KLDIV_ROWS);
// In the order of kldiv_dtype: float32, float64, float16, bfloat16.
constexpr RowwiseKernels KLDIV_TABLE(KLDIV_ISA, KLDIV_ROWS) = {
    {functions<LoadF32>(), functions<LoadF64>(), functions<LoadF16>(), functions<LoadBF16>()},
    Loops<LoadF32>::most_passes};

}  // namespace kldiv
