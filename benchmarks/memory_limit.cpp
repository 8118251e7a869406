// The limits: how fast this machine reads two arrays when nothing is computed but their sum, and how fast it reads two
// and writes a third. Benchmarks compare kldiv_fast with these loops; the package doesn't contain them. memory_limit.py compiles this file for the machine it runs on.
#include <cstdint>
#include <cstring>

#include <omp.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace {

// 16 independent vectors of 64 bytes are in flight (8 from each array), so that neither the latency of an addition nor
// the load ports wait for each other. 16-bit elements are added as integers: no conversion stands in the way.
template <class Element>
double sum_of_both(const char *a, const char *b, int64_t bytes) {
    typedef Element Vec __attribute__((vector_size(64)));
    constexpr int unrolled = 8;
    Vec sum[2 * unrolled] = {};
    const auto load = [](const char *src) {
        Vec x;
        std::memcpy(&x, src, sizeof x);
        return x;
    };
    int64_t i = 0;
    for (; i + int64_t{unrolled * sizeof(Vec)} <= bytes; i += unrolled * sizeof(Vec))
        for (int k = 0; k < unrolled; ++k) {
            sum[k] += load(a + i + k * sizeof(Vec));
            sum[unrolled + k] += load(b + i + k * sizeof(Vec));
        }
    double total = 0;
    for (const Vec &vec : sum)
        for (unsigned l = 0; l < sizeof(Vec) / sizeof(Element); ++l) total += static_cast<double>(vec[l]);
    for (; i < bytes; i += sizeof(Element)) {
        Element x, y;
        std::memcpy(&x, a + i, sizeof x);
        std::memcpy(&y, b + i, sizeof y);
        total += static_cast<double>(x) + static_cast<double>(y);
    }
    return total;
}

template <class Element>
double in_threads(const char *a, const char *b, int64_t n, int threads) {
    if (threads == 1) return sum_of_both<Element>(a, b, n * sizeof(Element));
    double total = 0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
    {
        const int64_t first = n * omp_get_thread_num() / threads;
        const int64_t last = n * (omp_get_thread_num() + 1) / threads;
        total += sum_of_both<Element>(a + first * sizeof(Element), b + first * sizeof(Element),
                                      (last - first) * sizeof(Element));
    }
    return total;
}

// out = a + b, element by element; `streamed`: past the caches, which spares reading what is overwritten.
template <class Element>
void sum_into(const char *a, const char *b, char *out, int64_t bytes, bool streamed) {
    typedef Element Vec __attribute__((vector_size(16)));
    for (int64_t i = 0; i < bytes; i += sizeof(Vec)) {
        Vec x, y;
        std::memcpy(&x, a + i, sizeof x);
        std::memcpy(&y, b + i, sizeof y);
        x += y;
#if defined(__SSE2__)
        if (streamed) {
            __m128i bits;
            std::memcpy(&bits, &x, sizeof bits);
            _mm_stream_si128(reinterpret_cast<__m128i *>(out + i), bits);
            continue;
        }
#endif
        std::memcpy(out + i, &x, sizeof x);
    }
}

// The arrays are whole vectors of 16 bytes, and `out` is aligned to them.
template <class Element>
void write_in_threads(const char *a, const char *b, char *out, int64_t n, int threads, bool streamed) {
    constexpr int64_t size = sizeof(Element), unit = 16 / size;
#pragma omp parallel num_threads(threads)
    {
        const int64_t first = n / unit * omp_get_thread_num() / threads * unit;
        const int64_t last = n / unit * (omp_get_thread_num() + 1) / threads * unit;
        streamed
            ? sum_into<Element>(a + first * size, b + first * size, out + first * size, (last - first) * size, true)
            : sum_into<Element>(a + first * size, b + first * size, out + first * size, (last - first) * size, false);
    }
}

}  // namespace

extern "C" {
double read_float32(const char *a, const char *b, int64_t n, int threads) {
    return in_threads<float>(a, b, n, threads);
}
double read_float64(const char *a, const char *b, int64_t n, int threads) {
    return in_threads<double>(a, b, n, threads);
}
void write_float32(const char *a, const char *b, char *out, int64_t n, int threads, int streamed) {
    write_in_threads<float>(a, b, out, n, threads, streamed);
}
void write_float64(const char *a, const char *b, char *out, int64_t n, int threads, int streamed) {
    write_in_threads<double>(a, b, out, n, threads, streamed);
}
double read_16bit(const char *a, const char *b, int64_t n, int threads) {
    return in_threads<uint16_t>(a, b, n, threads);
}
}
