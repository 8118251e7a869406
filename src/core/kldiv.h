/* kldiv.h: the contract of the core, in plain C. Everything outside src/core (the Python bindings, the Cython face)
 * talks to the core through this header only; the core knows neither Python nor NumPy.
 *
 *     t = clip(y_true, epsilon, 1)      p = clip(y_pred, epsilon, 1)
 *     row = sum over the class axes of  t * log(t / p)          [nats]
 *
 * and its gradients, each element times its row's factor `upstream`; 0 where the clip is at work (beyond its bounds):
 *
 *     d row / d y_true = log(t / p) + 1      d row / d y_pred = -t / p
 */
#ifndef KLDIV_H
#define KLDIV_H

#include <stdint.h>

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

/* A base pointer and what the elements behind it are; the strides stand in kldiv_axis. */
typedef struct {
    const void *data;
    kldiv_dtype dtype;
    int swapped; /* non-zero: foreign byte order */
} kldiv_array;

/* One axis of the loop nest: its extent and, in bytes, how far each operand moves along it (0: broadcast). */
typedef struct {
    int64_t extent;
    int64_t y_true;
    int64_t y_pred;
    int64_t weight; /* batch axes only, as are the three below */
    int64_t mask;
    int64_t out;
    int64_t upstream;
    int64_t grad_y_true;
    int64_t grad_y_pred;
} kldiv_axis;

/* The whole problem. Batch axes number the rows, class axes are summed over. Pointers are borrowed. */
typedef struct {
    int batch_ndim;
    int class_ndim;
    kldiv_axis batch[KLDIV_MAX_AXES];
    kldiv_axis classes[KLDIV_MAX_AXES];
    kldiv_array y_true;
    kldiv_array y_pred;
    kldiv_array weight;    /* float32 or float64, native byte order; data NULL: none */
    const uint8_t *mask;   /* 0: the row counts as 0 and is not read; NULL: every row counts */
    void *out;             /* one value for each row, or NULL: rows are added up instead */
    kldiv_dtype out_dtype; /* float32 or float64 */
    kldiv_array upstream; /* float32 or float64, native: factor of each row's gradients; a row of factor 0 has gradients
                              of 0, whatever it holds. data NULL: 1 */
    void *grad_y_true;    /* where to write a gradient, or NULL; an element for each of the loop nest's, none twice */
    void *grad_y_pred;
    kldiv_dtype grad_dtype;           /* float32 or float64, of both */
    int clip;                         /* zero: no clip, the meaning of scipy.special.rel_entr */
    double epsilon;                   /* lower bound of the clip, in [0, 1) */
    int num_threads;                  /* 0: the process-wide setting */
    int (*poll)(void *, double done); /* called now and then by the calling thread alone, while no other is at work for
                                         it, with the part that is done, 0 to 1; non-zero: stop. May be NULL */
    void *poll_data;
} kldiv_problem;

/* With `out`, write every (weighted, unmasked) row value there and leave *total untouched; without, write their sum.
 * With neither `out` nor `total`, only gradients are computed, which spares the logarithm where y_pred's alone is wanted.
 * Gradients come from the same pass over the inputs; they may not overlap them. The values have the same bits with and
 * without, if gradients are in the kernel's format and lie as the inputs do: `upstream` and gradients go on from one axis
 * to another, and gradients lie side by side along an axis, wherever both inputs do (_lie_alike in _gradient.py). */
kldiv_status kldiv_run(const kldiv_problem *problem, double *total);

/* kldiv_run for C-contiguous rows of native elements of a kernel dtype. `out` (rows), `upstream` (rows) and the gradients
 * (rows x classes) are C-contiguous and float64 for float64, else float32; each may be NULL (upstream: ones). */
kldiv_status kldiv_rows(kldiv_dtype dtype, const void *y_true, const void *y_pred, int64_t rows, int64_t classes,
                        int clip, double epsilon, const void *upstream, int num_threads, int (*poll)(void *, double),
                        void *poll_data, void *out, void *grad_y_true, void *grad_y_pred);

/* The sum over two C-contiguous arrays of n native elements of a kernel dtype: what kldiv_run does for the plainest
 * problem, without its set-up. Same bits. */
kldiv_status kldiv_flat(kldiv_dtype dtype, const void *y_true, const void *y_pred, int64_t n, double epsilon,
                        int num_threads, int (*poll)(void *, double), void *poll_data, double *total);

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
