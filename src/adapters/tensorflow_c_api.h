/* The part of TensorFlow's C API (tensorflow/c/ops.h, kernels.h, tf_tensor.h, tf_status.h) that tensorflow_op.cpp
 * calls, declared here so that the op is built without TensorFlow and loads into whichever one is installed. Every
 * struct is opaque. tests/test_tensorflow.py compiles this file behind TensorFlow's own headers, so a declaration that
 * disagrees with them is an error there. */
#ifndef KLDIV_TENSORFLOW_C_API_H
#define KLDIV_TENSORFLOW_C_API_H

#include <stddef.h>
#include <stdint.h>

#ifndef KLDIV_TENSORFLOW_HEADERS /* the test has these from TensorFlow */
typedef enum TF_DataType { TF_FLOAT = 1, TF_DOUBLE = 2 } TF_DataType;
typedef enum TSL_Code {
    TSL_OK = 0,
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

#ifdef __cplusplus
extern "C" {
#endif

TF_Status *TF_NewStatus(void);
void TF_DeleteStatus(TF_Status *);
void TF_SetStatus(TF_Status *, TF_Code, const char *message);
TF_Code TF_GetCode(const TF_Status *);

TF_OpDefinitionBuilder *TF_NewOpDefinitionBuilder(const char *op_name);
void TF_OpDefinitionBuilderAddAttr(TF_OpDefinitionBuilder *, const char *spec);
void TF_OpDefinitionBuilderAddInput(TF_OpDefinitionBuilder *, const char *spec);
void TF_OpDefinitionBuilderAddOutput(TF_OpDefinitionBuilder *, const char *spec);
void TF_OpDefinitionBuilderSetShapeInferenceFunction(TF_OpDefinitionBuilder *,
                                                     void (*infer)(TF_ShapeInferenceContext *, TF_Status *));
void TF_ShapeInferenceContextSetUnknownShape(TF_ShapeInferenceContext *, TF_Status *);
void TF_RegisterOpDefinition(TF_OpDefinitionBuilder *, TF_Status *);

TF_KernelBuilder *TF_NewKernelBuilder(const char *op_name, const char *device_name,
                                      void *(*create)(TF_OpKernelConstruction *),
                                      void (*compute)(void *, TF_OpKernelContext *), void (*destroy)(void *));
void TF_KernelBuilder_TypeConstraint(TF_KernelBuilder *, const char *attr_name, TF_DataType, TF_Status *);
void TF_RegisterKernelBuilder(const char *kernel_name, TF_KernelBuilder *, TF_Status *);

void TF_GetInput(TF_OpKernelContext *, int index, TF_Tensor **, TF_Status *);
TF_Tensor *TF_AllocateOutput(TF_OpKernelContext *, int index, TF_DataType, const int64_t *dims, int num_dims,
                             size_t bytes, TF_Status *);
void TF_OpKernelContext_Failure(TF_OpKernelContext *, TF_Status *);

void TF_DeleteTensor(TF_Tensor *);
TF_DataType TF_TensorType(const TF_Tensor *);
int TF_NumDims(const TF_Tensor *);
int64_t TF_Dim(const TF_Tensor *, int axis);
void *TF_TensorData(const TF_Tensor *);

#ifdef __cplusplus
}
#endif
#endif
