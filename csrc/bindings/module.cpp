// The module fastdiff._C, and the name of the instruction set that the kernels use. Importing the module
// loads the library, whose static initialisers register the ops; the module itself is empty.
#include <Python.h>
#include <torch/csrc/stable/library.h>

#include <string>

#include "fastdiff/cpu_kernels.h"

namespace fastdiff {
namespace {

std::string cpu_isa() {
  return cpu_kernels().name;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def("cpu_isa() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&cpu_isa));
}

}  // namespace fastdiff

PyMODINIT_FUNC PyInit__C() {
  static PyModuleDef definition = {
      PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&definition);
}
