# The CUDA backend without a GPU: the plugin's own sources over host stand-ins, as a
# libvneva_cuda.so in a folder of its own, and the tests beside it that open it.
set(cuda_host ${CMAKE_CURRENT_SOURCE_DIR}/cuda_host)
set(cuda_dir ${CMAKE_SOURCE_DIR}/model/backend/cuda)
include(${cuda_dir}/sources.cmake)
list(APPEND cuda_sources ${cudnn_sources} ${nccl_sources})
list(TRANSFORM cuda_sources PREPEND ${cuda_dir}/)
list(TRANSFORM cuda_kernels PREPEND ${cuda_dir}/)
# g++ takes .cu for a script of its linker unless told
set_source_files_properties(${cuda_kernels} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++")

add_library(vneva_fiber STATIC op/fiber.cpp)
target_link_libraries(vneva_fiber PRIVATE vneva_flags)
target_include_directories(vneva_fiber PUBLIC ${CMAKE_SOURCE_DIR})

add_library(vneva_cuda_host SHARED ${cuda_sources} ${cuda_kernels}
  ${cuda_host}/runtime.cpp ${cuda_host}/streams.cpp ${cuda_host}/graphs.cpp
  ${cuda_host}/cublaslt.cpp ${cuda_host}/cudnn.cpp ${cuda_host}/cudnn_graph.cpp
  ${cuda_host}/cudnn_compute.cpp)
# gradients of attention go in pieces at small sizes already
target_compile_definitions(vneva_cuda_host PRIVATE VNEVA_HAVE_CUDNN VNEVA_HAVE_NCCL
  "SDPA_GRADIENT_BYTES_MAX=((size_t)1<<17)"
  NCCL_LIBRARY="${CMAKE_BINARY_DIR}/tests/cuda_host/libnccl.so.2")
target_include_directories(vneva_cuda_host PRIVATE ${cuda_host}/include)
target_link_libraries(vneva_cuda_host PRIVATE vneva_fiber vneva_tensor vneva_flags
  ${CMAKE_DL_LIBS})
set_target_properties(vneva_cuda_host PROPERTIES OUTPUT_NAME vneva_cuda
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/cuda_host
  C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden)
# kernels run thread by thread: slow enough without a debug build's code
target_compile_options(vneva_cuda_host PRIVATE -O2 -Wno-unknown-pragmas)
target_compile_options(vneva_fiber PRIVATE -O2)

# opened by the plugin at run time, as NCCL is
add_library(vneva_nccl_host SHARED ${cuda_host}/nccl.cpp)
target_include_directories(vneva_nccl_host PRIVATE ${cuda_host}/include)
target_link_libraries(vneva_nccl_host PRIVATE vneva_cuda_host vneva_flags)
set_target_properties(vneva_nccl_host PROPERTIES OUTPUT_NAME nccl SOVERSION 2
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/cuda_host
  CXX_VISIBILITY_PRESET hidden BUILD_RPATH "\$ORIGIN")

function(cuda_host_test name)
  vneva_test(${name} ${ARGN})
  if(TARGET ${name})
    set_target_properties(${name} PROPERTIES
      RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/cuda_host)
    add_dependencies(${name} vneva_cuda_host vneva_nccl_host)
  endif()
endfunction()

vneva_test(unit_fiber LABEL unit SOURCES unit/fiber.cpp LIBS vneva_fiber)
vneva_test(unit_fiber_mma LABEL unit SOURCES unit/fiber_mma.cpp LIBS vneva_fiber)
cuda_host_test(test_cuda_ops LABEL op SOURCES op/test_cuda_ops.c LIBS vneva_op_cases)
vneva_test(unit_cuda_recording LABEL unit SOURCES unit/cuda_recording.cpp
  ${cuda_host}/runtime.cpp ${cuda_host}/streams.cpp ${cuda_host}/graphs.cpp
  LIBS vneva_fiber)
cuda_host_test(test_cuda_graphs LABEL op SOURCES op/test_cuda_graphs.c
  LIBS vneva_op_cases)
cuda_host_test(test_cuda_fused LABEL op SOURCES op/test_cuda_fused.c
  LIBS vneva_op_cases vneva_nn vneva_cuda_host)
cuda_host_test(test_cuda_tune LABEL op SOURCES op/test_cuda_tune.c LIBS vneva_backend)
cuda_host_test(test_cuda_attention LABEL op SOURCES op/test_cuda_attention.c
  LIBS vneva_op_cases)
cuda_host_test(test_cuda_cudnn LABEL op SOURCES op/test_cuda_cudnn.c
  LIBS vneva_op_cases)
foreach(name test_cuda_groups test_cuda_group_graphs)
  cuda_host_test(${name} LABEL op SOURCES op/${name}.c op/device_ranks.c op/expect.c
    LIBS vneva_nn)
endforeach()
cuda_host_test(op_model_overlap LABEL op SOURCES op/model_overlap.c
  LIBS vneva_tiny vneva_optim)
cuda_host_test(op_model_cuda LABEL op SOURCES op/model_cuda.c
  LIBS vneva_tiny vneva_optim vneva_generate)
cuda_host_test(op_model_waits LABEL op SOURCES op/model_waits.c
  LIBS vneva_tiny vneva_optim vneva_cuda_host)
cuda_host_test(op_model_evaluation LABEL op SOURCES op/model_evaluation.c
  LIBS vneva_tiny vneva_cuda_host)
cuda_host_test(op_model_graphs LABEL op SOURCES op/model_graphs.c
  LIBS vneva_tiny vneva_optim vneva_generate vneva_cuda_host)
foreach(name unit_fiber unit_fiber_mma unit_cuda_recording)
  if(TARGET ${name})
    target_include_directories(${name} PRIVATE ${cuda_host}/include)
  endif()
endforeach()

# Fibers are slow under the sanitizers, and what these run test_cuda_ops, test_cuda_attention,
# op_model_cuda, op_model_overlap and worker_validation run there too: label slow, which
# tests/run.sh leaves out.
if(VNEVA_SANITIZE AND TARGET test_cuda_cudnn)
  set_tests_properties(test_cuda_cudnn op_model_evaluation op_model_graphs op_model_waits
    PROPERTIES LABELS slow)
endif()

# What tests/gpu.sh runs on a GPU, here over the stand-ins, so that it works there.
set(bench_gpu bench/bench_gpu.c bench/bench_gpu_lt.c bench/bench_gpu_model.c
  bench/bench_gpu_ops.c bench/bench_gpu_shape.c bench/bench_batch.c)
if(VNEVA_TESTS)
  add_executable(bench_gpu_host ${bench_gpu} ${cuda_host}/runtime.cpp
    ${cuda_host}/streams.cpp ${cuda_host}/graphs.cpp ${cuda_host}/cublaslt.cpp)
  target_include_directories(bench_gpu_host PRIVATE ${cuda_host}/include)
  target_link_libraries(bench_gpu_host PRIVATE vneva_optim vneva_generate vneva_fiber
    vneva_flags)
  add_executable(gpu_ops_host op/test_gpu.c)
  target_link_libraries(gpu_ops_host PRIVATE vneva_op_cases vneva_flags)
  foreach(program bench_gpu_host gpu_ops_host)
    set_target_properties(${program} PROPERTIES
      RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/cuda_host)
    add_dependencies(${program} vneva_cuda_host)
  endforeach()
  add_test(NAME gpu_script COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/integration/gpu_script.sh
    ${CMAKE_BINARY_DIR}/tests/cuda_host)
  set_tests_properties(gpu_script PROPERTIES LABELS integration TIMEOUT 900)
endif()

# The real cuDNN, where it is: it makes plans for devices that are not there, whose driver
# is a stand-in.
if(TARGET vneva_cuda AND CUDNN_INCLUDE_DIR AND CUDNN_LIBRARY)
  find_package(CUDAToolkit REQUIRED)
  add_library(vneva_cuda_driver SHARED ${cuda_host}/driver.c)
  target_link_libraries(vneva_cuda_driver PRIVATE vneva_flags)
  set_target_properties(vneva_cuda_driver PROPERTIES OUTPUT_NAME cuda SOVERSION 1
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/cuda_driver)
  vneva_test(cudnn_plans LABEL op SOURCES op/cudnn_plans.c
    ${cuda_dir}/attention_parts.c ${cuda_dir}/attention_graph.c ${cuda_dir}/attention_plan.c
    LIBS vneva_base ${CUDNN_LIBRARY} ${CMAKE_DL_LIBS})
  target_include_directories(cudnn_plans SYSTEM PRIVATE ${CUDNN_INCLUDE_DIR}
    ${CUDAToolkit_INCLUDE_DIRS})
  target_compile_definitions(cudnn_plans PRIVATE VNEVA_HAVE_CUDNN
    DRIVER_STANDIN="$<TARGET_FILE_DIR:vneva_cuda_driver>/libcuda.so.1")
  add_dependencies(cudnn_plans vneva_cuda_driver)
else()
  vneva_test(cudnn_plans LABEL op SOURCES op/cudnn_plans.c)
endif()

# The real plugin: what it takes of registers, and, with label gpu, all of the above on a
# GPU; without one these are skipped.
if(TARGET vneva_cuda)
  add_test(NAME cuda_registers
    COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/cuda_registers.sh ${CMAKE_BINARY_DIR})
  set_tests_properties(cuda_registers PROPERTIES LABELS op)
  vneva_test(gpu_ops LABEL gpu
    SOURCES op/test_gpu.c LIBS vneva_op_cases
    ARGS ${CMAKE_BINARY_DIR}/gpu_ops.json)
  vneva_test(gpu_model LABEL gpu SOURCES op/model_cuda.c
    LIBS vneva_tiny vneva_optim vneva_generate)
  if(TARGET gpu_model)
    target_compile_definitions(gpu_model PRIVATE VNEVA_TEST_ON_GPU)
    set_tests_properties(gpu_ops gpu_model PROPERTIES
      ENVIRONMENT "LD_LIBRARY_PATH=${CMAKE_BINARY_DIR}/bin:$ENV{LD_LIBRARY_PATH}")
    find_package(CUDAToolkit REQUIRED) # its targets are a folder's own
    add_executable(bench_gpu ${bench_gpu})
    target_include_directories(bench_gpu SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
    target_link_libraries(bench_gpu PRIVATE vneva_optim vneva_generate CUDA::cudart_static
      CUDA::cublasLt vneva_flags)
    set_target_properties(bench_gpu PROPERTIES
      RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    add_dependencies(bench_gpu vneva_cuda)
    add_dependencies(gpu_ops vneva_cuda)
    add_dependencies(gpu_model vneva_cuda)
  endif()
endif()
