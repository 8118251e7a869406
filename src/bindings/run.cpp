// What kldiv_fast/_divergence.py and the adapters call. Python coerces and words the errors; this file checks again every
// fact that memory safety rests on.
#include "run.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include "arrays.hpp"
#include "core_call.hpp"
#include "weights.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace {

using Optional = std::optional<py::array>;

const arrays::Fields &fields(const py::array &array) { return arrays::fields(array.ptr()); }

// ---- One operand ----

kldiv_dtype integer_dtype(bool is_unsigned, py::ssize_t size) {
    switch (size) {
        case 1: return is_unsigned ? KLDIV_UINT8 : KLDIV_INT8;
        case 2: return is_unsigned ? KLDIV_UINT16 : KLDIV_INT16;
        case 4: return is_unsigned ? KLDIV_UINT32 : KLDIV_INT32;
        default: return is_unsigned ? KLDIV_UINT64 : KLDIV_INT64;
    }
}

kldiv_dtype dtype_of(const py::dtype &dtype) {
    const char kind = dtype.kind();
    const auto size = dtype.itemsize();
    if (kind == 'f' && size == 4) return KLDIV_FLOAT32;
    if (kind == 'f' && size == 8) return KLDIV_FLOAT64;
    if (kind == 'f' && size == 2) return KLDIV_FLOAT16;
    if (kind == 'b') return KLDIV_BOOL;
    if (kind == 'i' || kind == 'u') return integer_dtype(kind == 'u', size);
    if (size == 2 && dtype.attr("name").cast<std::string>() == "bfloat16") return KLDIV_BFLOAT16;
    throw py::type_error("dtype " + py::str(dtype).cast<std::string>() + " is not one that the core reads");
}

kldiv_operand input(const py::array &array) {
    return {const_cast<void *>(array.data()), dtype_of(array.dtype()), !arrays::is_native(fields(array))};
}

kldiv_dtype wide_dtype_of(const py::array &array, const char *name) {
    kldiv_dtype dtype;
    if (!arrays::read_wide_dtype(fields(array), dtype))
        throw py::type_error(std::string(name) + " must be float32 or float64, aligned and in native byte order");
    return dtype;
}

kldiv_operand factor(const py::array &array, const char *name) {
    return {const_cast<void *>(array.data()), wide_dtype_of(array, name), 0};
}

kldiv_operand target(py::array &array, const char *name) {
    return {array.mutable_data(), wide_dtype_of(array, name), 0};
}

// ---- The nest ----

struct Nest {
    int batch_ndim, ndim;
    kldiv_axis axes[KLDIV_MAX_AXES];
    int64_t elements = 1;

    // How far an array moves along the first `of` axes, with which its own end.
    void move(kldiv_role role, const py::array &array, int of, const char *name) {
        if (array.ndim() > of) throw py::value_error(std::string(name) + " has too many axes");
        const int missing = of - static_cast<int>(array.ndim());
        for (int i = 0; i < of; ++i)
            if (!arrays::read_stride(fields(array), i - missing, axes[i].extent, axes[i].strides[role]))
                throw py::value_error(std::string(name) + " does not broadcast with the other arrays");
    }
};

int64_t class_extent(const py::array &y_true, const py::array &y_pred, int from_end) {
    const auto along = [&](const py::array &x) { return static_cast<int64_t>(x.shape(x.ndim() - from_end)); };
    return along(y_true) == 1 ? along(y_pred) : along(y_true);
}

Nest nest_of(const py::array &y_true, const py::array &y_pred, int class_ndim, const py::tuple &batch_shape) {
    Nest nest;
    nest.batch_ndim = static_cast<int>(batch_shape.size());
    if (class_ndim < 0 || class_ndim > KLDIV_MAX_AXES || batch_shape.size() + class_ndim > KLDIV_MAX_AXES)
        throw py::value_error("too many axes");
    if (y_true.ndim() < class_ndim || y_pred.ndim() < class_ndim) throw py::value_error("too few axes");
    nest.ndim = nest.batch_ndim + class_ndim;
    for (int i = 0; i < nest.ndim; ++i) {
        const bool is_batch = i < nest.batch_ndim;
        const int64_t extent = is_batch ? batch_shape[i].cast<int64_t>() : class_extent(y_true, y_pred, nest.ndim - i);
        if (extent < 0 || (extent != 0 && nest.elements > INT64_MAX / extent))
            throw py::value_error("too many elements");
        nest.axes[i] = {extent, {}};
        nest.elements *= extent;
    }
    nest.move(KLDIV_Y_TRUE, y_true, nest.ndim, "y_true");
    nest.move(KLDIV_Y_PRED, y_pred, nest.ndim, "y_pred");
    return nest;
}

