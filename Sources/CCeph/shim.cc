#include "CCeph.h"

#include <cerrno>
#include <cstring>
#include <deque>
#include <memory>
#include <rados/librados.hpp>

using ceph::bufferlist;

namespace {

/// No C++ exception may cross into Swift: what is thrown becomes an errno.
template <typename Body>
auto guarded(Body body) -> decltype(body()) {
  try {
    return body();
  } catch (const std::bad_alloc &) {
    return -ENOMEM;
  } catch (...) {
    return -EIO;
  }
}

librados::IoCtx borrowed(rados_ioctx_t handle) {
  librados::IoCtx pool;
  librados::IoCtx::from_rados_ioctx_t(handle, pool);
  return pool;
}

/// Whom to tell once an operation is over.
struct Waiter {
  cceph_done done;
  void *context;
};

void tell(rados_completion_t completion, void *argument) {
  std::unique_ptr<Waiter> waiter(static_cast<Waiter *>(argument));
  waiter->done(waiter->context, rados_aio_get_return_value(completion));
}

/// Submits through `submit`, which takes the completion and returns librados's code.
template <typename Submit>
int submitted(cceph_done done, void *context, Submit submit) {
  auto waiter = std::make_unique<Waiter>(Waiter{done, context});
  auto *completion = librados::Rados::aio_create_completion(waiter.get(), tell);
  int code = submit(completion);
  completion->release();
  // From here on the waiter belongs to `tell`, unless nothing was submitted.
  if (code == 0) waiter.release();
  return code;
}

}  // namespace

int64_t cceph_list_watchers(rados_ioctx_t pool, const char *object, cceph_watcher *watchers, size_t capacity) {
  return guarded([&]() -> int64_t {
    std::list<obj_watch_t> found;
    int code = borrowed(pool).list_watchers(object, &found);
    if (code < 0) return code;
    size_t count = 0;
    for (const auto &watch : found) {
      if (count < capacity) {
        auto &watcher = watchers[count];
        watcher.client = watch.watcher_id;
        std::strncpy(watcher.address, watch.addr, sizeof watcher.address - 1);
        watcher.address[sizeof watcher.address - 1] = 0;
      }
      ++count;
    }
    return static_cast<int64_t>(count);
  });
}

struct cceph_read {
  struct Range {
    std::map<uint64_t, uint64_t> extents;
    bufferlist data;
    int code = 0;
  };
  std::vector<Range> ranges;
  std::vector<cceph_segment> segments;
};

int cceph_sparse_read(rados_ioctx_t pool, const char *object, const cceph_extent *ranges, size_t count,
                      cceph_read **result, cceph_done done, void *context) {
  *result = nullptr;
  return guarded([&] {
    auto read = std::make_unique<cceph_read>();
    read->ranges.resize(count);
    librados::ObjectReadOperation operation;
    for (size_t i = 0; i < count; ++i) {
      auto &range = read->ranges[i];
      operation.sparse_read(ranges[i].offset, ranges[i].length, &range.extents, &range.data, &range.code);
      // Read once: what the OSD keeps in its cache is for its other clients.
      operation.set_op_flags2(LIBRADOS_OP_FLAG_FADVISE_DONTNEED);
    }
    // The caller may be told before this function returns.
    *result = read.get();
    int code = submitted(done, context, [&](librados::AioCompletion *completion) {
      return borrowed(pool).aio_operate(object, completion, &operation, nullptr);
    });
    if (code == 0)
      read.release();
    else
      *result = nullptr;
    return code;
  });
}

int cceph_read_segments(cceph_read *read, const cceph_segment **segments, size_t *count) {
  return guarded([&] {
    if (read->segments.empty()) {
      for (auto &range : read->ranges) {
        if (range.code < 0) return range.code;
        auto *bytes = reinterpret_cast<const uint8_t *>(range.data.c_str());
        uint64_t left = range.data.length();
        for (auto [offset, length] : range.extents) {
          if (length > left) return -EIO;
          read->segments.push_back({offset, length, bytes});
          bytes += length;
          left -= length;
        }
        if (left != 0) return -EIO;
      }
    }
    *segments = read->segments.data();
    *count = read->segments.size();
    return 0;
  });
}

