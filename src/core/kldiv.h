/* kldiv.h: the contract of the core, in plain C. Everything outside src/core (the Python bindings, the Cython face, the
 * adapters) talks to the core through this header only; the core knows neither Python nor NumPy.
 *
 *     t = clip(y_true, epsilon, 1)      p = clip(y_pred, epsilon, 1)
 *     row = scale * weight * the sum over the class axes of the operation's term of t and p      [nats, with a scale of 1]
 *
 * and its gradients, each element times its row's `upstream`; 0 where the clip is at work (beyond its bounds). What an
 * operation's term and slopes are is said in terms/: for KLDIV_KL
 *
 *     term = t * log(t / p)      d term / d y_true = log(t / p) + 1      d term / d y_pred = -t / p
 *
 * Of inputs of another form t and p are the probabilities that are made of them (see kldiv_form), without a clip, and
 * gradients are with respect to the inputs: see rows/.
 */
#ifndef KLDIV_H
#define KLDIV_H

#include <stdint.h>

#include "operations.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KLDIV_MAX_AXES 64

/* Element types. The first four are read in place by the kernels; the rest are converted a block at a time. */
typedef enum {
    KLDIV_FLOAT32,
    KLDIV_FLOAT64,
    KLDIV_FLOAT16,
    KLDIV_BFLOAT16,
    KLDIV_BOOL,
    KLDIV_INT8,
    KLDIV_UINT8,
    KLDIV_INT16,
    KLDIV_UINT16,
    KLDIV_INT32,
    KLDIV_UINT32,
    KLDIV_INT64,
    KLDIV_UINT64
} kldiv_dtype;

typedef enum {
    KLDIV_OK = 0,
    KLDIV_INTERRUPTED = 1, /* `poll` asked to stop; what was written so far is undefined */
    KLDIV_NO_MEMORY = 2
} kldiv_status;

/* The divergences: KLDIV_KL and so on, a row of operations.h each. */
typedef enum {
#define KLDIV_ROW(NAME, name, parameters) KLDIV_##NAME,
    KLDIV_OPERATIONS(KLDIV_ROW)
#undef KLDIV_ROW
        KLDIV_OPERATION_COUNT
} kldiv_operation;

/* What the numbers of an input are, and what makes probabilities of them: */
typedef enum {
    KLDIV_PROBS,
    KLDIV_COUNTS,    /* x / the row's sum, each x with `pseudocount` added */
    KLDIV_LOG_PROBS, /* e^x */
    KLDIV_LOGITS,    /* softmax(x / temperature) over the row's classes */
    KLDIV_LABELS,    /* y_true alone, int64 and native: the row's class, in [0, classes), whose probability is 1. The
                        last class axis counts fastest; y_true moves along none, and has no gradient */
    KLDIV_FORM_COUNT
} kldiv_form;

/* What an array is to a call. The first two are the inputs; the last three are written. */
typedef enum {
    KLDIV_Y_TRUE,
    KLDIV_Y_PRED,
    KLDIV_WHERE,       /* bytes: where 0 the element is as if its class were not there, its gradients 0. Not beside
                          labels that are smoothed */
    KLDIV_WEIGHT,      /* float32 or float64, native: factor of each row's value and gradients */
    KLDIV_MASK,        /* bytes: where 0 the row counts as 0, its gradients too, and is not read */
    KLDIV_LABEL,       /* NULL: the core puts y_true here where it is KLDIV_LABELS */
    KLDIV_UPSTREAM,    /* float32 or float64, native: factor of each row's gradients */
    KLDIV_OUT,         /* float32 or float64: a value for each row; without it rows are added up */
    KLDIV_GRAD_Y_TRUE, /* float32 or float64, both gradients alike */
    KLDIV_GRAD_Y_PRED,
    KLDIV_OPERANDS
} kldiv_role;

/* A base pointer (NULL: there is none) and what the elements behind it are; the strides stand in kldiv_axis. What the core
 * writes must not overlap what it reads. */
typedef struct {
    void *data;
    kldiv_dtype dtype;
    int swapped; /* non-zero: foreign byte order; of the inputs alone */
} kldiv_operand;

/* One axis of the loop nest: its extent and, in bytes, how far each operand moves along it. 0: the same element again; a
 * gradient that doesn't move is summed along the axis, in float64. Along class axes only inputs, KLDIV_WHERE and
 * gradients move. */
typedef struct {
    int64_t extent;
    int64_t strides[KLDIV_OPERANDS];
} kldiv_axis;

