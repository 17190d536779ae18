/* A table of ICU's data that holds nothing, for the bundle: see bundle.sh.
 *
 * The form is ICU's (ICU User Guide, "ICU Data", "udata.h" for UDataInfo): a header that
 * says how long it is, of which byte order and format, and after it the number of entries.
 * ICU then says U_MISSING_RESOURCE_ERROR to who asks for any.
 * ICU_TABLE: the name of the symbol, with ICU's version in it, as icudt72_dat.
 */
#include <stdint.h>

struct table {
    uint16_t header_bytes;
    uint8_t magic[2];
    uint16_t info_bytes, reserved;
    uint8_t is_big_endian, is_ebcdic, char_bytes, reserved_too;
    uint8_t format[4], format_version[4], data_version[4];
    uint8_t padding[8];
    uint32_t n_entries, end;
};

extern const struct table ICU_TABLE;
__attribute__((visibility("default"), aligned(16))) const struct table ICU_TABLE = {
    .header_bytes = 32,
    .magic = {0xda, 0x27},
    .info_bytes = 20,
    .char_bytes = 2,
    .format = {'T', 'o', 'C', 'P'}, /* a table of contents with pointers */
    .format_version = {1, 0, 0, 0},
};
