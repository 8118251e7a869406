// Every float32 in [1e-7, 1] as y_pred beside y_true = 1, and the other way round, and dense sets of pairs: the greatest
// error of log(t/p), in units of the last place of the true value, on every ISA that this machine can run.
//     exhaustive [STEP]      every STEP-th float (default: 1, all of them)
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "inputs.hpp"
#include "kldiv.h"

void log_ratios_avx512(const float *, const float *, int64_t, float *);
void log_ratios_avx2(const float *, const float *, int64_t, float *);
void log_ratios_neon(const float *, const float *, int64_t, float *);
void log_ratios_baseline(const float *, const float *, int64_t, float *);

namespace {

constexpr int64_t kChunk = 1 << 16;
constexpr float kEpsilon = 1e-7f;

uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}
float from_bits(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

struct Isa {
    const char *name;
    void (*log_ratios)(const float *t, const float *p, int64_t n, float *out);
};

std::vector<Isa> isas_here() {
    const Isa known[] = {
#if defined(KLDIV_HAS_AVX512)
        {"avx512", log_ratios_avx512},
#endif
#if defined(KLDIV_HAS_AVX2)
        {"avx2", log_ratios_avx2},
#endif
#if defined(KLDIV_HAS_NEON)
        {"neon", log_ratios_neon},
#endif
        {"baseline", log_ratios_baseline},
    };
    std::vector<Isa> found;
    for (const Isa &isa : known)
        for (int i = 0; kldiv_isa_name(i) != nullptr; ++i)
            if (std::strcmp(kldiv_isa_name(i), isa.name) == 0) found.push_back(isa);
    return found;
}

struct Worst {
    double ulp = 0;
    float t = 0, p = 0;
};

// log1p of the exact difference: a double's accuracy however near the two are.
double reference(double t, double p) { return std::log1p((t - p) / p); }

double ulp_of(double x) { return std::ldexp(1.0, std::ilogb(x) - 23); }

template <class Pair>
std::vector<Worst> sweep(const std::vector<Isa> &isas, int64_t count, Pair pair) {
    std::vector<Worst> worst(isas.size());
    std::vector<float> t(kChunk), p(kChunk);
    std::vector<float> out(kChunk);
    std::vector<double> exact(kChunk);
    std::fill(t.begin(), t.end(), 1.0f), std::fill(p.begin(), p.end(), 1.0f);
    for (int64_t first = 0; first < count; first += kChunk) {
        const int64_t n = count - first < kChunk ? count - first : kChunk;
        for (int64_t i = 0; i < n; ++i) {
            pair(first + i, t[i], p[i]);
            exact[i] = reference(t[i], p[i]);
        }
        for (size_t k = 0; k < isas.size(); ++k) {
            isas[k].log_ratios(t.data(), p.data(), kChunk, out.data());
            for (int64_t i = 0; i < n; ++i) {
                if (exact[i] == 0) {
                    if (out[i] != 0) worst[k] = {INFINITY, t[i], p[i]};
                    continue;
                }
                const double error = std::fabs(out[i] - exact[i]) / ulp_of(exact[i]);
                if (!(error <= worst[k].ulp)) worst[k] = {error, t[i], p[i]};
            }
        }
    }
    return worst;
}

}  // namespace

int main(int argc, char **argv) {
    const int64_t step = argc > 1 ? std::atoll(argv[1]) : 1;
    const std::vector<Isa> isas = isas_here();
    const uint32_t low = bits_of(kEpsilon), high = bits_of(1.0f);
    const int64_t all = (high - low) / step + 1;
    const auto number = [&](int64_t i) { return from_bits(low + static_cast<uint32_t>(i * step)); };

    struct Case {
        const char *name;
        int64_t count;
        std::vector<Worst> worst;
    } cases[] = {
        {"t = 1, every p", all, sweep(isas, all, [&](int64_t i, float &t, float &p) { t = 1, p = number(i); })},
        {"p = 1, every t", all, sweep(isas, all, [&](int64_t i, float &t, float &p) { t = number(i), p = 1; })},
        {"t and p unrelated", all / 4,
         sweep(isas, all / 4,
               [&](int64_t i, float &t, float &p) {
                   t = number(splitmix64(2 * i) % all), p = number(splitmix64(2 * i + 1) % all);
               })},
        {"p within 2^-8 of t", all / 4,
         sweep(isas, all / 4,
               [&](int64_t i, float &t, float &p) {
                   const uint64_t h = splitmix64(i);
                   const uint32_t at = low + static_cast<uint32_t>(h % (high - low));
                   const uint32_t far = static_cast<uint32_t>((h >> 32) % 32768);
                   t = from_bits(at), p = from_bits(at + far < high ? at + far : high);
               })},
    };
    double greatest = 0;
    for (const Case &c : cases)
        for (size_t k = 0; k < isas.size(); ++k) {
            std::printf("| %s | %s | %lld | %.3f | %a | %a |\n", isas[k].name, c.name, static_cast<long long>(c.count),
                        c.worst[k].ulp, c.worst[k].t, c.worst[k].p);
            if (c.worst[k].ulp > greatest) greatest = c.worst[k].ulp;
        }
    return greatest <= 2 ? 0 : 1;
}
