// liblz4's block functions (lz4.h, 1.9). No logic.
#include <lz4.h>
