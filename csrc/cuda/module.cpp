// Importing fastdiff._cuda loads the library, whose static initialisers register the ops; the module itself
// is empty.
#include <Python.h>

PyMODINIT_FUNC PyInit__cuda() {
  static PyModuleDef definition = {
      PyModuleDef_HEAD_INIT, "_cuda", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&definition);
}
