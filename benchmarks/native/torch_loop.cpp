// Times PyTorch's quantized operators without Python: prepacked parameters, one call after another.

#include <ATen/native/quantized/PackedParams.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <torch/library.h>

#include <chrono>

namespace {

template <class Run>
at::Tensor time_runs(int64_t runs, Run run) {
  c10::InferenceMode guard;
  at::Tensor seconds = at::empty({runs}, at::kDouble);
  double* out = seconds.data_ptr<double>();
  for (int64_t i = 0; i < runs; i++) {
    auto start = std::chrono::steady_clock::now();
    at::Tensor result = run();
    out[i] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  return seconds;
}

at::Tensor time_linear(const at::Tensor& input,
                       const c10::intrusive_ptr<LinearPackedParamsBase>& packed,
                       double scale, int64_t zero_point, int64_t runs) {
  return time_runs(runs, [&] { return packed->apply(input, scale, zero_point); });
}

at::Tensor time_conv2d(const at::Tensor& input,
                       const c10::intrusive_ptr<ConvPackedParamsBase<2>>& packed,
                       double scale, int64_t zero_point, int64_t runs) {
  return time_runs(runs, [&] { return packed->apply(input, scale, zero_point); });
}

}  // namespace

TORCH_LIBRARY(lowgemm_benchmarks, m) {
  m.def("time_linear", &time_linear);
  m.def("time_conv2d", &time_conv2d);
}
