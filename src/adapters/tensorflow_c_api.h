/* The part of TensorFlow's C API (tensorflow/c/ops.h, kernels.h, tf_tensor.h, tf_status.h) that tensorflow_op.cpp
 * calls, declared here so that the op is built without TensorFlow and loads into whichever one is installed. Every
 * struct is opaque. tests/test_tensorflow.py compares each type, number and function here with TensorFlow's own
 * headers. */
#ifndef KLDIV_TENSORFLOW_C_API_H
#define KLDIV_TENSORFLOW_C_API_H

#include <stddef.h>
#include <stdint.h>

#ifndef KLDIV_TENSORFLOW_HEADERS /* the test has these from TensorFlow */
typedef enum TF_DataType { TF_FLOAT = 1, TF_DOUBLE = 2 } TF_DataType;
typedef enum TSL_Code {
    TSL_OK = 0,
    TSL_CANCELLED = 1,
    TSL_INVALID_ARGUMENT = 3,
    TSL_RESOURCE_EXHAUSTED = 8,
    TSL_FAILED_PRECONDITION = 9
} TF_Code;
typedef struct TSL_Status TF_Status;
typedef struct TF_Tensor TF_Tensor;
typedef struct TF_OpDefinitionBuilder TF_OpDefinitionBuilder;
typedef struct TF_ShapeInferenceContext TF_ShapeInferenceContext;
typedef struct TF_KernelBuilder TF_KernelBuilder;
typedef struct TF_OpKernelConstruction TF_OpKernelConstruction;
typedef struct TF_OpKernelContext TF_OpKernelContext;
#endif

/* Every function that is called: FUNCTION(result, name without its TF_, parameters). The table of pointers, the search
 * for them and the test each expand this list, so a function is declared once. */
#define KLDIV_TENSORFLOW_FUNCTIONS(FUNCTION)                                                                          \
    FUNCTION(TF_Status *, NewStatus, (void))                                                                          \
    FUNCTION(void, DeleteStatus, (TF_Status *))                                                                       \
    FUNCTION(void, SetStatus, (TF_Status *, TF_Code, const char *message))                                            \
    FUNCTION(TF_Code, GetCode, (const TF_Status *))                                                                   \
                                                                                                                      \
    FUNCTION(TF_OpDefinitionBuilder *, NewOpDefinitionBuilder, (const char *op_name))                                 \
    FUNCTION(void, OpDefinitionBuilderAddAttr, (TF_OpDefinitionBuilder *, const char *spec))                          \
    FUNCTION(void, OpDefinitionBuilderAddInput, (TF_OpDefinitionBuilder *, const char *spec))                         \
    FUNCTION(void, OpDefinitionBuilderAddOutput, (TF_OpDefinitionBuilder *, const char *spec))                        \
    FUNCTION(void, OpDefinitionBuilderSetShapeInferenceFunction,                                                      \
             (TF_OpDefinitionBuilder *, void (*infer)(TF_ShapeInferenceContext *, TF_Status *)))                      \
    FUNCTION(void, ShapeInferenceContextSetUnknownShape, (TF_ShapeInferenceContext *, TF_Status *))                   \
    FUNCTION(void, RegisterOpDefinition, (TF_OpDefinitionBuilder *, TF_Status *))                                     \
                                                                                                                      \
    FUNCTION(TF_KernelBuilder *, NewKernelBuilder,                                                                    \
             (const char *op_name, const char *device_name, void *(*create)(TF_OpKernelConstruction *),               \
              void (*compute)(void *, TF_OpKernelContext *), void (*destroy)(void *)))                                \
    FUNCTION(void, KernelBuilder_TypeConstraint,                                                                      \
             (TF_KernelBuilder *, const char *attr_name, TF_DataType, TF_Status *))                                   \
    FUNCTION(void, RegisterKernelBuilder, (const char *kernel_name, TF_KernelBuilder *, TF_Status *))                 \
                                                                                                                      \
    FUNCTION(void, OpKernelConstruction_GetAttrSize,                                                                  \
             (TF_OpKernelConstruction *, const char *attr, int32_t *list_size, int32_t *total_size, TF_Status *))     \
    FUNCTION(void, OpKernelConstruction_GetAttrString,                                                                \
             (TF_OpKernelConstruction *, const char *attr, char *value, size_t max_length, TF_Status *))              \
    FUNCTION(void, OpKernelConstruction_Failure, (TF_OpKernelConstruction *, TF_Status *))                            \
                                                                                                                      \
    FUNCTION(void, GetInput, (TF_OpKernelContext *, int index, TF_Tensor **, TF_Status *))                            \
    FUNCTION(                                                                                                         \
        TF_Tensor *, AllocateOutput,                                                                                  \
        (TF_OpKernelContext *, int index, TF_DataType, const int64_t *dims, int num_dims, size_t bytes, TF_Status *)) \
    FUNCTION(void, OpKernelContext_Failure, (TF_OpKernelContext *, TF_Status *))                                      \
                                                                                                                      \
    FUNCTION(void, DeleteTensor, (TF_Tensor *))                                                                       \
    FUNCTION(TF_DataType, TensorType, (const TF_Tensor *))                                                            \
    FUNCTION(int, NumDims, (const TF_Tensor *))                                                                       \
    FUNCTION(int64_t, Dim, (const TF_Tensor *, int axis))                                                             \
    FUNCTION(void *, TensorData, (const TF_Tensor *))

/* Pointers to them, found in the TensorFlow that is loaded. */
typedef struct {
#define KLDIV_POINTER(result, name, parameters) result(*name) parameters;
    KLDIV_TENSORFLOW_FUNCTIONS(KLDIV_POINTER)
#undef KLDIV_POINTER
} kldiv_tensorflow;

#endif
