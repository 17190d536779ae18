# What the plugin is made of; also built over host stand-ins by tests/rooms/cuda.cmake.
set(cuda_sources cuda.c about.c memory.c ahead.c graph.c group.c matmul.c matmul_plan.c
  matmul_tune.c attention.c)
# where NCCL's header is
set(nccl_sources ../../comm/nccl.c ../../comm/nccl_record.c ../../comm/nccl_watch.c
  ../../comm/nccl_library.c)
# where cuDNN is
set(cudnn_sources attention_parts.c attention_graph.c attention_plan.c attention_cudnn.c)
set(cuda_kernels kernels/pointwise.cu kernels/norm.cu kernels/rows.cu kernels/attention.cu
  kernels/attention_decode.cu kernels/attention_fp32.cu kernels/attention_mma_bwd.cu
  kernels/attention_mma_fwd.cu kernels/loss.cu kernels/optim.cu
  kernels/sample.cu)
