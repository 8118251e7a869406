// A driver whose instructions are counted: instructions OPERATION ISA DTYPE REPEATS. See instructions.py.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kldiv.h"

namespace {

constexpr int64_t kRows = 2048, kClasses = 10, kElements = kRows * kClasses;

kldiv_options one_thread() {
    kldiv_options options = KLDIV_DEFAULTS;
    options.num_threads = 1;
    return options;
}

// Value and y_pred's gradient, by the row.
void rows_and_gradient(const void *t, const void *p, kldiv_dtype dtype, int64_t classes, void *out, void *grad) {
    const kldiv_options options = one_thread();
    kldiv_rows(&options, dtype, t, p, kElements / classes, classes, nullptr, out, nullptr, grad);
}

// The values of rows, or `down` the same memory's columns.
void rows_alone(char *t, char *p, kldiv_dtype dtype, int64_t size, double *out, bool down) {
    const int64_t row = kClasses * size;
    const kldiv_axis rows = {kRows, {row, row}}, classes = {kClasses, {size, size}};
    kldiv_axis axes[2] = {down ? classes : rows, down ? rows : classes};
    kldiv_problem problem = {1, 1, axes, {}, one_thread()};
    problem.operands[KLDIV_Y_TRUE] = {t, dtype, 0};
    problem.operands[KLDIV_Y_PRED] = {p, dtype, 0};
    problem.operands[KLDIV_OUT] = {out, KLDIV_FLOAT64, 0};
    axes[0].strides[KLDIV_OUT] = 8;
    kldiv_run(&problem, nullptr);
}

}  // namespace

int main(int, char **argv) {
    const char *operation = argv[1];
    if (kldiv_select_isa(argv[2]) != 0) return 2;
    const kldiv_dtype dtype = static_cast<kldiv_dtype>(std::atoi(argv[3]));
    const int repeats = std::atoi(argv[4]);
    const int64_t size = dtype == KLDIV_FLOAT64 ? 8 : dtype == KLDIV_FLOAT32 ? 4 : 2;
    // Every element is 0.5 or 0.25: instructions do not depend on what the kernels read.
    const uint16_t half = dtype == KLDIV_BFLOAT16 ? 0x3f00 : 0x3800,
                   quarter = dtype == KLDIV_BFLOAT16 ? 0x3e80 : 0x3400;
    std::vector<char> t(kElements * size), p(kElements * size);
    for (int64_t i = 0; i < kElements; ++i) {
        const float f[2] = {0.5f, 0.25f};
        const double d[2] = {0.5, 0.25};
        const uint16_t h[2] = {half, quarter};
        const void *from = dtype == KLDIV_FLOAT64   ? static_cast<const void *>(d)
                           : dtype == KLDIV_FLOAT32 ? static_cast<const void *>(f)
                                                    : h;
        std::memcpy(&t[i * size], from, size);
        std::memcpy(&p[i * size], static_cast<const char *>(from) + size, size);
    }
    std::vector<double> out(kRows), grad(kElements);
    double total = 0;
    for (int i = 0; i < repeats; ++i) {
        if (std::strcmp(operation, "stream") == 0) {
            const kldiv_options options = one_thread();
            kldiv_flat(&options, dtype, t.data(), p.data(), kElements, &total);
        } else if (std::strcmp(operation, "gradient") == 0) {
            rows_and_gradient(t.data(), p.data(), dtype, kElements / 20, out.data(), grad.data());
        } else if (std::strcmp(operation, "narrow-gradient") == 0) {
            rows_and_gradient(t.data(), p.data(), dtype, kClasses, out.data(), grad.data());
        } else {
            rows_alone(t.data(), p.data(), dtype, size, out.data(), std::strcmp(operation, "columns") == 0);
            total = out[0];
        }
    }
    std::printf("%.17g\n", total);
    return 0;
}
