// The CRC functions of Intel's ISA-L (isa-l/crc.h, 2.30). No logic.
#include <isa-l/crc.h>
