// Every float32 from 0 down to where its exponential counts as 0, every float32 in [-1, 1] for what is left of e^-x - 1 + x,
// and as many float64s spread over the same ranges: the greatest error in units of the last place, on every ISA that this
// machine can run. Compiled once for each ISA, as its kernels are, and once without, for main.
//     exponentials [STEP]      every STEP-th float (default: 1, all of them)
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

struct Errors {
    double exponential[2], quotient[2];  // float32, float64
};

#ifdef KLDIV_ISA
#include "kernel.hpp"

#define KLDIV_STRING_(x) #x
#define KLDIV_STRING(x) KLDIV_STRING_(x)
// clang-format off: the order matters, and so do the spaces that are not there
#include KLDIV_STRING(simd/KLDIV_ISA.hpp)
#include "math/exp.hpp"
// clang-format on

namespace {

using Wide = long double;

Wide exact_exponential(double x) { return std::exp(static_cast<Wide>(x)); }

// A series where the parts cancel.
Wide exact_quotient(double number) {
    const Wide x = number;
    if (std::fabs(x) > 0.5L) return (std::expm1(-x) + x) / (x * x);
    Wide sum = 0, term = 0.5L;
    for (int k = 3; k < 30; ++k) {
        sum += term;
        term *= -x / k;
    }
    return sum;
}

template <class T>
double ulps(T found, Wide exact) {
    const int digits = sizeof(T) == 4 ? 23 : 52;
    return static_cast<double>(std::fabs(found - exact) / std::ldexp(1.0L, std::ilogb(exact) - digits));
}

// The greatest error of `function` at number(i) for i < n.
template <class V, class Function, class Number>
double sweep(int64_t n, const Function &function, Wide (*exact)(double), const Number &number) {
    using T = typename V::Element;
    double worst = 0;
    for (int64_t i = 0; i < n; i += V::lanes) {
        T x[V::lanes], y[V::lanes];
        for (int l = 0; l < V::lanes; ++l) x[l] = number(std::min(i + l, n - 1));
        function(V::load(reinterpret_cast<const char *>(x))).store(y);
        for (int l = 0; l < V::lanes; ++l) {
            const double error = ulps(y[l], exact(x[l]));
            if (!(error <= worst)) worst = error;
        }
    }
    return worst;
}

float float_of(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

}  // namespace

#define KLDIV_NAME_(isa) errors_##isa
#define KLDIV_NAME(isa) KLDIV_NAME_(isa)

Errors KLDIV_NAME(KLDIV_ISA)(int64_t step) {
    using kldiv::VecF32;
    using kldiv::VecF64;
    const auto exponential = [](auto x) { return kldiv::exponential(x); };
    const auto quotient = [](auto x) { return kldiv::bregman_quotient(x); };
    // Of one sign, by their bits: those below 86 in magnitude, and those below 1.
    const int64_t to_86 = 0x42ac0000 / step, to_1 = 0x3f800000 / step;
    const auto by_bits = [&](uint32_t sign) {
        return [=](int64_t i) { return float_of(sign | static_cast<uint32_t>(i * step)); };
    };
    const auto spread = [](double from, double to, int64_t n) {
        return [=](int64_t i) { return from + (to - from) * (static_cast<double>(i) / static_cast<double>(n)); };
    };
    const int64_t n = 20'000'000 / step + 1000;
    return {{sweep<VecF32>(to_86, exponential, exact_exponential, by_bits(0x80000000)),
             sweep<VecF64>(n, exponential, exact_exponential, spread(-707, 0, n))},
            {std::max(sweep<VecF32>(to_1, quotient, exact_quotient, by_bits(0)),
                      sweep<VecF32>(to_1, quotient, exact_quotient, by_bits(0x80000000))),
             sweep<VecF64>(n, quotient, exact_quotient, spread(-1, 1, n))}};
}

#else
#include "kldiv.h"

Errors errors_avx512(int64_t step);
Errors errors_avx2(int64_t step);
Errors errors_neon(int64_t step);
Errors errors_baseline(int64_t step);

int main(int argc, char **argv) {
    const int64_t step = argc > 1 ? std::atoll(argv[1]) : 1;
    const struct {
        const char *name;
        Errors (*errors)(int64_t);
    } isas[] = {
#if defined(KLDIV_HAS_AVX512)
        {"avx512", errors_avx512},
#endif
#if defined(KLDIV_HAS_AVX2)
        {"avx2", errors_avx2},
#endif
#if defined(KLDIV_HAS_NEON)
        {"neon", errors_neon},
#endif
        {"baseline", errors_baseline},
    };
    constexpr double most = 2, most_of_quotient = 2.5;
    bool good = true;
    for (const auto &isa : isas) {
        if (kldiv_select_isa(isa.name) != 0) continue;
        const Errors errors = isa.errors(step);
        for (int wide = 0; wide < 2; ++wide) {
            std::printf("| %s | %s | %.3f | %.3f |\n", isa.name, wide ? "float64" : "float32", errors.exponential[wide],
                        errors.quotient[wide]);
            good = good && errors.exponential[wide] <= most && errors.quotient[wide] <= most_of_quotient;
        }
    }
    return good ? 0 : 1;
}
#endif
