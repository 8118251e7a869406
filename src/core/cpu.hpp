// What an x86-64 processor and its operating system can run, by the psABI's levels: the same names as the compile flags
// -march=x86-64-v3 and -march=x86-64-v4. Read from CPUID, because compilers differ in which names they can ask for.
#pragma once
#include <cstdint>

#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif

namespace kldiv {

struct CpuidRegisters {
    uint32_t a, b, c, d;
};

// All zero for a leaf that the processor doesn't have.
inline CpuidRegisters cpuid(uint32_t leaf, uint32_t subleaf = 0) {
#if defined(_MSC_VER)
    int highest[4], r[4];
    __cpuid(highest, static_cast<int>(leaf & 0x80000000u));
    if (static_cast<uint32_t>(highest[0]) < leaf) return {};
    __cpuidex(r, static_cast<int>(leaf), static_cast<int>(subleaf));
    return {static_cast<uint32_t>(r[0]), static_cast<uint32_t>(r[1]), static_cast<uint32_t>(r[2]),
            static_cast<uint32_t>(r[3])};
#else
    CpuidRegisters r{};
    __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
    return r;
#endif
}

// The register states that the operating system saves when it switches threads.
inline uint64_t saved_states() {
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return static_cast<uint64_t>(high) << 32 | low;
#endif
}

inline bool has_all(uint32_t word, uint32_t bits) { return (word & bits) == bits; }

constexpr uint32_t bit(int n) { return uint32_t{1} << n; }

inline bool has_x86_64_v3() {
    const CpuidRegisters basic = cpuid(1), extended = cpuid(7), amd = cpuid(0x80000001u);
    // SSE3, SSSE3, FMA, CX16, SSE4.1, SSE4.2, MOVBE, POPCNT, OSXSAVE, AVX, F16C
    const uint32_t needed =
        bit(0) | bit(9) | bit(12) | bit(13) | bit(19) | bit(20) | bit(22) | bit(23) | bit(27) | bit(28) | bit(29);
    if (!has_all(basic.c, needed)) return false;
    if (!has_all(extended.b, bit(3) | bit(5) | bit(8))) return false;  // BMI1, AVX2, BMI2
    if (!has_all(amd.c, bit(0) | bit(5))) return false;                // LAHF, LZCNT
    return (saved_states() & 0x6) == 0x6;                              // XMM, YMM
}

inline bool has_x86_64_v4() {
    if (!has_x86_64_v3()) return false;
    const uint32_t needed = bit(16) | bit(17) | bit(28) | bit(30) | bit(31);  // AVX512 F, DQ, CD, BW, VL
    return has_all(cpuid(7).b, needed) && (saved_states() & 0xe6) == 0xe6;    // and mask registers, ZMM
}

}  // namespace kldiv
