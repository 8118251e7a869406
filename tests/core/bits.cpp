// Prints the exact result of every case on one ISA (the argument; default: the best): what tests/bits.txt holds.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <initializer_list>

#include "inputs.hpp"
#include "kldiv.h"

namespace {

struct Shape {
    int64_t rows, classes;
};

struct Forms {
    kldiv_form y_true, y_pred;
    bool are_probs() const { return y_true == KLDIV_PROBS && y_pred == KLDIV_PROBS; }
};

const kldiv_dtype kDtypes[] = {KLDIV_FLOAT32, KLDIV_FLOAT64, KLDIV_FLOAT16, KLDIV_BFLOAT16};
const char *const kNames[] = {"float32", "float64", "float16", "bfloat16"};
const Shape kShapes[] = {{1, 1}, {1, 7}, {2, 2}, {333, 10}, {50, 46}, {100, 129}, {7, 5000}, {1, 100003}, {3000, 33}};

// All NaN are one: whose sign it has is each processor's own.
uint64_t bits_of(double x) {
    if (x != x) return 0x7ff8000000000000u;
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

// `parameter`: epsilon, or of other forms than probabilities the temperature.
kldiv_options options_of(kldiv_operation operation, Forms forms, double parameter) {
    kldiv_options options = KLDIV_DEFAULTS;
    options.operation = operation;
    options.y_true_form = forms.y_true, options.y_pred_form = forms.y_pred;
    (forms.are_probs() ? options.epsilon : options.temperature) = parameter;
    return options;
}

// Both gradients of every row, y_true's first, which labels have none of.
template <class Result>
std::vector<double> gradients(const std::vector<char> &t, const std::vector<char> &p, kldiv_dtype dtype, Shape shape,
                              const kldiv_options &options) {
    const int64_t n = shape.rows * shape.classes;
    std::vector<Result> grads(2 * n);
    kldiv_rows(&options, dtype, t.data(), p.data(), shape.rows, shape.classes, nullptr, nullptr,
               options.y_true_form == KLDIV_LABELS ? nullptr : grads.data(), grads.data() + n);
    return std::vector<double>(grads.begin(), grads.end());
}

// Values by the row, or `down` the same memory's columns; the sum of all with `out` null.
double run(const std::vector<char> &t, const std::vector<char> &p, kldiv_dtype dtype, Shape shape, bool down,
           const kldiv_options &options, std::vector<double> *out) {
    const int64_t size = size_of(dtype), row = shape.classes * size;
    const kldiv_axis rows = {shape.rows, {row, row}}, classes = {shape.classes, {size, size}};
    kldiv_axis axes[2] = {down ? classes : rows, down ? rows : classes};
    const bool labels = options.y_true_form == KLDIV_LABELS;
    if (labels) axes[0].strides[KLDIV_Y_TRUE] = 8, axes[1].strides[KLDIV_Y_TRUE] = 0;
    kldiv_problem problem = {1, 1, axes, {}, options};
    problem.operands[KLDIV_Y_TRUE] = {const_cast<char *>(t.data()), labels ? KLDIV_INT64 : dtype, 0};
    problem.operands[KLDIV_Y_PRED] = {const_cast<char *>(p.data()), dtype, 0};
    if (out != nullptr) {
        out->assign(axes[0].extent, 0);
        axes[0].strides[KLDIV_OUT] = 8;
        problem.operands[KLDIV_OUT] = {out->data(), KLDIV_FLOAT64, 0};
    }
    double total = 0;
    kldiv_run(&problem, &total);
    return total;
}

// One for each row and for each column, which both have.
std::vector<char> labels_of(Shape shape) {
    std::vector<char> bytes(8 * std::max(shape.rows, shape.classes));
    for (size_t i = 0; i < bytes.size() / 8; ++i) {
        const int64_t label = static_cast<int64_t>(splitmix64(i) >> 1) % std::min(shape.rows, shape.classes);
        std::memcpy(&bytes[8 * i], &label, 8);
    }
    return bytes;
}

void print_case(kldiv_operation operation, Forms forms, int d, Shape shape, double parameter) {
    const int64_t n = shape.rows * shape.classes;
    const std::vector<char> t = forms.y_true == KLDIV_LABELS ? labels_of(shape) : samples(kDtypes[d], 0, n),
                            p = samples(kDtypes[d], 1u << 30, n);
    const kldiv_options options = options_of(operation, forms, parameter);
    std::vector<double> rows, columns;
    run(t, p, kDtypes[d], shape, false, options, &rows);
    run(t, p, kDtypes[d], shape, true, options, &columns);
    const double total = run(t, p, kDtypes[d], shape, false, options, nullptr);
    const std::vector<double> grads = d == KLDIV_FLOAT64 ? gradients<double>(t, p, kDtypes[d], shape, options)
                                                         : gradients<float>(t, p, kDtypes[d], shape, options);
    if (forms.y_true != forms.y_pred)
        std::printf("%s/%s-%s ", kldiv_operation_name(operation), kldiv_form_name(forms.y_true),
                    kldiv_form_name(forms.y_pred));
    else if (!forms.are_probs())
        std::printf("%s/%s ", kldiv_operation_name(operation), kldiv_form_name(forms.y_true));
    else if (operation != KLDIV_KL)
        std::printf("%s ", kldiv_operation_name(operation));
    std::printf("%s %" PRId64 "x%" PRId64 " %g %016" PRIx64 " %016" PRIx64 " %016" PRIx64 " %016" PRIx64 "\n",
                kNames[d], shape.rows, shape.classes, parameter, bits_of(total), hash(rows), hash(columns),
                hash(grads));
}

void print_cases(kldiv_operation operation, Forms forms, std::initializer_list<double> parameters) {
    for (int d = 0; d < 4; ++d)
        for (const Shape shape : kShapes)
            for (const double parameter : parameters) print_case(operation, forms, d, shape, parameter);
}

}  // namespace

int main(int argc, char **argv) {
    if (argc > 1 && kldiv_select_isa(argv[1]) != 0) {
        std::fprintf(stderr, "no such ISA here: %s\n", argv[1]);
        return 2;
    }
    std::fprintf(stderr, "ISA: %s\n", kldiv_current_isa());
    for (int operation = 0; operation < KLDIV_OPERATION_COUNT; ++operation)
        print_cases(static_cast<kldiv_operation>(operation), {KLDIV_PROBS, KLDIV_PROBS}, {1e-7, 0});
    print_cases(KLDIV_KL, {KLDIV_LOGITS, KLDIV_LOGITS}, {1, 0.1});
    // Each form on either side, in the format of the elements and in float64.
    print_cases(KLDIV_KL, {KLDIV_PROBS, KLDIV_LOGITS}, {1});
    print_cases(KLDIV_JSD, {KLDIV_LOGITS, KLDIV_COUNTS}, {1});
    print_cases(KLDIV_GENERALIZED_KL, {KLDIV_LOG_PROBS, KLDIV_PROBS}, {1});
    print_cases(KLDIV_JEFFREYS, {KLDIV_COUNTS, KLDIV_LOG_PROBS}, {1});
    print_cases(KLDIV_KL, {KLDIV_LABELS, KLDIV_LOGITS}, {1, 0.1});
    print_cases(KLDIV_KL, {KLDIV_LABELS, KLDIV_PROBS}, {1});
    return 0;
}
