// Written by `make row.h` from fastdiff/ops/row.py; do not edit.
#pragma once

namespace fastdiff {

enum RowColumn : int {
  k_gain = 0,
  k_g_c = 1,
  k_g_u = 2,
  k_u_x = 3,
  k_u_m = 4,
  k_u_c = 5,
  k_lo = 6,
  k_hi = 7,
  k_rho = 8,
  k_p_x = 9,
  k_p_0 = 10,
  k_p_m = 11,
  k_p_u = 12,
  k_p_c = 13,
  k_b = 14,
  k_a = 15,
  k_q_m = 16,
  k_q_u = 17,
  k_d = 18,
  k_h_0 = 19,
  k_h_1 = 20,
  k_h_2 = 21,
  k_s = 22,
  k_l_0 = 23,
  k_l_1 = 24,
  k_i_y = 25,
  k_i_s = 26,
  k_slot_0 = 27,
  k_slot_1 = 28,
  k_slot_2 = 29,
  k_push_0 = 30,
  k_push_0_slot = 31,
  k_push_1 = 32,
  k_push_1_slot = 33,
  k_stream = 34,
  k_noise_row = 35,
  k_eval = 36,
  k_t = 37,
  k_c_in = 38,
  k_row_width = 39,
};

enum RowPush : int {
  k_push_none = 0,
  k_push_x = 1,
  k_push_x0 = 2,
  k_push_eps = 3,
};

enum RowPerSample : int {
  k_sample_g_c = 0,
  k_sample_g_u = 1,
  k_sample_lo = 2,
  k_sample_hi = 3,
  k_sample_rho = 4,
  k_sample_gain = 5,
  k_per_sample_width = 6,
};

enum NoiseStream : int {
  k_stream_initial = 0,
  k_stream_solver = 1,
  k_stream_forward = 2,
  k_stream_churn = 3,
  k_stream_time = 4,
  k_stream_offset = 5,
  k_stream_known = 6,
  k_stream_label_drop = 7,
  k_stream_flip = 8,
  k_stream_self_cond = 9,
};

constexpr int kHistories = 3;
constexpr int kPushes = 2;

}  // namespace fastdiff
