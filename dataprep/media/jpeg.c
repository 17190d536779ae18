#include "dataprep/media/still.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

/* after stdio.h, which they need */
#include <jpeglib.h>

#include <jerror.h>

struct jpeg_reader {
    struct jpeg_error_mgr errors; /* first: what libjpeg hands back */
    struct jpeg_decompress_struct jpeg;
    jmp_buf escape;
    enum err_code code;
    char text[JMSG_LENGTH_MAX];
};

static void give_up(struct jpeg_reader *reader, enum err_code code)
{
    reader->code = code;
    reader->errors.format_message((j_common_ptr)&reader->jpeg, reader->text);
    longjmp(reader->escape, 1);
}

static void on_error(j_common_ptr jpeg)
{
    struct jpeg_reader *reader = (struct jpeg_reader *)(void *)jpeg->err;

    give_up(reader, jpeg->err->msg_code == JERR_OUT_OF_MEMORY ? ERR_LIMIT : ERR_FORMAT);
}

/* Warnings of missing or wrong data are damage: libjpeg would go on with grey. */
static void on_message(j_common_ptr jpeg, int level)
{
    struct jpeg_reader *reader = (struct jpeg_reader *)(void *)jpeg->err;

    if (level >= 0)
        return;
    switch (jpeg->err->msg_code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC:
    case JWRN_NOT_SEQUENTIAL:
        give_up(reader, ERR_FORMAT);
        break;
    default: /* stray bytes and the like */
        break;
    }
}

static void on_output(j_common_ptr jpeg)
{
    (void)jpeg; /* nothing on standard error */
}

/* Adobe's inverted CMYK, which every such file is taken for, to RGB as Pillow does it
 * (src/libImaging/Convert.c, cmyk2rgb): in [width,4], out [width,3]. */
static void row_from_cmyk(uint8_t *out, const uint8_t *in, int64_t width)
{
    for (int64_t x = 0; x < width; x++) {
        uint32_t key = in[x * 4 + 3];

        for (int c = 0; c < 3; c++) {
            uint32_t product = (255u - in[x * 4 + c]) * key + 128;

            out[x * 3 + c] = (uint8_t)(key - (((product >> 8) + product) >> 8));
        }
    }
}

static void choose_colours(struct jpeg_decompress_struct *jpeg)
{
    bool has_key =
        jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK;

    jpeg->out_color_space = has_key ? JCS_CMYK : JCS_RGB;
}

/* row: room for one of CMYK. */
static void read_rows(struct jpeg_reader *reader, struct picture *out, uint8_t *row)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;

    while (jpeg->output_scanline < jpeg->output_height) {
        uint8_t *to = &out->rgb[(int64_t)jpeg->output_scanline * out->width * 3];
        JSAMPROW into = jpeg->output_components == 4 ? row : to;

        jpeg_read_scanlines(jpeg, &into, 1);
        if (jpeg->output_components == 4)
            row_from_cmyk(to, row, out->width);
    }
}

/* 0, or -1 with reader->text or err. Nothing here survives a jump but what is given. */
static int read_picture(struct jpeg_reader *reader, struct picture *out, uint8_t **row,
                        const uint8_t *bytes, size_t n_bytes,
                        const struct media_limits *limits, struct err *err)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;

    if (setjmp(reader->escape))
        return err_set(err, reader->code, "%s JPEG: %s",
                       reader->code == ERR_LIMIT ? "too large a" : "damaged",
                       reader->text);
    jpeg_create_decompress(jpeg);
    jpeg_mem_src(jpeg, bytes, n_bytes);
    jpeg_read_header(jpeg, TRUE);
    if ((int64_t)jpeg->image_width * jpeg->image_height > limits->max_pixels)
        return err_set(
            err, ERR_LIMIT, "frames of %u x %u are over the cap of %lld pixels",
            jpeg->image_width, jpeg->image_height, (long long)limits->max_pixels);
    choose_colours(jpeg);
    *row = calloc(jpeg->image_width, 4);
    if (!*row)
        return err_set(err, ERR_LIMIT, "no memory for a row of a picture");
    if (picture_reserve(out, jpeg->image_width, jpeg->image_height, err) < 0)
        return -1;
    jpeg_start_decompress(jpeg);
    read_rows(reader, out, *row);
    jpeg_finish_decompress(jpeg);
    return 0;
}

int jpeg_decode(struct picture *out, const uint8_t *bytes, size_t n_bytes,
                const struct media_limits *limits, struct err *err)
{
    struct jpeg_reader *reader = calloc(1, sizeof(*reader));
    uint8_t *row = NULL;
    int rc;

    if (!reader)
        return err_set(err, ERR_NOMEM, "cannot allocate a JPEG reader");
    reader->jpeg.err = jpeg_std_error(&reader->errors);
    reader->errors.error_exit = on_error;
    reader->errors.emit_message = on_message;
    reader->errors.output_message = on_output;
    rc = read_picture(reader, out, &row, bytes, n_bytes, limits, err);
    jpeg_destroy_decompress(&reader->jpeg);
    free(row);
    free(reader);
    return rc;
}
