/// librbd and librados as Swift sees them: their C headers, and the few object operations that only the C++ API has.
///
/// Every function here returns at once: zero when the operation was submitted, or a negative errno, in which case
/// `done` is not called. `done` runs once, on a thread of librados, with the result (negative errno or >= 0).
/// Extents count bytes from the start of the object.
#ifndef CCEPH_H
#define CCEPH_H

#include <rados/librados.h>
#include <rbd/librbd.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  uint64_t offset;
  uint64_t length;
} cceph_extent;

/// A piece of an object with its bytes; the bytes belong to the `cceph_read` they came with.
typedef struct {
  uint64_t offset;
  uint64_t length;
  const uint8_t *bytes;
} cceph_segment;

typedef void (*cceph_done)(void *context, int result);

/// What one sparse read returned. Freed with `cceph_read_free`, after `done`.
typedef struct cceph_read cceph_read;

/// Reads what is allocated in `ranges` of an object, at the snapshot that `pool` reads
/// (`ObjectReadOperation::sparse_read`, librados.hpp). -ENOENT: there is no such object at that snapshot.
int cceph_sparse_read(rados_ioctx_t pool, const char *object, const cceph_extent *ranges, size_t count,
                      cceph_read **result, cceph_done done, void *context);
/// The allocated segments in order. -EIO if the OSD's extents and its data do not agree.
int cceph_read_segments(cceph_read *read, const cceph_segment **segments, size_t *count);
void cceph_read_free(cceph_read *read);

/// The allocated extents of an object (`IoCtx::mapext`); blocks. Writes at most `capacity` extents and returns how
/// many there are, or a negative errno.
int64_t cceph_map_extents(rados_ioctx_t pool, const char *object, uint64_t offset, uint64_t length,
                          cceph_extent *extents, size_t capacity);

/// A client that watches an object.
typedef struct {
  int64_t client;
  char address[256];
} cceph_watcher;

/// Who watches an object (`IoCtx::list_watchers`); blocks. Writes at most `capacity` and returns how many there are, or a
/// negative errno.
int64_t cceph_list_watchers(rados_ioctx_t pool, const char *object, cceph_watcher *watchers, size_t capacity);

/// Read-only methods of the object class "rbd" (cls_rbd) to call on one object in one operation, and what they
/// answered. Freed with `cceph_calls_free`, after `done`.
typedef struct cceph_calls cceph_calls;

cceph_calls *cceph_calls_new(void);
int cceph_calls_add(cceph_calls *calls, const char *method, const uint8_t *input, size_t length);
/// A method that fails leaves the others alone: its errno is in its answer. -ENOENT: there is no such object.
int cceph_calls_submit(rados_ioctx_t pool, const char *object, cceph_calls *calls, cceph_done done, void *context);
/// What the method of that number answered, or its negative errno.
int cceph_calls_answer(cceph_calls *calls, size_t number, const uint8_t **bytes, size_t *length);
void cceph_calls_free(cceph_calls *calls);

/// A version of an object that at least one snapshot, or the head, still shows.
typedef struct {
  uint64_t id;             ///< CCEPH_HEAD for the head
  uint64_t size;           ///< bytes
  const uint64_t *snaps;   ///< the snapshots that show it, ascending; removed ones until they are trimmed
  size_t snap_count;
  const cceph_extent *overlap;  ///< what it shares with the next newer version
  size_t overlap_count;
} cceph_clone;

/// `LIBRADOS_SNAP_HEAD` and `LIBRADOS_SNAP_DIR`, whose casts Swift does not import.
static const uint64_t CCEPH_HEAD = (uint64_t)-2;
static const uint64_t CCEPH_SNAP_DIR = (uint64_t)-1;

typedef struct cceph_history cceph_history;

/// Every version of an object, oldest first (`ObjectReadOperation::list_snaps`, librados.hpp).
/// `pool` must read LIBRADOS_SNAP_DIR.
int cceph_list_snaps(rados_ioctx_t pool, const char *object, cceph_history **result, cceph_done done, void *context);
/// `newest_snap`: the newest snapshot the object knows of, live or not.
size_t cceph_history_clones(const cceph_history *history, const cceph_clone **clones, uint64_t *newest_snap);
void cceph_history_free(cceph_history *history);

/// What an OSD says of an object without sending its bytes: its size, and a hash of each chunk.
typedef struct cceph_digest cceph_digest;

/// xxhash64 (seed 0) of each `chunk` bytes in `length` bytes of an object from `offset` on, and the object's size
/// (`ObjectReadOperation::checksum`, librados.hpp). -ENOENT: no such object.
int cceph_checksum(rados_ioctx_t pool, const char *object, uint64_t offset, uint64_t length, uint64_t chunk,
                   cceph_digest **result, cceph_done done, void *context);
/// The hashes in order; fewer than asked for if the object ends before. `code`: the checksum's own result.
const uint64_t *cceph_digest_hashes(const cceph_digest *digest, size_t *count, uint64_t *object_size, int *code);
void cceph_digest_free(cceph_digest *digest);

/// One atomic change of one object. Freed with `cceph_write_free`, after `done`.
typedef struct cceph_write cceph_write;

cceph_write *cceph_write_new(void);
void cceph_write_free(cceph_write *write);
/// Borrows `bytes` until `done`.
void cceph_write_data(cceph_write *write, uint64_t offset, const void *bytes, size_t length);
void cceph_write_zero(cceph_write *write, uint64_t offset, uint64_t length);
void cceph_write_truncate(cceph_write *write, uint64_t size);
void cceph_write_remove(cceph_write *write);
/// Makes the object a copy of another one, OSD to OSD (`ObjectWriteOperation::copy_from`, librados.hpp), as the
/// snapshot that `source` reads shows it.
void cceph_write_copy(cceph_write *write, const char *object, rados_ioctx_t source);
/// Submits under a snapshot context: `snaps` newest first, `newest` zero for none.
int cceph_write_submit(rados_ioctx_t pool, const char *object, cceph_write *write, uint64_t newest,
                       const uint64_t *snaps, size_t count, cceph_done done, void *context);

#ifdef __cplusplus
}
#endif

#endif
