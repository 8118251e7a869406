// Prints the exact result of every case on one ISA (the argument; default: the best): what tests/bits.txt holds.
#include <cinttypes>
#include <cstdio>

#include "inputs.hpp"
#include "kldiv.h"

namespace {

struct Shape {
    int64_t rows, classes;
};

const kldiv_dtype kDtypes[] = {KLDIV_FLOAT32, KLDIV_FLOAT64, KLDIV_FLOAT16, KLDIV_BFLOAT16};
const char *const kNames[] = {"float32", "float64", "float16", "bfloat16"};
const Shape kShapes[] = {{1, 1}, {1, 7}, {2, 2}, {333, 10}, {50, 46}, {100, 129}, {7, 5000}, {1, 100003}, {3000, 33}};

uint64_t bits_of(double x) {
    uint64_t bits;
    std::memcpy(&bits, &x, 8);
    return bits;
}

// One number for all values and their order.
uint64_t hash(const std::vector<double> &values) {
    uint64_t h = 0;
    for (size_t i = 0; i < values.size(); ++i) h += splitmix64(bits_of(values[i]) ^ i);
    return h;
}

// Both gradients of every row, y_true's first.
template <class Result>
std::vector<double> gradients(const std::vector<char> &t, const std::vector<char> &p, kldiv_dtype dtype, Shape shape,
                              double epsilon) {
    const int64_t n = shape.rows * shape.classes;
    std::vector<Result> grads(2 * n);
    kldiv_rows(dtype, t.data(), p.data(), shape.rows, shape.classes, 1, epsilon, nullptr, 0, nullptr, nullptr, nullptr,
               grads.data(), grads.data() + n);
    return std::vector<double>(grads.begin(), grads.end());
}

kldiv_problem problem_over(const std::vector<char> &t, const std::vector<char> &p, kldiv_dtype dtype, Shape shape,
                           bool down, double epsilon, std::vector<double> &out) {
    const int64_t size = size_of(dtype), row = shape.classes * size;
    kldiv_problem problem{};
    problem.batch_ndim = problem.class_ndim = 1;
    problem.batch[0] = {shape.rows, row, row, 0, 0, 8};
    problem.classes[0] = {shape.classes, size, size, 0, 0, 0};
    if (down) {  // the same memory, summed along the other axis
        problem.batch[0] = {shape.classes, size, size, 0, 0, 8};
        problem.classes[0] = {shape.rows, row, row, 0, 0, 0};
    }
    problem.y_true = {t.data(), dtype, 0};
    problem.y_pred = {p.data(), dtype, 0};
    out.assign(problem.batch[0].extent, 0);
    problem.out = out.data();
    problem.out_dtype = KLDIV_FLOAT64;
    problem.clip = 1;
    problem.epsilon = epsilon;
    return problem;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc > 1 && kldiv_select_isa(argv[1]) != 0) {
        std::fprintf(stderr, "no such ISA here: %s\n", argv[1]);
        return 2;
    }
    std::fprintf(stderr, "ISA: %s\n", kldiv_current_isa());
    for (int d = 0; d < 4; ++d)
        for (const Shape shape : kShapes)
            for (const double epsilon : {1e-7, 0.0}) {
                const int64_t n = shape.rows * shape.classes;
                const std::vector<char> t = samples(kDtypes[d], 0, n), p = samples(kDtypes[d], 1u << 30, n);
                std::vector<double> rows, columns;
                double total = 0;
                kldiv_problem along = problem_over(t, p, kDtypes[d], shape, false, epsilon, rows);
                kldiv_run(&along, nullptr);
                kldiv_problem down = problem_over(t, p, kDtypes[d], shape, true, epsilon, columns);
                kldiv_run(&down, nullptr);
                along.out = nullptr;
                kldiv_run(&along, &total);
                const std::vector<double> grads = d == KLDIV_FLOAT64
                                                      ? gradients<double>(t, p, kDtypes[d], shape, epsilon)
                                                      : gradients<float>(t, p, kDtypes[d], shape, epsilon);
                std::printf("%s %" PRId64 "x%" PRId64 " %g %016" PRIx64 " %016" PRIx64 " %016" PRIx64 " %016" PRIx64
                            "\n",
                            kNames[d], shape.rows, shape.classes, epsilon, bits_of(total), hash(rows), hash(columns),
                            hash(grads));
            }
    return 0;
}
