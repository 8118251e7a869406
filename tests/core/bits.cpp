// Prints the exact result of every case on one ISA (the argument; default: the best): what tests/bits.txt holds.
#include <algorithm>
#include <array>
#include <cinttypes>
#include <cmath>
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

void print_name(kldiv_operation operation, Forms forms) {
    if (forms.y_true != forms.y_pred)
        std::printf("%s/%s-%s ", kldiv_operation_name(operation), kldiv_form_name(forms.y_true),
                    kldiv_form_name(forms.y_pred));
    else if (!forms.are_probs())
        std::printf("%s/%s ", kldiv_operation_name(operation), kldiv_form_name(forms.y_true));
    else if (operation != KLDIV_KL)
        std::printf("%s ", kldiv_operation_name(operation));
}

void print_results(int d, Shape shape, double parameter, const std::array<uint64_t, 4> &results) {
    std::printf("%s %" PRId64 "x%" PRId64 " %g", kNames[d], shape.rows, shape.classes, parameter);
    for (const uint64_t result : results) std::printf(" %016" PRIx64, result);
    std::printf("\n");
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
    print_name(operation, forms);
    print_results(d, shape, parameter, {bits_of(total), hash(rows), hash(columns), hash(grads)});
}

void print_cases(kldiv_operation operation, Forms forms, std::initializer_list<double> parameters) {
    for (int d = 0; d < 4; ++d)
        for (const Shape shape : kShapes)
            for (const double parameter : parameters) print_case(operation, forms, d, shape, parameter);
}

// ---- All pairs ----

// What belongs to a row alone is none: the bits are those of the sums over the classes. Without a center, of values.
std::vector<double> pairs(const std::vector<char> &t, const std::vector<char> &p, kldiv_dtype dtype, Shape shape,
                          const kldiv_options &options, kldiv_layout layout, bool has_center) {
    const int64_t n = shape.rows, size = size_of(dtype);
    const std::vector<double> scales(n, 1), bases(n, 0), least(n, -HUGE_VAL);
    const std::vector<double> wide(shape.classes, 1.0 / static_cast<double>(shape.classes));
    const std::vector<float> narrow(wide.begin(), wide.end());
    const auto side = [&](const std::vector<char> &rows) {
        return kldiv_side{{const_cast<char *>(rows.data()), dtype, 0},
                          n,
                          shape.classes * size,
                          size,
                          scales.data(),
                          bases.data(),
                          least.data()};
    };
    std::vector<double> values(layout == KLDIV_CONDENSED ? n * (n - 1) / 2 : n * n);
    kldiv_pairs_problem problem{};
    problem.y_true = side(t);
    problem.y_pred = side(layout == KLDIV_ALL_PAIRS ? p : t);
    problem.classes = shape.classes;
    problem.dtype = dtype == KLDIV_FLOAT64 ? KLDIV_FLOAT64 : KLDIV_FLOAT32;
    if (has_center) problem.center = dtype == KLDIV_FLOAT64 ? static_cast<const void *>(wide.data()) : narrow.data();
    problem.out = {values.data(), KLDIV_FLOAT64, 0};
    problem.out_strides[0] = n * 8, problem.out_strides[1] = 8;
    problem.layout = layout;
    problem.options = options;
    kldiv_pairs(&problem);
    return values;
}

void print_pairs(kldiv_operation operation) {
    for (int d = 0; d < 4; ++d)
        for (const Shape shape : {Shape{2, 2}, Shape{50, 46}, Shape{101, 129}, Shape{7, 5000}}) {
            const int64_t n = shape.rows * shape.classes;
            const std::vector<char> t = samples(kDtypes[d], 0, n), p = samples(kDtypes[d], 1u << 30, n);
            const kldiv_options options = options_of(operation, {KLDIV_PROBS, KLDIV_PROBS}, 1e-7);
            const auto of = [&](kldiv_layout layout, bool has_center) {
                return pairs(t, p, kDtypes[d], shape, options, layout, has_center);
            };
            const std::vector<double> all = of(KLDIV_ALL_PAIRS, true);
            double total = 0;
            for (const double value : all) total += value;
            std::printf("pairs/%s ", kldiv_operation_name(operation));
            print_results(
                d, shape, 1e-7,
                {bits_of(total), hash(all), hash(of(KLDIV_CONDENSED, true)), hash(of(KLDIV_MIRRORED, false))});
        }
}

// ---- Rows in blocks ----