void move_out(Nest &nest, const py::array &out) {
    if (out.ndim() != nest.batch_ndim) throw py::value_error("out has the wrong number of axes");
    for (int i = 0; i < nest.batch_ndim; ++i)
        if (out.shape(i) != nest.axes[i].extent) throw py::value_error("out has the wrong shape");
    nest.move(KLDIV_OUT, out, nest.batch_ndim, "out");
}

// ---- Options ----

void check(const kldiv_options &options) {
    if (options.operation < 0 || options.operation >= KLDIV_OPERATION_COUNT)
        throw py::value_error("there is no such operation");
    if (!(options.epsilon >= 0 && options.epsilon < 1)) throw py::value_error("epsilon must lie in [0, 1)");
    if (!(options.beta >= 0 && options.beta <= 1)) throw py::value_error("beta must lie in [0, 1]");
    if (!(options.temperature > 0 && std::isfinite(options.temperature)))
        throw py::value_error("temperature must be finite and above 0");
    for (const int form : {options.y_true_form, options.y_pred_form})
        if (form < 0 || form >= KLDIV_FORM_COUNT) throw py::value_error("there is no such form");
    if (!(options.pseudocount >= 0 && std::isfinite(options.pseudocount)))
        throw py::value_error("pseudocount must be finite and not below 0");
    if (options.y_pred_form == KLDIV_LABELS) throw py::value_error("labels are for y_true alone");
    if (!(options.smoothing >= 0 && options.smoothing <= 1)) throw py::value_error("smoothing must lie in [0, 1]");
}

// Of y_true and of y_pred, numbers of kldiv_form.
using Forms = std::pair<int, int>;
constexpr Forms kProbs = {KLDIV_PROBS, KLDIV_PROBS};

kldiv_options options_of(int operation, std::optional<double> epsilon, double beta, double scale, int num_threads,
                         const Forms &forms, double temperature, double smoothing = 0, double pseudocount = 0) {
    kldiv_options options = KLDIV_DEFAULTS;
    options.operation = static_cast<kldiv_operation>(operation);
    options.y_true_form = static_cast<kldiv_form>(forms.first);
    options.y_pred_form = static_cast<kldiv_form>(forms.second);
    options.temperature = temperature;
    options.smoothing = smoothing;
    options.pseudocount = pseudocount;
    options.clip = epsilon.has_value();
    options.epsilon = epsilon.value_or(0);
    options.beta = beta;
    options.scale = scale;
    options.num_threads = num_threads;
    check(options);
    return options;
}

// What Options.core of _divergence.py holds.
kldiv_options read_options(const py::tuple &given) {
    const auto number = [&](size_t i) { return given[i].cast<double>(); };
    return options_of(given[0].cast<int>(), given[1].cast<std::optional<double>>(), number(2), number(3),
                      given[4].cast<int>(), given[5].cast<Forms>(), number(6), number(7), number(8));
}

void raise_status(kldiv_status status) {
    if (status == KLDIV_INTERRUPTED) throw py::error_already_set();
    if (status == KLDIV_NO_MEMORY) throw std::bad_alloc();
}

// One label for each row.
void check_labels(const py::array &labels, int class_ndim) {
    const kldiv_operand operand = input(labels);
    if (operand.dtype != KLDIV_INT64 || operand.swapped != 0) throw py::type_error("labels must be int64");
    for (int i = 1; i <= class_ndim; ++i)
        if (labels.shape(labels.ndim() - i) != 1) throw py::value_error("labels must have class axes of length 1");
}

// ---- What Python calls ----

