// CRC-32C (RFC 3720, appendix B.4: the Castagnoli polynomial) by the processor's own instruction, where it has one.
#ifndef GODWIT_CCHECKSUM_H
#define GODWIT_CCHECKSUM_H

#include <stddef.h>
#include <stdint.h>

// From a seed, and not inverted, neither before nor after.
uint32_t godwit_crc32c(uint32_t seed, const void *bytes, size_t count);

// The same by a table, for processors without the instruction.
uint32_t godwit_crc32c_by_table(uint32_t seed, const void *bytes, size_t count);

#endif
