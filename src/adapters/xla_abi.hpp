// The part of XLA's foreign function interface that xla.cpp speaks, declared anew so that a build needs nothing of JAX.
// It is a C ABI that XLA keeps: structs grow at their end only, and each says its size. tests/test_jax.py compares every
// size, offset and number here with jaxlib's own header (xla/ffi/api/c_api.h). Included by xla.cpp and that test alone.
#pragma once
#include <cstddef>
#include <cstdint>

namespace xla_abi {

// The newest version whose structs were compared with these. What is declared here is the same in all of them since 0.1.
constexpr int kMajor = 0;
constexpr int kMinor = 3;
constexpr int kOldestMinor = 1;

struct Error;    // XLA's own
struct Context;  // XLA's own

enum ErrorCode : int { kCancelled = 1, kInvalidArgument = 3, kResourceExhausted = 8, kInternal = 13 };

enum DataType : int { kF16 = 10, kF32 = 11, kF64 = 12, kBF16 = 16 };

enum ArgType : int { kArgBuffer = 1 };
enum RetType : int { kRetBuffer = 1 };
enum AttrType : int { kAttrScalar = 3, kAttrString = 4 };

enum ExtensionType : int { kExtensionMetadata = 1 };

struct Extension {
    size_t struct_size;
    ExtensionType type;
    Extension *next;
};

struct Version {
    size_t struct_size;
    Extension *extensions;
    int major;
    int minor;
};

// What XLA asks of a handler when it is registered.
struct Metadata {
    size_t struct_size;
    Version version;
    uint32_t traits;
};

struct MetadataExtension {
    Extension base;
    Metadata *metadata;
};

struct ErrorArgs {
    size_t struct_size;
    Extension *extensions;
    const char *message;
    ErrorCode code;
};

// The table of XLA's functions, up to the one that is called.
struct Api {
    size_t struct_size;
    Extension *extensions;
    Version version;
    const void *internal;
    Error *(*create_error)(ErrorArgs *);
};

// A dense array, the last axis fastest (JAX asks XLA for that layout).
struct Buffer {
    size_t struct_size;
    Extension *extensions;
    DataType dtype;
    void *data;
    int64_t rank;
    int64_t *dims;
};

struct Args {
    size_t struct_size;
    Extension *extensions;
    int64_t size;
    ArgType *types;
    void **values;
};

struct Rets {
    size_t struct_size;
    Extension *extensions;
    int64_t size;
    RetType *types;
    void **values;
};

struct ByteSpan {
    const char *data;
    size_t size;
};

struct Scalar {
    DataType dtype;
    void *value;
};

struct Attrs {
    size_t struct_size;
    Extension *extensions;
    int64_t size;
    AttrType *types;
    ByteSpan **names;
    void **values;
};

struct CallFrame {
    size_t struct_size;
    Extension *extensions;
    const Api *api;
    Context *context;
    int stage;
    Args args;
    Rets rets;
    Attrs attrs;
};

}  // namespace xla_abi
