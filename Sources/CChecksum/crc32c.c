#include "CChecksum.h"

#include <string.h>

// What remains of each byte: the reflected polynomial, 0x82f63b78, four bits at a time.
static const uint32_t nibbles[16] = {
    0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
    0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

uint32_t godwit_crc32c_by_table(uint32_t sum, const void *bytes, size_t count)
{
    const uint8_t *place = bytes;
    for (; count; count--, place++) {
        sum ^= *place;
        sum = sum >> 4 ^ nibbles[sum & 15];
        sum = sum >> 4 ^ nibbles[sum & 15];
    }
    return sum;
}

#if defined(__x86_64__)

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t sum, const void *bytes, size_t count)
{
    const uint8_t *place = bytes;
    uint64_t wide = sum;
    for (; count >= 8; count -= 8, place += 8) {
        uint64_t word;
        memcpy(&word, place, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    sum = (uint32_t)wide;
    for (; count; count--, place++) sum = __builtin_ia32_crc32qi(sum, *place);
    return sum;
}

uint32_t godwit_crc32c(uint32_t seed, const void *bytes, size_t count)
{
    if (__builtin_cpu_supports("sse4.2")) return by_instruction(seed, bytes, count);
    return godwit_crc32c_by_table(seed, bytes, count);
}

#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)

uint32_t godwit_crc32c(uint32_t sum, const void *bytes, size_t count)
{
    const uint8_t *place = bytes;
    for (; count >= 8; count -= 8, place += 8) {
        uint64_t word;
        memcpy(&word, place, 8);
        sum = __builtin_arm_crc32cd(sum, word);
    }
    for (; count; count--, place++) sum = __builtin_arm_crc32cb(sum, *place);
    return sum;
}

#else

uint32_t godwit_crc32c(uint32_t seed, const void *bytes, size_t count)
{
    return godwit_crc32c_by_table(seed, bytes, count);
}

#endif