// y_true and y_pred: batch axes first, then class_ndim class axes. batch_shape: of the rows, after broadcasting with
// weight and mask. A gradient has its argument's axes, and is summed over what that is broadcast along. `progress` is
// called now and then with the part that is done, on the main thread. Returns the sum of the rows, or None with `out`.
py::object run(const py::array &y_true, const py::array &y_pred, int class_ndim, const py::tuple &batch_shape,
               const Optional &weight, const Optional &mask, Optional out, std::optional<double> epsilon,
               int num_threads, const Optional &upstream, Optional grad_y_true, Optional grad_y_pred,
               const std::optional<py::function> &progress, int operation, double beta, double scale,
               const Forms &forms, double temperature, double smoothing, double pseudocount, const Optional &where) {
    Nest nest = nest_of(y_true, y_pred, class_ndim, batch_shape);
    if (forms.first == KLDIV_LABELS) check_labels(y_true, class_ndim);
    kldiv_problem problem{};
    problem.batch_ndim = nest.batch_ndim;
    problem.class_ndim = class_ndim;
    problem.axes = nest.axes;
    problem.options =
        options_of(operation, epsilon, beta, scale, num_threads, forms, temperature, smoothing, pseudocount);
    problem.operands[KLDIV_Y_TRUE] = input(y_true);
    problem.operands[KLDIV_Y_PRED] = input(y_pred);
    const auto add_bools = [&](kldiv_role role, const Optional &array, int ndim, const char *name) {
        if (!array) return;
        if (array->dtype().kind() != 'b') throw py::type_error(std::string(name) + " must be bool");
        problem.operands[role] = input(*array);
        nest.move(role, *array, ndim, name);
    };
    add_bools(KLDIV_MASK, mask, nest.batch_ndim, "mask");
    add_bools(KLDIV_WHERE, where, nest.ndim, "where");
    const auto add_factor = [&](kldiv_role role, const Optional &array, const char *name) {
        if (!array) return;
        problem.operands[role] = factor(*array, name);
        nest.move(role, *array, nest.batch_ndim, name);
    };
    add_factor(KLDIV_WEIGHT, weight, "sample_weight");
    add_factor(KLDIV_UPSTREAM, upstream, "upstream");
    const auto add_gradient = [&](kldiv_role role, Optional &array, const py::array &of, const char *name) {
        if (!array) return;
        if (!arrays::has_shape_of(fields(*array), fields(of)))
            throw py::value_error(std::string(name) + " has the wrong shape");
        problem.operands[role] = target(*array, name);
        nest.move(role, *array, nest.ndim, name);
    };
    add_gradient(KLDIV_GRAD_Y_TRUE, grad_y_true, y_true, "grad_y_true");
    add_gradient(KLDIV_GRAD_Y_PRED, grad_y_pred, y_pred, "grad_y_pred");
    if (grad_y_true && grad_y_pred &&
        problem.operands[KLDIV_GRAD_Y_TRUE].dtype != problem.operands[KLDIV_GRAD_Y_PRED].dtype)
        throw py::type_error("grad_y_true and grad_y_pred must be of one dtype");
    if (out) {
        problem.operands[KLDIV_OUT] = target(*out, "out");
        move_out(nest, *out);
    }
    double total = 0;
    raise_status(call_core(
        problem.options, nest.elements, [&] { return kldiv_run(&problem, &total); },
        progress ? progress->ptr() : nullptr));
    return out ? py::object(py::none()) : py::object(py::float_(total));
}

kldiv_dtype dtype_named(const std::string &name) {
    constexpr const char *names[] = {"float32", "float64", "float16", "bfloat16"};  // in the order of kldiv_dtype
    for (int i = 0; i < 4; ++i)
        if (name == names[i]) return static_cast<kldiv_dtype>(i);
    throw py::type_error("dtype is " + name + "; expected float32, float64, float16 or bfloat16");
}

