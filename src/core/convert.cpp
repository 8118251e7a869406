// See convert.hpp. One loop, instantiated for every pair of a source type and a kernel type.
#include "convert.hpp"

#include <cstring>

#include "simd/halves.hpp"

namespace kldiv {
namespace {

struct Float16 {
    uint16_t bits;
    operator double() const { return float16_to_float(bits); }
};
struct BFloat16 {
    uint16_t bits;
    operator double() const { return bfloat16_to_float(bits); }
};
struct Bool {
    uint8_t byte;
    operator double() const { return byte != 0; }
};

template <class Source, bool Swapped>
Source read(const char *src) {
    unsigned char bytes[sizeof(Source)];
    std::memcpy(bytes, src, sizeof bytes);
    if (Swapped)
        for (unsigned i = 0; i < sizeof bytes / 2; ++i) {
            const unsigned char byte = bytes[i];
            bytes[i] = bytes[sizeof bytes - 1 - i];
            bytes[sizeof bytes - 1 - i] = byte;
        }
    Source x;
    std::memcpy(&x, bytes, sizeof x);
    return x;
}

template <class Source, class Target, bool Swapped>
void pack_loop(const char *src, int64_t stride, int64_t n, Target *dst) {
    if (stride == 0) {
        const Target x = static_cast<Target>(read<Source, Swapped>(src));
        for (int64_t i = 0; i < n; ++i) dst[i] = x;
    } else {
        for (int64_t i = 0; i < n; ++i) dst[i] = static_cast<Target>(read<Source, Swapped>(src + i * stride));
    }
}

template <class Source>
void pack_from(const kldiv_array &source, const char *src, int64_t stride, int64_t n, kldiv_dtype to, void *dst) {
    if (to == KLDIV_FLOAT32) {
        float *target = static_cast<float *>(dst);
        source.swapped ? pack_loop<Source, float, true>(src, stride, n, target)
                       : pack_loop<Source, float, false>(src, stride, n, target);
    } else {
        double *target = static_cast<double *>(dst);
        source.swapped ? pack_loop<Source, double, true>(src, stride, n, target)
                       : pack_loop<Source, double, false>(src, stride, n, target);
    }
}

}  // namespace

int64_t item_size(kldiv_dtype dtype) {
    constexpr int64_t sizes[] = {4, 8, 2, 2, 1, 1, 1, 2, 2, 4, 4, 8, 8};
    return sizes[dtype];
}

void pack(const kldiv_array &source, const char *src, int64_t stride, int64_t n, kldiv_dtype to, void *dst) {
    switch (source.dtype) {
        case KLDIV_FLOAT32: return pack_from<float>(source, src, stride, n, to, dst);
        case KLDIV_FLOAT64: return pack_from<double>(source, src, stride, n, to, dst);
        case KLDIV_FLOAT16: return pack_from<Float16>(source, src, stride, n, to, dst);
        case KLDIV_BFLOAT16: return pack_from<BFloat16>(source, src, stride, n, to, dst);
        case KLDIV_BOOL: return pack_from<Bool>(source, src, stride, n, to, dst);
        case KLDIV_INT8: return pack_from<int8_t>(source, src, stride, n, to, dst);
        case KLDIV_UINT8: return pack_from<uint8_t>(source, src, stride, n, to, dst);
        case KLDIV_INT16: return pack_from<int16_t>(source, src, stride, n, to, dst);
        case KLDIV_UINT16: return pack_from<uint16_t>(source, src, stride, n, to, dst);
        case KLDIV_INT32: return pack_from<int32_t>(source, src, stride, n, to, dst);
        case KLDIV_UINT32: return pack_from<uint32_t>(source, src, stride, n, to, dst);
        case KLDIV_INT64: return pack_from<int64_t>(source, src, stride, n, to, dst);
        case KLDIV_UINT64: return pack_from<uint64_t>(source, src, stride, n, to, dst);
    }
}

}  // namespace kldiv
