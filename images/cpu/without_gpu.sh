# Sourced by install.sh. PyPI has torch for Linux with CUDA only. What torch's libraries are linked against stays, or it
# could not be imported; what they load by name when there is a GPU goes, and so do headers, static libraries and the
# compiler for GPU kernels.
if [ -d nvidia ]; then
  rm -rf triton triton-*.dist-info torch/include torch/lib/*.a torch/share nvidia/*/include nvidia/*/lib/*.a nvidia/cu13/bin \
    nvidia/cu13/nvvm nvidia/cudnn/lib/libcudnn_* nvidia/nvshmem/lib/nvshmem_* nvidia/cu13/lib/libcusolverMg* \
    nvidia/cu13/lib/libnvperf* nvidia/cu13/lib/libnvblas* nvidia/cu13/lib/libcheckpoint* \
    nvidia/cu13/lib/libpcsampling* nvidia/cu13/lib/libcufftw* nvidia/cu13/lib/libcufile_rdma*
  OMP_NUM_THREADS=1 /opt/viper/bin/python -c 'import torch, torchvision; assert not torch.cuda.is_available()'
fi
