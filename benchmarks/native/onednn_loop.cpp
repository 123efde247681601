// A layer in oneDNN's own C++ library, with packed weights, and a loop that times it. One layer at a time is held.

#include <dnnl.hpp>
#include <omp.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <unordered_map>

using namespace dnnl;
using type = memory::data_type;
using tag = memory::format_tag;
using dims = memory::dims;

namespace {

std::string message;

struct layer {
  engine cpu{engine::kind::cpu, 0};
  stream queue{cpu};
  primitive product;
  std::unordered_map<int, memory> arguments;
};
std::unique_ptr<layer> held;

memory constant(const engine& cpu, type kind, const void* values, int64_t count) {
  memory made({{count}, kind, tag::x}, cpu);
  std::memcpy(made.get_data_handle(), values, made.get_desc().get_size());
  return made;
}

// Weights in the order that the primitive asks for.
memory packed(layer& l, const memory::desc& wanted, const memory::desc& given, const void* weight) {
  memory plain(given, l.cpu, const_cast<void*>(weight)), made(wanted, l.cpu);
  reorder(plain, made).execute(l.queue, plain, made);
  l.queue.wait();
  return made;
}

}  // namespace

extern "C" {

const char* onednn_message() { return message.c_str(); }

// numbers: batch, in, out, groups, rank, transposed, then sizes, kernel, strides, dilations, begins, ends, out sizes, each
// one for every axis. rank 0 is a product of `batch` rows. x and y are channels-last; weight [groups, out, in, kernel...]
// or, of a product, [out, in]. scales: of x times weight for each output channel, real ones of x and y apart.
int onednn_make(const int64_t* numbers, const uint8_t* x, const int8_t* weight, const float* weight_scales, float x_scale,
                float y_scale, int32_t x_zero, int32_t y_zero, const float* bias, uint8_t* y, int threads) try {
  omp_set_num_threads(threads);
  held = std::make_unique<layer>();
  layer& l = *held;
  int64_t batch = numbers[0], in = numbers[1], out = numbers[2], groups = numbers[3], rank = numbers[4];
  bool transposed = numbers[5];
  const int64_t* next = numbers + 6;
  auto take = [&](int64_t less = 0) {
    dims values(next, next + rank);
    for (auto& value : values) value -= less;
    next += rank;
    return values;
  };
  dims sizes = take(), kernel = take(), strides = take(), dilations = take(1), begins = take(), ends = take(), outs = take();
  primitive_attr attributes;
  attributes.set_scales_mask(DNNL_ARG_SRC, 0);
  attributes.set_scales_mask(DNNL_ARG_DST, 0);
  attributes.set_zero_points_mask(DNNL_ARG_SRC, 0);
  attributes.set_zero_points_mask(DNNL_ARG_DST, 0);
  memory::desc src, dst, bias_desc;
  if (rank == 0) {
    attributes.set_scales_mask(DNNL_ARG_WEIGHTS, 1 << 1);
    src = {{batch, in}, type::u8, tag::ab}, dst = {{batch, out}, type::u8, tag::ab};
    bias_desc = {{1, out}, type::f32, tag::ab};
    memory::desc given({in, out}, type::s8, tag::ba), any({in, out}, type::s8, tag::any);
    matmul::primitive_desc made(l.cpu, src, any, bias_desc, dst, attributes);
    l.product = matmul(made);
    l.arguments[DNNL_ARG_WEIGHTS] = packed(l, made.weights_desc(), given, weight);
  } else {
    attributes.set_scales_mask(DNNL_ARG_WEIGHTS, groups > 1 ? 3 : 1);
    const tag last = rank == 1 ? tag::nwc : rank == 2 ? tag::nhwc : tag::ndhwc;
    dims x_dims{batch, in}, y_dims{batch, out}, w_dims{out / groups, in / groups};
    x_dims.insert(x_dims.end(), sizes.begin(), sizes.end());
    y_dims.insert(y_dims.end(), outs.begin(), outs.end());
    w_dims.insert(w_dims.end(), kernel.begin(), kernel.end());
    if (groups > 1) w_dims.insert(w_dims.begin(), groups);
    const tag plain[] = {tag::abc, tag::abcd, tag::abcde, tag::abcdef};
    src = {x_dims, type::u8, last}, dst = {y_dims, type::u8, last};
    bias_desc = {{out}, type::f32, tag::a};
    memory::desc given(w_dims, type::s8, plain[w_dims.size() - 3]), any(w_dims, type::s8, tag::any);
    auto finish = [&](auto made) {
      l.arguments[DNNL_ARG_WEIGHTS] = packed(l, made.weights_desc(), given, weight);
      return made;
    };
    if (transposed)
      l.product = deconvolution_forward(finish(deconvolution_forward::primitive_desc(
          l.cpu, prop_kind::forward_inference, algorithm::deconvolution_direct, src, any, bias_desc, dst, strides, dilations,
          begins, ends, attributes)));
    else
      l.product = convolution_forward(finish(convolution_forward::primitive_desc(
          l.cpu, prop_kind::forward_inference, algorithm::convolution_direct, src, any, bias_desc, dst, strides, dilations,
          begins, ends, attributes)));
  }
  l.arguments[DNNL_ARG_SRC] = memory(src, l.cpu, const_cast<uint8_t*>(x));
  l.arguments[DNNL_ARG_DST] = memory(dst, l.cpu, y);
  l.arguments[DNNL_ARG_BIAS] = memory(bias_desc, l.cpu, const_cast<float*>(bias));
  l.arguments[DNNL_ARG_ATTR_SCALES | DNNL_ARG_SRC] = constant(l.cpu, type::f32, &x_scale, 1);
  l.arguments[DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS] = constant(l.cpu, type::f32, weight_scales, out);
  l.arguments[DNNL_ARG_ATTR_SCALES | DNNL_ARG_DST] = constant(l.cpu, type::f32, &y_scale, 1);
  l.arguments[DNNL_ARG_ATTR_ZERO_POINTS | DNNL_ARG_SRC] = constant(l.cpu, type::s32, &x_zero, 1);
  l.arguments[DNNL_ARG_ATTR_ZERO_POINTS | DNNL_ARG_DST] = constant(l.cpu, type::s32, &y_zero, 1);
  return 0;
} catch (const std::exception& error) {
  message = error.what();
  held.reset();
  return -1;
}

int onednn_time(int runs, double* seconds) try {
  for (int i = 0; i < runs; i++) {
    auto start = std::chrono::steady_clock::now();
    held->product.execute(held->queue, held->arguments);
    held->queue.wait();
    seconds[i] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  return 0;
} catch (const std::exception& error) {
  message = error.what();
  return -1;
}

void onednn_drop() { held.reset(); }

}