std::vector<double> in_blocks(const std::vector<char> &t, const std::vector<char> &p, kldiv_dtype dtype, Shape shape,
                              const kldiv_options &options, int64_t blocks) {
    const int64_t size = size_of(dtype), row = shape.classes * size, of_state = kldiv_state_size(&options);
    const bool labels = options.y_true_form == KLDIV_LABELS;
    std::vector<std::vector<int64_t>> states(blocks, std::vector<int64_t>(shape.rows * of_state));
    std::vector<double> values(shape.rows);
    const int rounds = kldiv_most_rounds(&options, dtype);
    for (int round = 0; round < rounds; ++round) {
        for (int64_t b = blocks - 1; b >= 0; --b) {
            if (b > 0) states[b] = states[0];
            const int64_t first = shape.classes * b / blocks, end = shape.classes * (b + 1) / blocks;
            std::vector<char> here = t;
            for (int64_t r = 0; labels && r < shape.rows; ++r) {
                int64_t label;
                std::memcpy(&label, &t[8 * r], 8);
                label = label >= first && label < end ? label - first : -1;
                std::memcpy(&here[8 * r], &label, 8);
            }
            kldiv_axis axes[2] = {{shape.rows, {labels ? 8 : row, row}}, {end - first, {labels ? 0 : size, size}}};
            axes[0].strides[KLDIV_OUT] = 8 * of_state;
            kldiv_problem problem = {1, 1, axes, {}, options};
            problem.operands[KLDIV_Y_TRUE] = {here.data() + (labels ? 0 : first * size), labels ? KLDIV_INT64 : dtype,
                                              0};
            problem.operands[KLDIV_Y_PRED] = {const_cast<char *>(p.data()) + first * size, dtype, 0};
            problem.operands[KLDIV_OUT] = {states[b].data(), KLDIV_INT64, 0};
            kldiv_reduce(&problem, shape.classes, round == 0);
        }
        for (int64_t b = 1; b < blocks; ++b) kldiv_merge(&options, shape.rows, states[0].data(), states[b].data());
        kldiv_next(&options, shape.rows, states[0].data(), values.data());
    }
    return values;
}

void print_blocks(kldiv_operation operation, Forms forms) {
    for (int d = 0; d < 4; ++d)
        for (const Shape shape : {Shape{50, 46}, Shape{7, 5000}}) {
            const int64_t n = shape.rows * shape.classes;
            const std::vector<char> t = forms.y_true == KLDIV_LABELS ? labels_of(shape) : samples(kDtypes[d], 0, n),
                                    p = samples(kDtypes[d], 1u << 30, n);
            const double parameter = forms.are_probs() ? 1e-7 : 1;
            const kldiv_options options = options_of(operation, forms, parameter);
            const auto of = [&](int64_t blocks) { return in_blocks(t, p, kDtypes[d], shape, options, blocks); };
            const std::vector<double> rows = of(3);
            double total = 0;
            for (const double value : rows) total += value;
            std::printf("blocks/");
            print_name(operation, forms);
            print_results(d, shape, parameter, {bits_of(total), hash(rows), hash(of(1)), hash(of(2))});
        }
}

// ---- Language models ----

std::vector<double> fidelity(kldiv_logits base, kldiv_logits other, Shape shape) {
    std::vector<double> figures(shape.rows * KLDIV_FIGURE_COUNT);
    std::vector<int64_t> targets(shape.rows);
    for (int64_t r = 0; r < shape.rows; ++r) targets[r] = r % (shape.classes + 1) - 1;
    kldiv_fidelity_problem problem{};
    problem.base = base, problem.other = other;
    problem.rows = shape.rows, problem.classes = shape.classes;
    problem.targets = targets.data(), problem.out = figures.data();
    problem.options = KLDIV_DEFAULTS;
    kldiv_fidelity(&problem);
    return figures;
}

// llama.cpp's codes, behind their scale and the least logarithm.
std::vector<char> codes_of(Shape shape) {
    const float front[2] = {16.0f / 65535, -16.0f - std::log2(static_cast<float>(shape.classes))};
    const int64_t row = 8 + 2 * shape.classes;
    std::vector<char> bytes(shape.rows * row);
    for (int64_t r = 0; r < shape.rows; ++r) {
        std::memcpy(&bytes[r * row], front, 8);
        for (int64_t i = 0; i < shape.classes; ++i) {
            const uint16_t code = static_cast<uint16_t>(splitmix64(r * shape.classes + i) >> 48);
            std::memcpy(&bytes[r * row + 8 + 2 * i], &code, 2);
        }
    }
    return bytes;
}

void print_fidelity() {
    for (const int d : {0, 2, 3})
        for (const Shape shape : {Shape{1, 1}, Shape{50, 46}, Shape{7, 5000}, Shape{1, 100003}}) {
            const int64_t n = shape.rows * shape.classes, size = size_of(kDtypes[d]), row = shape.classes * size;
            const std::vector<char> a = samples(kDtypes[d], 0, n), b = samples(kDtypes[d], 1u << 30, n),
                                    codes = codes_of(shape);
            const kldiv_logits base = {a.data(), kDtypes[d], row}, other = {b.data(), kDtypes[d], row},
                               coded = {codes.data(), KLDIV_UINT16, 8 + 2 * shape.classes};
            const std::vector<double> figures = fidelity(base, other, shape);
            double total = 0;
            for (int64_t r = 0; r < shape.rows; ++r) total += figures[r * KLDIV_FIGURE_COUNT];
            std::printf("fidelity ");
            print_results(d, shape, 1,
                          {bits_of(total), hash(figures), hash(fidelity(coded, other, shape)),
                           hash(fidelity(coded, coded, shape))});
        }
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
    for (const kldiv_operation operation : {KLDIV_KL, KLDIV_JSD, KLDIV_JEFFREYS}) print_pairs(operation);
    print_blocks(KLDIV_KL, {KLDIV_PROBS, KLDIV_PROBS});
    print_blocks(KLDIV_KL, {KLDIV_LOGITS, KLDIV_LOGITS});
    print_blocks(KLDIV_JSD, {KLDIV_LOGITS, KLDIV_COUNTS});
    print_blocks(KLDIV_KL, {KLDIV_LABELS, KLDIV_LOGITS});
    print_fidelity();
    return 0;
}