/* What a call is to do, whatever it is done to. KLDIV_DEFAULTS: kl as Keras has it. */
typedef struct {
    kldiv_operation operation;
    kldiv_form y_true_form, y_pred_form;
    int clip;           /* zero: no clip, the meaning of scipy.special.rel_entr and kl_div. Of KLDIV_PROBS alone, beside
                           themselves or KLDIV_LABELS */
    double epsilon;     /* lower bound of the clip, in [0, 1) */
    double temperature; /* of logits: above 0, and finite */
    double pseudocount; /* of counts: not below 0, and finite */
    double smoothing;   /* of labels, in [0, 1]: so much of each row is spread over all its classes alike */
    double beta;  /* KLDIV_JSD: the weight of y_true's side, in [0, 1]. At 0 it is KLDIV_KL, at 1 that of the swapped */
    double scale; /* of values and gradients: 1, or 1 / log(base) */
    int num_threads;                  /* 0: the process-wide setting */
    int (*poll)(void *, double done); /* called now and then by the calling thread alone, while no other is at work for
                                         it, with the part that is done, 0 to 1; non-zero: stop. May be NULL */
    void *poll_data;
} kldiv_options;

#define KLDIV_DEFAULTS {KLDIV_KL, KLDIV_PROBS, KLDIV_PROBS, 1, 1e-7, 1, 0, 0, 0.5, 1, 0, 0, 0}

/* The whole problem. Batch axes number the rows, class axes are summed over. Pointers are borrowed. */
typedef struct {
    int batch_ndim;
    int class_ndim;
    const kldiv_axis *axes; /* batch axes, then class axes: KLDIV_MAX_AXES in all */
    kldiv_operand operands[KLDIV_OPERANDS];
    kldiv_options options;
} kldiv_problem;

/* With KLDIV_OUT, write every row's value there and leave *total untouched; without, write their sum. With neither it nor
 * `total`, only gradients are computed, which spares the logarithm where kl's y_pred alone is wanted. The values have the
 * same bits with and without gradients, whatever the layout of what is written and of what stands beside the rows. */
kldiv_status kldiv_run(const kldiv_problem *problem, double *total);

/* kldiv_run for C-contiguous rows of native elements of a kernel dtype. `out` (rows), `upstream` (rows) and the gradients
 * (rows x classes) are C-contiguous and float64 for float64, else float32; each may be NULL (upstream: ones). */
kldiv_status kldiv_rows(const kldiv_options *options, kldiv_dtype dtype, const void *y_true, const void *y_pred,
                        int64_t rows, int64_t classes, const void *upstream, void *out, void *grad_y_true,
                        void *grad_y_pred);

/* The sum over two C-contiguous arrays of n native elements of a kernel dtype: what kldiv_run does for the plainest
 * problem, without its set-up. Same bits. */
kldiv_status kldiv_flat(const kldiv_options *options, kldiv_dtype dtype, const void *y_true, const void *y_pred,
                        int64_t n, double *total);

/* Rows whose classes come in blocks, at other times or on other machines. A row's state stands for what was seen of it: so
 * many int64s that mean something to these functions alone. In the first round kldiv_reduce begins the states, of every
 * block by itself; those of a row's blocks are made one by kldiv_merge, in their order, and kldiv_next ends the round. What
 * it leaves is what every block begins the next round with. After the last one each row has its value.
 *
 * `options` are the problem's; scale and num_threads aside they say what is computed, and must not change in between. */
int64_t kldiv_state_size(const kldiv_options *options);
/* The most rounds that rows of inputs of that dtype can take. A round is nothing to rows that have their value. */
int kldiv_most_rounds(const kldiv_options *options, kldiv_dtype dtype);

/* KLDIV_OUT: states, int64, each in one piece. No weights, masks or gradients, and no axis may be empty. A label is a class's
 * number within the block, or below 0 for one of another block. `classes`: of all blocks. */
kldiv_status kldiv_reduce(const kldiv_problem *problem, int64_t classes, int is_first);
/* Into the states of `rows` rows, those of the classes that follow. */
void kldiv_merge(const kldiv_options *options, int64_t rows, int64_t *into, const int64_t *from);
/* `values`, which may be NULL: of each row; they mean nothing before the last round. */
void kldiv_next(const kldiv_options *options, int64_t rows, int64_t *states, double *values);

/* One side of a matrix of divergences. `rows` lie row_stride bytes from each other, their elements class_stride bytes. What
 * makes probabilities of them, and the rest for the fast way, is read only where the problem has a center; see pairs.cpp. */
typedef struct {
    kldiv_operand rows_of;
    int64_t rows, row_stride, class_stride;
    const double
        *scales; /* of each row: what its elements are times, once a pseudocount is added, before they are clipped */
    const double *bases; /* of each row: the pair's value is y_true's and y_pred's less the sum over their classes */
    const double *least; /* of each row: a value below y_true's and y_pred's together is computed again, exactly. NaN:
                             always */
} kldiv_side;

typedef enum {
    KLDIV_ALL_PAIRS,
    KLDIV_MIRRORED, /* y_true is y_pred, and the order within a pair means nothing: one half is computed, and copied */
    KLDIV_CONDENSED /* that half alone, without the diagonal, row after row in one row */
} kldiv_layout;

