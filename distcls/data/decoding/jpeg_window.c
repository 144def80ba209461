/* One window of a JPEG: columns beside it are not computed, rows above it are only entropy-decoded, rows below it not read.
 *
 * Settings are those of FFCV's imdecode (fast DCT, smooth upsampling, RGB), and the pixels are the same as of the whole
 * image's decoding: smooth upsampling looks one chroma sample, two pixels, beyond the window, and these are decoded too.
 */
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

#define MARGIN 2
#define TEXT(x) #x
#define TEXT_OF(x) TEXT(x)

struct errors {
    struct jpeg_error_mgr base;
    jmp_buf leave;
};

/* libjpeg's own handlers end the process, and print. */
static void leave(j_common_ptr jpeg) { longjmp(((struct errors *)jpeg->err)->leave, 1); }
static void silent(j_common_ptr jpeg) { (void)jpeg; }

const char *library_version(void) { return "libjpeg-turbo " TEXT_OF(LIBJPEG_TURBO_VERSION); }

/* out (rows, cols, 3) = the window at (top, left) of the image scaled by 1 / denominator (1, 2, 4 or 8), in its pixels.
 * It must lie inside. height and width: of the whole image. Returns 0, or 1 where the data is damaged as far as it was
 * read. Everything allocated belongs to `jpeg` and goes with it, also after an error. */
int32_t decode_window(const uint8_t *source, uint64_t size, uint32_t height, uint32_t width, uint32_t denominator,
                      uint32_t top, uint32_t left, uint32_t rows, uint32_t cols, uint8_t *out) {
    struct jpeg_decompress_struct jpeg;
    struct errors errors;
    memset(&jpeg, 0, sizeof jpeg);
    jpeg.err = jpeg_std_error(&errors.base);
    errors.base.error_exit = leave;
    errors.base.output_message = silent;
    if (setjmp(errors.leave)) {
        jpeg_destroy_decompress(&jpeg);
        return 1;
    }
    jpeg_create_decompress(&jpeg);
    jpeg_mem_src(&jpeg, (unsigned char *)source, size);
    jpeg_read_header(&jpeg, TRUE);
    if (jpeg.image_height != height || jpeg.image_width != width) leave((j_common_ptr)&jpeg);
    jpeg.scale_num = 1;
    jpeg.scale_denom = denominator;
    jpeg.out_color_space = JCS_RGB;
    jpeg.dct_method = JDCT_IFAST;
    jpeg_start_decompress(&jpeg);

    JDIMENSION first = left > MARGIN ? left - MARGIN : 0;
    JDIMENSION end = left + cols + MARGIN < jpeg.output_width ? left + cols + MARGIN : jpeg.output_width;
    JDIMENSION span = end - first;
    if (span < jpeg.output_width) jpeg_crop_scanline(&jpeg, &first, &span); /* moves both to whole blocks */
    JSAMPROW line = (*jpeg.mem->alloc_large)((j_common_ptr)&jpeg, JPOOL_IMAGE, (size_t)span * 3);
    if (top) jpeg_skip_scanlines(&jpeg, top);
    for (uint32_t row = 0; row < rows; row++, out += (size_t)cols * 3) {
        JSAMPROW target = span == cols ? out : line;
        if (jpeg_read_scanlines(&jpeg, &target, 1) != 1) leave((j_common_ptr)&jpeg);
        if (target == line) memcpy(out, line + (size_t)(left - first) * 3, (size_t)cols * 3);
    }
    int32_t damaged = errors.base.num_warnings != 0;
    jpeg_destroy_decompress(&jpeg);
    return damaged;
}