// kldiv_rows, for contiguous rows of another framework's tensors. An epsilon of None is no clip, an address of 0 a null
// pointer. The caller vouches for the others.
void rows(const std::string &dtype, uintptr_t y_true, uintptr_t y_pred, int64_t n, int64_t classes,
          std::optional<double> epsilon, uintptr_t upstream, int num_threads, uintptr_t out, uintptr_t grad_y_true,
          uintptr_t grad_y_pred, int operation, double beta, double scale, const Forms &forms, double temperature) {
    const kldiv_dtype kind = dtype_named(dtype);
    kldiv_options options = options_of(operation, epsilon, beta, scale, num_threads, forms, temperature);
    const auto at = [](uintptr_t address) { return reinterpret_cast<void *>(address); };
    raise_status(call_core(options, n * classes, [&] {
        return kldiv_rows(&options, kind, at(y_true), at(y_pred), n, classes, at(upstream), at(out), at(grad_y_true),
                          at(grad_y_pred));
    }));
}

// Rows of a matrix's side, and beside them, in rows of their own, each one's scale, base and least value: see kldiv_side.
kldiv_side side_of(const py::array &rows, const Optional &beside, const char *name) {
    if (rows.ndim() != 2) throw py::value_error(std::string(name) + " must have two axes");
    kldiv_side side = {input(rows), rows.shape(0), rows.strides(0), rows.strides(1), nullptr, nullptr, nullptr};
    if (!beside) return side;
    if (beside->ndim() != 2 || beside->shape(0) != 3 || beside->shape(1) != rows.shape(0) ||
        wide_dtype_of(*beside, name) != KLDIV_FLOAT64 || !arrays::has_flags(fields(*beside), py::array::c_style))
        throw py::value_error(std::string("what stands beside ") + name + " must be three numbers for each row");
    side.scales = static_cast<const double *>(beside->data());
    side.bases = side.scales + side.rows;
    side.least = side.bases + side.rows;
    return side;
}

void check_out(const kldiv_pairs_problem &problem, const py::array &out) {
    const int64_t n = problem.y_true.rows, m = problem.y_pred.rows;
    const bool fits = problem.layout == KLDIV_CONDENSED ? out.ndim() == 1 && out.shape(0) == n * (n - 1) / 2
                                                        : out.ndim() == 2 && out.shape(0) == n && out.shape(1) == m;
    if (!fits || (problem.layout != KLDIV_ALL_PAIRS && n != m)) throw py::value_error("out has the wrong shape");
}

// kldiv_pairs. With a center, of float32 or float64, pairs are computed the fast way, in its dtype.
void pairs(const py::tuple &given, const py::array &y_true, const py::array &y_pred, py::array out, int layout,
           bool root, const Optional &center, const Optional &beside_true, const Optional &beside_pred) {
    if (layout < KLDIV_ALL_PAIRS || layout > KLDIV_CONDENSED) throw py::value_error("there is no such layout");
    kldiv_pairs_problem problem{};
    problem.y_true = side_of(y_true, beside_true, "y_true");
    problem.y_pred = side_of(y_pred, beside_pred, "y_pred");
    problem.classes = y_true.shape(1);
    if (y_pred.shape(1) != problem.classes) throw py::value_error("y_true and y_pred must have the same classes");
    problem.options = read_options(given);
    if (problem.options.y_true_form == KLDIV_LABELS) throw py::value_error("labels have no rows of classes");
    if (center) {
        problem.dtype = wide_dtype_of(*center, "center");
        if (!beside_true || !beside_pred || center->ndim() != 1 || center->shape(0) != problem.classes ||
            !arrays::has_flags(fields(*center), py::array::c_style))
            throw py::value_error("center must be one number for each class, with numbers beside the rows");
        problem.center = center->data();
    }
    problem.layout = static_cast<kldiv_layout>(layout);
    problem.root = root;
    check_out(problem, out);
    problem.out = target(out, "out");
    problem.out_strides[0] = out.strides(0);
    problem.out_strides[1] = out.strides(out.ndim() - 1);
    const double elements = static_cast<double>(problem.y_true.rows) * static_cast<double>(problem.y_pred.rows) *
                            static_cast<double>(problem.classes);
    raise_status(call_core(problem.options, static_cast<int64_t>(std::min(elements, 0x1p62)),
                           [&] { return kldiv_pairs(&problem); }));
}

// ---- Rows whose classes come in blocks ----

// How many int64s a row's state takes, and how many rounds at most.
std::pair<int64_t, int> rounds(const py::tuple &given, bool is_float64) {
    const kldiv_options options = read_options(given);
    return {kldiv_state_size(&options), kldiv_most_rounds(&options, is_float64 ? KLDIV_FLOAT64 : KLDIV_FLOAT32)};
}