typedef struct {
    kldiv_side y_true, y_pred;
    int64_t classes;
    const void *center; /* a distribution near the others', above 0: of `dtype`; NULL: all pairs are computed exactly */
    kldiv_dtype dtype;  /* float32 or float64: what the fast way computes in */
    kldiv_operand out;  /* float32 or float64 */
    int64_t out_strides[2]; /* in bytes, along y_true's rows and y_pred's; condensed: the second alone */
    kldiv_layout layout;
    int root; /* non-zero: square roots */
    kldiv_options options;
} kldiv_pairs_problem;

/* The divergence of each row of y_true and each of y_pred. Same bits for any number of threads. */
kldiv_status kldiv_pairs(const kldiv_pairs_problem *problem);

/* A side of two language models: rows of logits, one for each token, their elements side by side and native. Of KLDIV_FLOAT32,
 * KLDIV_FLOAT16 and KLDIV_BFLOAT16; of KLDIV_UINT16 they are llama.cpp's codes: a row begins with two float32, its scale and
 * its least logarithm, and a code stands for the log-probability scale * code + least, which is taken as it is. */
typedef struct {
    const void *data;
    kldiv_dtype dtype;
    int64_t row_stride; /* in bytes */
} kldiv_logits;

/* What is told of a row, in this order. NaN, all of it: an element is NaN or infinite, or all are -inf. */
typedef enum {
    KLDIV_FORWARD, /* kl of base and other. Of a base of codes llama.cpp's: over what is above e^-16, not renormalised */
    KLDIV_REVERSE,   /* kl of other and base */
    KLDIV_HALF_JSD,  /* jsd of both, with a beta of 1/2 */
    KLDIV_TARGET,    /* log-probability of the row's target by base, */
    KLDIV_TARGET_OF, /* and by other; NaN: it has none */
    KLDIV_FIRST,     /* the likeliest class by base, the first of several, */
    KLDIV_FIRST_OF,  /* and by other */
    KLDIV_TOP,       /* the probability of base's */
    KLDIV_SHARED,    /* how many of the five likeliest both have */
    KLDIV_FIGURE_COUNT
} kldiv_figure;

typedef struct {
    kldiv_logits base, other;
    int64_t rows, classes;
    const int64_t *targets; /* of each row a class, or -1: none. NULL: no row has one */
    double *out;            /* KLDIV_FIGURE_COUNT of each row */
    kldiv_options options;  /* temperature (1, where a side has codes), num_threads, poll */
} kldiv_fidelity_problem;

/* How far a language model is from another, row by row, from softmax(x / temperature). Where a side has codes, whose
 * probabilities need not sum to 1, KLDIV_REVERSE (and KLDIV_FORWARD, unless it is llama.cpp's) are generalized_kl. Same bits
 * for any number of threads. */
kldiv_status kldiv_fidelity(const kldiv_fidelity_problem *problem);

/* The table's rows: the i-th name, or NULL past the end, and the names of its parameters, by commas. */
const char *kldiv_operation_name(int i);
const char *kldiv_operation_parameters(int i);
/* The i-th form's name, or NULL past the end. */
const char *kldiv_form_name(int i);

/* Implementations that this machine can run, best first: the i-th name, or NULL past the end. */
const char *kldiv_isa_name(int i);
const char *kldiv_current_isa(void);
/* All of this build, best first, whether or not this machine can run them. */
const char *kldiv_built_isa_name(int i);
/* Use one by name. 0 if done, -1 if this machine can't run it or it is unknown. */
int kldiv_select_isa(const char *name);

/* Executors of this build, who bring threads to a call, best first: the i-th name, or NULL past the end. "pool": helpers
 * of our own; "openmp": regions of OpenMP, serial in a forked child. The bits of a result don't depend on it. */
const char *kldiv_executor_name(int i);
const char *kldiv_current_executor(void);
/* Use one by name. 0 if done, -1 if it is not in this build. */
int kldiv_select_executor(const char *name);

/* Threads of a call that names no number. 0: as many as OpenMP allows. No call has more than the calling thread may use
 * processors. */
void kldiv_set_num_threads(int n);
int kldiv_get_num_threads(void);

/* What stands behind that number. */
typedef struct {
    int setting;    /* the last kldiv_set_num_threads */
    int limit;      /* OpenMP's, for the calling thread: OMP_NUM_THREADS, omp_set_num_threads, threadpoolctl; without
                            OpenMP OMP_NUM_THREADS alone */
    int processors; /* that the calling thread may use */
    int forked;     /* non-zero: a forked child */
    const char *library; /* the file that OpenMP's runtime was loaded from; NULL: none, or unknown */
} kldiv_threads;

kldiv_threads kldiv_describe_threads(void);

#ifdef __cplusplus
}
#endif
#endif
