// Times PyTorch's operators without Python: prepacked parameters, one call after another.

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/native/quantized/PackedParams.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
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
    auto result = run();
    out[i] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  return seconds;
}

// Any operator, by its schema: arguments are copied for each call, which takes some tens of nanoseconds.
at::Tensor time_operator(const char* name, torch::jit::Stack arguments, int64_t runs) {
  auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
  return time_runs(runs, [&] {
    torch::jit::Stack stack = arguments;
    op.callBoxed(stack);
    return stack.back();
  });
}

at::Tensor time_linear(const at::Tensor& input,
                       const c10::intrusive_ptr<LinearPackedParamsBase>& packed,
                       double scale, int64_t zero_point, int64_t runs) {
  return time_runs(runs, [&] { return packed->apply(input, scale, zero_point); });
}

template <int kAxes>
at::Tensor time_conv(const at::Tensor& input,
                     const c10::intrusive_ptr<ConvPackedParamsBase<kAxes>>& packed,
                     double scale, int64_t zero_point, int64_t runs) {
  return time_runs(runs, [&] { return packed->apply(input, scale, zero_point); });
}

// float32 by float16 weights.
at::Tensor time_linear_fp16(const at::Tensor& input,
                            const c10::intrusive_ptr<LinearPackedParamsBase>& packed, int64_t runs) {
  return time_runs(runs, [&] { return packed->apply_dynamic(input); });
}

at::Tensor time_linear_float(const at::Tensor& input, const at::Tensor& weight, int64_t runs) {
  return time_runs(runs, [&] { return at::linear(input, weight); });
}

// float32 by weights in oneDNN's own order.
at::Tensor time_conv_float(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                           at::IntArrayRef pad, at::IntArrayRef output_pad, at::IntArrayRef stride,
                           at::IntArrayRef dilation, int64_t groups, bool transposed, int64_t runs) {
  torch::jit::Stack arguments{input, weight, bias, pad.vec()};
  if (transposed) arguments.emplace_back(output_pad.vec());
  for (auto list : {stride, dilation}) arguments.emplace_back(list.vec());
  arguments.emplace_back(groups);
  arguments.emplace_back("none");
  arguments.emplace_back(c10::List<std::optional<at::Scalar>>());
  arguments.emplace_back("");
  auto name = transposed ? "mkldnn::_convolution_transpose_pointwise" : "mkldnn::_convolution_pointwise";
  return time_operator(name, arguments, runs);
}

at::Tensor time_embedding_bag(const at::Tensor& table, const at::Tensor& indices, const at::Tensor& offsets,
                              const std::optional<at::Tensor>& weights, int64_t bits, int64_t runs) {
  torch::jit::Stack arguments{table, indices, offsets, false, int64_t{0}, false, weights, c10::IValue(), true};
  auto name = bits == 8 ? "quantized::embedding_bag_byte_rowwise_offsets"
                        : "quantized::embedding_bag_4bit_rowwise_offsets";
  return time_operator(name, arguments, runs);
}

}  // namespace

TORCH_LIBRARY(lowgemm_benchmarks, m) {
  m.def("time_linear", &time_linear);
  m.def("time_conv2d", &time_conv<2>);
  m.def("time_conv3d", &time_conv<3>);
  m.def("time_linear_fp16", &time_linear_fp16);
  m.def("time_linear_float", &time_linear_float);
  m.def("time_conv_float", &time_conv_float);
  m.def("time_embedding_bag", &time_embedding_bag);
}