void cceph_read_free(cceph_read *read) { delete read; }

int64_t cceph_map_extents(rados_ioctx_t pool, const char *object, uint64_t offset, uint64_t length,
                          cceph_extent *extents, size_t capacity) {
  return guarded([&]() -> int64_t {
    std::map<uint64_t, uint64_t> found;
    int code = borrowed(pool).mapext(object, offset, length, found);
    if (code < 0) return code;
    size_t i = 0;
    for (auto [start, size] : found) {
      if (i == capacity) break;
      extents[i++] = {start, size};
    }
    return static_cast<int64_t>(found.size());
  });
}

struct cceph_calls {
  struct Answer {
    bufferlist bytes;
    int code = 0;
  };
  librados::ObjectReadOperation operation;
  // The operation points into it: no element may move.
  std::deque<Answer> answers;
};

cceph_calls *cceph_calls_new(void) { return new (std::nothrow) cceph_calls; }
void cceph_calls_free(cceph_calls *calls) { delete calls; }

int cceph_calls_add(cceph_calls *calls, const char *method, const uint8_t *input, size_t length) {
  return guarded([&] {
    auto &answer = calls->answers.emplace_back();
    bufferlist bytes;
    bytes.append(reinterpret_cast<const char *>(input), static_cast<unsigned>(length));
    calls->operation.exec("rbd", method, bytes, &answer.bytes, &answer.code);
    calls->operation.set_op_flags2(LIBRADOS_OP_FLAG_FAILOK);
    return 0;
  });
}

int cceph_calls_submit(rados_ioctx_t pool, const char *object, cceph_calls *calls, cceph_done done, void *context) {
  return guarded([&] {
    return submitted(done, context, [&](librados::AioCompletion *completion) {
      return borrowed(pool).aio_operate(object, completion, &calls->operation, nullptr);
    });
  });
}

int cceph_calls_answer(cceph_calls *calls, size_t number, const uint8_t **bytes, size_t *length) {
  return guarded([&] {
    if (number >= calls->answers.size()) return -EINVAL;
    auto &answer = calls->answers[number];
    *bytes = reinterpret_cast<const uint8_t *>(answer.bytes.c_str());
    *length = answer.bytes.length();
    return answer.code;
  });
}

struct cceph_history {
  librados::snap_set_t snaps;
  int code = 0;
  std::vector<std::vector<cceph_extent>> overlaps;
  std::vector<cceph_clone> clones;
};

int cceph_list_snaps(rados_ioctx_t pool, const char *object, cceph_history **result, cceph_done done, void *context) {
  *result = nullptr;
  return guarded([&] {
    auto history = std::make_unique<cceph_history>();
    librados::ObjectReadOperation operation;
    operation.list_snaps(&history->snaps, &history->code);
    *result = history.get();
    int code = submitted(done, context, [&](librados::AioCompletion *completion) {
      return borrowed(pool).aio_operate(object, completion, &operation, nullptr);
    });
    if (code == 0)
      history.release();
    else
      *result = nullptr;
    return code;
  });
}

size_t cceph_history_clones(const cceph_history *history, const cceph_clone **clones, uint64_t *newest_snap) {
  auto *mutable_history = const_cast<cceph_history *>(history);
  if (history->clones.empty()) {
    auto &overlaps = mutable_history->overlaps;
    overlaps.reserve(history->snaps.clones.size());
    for (auto &clone : history->snaps.clones) {
      overlaps.emplace_back();
      for (auto [offset, length] : clone.overlap) overlaps.back().push_back({offset, length});
      mutable_history->clones.push_back({clone.cloneid, clone.size, clone.snaps.data(), clone.snaps.size(),
                                         overlaps.back().data(), overlaps.back().size()});
    }
  }
  *clones = history->clones.data();
  *newest_snap = history->snaps.seq;
  return history->clones.size();
}

