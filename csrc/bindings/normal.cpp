// fastdiff::normal_cpp, the C++ backend of fastdiff/ops/normal.py, and the name of the instruction set in
// use.
#include "normal.h"

#include <Python.h>

#include <string>

#include "fastdiff/cpu_kernels.h"

namespace fastdiff {
namespace {

void normal(Tensor out, Tensor seeds, OptionalTensor rows, int64_t row, int64_t stream) {
  const auto args = normal_arguments<NormalArgs>(out, seeds, rows, row, stream);
  for_tiles(args.samples, [&args](int64_t begin, int64_t end) { cpu_kernels().normal(args, begin, end); });
}

std::string cpu_isa() {
  return cpu_kernels().name;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def("normal_cpp(Tensor(a!) out, Tensor seeds, Tensor? rows, int row, int stream) -> ()");
  m.def("cpu_isa() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("normal_cpp", TORCH_BOX(&normal));
}
STABLE_TORCH_LIBRARY_IMPL(fastdiff, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&cpu_isa));
}

}  // namespace fastdiff

// Importing fastdiff._C loads the library, whose static initialisers register the ops; the module itself is
// empty.
PyMODINIT_FUNC PyInit__C() {
  static PyModuleDef definition = {
      PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&definition);
}
