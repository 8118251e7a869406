// TensorFlow's kernels: the rows of the divergence, and their gradient with respect to one input. A library of its own:
// python/kldiv_fast/_tensorflow.py loads it with tf.load_op_library and hands it the core of the module `_core`, so
// that the ISA and the number of threads are one state. It holds no core and computes nothing itself, and it is linked
// against no TensorFlow: it finds the C functions in the one that has loaded it.
#include <dlfcn.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "kldiv.h"
#include "tensorflow_c_api.h"

namespace {

// The module's part, and what it gives for a call's poll on the thread that asks.
using Poll = int (*)(void *, double);
decltype(&kldiv_run) core = nullptr;
Poll (*poll_here)() = nullptr;
kldiv_tensorflow tf;

// ---- What TensorFlow owns, and failures ----

struct Failure : std::runtime_error {
    Failure(TF_Code its_code, const std::string &message) : std::runtime_error(message), code(its_code) {}
    TF_Code code;
};

struct Delete {
    void operator()(TF_Status *status) const { tf.DeleteStatus(status); }
    void operator()(TF_Tensor *tensor) const { tf.DeleteTensor(tensor); }
};
using Status = std::unique_ptr<TF_Status, Delete>;
using Tensor = std::unique_ptr<TF_Tensor, Delete>;

// What TensorFlow calls goes through here: no exception may leave it.
template <typename Call>
bool succeeds(TF_Status *status, const Call &call) {
    try {
        call();
    } catch (const Failure &failure) {
        tf.SetStatus(status, failure.code, failure.what());
    } catch (const std::bad_alloc &) { tf.SetStatus(status, TSL_RESOURCE_EXHAUSTED, "no memory"); }
    return tf.GetCode(status) == TSL_OK;
}

// ---- What an op is to compute ----

// The attribute `settings`: doubles, in the order in which _tensorflow.py packs them. An attribute and no input, so that
// Python knows it wherever it differentiates a graph.
enum Setting { OPERATION, CLIP, EPSILON, BETA, SCALE, TRUE_FORM, PRED_FORM, TEMPERATURE, SETTING_COUNT };

void expect(bool is_fine, const char *name, double value, const std::string &expected) {
    if (!is_fine)
        throw Failure{TSL_INVALID_ARGUMENT,
                      std::string(name) + " is " + std::to_string(value) + "; expected " + expected};
}

int whole(double value, const char *name, int count) {
    const bool is_fine = value >= 0 && value < count && std::trunc(value) == value;
    expect(is_fine, name, value, "an integer in [0, " + std::to_string(count) + ")");
    return static_cast<int>(value);
}

kldiv_options options_of(const double (&given)[SETTING_COUNT]) {
    kldiv_options options KLDIV_DEFAULTS;
    options.operation = static_cast<kldiv_operation>(whole(given[OPERATION], "operation", KLDIV_OPERATION_COUNT));
    // Labels, the last form, are no tensor of y_pred's dtype.
    options.y_true_form = static_cast<kldiv_form>(whole(given[TRUE_FORM], "true_form", KLDIV_LABELS));
    options.y_pred_form = static_cast<kldiv_form>(whole(given[PRED_FORM], "pred_form", KLDIV_LABELS));
    const bool of_probs = options.y_true_form == KLDIV_PROBS && options.y_pred_form == KLDIV_PROBS;
    options.clip = whole(given[CLIP], "clip", of_probs ? 2 : 1);
    options.epsilon = given[EPSILON];
    options.beta = given[BETA];
    options.scale = given[SCALE];
    options.temperature = given[TEMPERATURE];
    expect(options.epsilon >= 0 && options.epsilon < 1, "epsilon", options.epsilon, "a number in [0, 1)");
    expect(options.beta >= 0 && options.beta <= 1, "beta", options.beta, "a number in [0, 1]");
    expect(std::isfinite(options.scale) && options.scale != 0, "scale", options.scale, "a finite number other than 0");
    expect(options.temperature > 0 && std::isfinite(options.temperature), "temperature", options.temperature,
           "a finite number above 0");
    return options;
}

kldiv_options read_options(TF_OpKernelConstruction *construction, TF_Status *status) {
    int32_t count = 0, bytes = 0;
    tf.OpKernelConstruction_GetAttrSize(construction, "settings", &count, &bytes, status);
    double given[SETTING_COUNT];
    if (tf.GetCode(status) != TSL_OK || bytes != static_cast<int32_t>(sizeof given))
        throw Failure{TSL_INVALID_ARGUMENT, "settings has " + std::to_string(bytes) + " bytes; expected " +
                                                std::to_string(sizeof given) + ", of doubles"};
    char text[sizeof given];
    tf.OpKernelConstruction_GetAttrString(construction, "settings", text, sizeof text, status);
    if (tf.GetCode(status) != TSL_OK) throw Failure{TSL_INVALID_ARGUMENT, "settings could not be read"};
    std::memcpy(given, text, sizeof given);
    return options_of(given);
}

// A kernel's state, from its making to its end. None where the making failed: TensorFlow has been told.
void *create(TF_OpKernelConstruction *construction) {
    const Status status(tf.NewStatus());
    kldiv_options *options = nullptr;
    if (!succeeds(status.get(), [&] { options = new kldiv_options(read_options(construction, status.get())); }))
        tf.OpKernelConstruction_Failure(construction, status.get());
    return options;
}

void destroy(void *options) { delete static_cast<kldiv_options *>(options); }

// ---- A kernel's tensors ----

Tensor input(TF_OpKernelContext *context, int index, TF_Status *status) {
    TF_Tensor *tensor = nullptr;
    tf.GetInput(context, index, &tensor, status);
    if (tensor == nullptr) throw Failure{TSL_FAILED_PRECONDITION, "an input is missing"};
    return Tensor(tensor);
}

std::string shape_of(const TF_Tensor *tensor) {
    std::string text = "(";
    for (int i = 0; i < tf.NumDims(tensor); ++i) text += (i > 0 ? "," : "") + std::to_string(tf.Dim(tensor, i));
    return text + ")";
}

int64_t item_size(const TF_Tensor *tensor) { return tf.TensorType(tensor) == TF_FLOAT ? 4 : 8; }

kldiv_dtype dtype_of(const TF_Tensor *tensor) {
    return tf.TensorType(tensor) == TF_FLOAT ? KLDIV_FLOAT32 : KLDIV_FLOAT64;
}

// Extent of an axis counted from the end, 0 being the last; absent ones are 1.
int64_t extent_from_end(const TF_Tensor *tensor, int i) {
    const int ndim = tf.NumDims(tensor);
    return i < ndim ? tf.Dim(tensor, ndim - 1 - i) : 1;
}

// ---- From tensors to the core's problem ----

struct Shape {
    int ndim;
    int64_t extents[KLDIV_MAX_AXES];
};

Shape broadcast(const TF_Tensor *t, const TF_Tensor *p) {
    Shape shape{};
    shape.ndim = tf.NumDims(t) > tf.NumDims(p) ? tf.NumDims(t) : tf.NumDims(p);
    if (shape.ndim == 0 || shape.ndim > KLDIV_MAX_AXES)
        throw Failure{TSL_INVALID_ARGUMENT, "y_pred has shape " + shape_of(p) + "; expected (..., classes)"};
    for (int i = 0; i < shape.ndim; ++i) {
        const int64_t a = extent_from_end(t, i), b = extent_from_end(p, i);
        if (a != b && a != 1 && b != 1)
            throw Failure{TSL_INVALID_ARGUMENT, "y_true has shape " + shape_of(t) +
                                                    ", which does not broadcast with y_pred's " + shape_of(p)};
        shape.extents[shape.ndim - 1 - i] = a == 1 ? b : a;
    }
    return shape;
}

// A problem whose axes stand beside it, to be moved about until `run` points to them.
struct Problem : kldiv_problem {
    kldiv_axis nest[KLDIV_MAX_AXES];

