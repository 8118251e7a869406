// The table of implementations, best first, and the one comparison that chooses. What CMake compiled an object for
// (x86-64-v4, x86-64-v3) and what is asked of the machine (cpu.hpp) are the same list of features.
#include "dispatch.hpp"

#include <atomic>
#include <cstring>
#include <iterator>

#if defined(KLDIV_HAS_AVX2)
#include "cpu.hpp"
#endif

namespace kldiv {

// What the objects of kernel.cpp export.
#define KLDIV_DECLARE(isa, name) extern const Kernels kernels_##isa##_##name;
#define KLDIV_ROW(NAME, name, parameters) \
    KLDIV_DECLARE(avx512, name) KLDIV_DECLARE(avx2, name) KLDIV_DECLARE(neon, name) KLDIV_DECLARE(baseline, name)
KLDIV_OPERATIONS(KLDIV_ROW)
#undef KLDIV_ROW
#undef KLDIV_DECLARE
// And those of row_kernel.cpp.
#define KLDIV_DECLARE(isa, name) extern const RowwiseKernels row_kernels_##isa##_##name;
#define KLDIV_ROW(name, NAME, Y_TRUE, Y_PRED) \
    KLDIV_DECLARE(avx512, name) KLDIV_DECLARE(avx2, name) KLDIV_DECLARE(neon, name) KLDIV_DECLARE(baseline, name)
KLDIV_ROWWISE(KLDIV_ROW)
#undef KLDIV_ROW
// And those of pair_kernel.cpp.
extern const PairKernels pair_kernels_avx512, pair_kernels_avx2, pair_kernels_neon, pair_kernels_baseline;
// And those of fidelity_kernel.cpp.
extern const FidelityKernels fidelity_kernels_avx512, fidelity_kernels_avx2, fidelity_kernels_neon,
    fidelity_kernels_baseline;

namespace {

struct Implementation {
    const char *name;
    const Kernels *kernels[KLDIV_OPERATION_COUNT];
    const RowwiseKernels *rowwise[kRowwiseCount];
    const PairKernels *pairs;
    const FidelityKernels *fidelity;
    bool (*supported)();
};

bool always() { return true; }

constexpr Implementation kImplementations[] = {
#if defined(KLDIV_HAS_AVX512)
#define KLDIV_ROW(NAME, name, parameters) &kernels_avx512_##name,
#define KLDIV_STATE(name, NAME, Y_TRUE, Y_PRED) &row_kernels_avx512_##name,
    {"avx512",
     {KLDIV_OPERATIONS(KLDIV_ROW)},
     {KLDIV_ROWWISE(KLDIV_STATE)},
     &pair_kernels_avx512,
     &fidelity_kernels_avx512,
     has_x86_64_v4},
#undef KLDIV_ROW
#undef KLDIV_STATE
#endif
#if defined(KLDIV_HAS_AVX2)
#define KLDIV_ROW(NAME, name, parameters) &kernels_avx2_##name,
#define KLDIV_STATE(name, NAME, Y_TRUE, Y_PRED) &row_kernels_avx2_##name,
    {"avx2",
     {KLDIV_OPERATIONS(KLDIV_ROW)},
     {KLDIV_ROWWISE(KLDIV_STATE)},
     &pair_kernels_avx2,
     &fidelity_kernels_avx2,
     has_x86_64_v3},
#undef KLDIV_ROW
#undef KLDIV_STATE
#endif
#if defined(KLDIV_HAS_NEON)
#define KLDIV_ROW(NAME, name, parameters) &kernels_neon_##name,
#define KLDIV_STATE(name, NAME, Y_TRUE, Y_PRED) &row_kernels_neon_##name,
    {"neon",
     {KLDIV_OPERATIONS(KLDIV_ROW)},
     {KLDIV_ROWWISE(KLDIV_STATE)},
     &pair_kernels_neon,
     &fidelity_kernels_neon,
     always},
#undef KLDIV_ROW
#undef KLDIV_STATE
#endif
#define KLDIV_ROW(NAME, name, parameters) &kernels_baseline_##name,
#define KLDIV_STATE(name, NAME, Y_TRUE, Y_PRED) &row_kernels_baseline_##name,
    {"baseline",
     {KLDIV_OPERATIONS(KLDIV_ROW)},
     {KLDIV_ROWWISE(KLDIV_STATE)},
     &pair_kernels_baseline,
     &fidelity_kernels_baseline,
     always},
#undef KLDIV_ROW
#undef KLDIV_STATE
};

const Implementation *supported(int i) {
    for (const Implementation &implementation : kImplementations)
        if (implementation.supported() && i-- == 0) return &implementation;
    return nullptr;
}

std::atomic<const Implementation *> current{supported(0)};

}  // namespace

const Kernels &current_kernels(kldiv_operation operation) {
    return *current.load(std::memory_order_relaxed)->kernels[operation];
}

const RowwiseKernels &current_rowwise_kernels(int which) {
    return *current.load(std::memory_order_relaxed)->rowwise[which];
}

const PairKernels &current_pair_kernels() { return *current.load(std::memory_order_relaxed)->pairs; }

const FidelityKernels &current_fidelity_kernels() { return *current.load(std::memory_order_relaxed)->fidelity; }

}  // namespace kldiv

const char *kldiv_isa_name(int i) {
    const kldiv::Implementation *implementation = kldiv::supported(i);
    return implementation != nullptr ? implementation->name : nullptr;
}

const char *kldiv_built_isa_name(int i) {
    const int built = static_cast<int>(std::size(kldiv::kImplementations));
    return i < built ? kldiv::kImplementations[i].name : nullptr;
}

const char *kldiv_current_isa(void) { return kldiv::current.load(std::memory_order_relaxed)->name; }

int kldiv_select_isa(const char *name) {
    for (int i = 0; const kldiv::Implementation *implementation = kldiv::supported(i); ++i)
        if (std::strcmp(implementation->name, name) == 0) {
            kldiv::current.store(implementation, std::memory_order_relaxed);
            return 0;
        }
    return -1;
}
