// Every float32 in [1e-7, 1] as y_pred beside y_true = 1, and the other way round, and dense sets of pairs: the greatest
// error of log(t/p) and of each divergence's term, in units of the last place of the true value, on every ISA that this
// machine can run.
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

// ---- What is measured: a function as compiled for an ISA, and its value in double ----

// log1p of the exact difference: a double's accuracy however near the two are.
double log_ratio(double t, double p) { return std::log1p((t - p) / p); }

// An operation's terms of floats or doubles.
template <class T>
void terms(kldiv_operation operation, const char *isa, std::vector<T> &t, std::vector<T> &p, std::vector<double> &out) {
    constexpr int64_t size = sizeof(T);
    constexpr kldiv_dtype dtype = size == 8 ? KLDIV_FLOAT64 : KLDIV_FLOAT32;
    kldiv_select_isa(isa);
    kldiv_axis axes[] = {{static_cast<int64_t>(t.size()), {}}, {1, {}}};
    for (const kldiv_role input : {KLDIV_Y_TRUE, KLDIV_Y_PRED}) axes[0].strides[input] = size;
    axes[0].strides[KLDIV_OUT] = sizeof(double);
    kldiv_problem problem = {1, 1, axes, {}, KLDIV_DEFAULTS};
    problem.options.operation = operation;
    problem.operands[KLDIV_Y_TRUE] = {t.data(), dtype, 0};
    problem.operands[KLDIV_Y_PRED] = {p.data(), dtype, 0};
    problem.operands[KLDIV_OUT] = {out.data(), KLDIV_FLOAT64, 0};
    std::fill(out.begin(), out.end(), NAN);  // which no divergence of these is: what is not written is the worst error
    if (kldiv_run(&problem, nullptr) != KLDIV_OK) std::abort();
}

using LogRatios = void (*)(const float *t, const float *p, int64_t n, float *out);

struct Subject {
    const char *isa;
    const char *name;
    double most;           // ulp
    LogRatios log_ratios;  // nullptr: the operation's terms
    kldiv_operation operation;

    void evaluate(std::vector<float> &t, std::vector<float> &p, std::vector<double> &out) const {
        if (log_ratios == nullptr) return terms(operation, isa, t, p, out);
        std::vector<float> logs(t.size());
        log_ratios(t.data(), p.data(), static_cast<int64_t>(t.size()), logs.data());
        std::copy(logs.begin(), logs.end(), out.begin());
    }

    // Terms beside the core's own of doubles, so that no divergence has a formula here: those are a few 2^-29 of a float's
    // ulp from the true ones, as tools/accuracy.py and the tests find beside the oracle's formulas.
    void evaluate_exactly(const std::vector<float> &t, const std::vector<float> &p, std::vector<double> &out) const {
        std::vector<double> wide_t(t.begin(), t.end()), wide_p(p.begin(), p.end());
        if (log_ratios == nullptr) return terms(operation, "baseline", wide_t, wide_p, out);
        for (size_t i = 0; i < t.size(); ++i) out[i] = log_ratio(wide_t[i], wide_p[i]);
    }
};

constexpr size_t kNames = 1 + KLDIV_OPERATION_COUNT;

std::vector<Subject> subjects() {
    const struct {
        const char *name;
        LogRatios log_ratios;
    } isas[] = {
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
    std::vector<Subject> found;
    for (const auto &isa : isas) {
        if (kldiv_select_isa(isa.name) != 0) continue;
        // Of the parts that cancel to a tenth where t/p is near 4/3. Without FMA they have a rounding more.
        const double most = std::strcmp(isa.name, "baseline") == 0 ? 12 : 6;
        found.push_back({isa.name, "log(t/p)", 2, isa.log_ratios, KLDIV_KL});
        for (int i = 0; i < KLDIV_OPERATION_COUNT; ++i)
            found.push_back({isa.name, kldiv_operation_name(i), most, nullptr, static_cast<kldiv_operation>(i)});
    }
    return found;
}

// ---- Sweeps ----

struct Worst {
    double ulp = 0;
    float t = 0, p = 0;
};

double ulp_of(double x) { return std::ldexp(1.0, std::ilogb(x) - 23); }

template <class Pair>
std::vector<Worst> sweep(const std::vector<Subject> &all, int64_t count, Pair pair) {
    std::vector<Worst> worst(all.size());
    std::vector<float> t(kChunk, 1.0f), p(kChunk, 1.0f);
    std::vector<double> out(kChunk), exact(kChunk);
    for (int64_t first = 0; first < count; first += kChunk) {
        const int64_t n = count - first < kChunk ? count - first : kChunk;
        for (int64_t i = 0; i < n; ++i) pair(first + i, t[i], p[i]);
        // Subjects of one name stand a whole ISA apart: the exact values are computed once for all of them.
        for (size_t name = 0; name < kNames; ++name) {
            all[name].evaluate_exactly(t, p, exact);
            for (size_t k = name; k < all.size(); k += kNames) {
                all[k].evaluate(t, p, out);
                for (int64_t i = 0; i < n; ++i) {
                    const double error = exact[i] == out[i] ? 0 : std::fabs(out[i] - exact[i]) / ulp_of(exact[i]);
                    if (!(error <= worst[k].ulp)) worst[k] = {error, t[i], p[i]};
                }
            }
        }
    }
    return worst;
}

}  // namespace

int main(int argc, char **argv) {
    const int64_t step = argc > 1 ? std::atoll(argv[1]) : 1;
    const std::vector<Subject> all_subjects = subjects();
    const uint32_t low = bits_of(kEpsilon), high = bits_of(1.0f);
    const int64_t all = (high - low) / step + 1;
    const auto number = [&](int64_t i) { return from_bits(low + static_cast<uint32_t>(i * step)); };

    struct Case {
        const char *name;
        int64_t count;
        std::vector<Worst> worst;
    } cases[] = {
        {"t = 1, every p", all, sweep(all_subjects, all, [&](int64_t i, float &t, float &p) { t = 1, p = number(i); })},
        {"p = 1, every t", all, sweep(all_subjects, all, [&](int64_t i, float &t, float &p) { t = number(i), p = 1; })},
        {"t and p unrelated", all / 4,
         sweep(all_subjects, all / 4,
               [&](int64_t i, float &t, float &p) {
                   t = number(splitmix64(2 * i) % all), p = number(splitmix64(2 * i + 1) % all);
               })},
        {"p within 2^-8 of t", all / 4,
         sweep(all_subjects, all / 4,
               [&](int64_t i, float &t, float &p) {
                   const uint64_t h = splitmix64(i);
                   const uint32_t at = low + static_cast<uint32_t>(h % (high - low));
                   const uint32_t far = static_cast<uint32_t>((h >> 32) % 32768);
                   t = from_bits(at), p = from_bits(at + far < high ? at + far : high);
               })},
    };
    bool good = true;
    for (const Case &c : cases)
        for (size_t k = 0; k < all_subjects.size(); ++k) {
            const Subject &subject = all_subjects[k];
            std::printf("| %s | %s | %s | %lld | %.3f | %a | %a |\n", subject.isa, subject.name, c.name,
                        static_cast<long long>(c.count), c.worst[k].ulp, c.worst[k].t, c.worst[k].p);
            good = good && c.worst[k].ulp <= subject.most;
        }
    return good ? 0 : 1;
}
