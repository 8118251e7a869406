// See runtime.hpp. The macros are what CMake knows of the build.
#include "runtime.hpp"

#include "kldiv.h"

namespace py = pybind11;
using namespace py::literals;

py::dict runtime() {
    py::list built;
    for (int i = 0; kldiv_built_isa_name(i) != nullptr; ++i) built.append(kldiv_built_isa_name(i));
    const kldiv_threads threads = kldiv_describe_threads();
    return py::dict("compiler"_a = KLDIV_FAST_COMPILER, "build_type"_a = KLDIV_FAST_BUILD_TYPE,
                    "openmp"_a = KLDIV_FAST_OPENMP, "isas"_a = built, "setting"_a = threads.setting,
                    "limit"_a = threads.limit, "processors"_a = threads.processors, "forked"_a = threads.forked != 0,
                    "library"_a = threads.library);
}