// The states of so many rows; what is only read may be read-only.
int64_t *states_of(const py::array &states, const kldiv_options &options, int64_t rows) {
    if (dtype_of(states.dtype()) != KLDIV_INT64 || !arrays::has_flags(fields(states), py::array::c_style) ||
        states.size() != rows * kldiv_state_size(&options))
        throw py::value_error("states must be int64 and contiguous, of the rows' number");
    return static_cast<int64_t *>(const_cast<void *>(states.data()));
}

// kldiv_reduce. y_true, y_pred, class_ndim, batch_shape and where: as in run.
void reduce(const py::tuple &given, const py::array &y_true, const py::array &y_pred, const Optional &where,
            int class_ndim, const py::tuple &batch_shape, py::array states, int64_t classes, bool is_first) {
    Nest nest = nest_of(y_true, y_pred, class_ndim, batch_shape);
    kldiv_problem problem{};
    problem.batch_ndim = nest.batch_ndim;
    problem.class_ndim = class_ndim;
    problem.axes = nest.axes;
    problem.options = read_options(given);
    if (problem.options.y_true_form == KLDIV_LABELS) check_labels(y_true, class_ndim);
    problem.operands[KLDIV_Y_TRUE] = input(y_true);
    problem.operands[KLDIV_Y_PRED] = input(y_pred);
    if (where) {
        if (where->dtype().kind() != 'b') throw py::type_error("where must be bool");
        problem.operands[KLDIV_WHERE] = input(*where);
        nest.move(KLDIV_WHERE, *where, nest.ndim, "where");
    }
    int64_t rows = 1;
    for (int i = 0; i < nest.batch_ndim; ++i) rows *= nest.axes[i].extent;
    states.mutable_data();
    problem.operands[KLDIV_OUT] = {states_of(states, problem.options, rows), KLDIV_INT64, 0};
    if (nest.elements == 0) throw py::value_error("a block must have rows and classes");
    int64_t stride = kldiv_state_size(&problem.options) * static_cast<int64_t>(sizeof(int64_t));
    for (int i = nest.batch_ndim - 1; i >= 0; stride *= nest.axes[i--].extent) nest.axes[i].strides[KLDIV_OUT] = stride;
    raise_status(call_core(problem.options, nest.elements, [&] { return kldiv_reduce(&problem, classes, is_first); }));
}

// kldiv_merge of states, with those of the blocks that follow; then, where the round ends, kldiv_next. `values`: float64, one
// for each row, or None.
void merge(const py::tuple &given, py::array states, const py::list &others, bool ends, Optional values) {
    const kldiv_options options = read_options(given);
    const int64_t rows = states.size() / kldiv_state_size(&options);
    states.mutable_data();  // an error where they are read-only
    int64_t *const into = states_of(states, options, rows);
    for (const py::handle other : others)
        kldiv_merge(&options, rows, into, states_of(other.cast<py::array>(), options, rows));
    if (!ends) return;
    if (values && (wide_dtype_of(*values, "values") != KLDIV_FLOAT64 || values->size() != rows ||
                   !arrays::has_flags(fields(*values), py::array::c_style)))
        throw py::value_error("values must be contiguous, one for each row");
    kldiv_next(&options, rows, into, values ? static_cast<double *>(values->mutable_data()) : nullptr);
}

// ---- Language models ----

// One side of a kldiv_fidelity: rows of logits, or of codes behind their scale and least logarithm.
kldiv_logits logits_of(const py::array &rows, int64_t classes, const char *name) {
    const kldiv_operand operand = input(rows);
    const bool is_read = operand.dtype == KLDIV_FLOAT32 || operand.dtype == KLDIV_FLOAT16 ||
                         operand.dtype == KLDIV_BFLOAT16 || operand.dtype == KLDIV_UINT16;
    if (!is_read || operand.swapped)
        throw py::type_error(std::string(name) + " must be float32, float16, bfloat16 or uint16, and native");
    const int64_t before = operand.dtype == KLDIV_UINT16 ? 4 : 0;
    if (rows.ndim() != 2 || classes < 1 || rows.shape(1) < before + classes || rows.strides(1) != rows.itemsize())
        throw py::value_error(std::string(name) + " must have two axes, the second one of the classes, side by side");
    return {rows.data(), operand.dtype, rows.strides(0)};
}

