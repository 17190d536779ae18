#include "h264.h"

#define PROFILE_HIGH 100
#define LEVEL_5_1 51

struct bits {
    uint8_t *out;
    size_t n_bytes, capacity;
    unsigned window;
    int n_window, n_zeros;
};

/* A byte of a NAL unit, with the emulation prevention of 7.4.1. */
static void put_byte(struct bits *bits, uint8_t byte)
{
    if (bits->n_zeros == 2 && byte <= 3 && bits->n_bytes < bits->capacity) {
        bits->out[bits->n_bytes++] = 3;
        bits->n_zeros = 0;
    }
    if (bits->n_bytes < bits->capacity)
        bits->out[bits->n_bytes++] = byte;
    bits->n_zeros = byte ? 0 : bits->n_zeros + 1;
}

static void put(struct bits *bits, int n, unsigned value)
{
    for (int i = n - 1; i >= 0; i--) {
        bits->window = bits->window << 1 | (value >> i & 1);
        if (++bits->n_window == 8) {
            put_byte(bits, (uint8_t)bits->window);
            bits->n_window = 0;
            bits->window = 0;
        }
    }
}

/* ue(v) of 9.1 */
static void put_ue(struct bits *bits, unsigned value)
{
    int n = 0;

    while ((value + 1) >> (n + 1))
        n++;
    put(bits, n, 0);
    put(bits, n + 1, value + 1);
}

static void put_se(struct bits *bits, int value)
{
    put_ue(bits, value > 0 ? (unsigned)(2 * value - 1) : (unsigned)(-2 * value));
}

static void begin_unit(struct bits *bits, uint8_t header)
{
    static const uint8_t start[4] = {0, 0, 0, 1};

    for (int i = 0; i < 4 && bits->n_bytes < bits->capacity; i++)
        bits->out[bits->n_bytes++] = start[i];
    bits->n_zeros = 0;
    put_byte(bits, header);
}

static void end_unit(struct bits *bits)
{
    put(bits, 1, 1);
    while (bits->n_window)
        put(bits, 1, 0);
}

/* 7.3.2.1.1 */
static void put_sps(struct bits *bits, const CUVIDPICPARAMS *picture)
{
    const CUVIDH264PICPARAMS *h = &picture->CodecSpecific.h264;
    int n_fields = h->frame_mbs_only_flag ? 1 : 2;

    begin_unit(bits, 0x67);
    put(bits, 8, PROFILE_HIGH);
    put(bits, 8, 0);
    put(bits, 8, LEVEL_5_1);
    put_ue(bits, 0);
    put_ue(bits, 1); /* 4:2:0 */
    put_ue(bits, h->bit_depth_luma_minus8);
    put_ue(bits, h->bit_depth_chroma_minus8);
    put(bits, 1, h->qpprime_y_zero_transform_bypass_flag);
    put(bits, 1, 0); /* no scaling matrices */
    put_ue(bits, (unsigned)h->log2_max_frame_num_minus4);
    put_ue(bits, (unsigned)h->pic_order_cnt_type);
    if (h->pic_order_cnt_type == 0)
        put_ue(bits, (unsigned)h->log2_max_pic_order_cnt_lsb_minus4);
    put_ue(bits, (unsigned)h->num_ref_frames);
    put(bits, 1, 1); /* gaps in frame_num are allowed */
    put_ue(bits, (unsigned)picture->PicWidthInMbs - 1);
    put_ue(bits, (unsigned)(picture->FrameHeightInMbs / n_fields) - 1);
    put(bits, 1, (unsigned)h->frame_mbs_only_flag);
    if (!h->frame_mbs_only_flag)
        put(bits, 1, (unsigned)h->MbaffFrameFlag || !picture->field_pic_flag);
    put(bits, 1, (unsigned)h->direct_8x8_inference_flag);
    put(bits, 2, 0); /* no cropping, no VUI */
    end_unit(bits);
}

/* 7.3.2.2 */
static void put_pps(struct bits *bits, const CUVIDH264PICPARAMS *h)
{
    begin_unit(bits, 0x68);
    put_ue(bits, 0);
    put_ue(bits, 0);
    put(bits, 1, (unsigned)h->entropy_coding_mode_flag);
    put(bits, 1, (unsigned)h->pic_order_present_flag);
    put_ue(bits, 0); /* one slice group */
    put_ue(bits, (unsigned)h->num_ref_idx_l0_active_minus1);
    put_ue(bits, (unsigned)h->num_ref_idx_l1_active_minus1);
    put(bits, 1, (unsigned)h->weighted_pred_flag);
    put(bits, 2, (unsigned)h->weighted_bipred_idc);
    put_se(bits, h->pic_init_qp_minus26);
    put_se(bits, h->pic_init_qs_minus26);
    put_se(bits, h->chroma_qp_index_offset);
    put(bits, 1, (unsigned)h->deblocking_filter_control_present_flag);
    put(bits, 1, (unsigned)h->constrained_intra_pred_flag);
    put(bits, 1, (unsigned)h->redundant_pic_cnt_present_flag);
    put(bits, 1, (unsigned)h->transform_8x8_mode_flag);
    put(bits, 1, 0); /* no scaling matrices */
    put_se(bits, h->second_chroma_qp_index_offset);
    end_unit(bits);
}

size_t h264_write_headers(uint8_t *out, size_t capacity, const CUVIDPICPARAMS *picture)
{
    struct bits bits = {.out = out, .capacity = capacity};

    put_sps(&bits, picture);
    put_pps(&bits, &picture->CodecSpecific.h264);
    return bits.n_bytes;
}
