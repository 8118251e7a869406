// Inputs that every machine makes alike: integer hashes, squared exactly. tests/bits.py makes the same in NumPy.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

#include "kldiv.h"

inline uint64_t splitmix64(uint64_t i) {
    uint64_t z = (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

// In (0, 1], most of it small; 48 bits at most, so exact in a double.
inline double sample(uint64_t i) {
    const double u = static_cast<double>((splitmix64(i) >> 40) + 1) * 0x1p-24;
    return u * u;
}

inline int64_t size_of(kldiv_dtype dtype) { return dtype == KLDIV_FLOAT64 ? 8 : dtype == KLDIV_FLOAT32 ? 4 : 2; }

// n elements from number `first` on. float16 comes straight from the hash, bfloat16 from the float's upper half.
inline std::vector<char> samples(kldiv_dtype dtype, uint64_t first, int64_t n) {
    std::vector<char> bytes(n * size_of(dtype));
    for (int64_t i = 0; i < n; ++i) {
        char *at = bytes.data() + i * size_of(dtype);
        const double d = sample(first + i);
        const float f = static_cast<float>(d);
        uint32_t bits;
        std::memcpy(&bits, &f, 4);
        const uint16_t half = static_cast<uint16_t>(splitmix64(first + i) >> 32) % 0x3c01,
                       upper = static_cast<uint16_t>(bits >> 16);
        if (dtype == KLDIV_FLOAT64) std::memcpy(at, &d, 8);
        if (dtype == KLDIV_FLOAT32) std::memcpy(at, &f, 4);
        if (dtype == KLDIV_FLOAT16) std::memcpy(at, &half, 2);
        if (dtype == KLDIV_BFLOAT16) std::memcpy(at, &upper, 2);
    }
    return bytes;
}
