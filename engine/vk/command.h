/* Recording and submitting work. An IvlVkStream is used by one thread at a time; its submissions run in order.
 * Barriers are derived: each dispatch says which spans it reads and writes, and a barrier goes in only where
 * one overlaps what was written (or would overwrite what is being read) since the last. */
#ifndef IVL_VK_COMMAND_H
#define IVL_VK_COMMAND_H

#include "vk/pipeline.h"

typedef struct IvlVkStream IvlVkStream;

IvlVkStream *ivl_vk_stream_new (IvlDevice *device, GError **error);
/* A stream that runs nothing: it is between begin and submit from the start, and what is dispatched has its pipelines
 * prepared (see pipeline.h). No other calls than those of recording, and free. */
IvlVkStream *ivl_vk_stream_new_plan (IvlDevice *device);
/* Waits for what was submitted. NULL-safe. */
void ivl_vk_stream_free (IvlVkStream *stream);

/* Turns GPU timestamps round every dispatch on or off (off by default; they cost barriers). */
void ivl_vk_stream_set_profiling (IvlVkStream *stream, bool on);
/* Sums since profiling was turned on: kernel name -> IvlVkProfile *; borrowed. Submissions must be waited for. */
typedef struct {
  const char *name;
  guint64 calls, ns;
  double flops, bytes; /* as told by ivl_vk_note_work */
} IvlVkProfile;
GHashTable *ivl_vk_stream_get_profile (IvlVkStream *stream);

/* Between begin and submit. Errors (a pipeline that fails to compile, no memory for descriptors) are kept and
 * reported by submit, so that a forward pass reads as a list of dispatches. */
gboolean ivl_vk_begin (IvlVkStream *stream, GError **error);

typedef struct {
  guint32 x, y, z;
} IvlGroups;

/* Enough workgroups of LANES for N invocations, spread over x and y; the kernel folds them back
 * (x + y * gl_NumWorkGroups.x * lanes) and drops the surplus. */
IvlGroups ivl_groups_for (IvlDevice *device, guint64 n, guint lanes);

/* SPANS: one per binding letter of the kernel. PUSH: at most IVL_PUSH_BYTES. */
void ivl_vk_dispatch (IvlVkStream *stream, IvlKernelId kernel, const guint32 *specs, guint n_specs,
                      const IvlSpan *spans, const void *push, gsize push_bytes, IvlGroups groups);
void ivl_vk_copy (IvlVkStream *stream, IvlSpan from, IvlSpan to, VkDeviceSize bytes);
void ivl_vk_fill (IvlVkStream *stream, IvlSpan span, guint32 value);
/* What is recorded alike again and again is recorded once. TRUE: it was recorded before with this KEY, and runs now.
 * FALSE: what is recorded until ivl_vk_replay_end is what KEY stands for; that must be called. KEY says all that the
 * commands depend on: buffers by their serial, sizes, numbers pushed. With profiling, all is always recorded. */
bool ivl_vk_replay (IvlVkStream *stream, gconstpointer key, gsize bytes);
void ivl_vk_replay_end (IvlVkStream *stream);
/* How often it was TRUE. */
guint64 ivl_vk_stream_get_replayed (const IvlVkStream *stream);
/* For the profile: the arithmetic and memory traffic of the last dispatch. */
void ivl_vk_note_work (IvlVkStream *stream, double flops, double bytes);

/* IVL_VK_SCRATCH_BYTES of the stream's own, for what one dispatch leaves to the next; FALSE if there is no memory. */
#define IVL_VK_SCRATCH_BYTES (8u << 20)
gboolean ivl_vk_scratch (IvlVkStream *stream, IvlSpan *span);

/* Eight zeros of the stream's own, which a dispatch may count in if it leaves zeros; FALSE if there is no memory. */
gboolean ivl_vk_turns (IvlVkStream *stream, IvlSpan *span);

/* Makes everything recorded so far visible to the host once waited for, and submits. */
gboolean ivl_vk_submit (IvlVkStream *stream, guint64 *ticket, GError **error);
/* Waits for TICKET (0: everything). */
gboolean ivl_vk_wait (IvlVkStream *stream, guint64 ticket, GError **error);
/* submit + wait */
gboolean ivl_vk_run (IvlVkStream *stream, GError **error);
/* The same. NS: what the device took for it, without what it did before for others; where the device has no clock, until
 * it was waited for. */
gboolean ivl_vk_run_timed (IvlVkStream *stream, guint64 *ns, GError **error);
/* Drops what was recorded since begin. */
void ivl_vk_discard (IvlVkStream *stream);

/* Host to device and back, through staging where memory isn't mapped. DATA isn't needed after a write, which may still be
 * under way then: what the stream does later sees it, others once it was waited for. Not between begin and submit. */
gboolean ivl_vk_write (IvlVkStream *stream, IvlSpan to, const void *data, gsize bytes, GError **error);
gboolean ivl_vk_read (IvlVkStream *stream, IvlSpan from, void *data, gsize bytes, GError **error);

#endif