    Problem(const Shape &shape, const kldiv_options &its_options) : kldiv_problem{} {
        batch_ndim = shape.ndim - 1;
        class_ndim = 1;
        options = its_options;
        for (int i = 0; i < shape.ndim; ++i) nest[i] = {shape.extents[i], {}};
    }
};

// An input; its axes stand at the nest's end. Bytes along each, 0 where the tensor's own extent, 1, is repeated.
void set_input(Problem &problem, kldiv_role role, const TF_Tensor *tensor) {
    problem.operands[role] = {tf.TensorData(tensor), dtype_of(tensor), 0};
    int64_t bytes = item_size(tensor);
    for (int i = 0; i <= problem.batch_ndim; ++i) {
        const int64_t extent = extent_from_end(tensor, i);
        problem.nest[problem.batch_ndim - i].strides[role] = extent == 1 ? 0 : bytes;
        bytes *= extent;
    }
}

// A contiguous tensor over the nest's outer `ndim` axes.
void set_dense(Problem &problem, kldiv_role role, const TF_Tensor *tensor, int ndim) {
    problem.operands[role] = {tf.TensorData(tensor), dtype_of(tensor), 0};
    int64_t bytes = item_size(tensor);
    for (int i = ndim - 1; i >= 0; --i) {
        problem.nest[i].strides[role] = bytes;
        bytes *= problem.nest[i].extent;
    }
}

Problem describe(const kldiv_options &options, const TF_Tensor *t, const TF_Tensor *p, const Shape &shape) {
    Problem problem(shape, options);
    set_input(problem, KLDIV_Y_TRUE, t);
    set_input(problem, KLDIV_Y_PRED, p);
    return problem;
}

void run(Problem &problem) {
    if (core == nullptr) throw Failure{TSL_FAILED_PRECONDITION, "kldiv_fast's op was loaded without kldiv_fast"};
    problem.axes = problem.nest;
    problem.options.poll = poll_here();
    switch (core(&problem, nullptr)) {
        case KLDIV_OK: return;
        case KLDIV_NO_MEMORY: throw Failure{TSL_RESOURCE_EXHAUSTED, "no memory for partial sums"};
        case KLDIV_INTERRUPTED: throw Failure{TSL_CANCELLED, "kldiv_fast was interrupted by a signal"};
    }
}

// ---- The kernels ----

Tensor allocate(TF_OpKernelContext *context, const TF_Tensor *like, const Shape &shape, int ndim, TF_Status *status) {
    int64_t bytes = item_size(like);
    for (int i = 0; i < ndim; ++i) bytes *= shape.extents[i];
    Tensor output(
        tf.AllocateOutput(context, 0, tf.TensorType(like), shape.extents, ndim, static_cast<size_t>(bytes), status));
    if (output == nullptr) throw Failure{TSL_RESOURCE_EXHAUSTED, "no memory for the result"};
    return output;
}

void rows(const kldiv_options &options, TF_OpKernelContext *context, TF_Status *status) {
    const Tensor t = input(context, 0, status), p = input(context, 1, status);
    const Shape shape = broadcast(t.get(), p.get());
    Problem problem = describe(options, t.get(), p.get(), shape);
    const Tensor output = allocate(context, p.get(), shape, problem.batch_ndim, status);
    set_dense(problem, KLDIV_OUT, output.get(), problem.batch_ndim);
    run(problem);
}

// With respect to one input, of the shape that the two broadcast to: Python sums over the axes that were repeated.
template <kldiv_role role>
void gradient(const kldiv_options &options, TF_OpKernelContext *context, TF_Status *status) {
    const Tensor t = input(context, 0, status), p = input(context, 1, status), upstream = input(context, 2, status);
    const Shape shape = broadcast(t.get(), p.get());
    Problem problem = describe(options, t.get(), p.get(), shape);
    bool fits = tf.NumDims(upstream.get()) == problem.batch_ndim;
    for (int i = 0; fits && i < problem.batch_ndim; ++i) fits = tf.Dim(upstream.get(), i) == shape.extents[i];
    if (!fits)
        throw Failure{TSL_INVALID_ARGUMENT,
                      "upstream has shape " + shape_of(upstream.get()) + "; expected one value a row"};
    set_dense(problem, KLDIV_UPSTREAM, upstream.get(), problem.batch_ndim);
    const Tensor output = allocate(context, p.get(), shape, shape.ndim, status);
    set_dense(problem, role, output.get(), shape.ndim);
    run(problem);
}

template <void (*kernel)(const kldiv_options &, TF_OpKernelContext *, TF_Status *)>
void compute(void *options, TF_OpKernelContext *context) {
    const Status status(tf.NewStatus());
    if (!succeeds(status.get(), [&] { kernel(*static_cast<kldiv_options *>(options), context, status.get()); }))
        tf.OpKernelContext_Failure(context, status.get());
}

// ---- Registration ----

void unknown_shape(TF_ShapeInferenceContext *context, TF_Status *status) {
    tf.ShapeInferenceContextSetUnknownShape(context, status);  // Python knows better and says so
}

using Compute = void (*)(void *, TF_OpKernelContext *);

void register_op(const char *name, const char *last_input, const char *output, Compute compute) {
    TF_OpDefinitionBuilder *op = tf.NewOpDefinitionBuilder(name);
    for (const char *spec : {"T: {float, double}", "settings: string"}) tf.OpDefinitionBuilderAddAttr(op, spec);
    for (const char *spec : {"y_true: T", "y_pred: T"}) tf.OpDefinitionBuilderAddInput(op, spec);
    if (last_input != nullptr) tf.OpDefinitionBuilderAddInput(op, last_input);
    tf.OpDefinitionBuilderAddOutput(op, output);
    tf.OpDefinitionBuilderSetShapeInferenceFunction(op, unknown_shape);
    const Status status(tf.NewStatus());
    tf.RegisterOpDefinition(op, status.get());
    for (const TF_DataType type : {TF_FLOAT, TF_DOUBLE}) {
        TF_KernelBuilder *kernel = tf.NewKernelBuilder(name, "CPU", create, compute, destroy);
        tf.KernelBuilder_TypeConstraint(kernel, "T", type, status.get());
        tf.RegisterKernelBuilder(name, kernel, status.get());
    }
}

// ---- What happens when the library is loaded ----

constexpr char kTensorFlow[] = "libtensorflow_framework.so.2";

// Fills the table; returns the name of what is missing, nullptr: nothing. By the library's name among those that are
// loaded already, because TensorFlow shows its symbols to nobody who isn't linked against it.
const char *find_tensorflow() {
    void *library = dlopen(kTensorFlow, RTLD_LAZY | RTLD_NOLOAD);
    if (library == nullptr) return kTensorFlow;
#define FIND(result, name, parameters)                                             \
    tf.name = reinterpret_cast<result(*) parameters>(dlsym(library, "TF_" #name)); \
    if (tf.name == nullptr) return "TF_" #name;
    KLDIV_TENSORFLOW_FUNCTIONS(FIND)
#undef FIND
    return nullptr;
}

// tf.load_op_library collects the ops that appear while a library is being loaded, so this can't wait for a call. An
// exception here would end the process: what is missing is kept for kldiv_fast_connect, and no op appears. An op or
// kernel that could not be registered is missed, with TensorFlow's own error, where it is first wanted.
const char *const missing = [] {
    const char *name = find_tensorflow();
    if (name != nullptr) return name;
    register_op("KldivFastRows", nullptr, "rows: T", compute<rows>);
    register_op("KldivFastGradYTrue", "upstream: T", "grad: T", compute<gradient<KLDIV_GRAD_Y_TRUE>>);
    register_op("KldivFastGradYPred", "upstream: T", "grad: T", compute<gradient<KLDIV_GRAD_Y_PRED>>);
    return name;
}();

}  // namespace

// Takes the core that every kernel calls and the poll, by the addresses that `_core` gives. Returns the name of the function or library
// of TensorFlow for want of which there are no ops, nullptr: there are.
extern "C" __attribute__((visibility("default"))) const char *kldiv_fast_connect(decltype(&kldiv_run) run,
                                                                                 Poll (*poll)()) {
    core = run;
    poll_here = poll;
    return missing;
}
