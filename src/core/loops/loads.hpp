// How the kernel dtypes reach a vector register: 16-bit elements are widened as they are read. Included by kernel.cpp alone.
#pragma once
#include <cstdint>

namespace kldiv {
namespace {

struct LoadF32 {
    using Vec = VecF32;
    static constexpr int size = 4;
    static Vec full(const char *src) { return Vec::load(src); }
    static Vec partial(const char *src, int n) { return Vec::load_partial(src, n); }
};
struct LoadF64 {
    using Vec = VecF64;
    static constexpr int size = 8;
    static Vec full(const char *src) { return Vec::load(src); }
    static Vec partial(const char *src, int n) { return Vec::load_partial(src, n); }
};
struct LoadF16 {
    using Vec = VecF32;
    static constexpr int size = 2;
    static Vec full(const char *src) { return load_float16(src, Vec::lanes); }
    static Vec partial(const char *src, int n) { return load_float16(src, n); }
};
struct LoadBF16 {
    using Vec = VecF32;
    static constexpr int size = 2;
    static Vec full(const char *src) { return load_bfloat16(src, Vec::lanes); }
    static Vec partial(const char *src, int n) { return load_bfloat16(src, n); }
};

}  // namespace
}  // namespace kldiv