void cceph_history_free(cceph_history *history) { delete history; }

struct cceph_digest {
  uint64_t size = 0;
  int size_code = 0;
  bufferlist hashes;
  int code = 0;
  std::vector<uint64_t> parsed;
};

int cceph_checksum(rados_ioctx_t pool, const char *object, uint64_t offset, uint64_t length, uint64_t chunk,
                   cceph_digest **result, cceph_done done, void *context) {
  *result = nullptr;
  return guarded([&] {
    auto digest = std::make_unique<cceph_digest>();
    librados::ObjectReadOperation operation;
    operation.stat(&digest->size, nullptr, &digest->size_code);
    if (length > 0) {
      bufferlist seed;
      seed.append_zero(sizeof(uint64_t));
      operation.checksum(LIBRADOS_CHECKSUM_TYPE_XXHASH64, seed, offset, length, chunk, &digest->hashes, &digest->code);
      operation.set_op_flags2(LIBRADOS_OP_FLAG_FAILOK);
    }
    *result = digest.get();
    int code = submitted(done, context, [&](librados::AioCompletion *completion) {
      return borrowed(pool).aio_operate(object, completion, &operation, nullptr);
    });
    if (code == 0)
      digest.release();
    else
      *result = nullptr;
    return code;
  });
}

const uint64_t *cceph_digest_hashes(const cceph_digest *digest, size_t *count, uint64_t *object_size, int *code) {
  auto *mutable_digest = const_cast<cceph_digest *>(digest);
  // The reply is a count (le32) and as many hashes (le64).
  if (digest->parsed.empty() && digest->hashes.length() >= sizeof(uint32_t) && digest->code >= 0) {
    auto *bytes = mutable_digest->hashes.c_str();
    uint32_t announced;
    memcpy(&announced, bytes, sizeof announced);
    if (announced == (digest->hashes.length() - sizeof announced) / sizeof(uint64_t)) {
      mutable_digest->parsed.resize(announced);
      memcpy(mutable_digest->parsed.data(), bytes + sizeof announced, announced * sizeof(uint64_t));
    }
  }
  *object_size = digest->size;
  *code = digest->code;
  *count = digest->parsed.size();
  return digest->parsed.data();
}

void cceph_digest_free(cceph_digest *digest) { delete digest; }

struct cceph_write {
  librados::ObjectWriteOperation operation;
};

cceph_write *cceph_write_new(void) { return new (std::nothrow) cceph_write; }
void cceph_write_free(cceph_write *write) { delete write; }

void cceph_write_data(cceph_write *write, uint64_t offset, const void *bytes, size_t length) {
  bufferlist data;
  data.append(ceph::buffer::create_static(static_cast<unsigned>(length),
                                          static_cast<char *>(const_cast<void *>(bytes))));
  write->operation.write(offset, data);
}

void cceph_write_zero(cceph_write *write, uint64_t offset, uint64_t length) { write->operation.zero(offset, length); }
void cceph_write_truncate(cceph_write *write, uint64_t size) { write->operation.truncate(size); }
void cceph_write_remove(cceph_write *write) { write->operation.remove(); }

void cceph_write_copy(cceph_write *write, const char *object, rados_ioctx_t source) {
  write->operation.copy_from(object, borrowed(source), 0, LIBRADOS_OP_FLAG_FADVISE_DONTNEED);
}

int cceph_write_submit(rados_ioctx_t pool, const char *object, cceph_write *write, uint64_t newest,
                       const uint64_t *snaps, size_t count, cceph_done done, void *context) {
  return guarded([&] {
    std::vector<librados::snap_t> newest_first(snaps, snaps + count);
    return submitted(done, context, [&](librados::AioCompletion *completion) {
      return borrowed(pool).aio_operate(object, completion, &write->operation, newest, newest_first);
    });
  });
}
