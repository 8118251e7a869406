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

#if defined(KLDIV_HAS_AVX512)
extern const Kernels kernels_avx512;
#endif
#if defined(KLDIV_HAS_AVX2)
extern const Kernels kernels_avx2;
#endif
#if defined(KLDIV_HAS_NEON)
extern const Kernels kernels_neon;
#endif
extern const Kernels kernels_scalar;

namespace {

struct Implementation {
    const char *name;
    const Kernels *kernels;
    bool (*supported)();
};

bool always() { return true; }

constexpr Implementation kImplementations[] = {
#if defined(KLDIV_HAS_AVX512)
    {"avx512", &kernels_avx512, has_x86_64_v4},
#endif
#if defined(KLDIV_HAS_AVX2)
    {"avx2", &kernels_avx2, has_x86_64_v3},
#endif
#if defined(KLDIV_HAS_NEON)
    {"neon", &kernels_neon, always},
#endif
    {"baseline", &kernels_scalar, always},
};

const Implementation *supported(int i) {
    for (const Implementation &implementation : kImplementations)
        if (implementation.supported() && i-- == 0) return &implementation;
    return nullptr;
}

std::atomic<const Implementation *> current{supported(0)};

}  // namespace

const Kernels &current_kernels() { return *current.load(std::memory_order_relaxed)->kernels; }

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
