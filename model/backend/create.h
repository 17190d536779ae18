/* create.h - how backend_create makes each backend; for model/backend only */
#ifndef VNEVA_MODEL_BACKEND_CREATE_H
#define VNEVA_MODEL_BACKEND_CREATE_H

#include "model/backend/backend.h"

int backend_ref_create(struct backend **out, struct err *err);

/* n_threads 0: as many as the machine has. Built only with oneDNN. */
int backend_cpu_create(struct backend **out, int n_threads, struct err *err);

/* Opens libvneva_cuda.so ($VNEVA_CUDA_PLUGIN, else beside the executable, else in the library
 * path) and calls its
 *   int vneva_backend_cuda_create(struct backend **out, int device, struct err *err)
 * ERR_UNSUPPORTED when there is no such library, or when it finds no GPU. The library
 * stays open for the life of the process: backends it made may outlive any owner. */
int backend_cuda_create(struct backend **out, int device, struct err *err);

#endif