// kldiv_fidelity.
void fidelity(const py::array &base, const py::array &other, int64_t classes, const Optional &targets, py::array out,
              double temperature, int num_threads) {
    kldiv_fidelity_problem problem{};
    problem.base = logits_of(base, classes, "base");
    problem.other = logits_of(other, classes, "other");
    problem.rows = base.shape(0);
    problem.classes = classes;
    if (other.shape(0) != problem.rows) throw py::value_error("base and other must have the same rows");
    if (targets) {
        const kldiv_operand operand = input(*targets);
        if (operand.dtype != KLDIV_INT64 || operand.swapped || targets->ndim() != 1 ||
            targets->shape(0) != problem.rows || !arrays::has_flags(fields(*targets), py::array::c_style))
            throw py::value_error("targets must be one int64 for each row");
        problem.targets = static_cast<const int64_t *>(targets->data());
        if (std::any_of(problem.targets, problem.targets + problem.rows,
                        [&](int64_t target) { return target < -1 || target >= classes; }))
            throw py::value_error("targets must be classes, or -1");
    }
    if (out.ndim() != 2 || out.shape(0) != problem.rows || out.shape(1) != KLDIV_FIGURE_COUNT ||
        wide_dtype_of(out, "out") != KLDIV_FLOAT64 || !arrays::has_flags(fields(out), py::array::c_style))
        throw py::value_error("out must be the figures of each row");
    problem.out = static_cast<double *>(out.mutable_data());
    problem.options = options_of(KLDIV_KL, std::nullopt, 0.5, 1, num_threads, kProbs, temperature);
    const double elements = static_cast<double>(problem.rows) * static_cast<double>(classes);
    raise_status(call_core(problem.options, static_cast<int64_t>(std::min(elements, 0x1p62)),
                           [&] { return kldiv_fidelity(&problem); }));
}

double sum_of(const Optional &weight, const Optional &mask) {
    if (weight) wide_dtype_of(*weight, "sample_weight");
    if (mask && mask->dtype().kind() != 'b') throw py::type_error("mask must be bool");
    const arrays::Fields *both[] = {weight ? &fields(*weight) : nullptr, mask ? &fields(*mask) : nullptr};
    if (!broadcast(both[0], both[1])) throw py::value_error("mask does not broadcast with sample_weight");
    return sum_of_weights(both[0], both[1]);
}

}  // namespace

void add_run(py::module_ &m) {
    m.def("run", &run, "y_true"_a, "y_pred"_a, "class_ndim"_a, "batch_shape"_a, "weight"_a, "mask"_a, "out"_a,
          "epsilon"_a, "num_threads"_a, "upstream"_a = py::none(), "grad_y_true"_a = py::none(),
          "grad_y_pred"_a = py::none(), "progress"_a = py::none(), "operation"_a = 0, "beta"_a = 0.5, "scale"_a = 1.0,
          "forms"_a = kProbs, "temperature"_a = 1.0, "smoothing"_a = 0.0, "pseudocount"_a = 0.0,
          "where"_a = py::none());
    m.def("rows", &rows, "dtype"_a, "y_true"_a, "y_pred"_a, "rows"_a, "classes"_a, "epsilon"_a, "upstream"_a,
          "num_threads"_a, "out"_a, "grad_y_true"_a, "grad_y_pred"_a, "operation"_a = 0, "beta"_a = 0.5,
          "scale"_a = 1.0, "forms"_a = kProbs, "temperature"_a = 1.0);
    m.def("pairs", &pairs);
    m.def("rounds", &rounds);
    m.def("reduce", &reduce);
    m.def("merge", &merge);
    m.def("fidelity", &fidelity, "base"_a, "other"_a, "classes"_a, "targets"_a, "out"_a, "temperature"_a = 1.0,
          "num_threads"_a = 0);
    m.def("sum_of_weights", &sum_of, "weight"_a, "mask"_a);
}
