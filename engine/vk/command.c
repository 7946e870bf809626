#include "vk/command.h"

#include <string.h>

#include "push.h"

#define N_SLOTS 4            /* submissions under way before begin waits for the oldest */
#define N_RECORDINGS 48      /* kept to be run again */
#define SETS_PER_POOL 512
#define SETS_PER_POOL_KEPT 64 /* a recording's: many are kept, and most are short */
#define MAX_QUERIES 8192
#define STAGING_BYTES (16u << 20)
#define STAGING_PARTS 2      /* of writes: one is filled while the other is copied */
#define WAIT_NS (120ull * 1000000000ull) /* longer than any single submission takes on a slow device */

typedef struct {
  VkCommandPool pool;
  VkCommandBuffer commands;
  GArray *descriptor_pools; /* VkDescriptorPool */
  guint pool_index;
  VkQueryPool queries;
  GPtrArray *query_profiles; /* IvlVkProfile * per dispatch of this submission */
  VkQueryPool clock;   /* of the whole: when it began, and ended */
  guint64 ticket;      /* 0: nothing was submitted, or it failed */
  VkFence fence;       /* of that; a fence rather than a timeline semaphore, for which a host may not have asked */
} Slot;

/* Commands to be run again: a slot's first half, with secondary commands. */
typedef struct {
  GBytes *key;
  Slot slot;
  guint64 ticket; /* of the last submission that ran them, or will */
} Recording;

typedef struct {
  VkBuffer buffer;
  VkDeviceSize offset, end;
  bool write;
} Access;

struct IvlVkStream {
  IvlDevice *device;
  Slot slots[N_SLOTS];
  guint next;
  Slot *current; /* between begin and submit */
  guint64 submitted; /* the last ticket: slot (submitted - 1) % N_SLOTS */
  GError *sticky;
  GArray *accesses; /* since the last barrier */
  IvlVkBuffer *staging, *readback, *scratch, *turns;
  guint64 staged[STAGING_PARTS]; /* tickets */
  guint next_part;
  bool profiling;
  GHashTable *profile;
  IvlVkProfile *last_profile;
  bool plans;            /* see ivl_vk_stream_new_plan */
  GPtrArray *recordings; /* Recording *, who ran last is first */
  guint64 replayed;
  Recording *recording;  /* owned, while it is made; `current` is its slot then */
  Slot *outer;           /* and this what was current before */
};

static void
slot_deinit (IvlVkStream *self, Slot *slot)
{
  VkDevice device = self->device->device;
  for (guint i = 0; slot->descriptor_pools && i < slot->descriptor_pools->len; i++)
    vkDestroyDescriptorPool (device, g_array_index (slot->descriptor_pools, VkDescriptorPool, i), NULL);
  g_clear_pointer (&slot->descriptor_pools, g_array_unref);
  g_clear_pointer (&slot->query_profiles, g_ptr_array_unref);
  vkDestroyQueryPool (device, slot->queries, NULL);
  vkDestroyQueryPool (device, slot->clock, NULL);
  vkDestroyCommandPool (device, slot->pool, NULL);
  vkDestroyFence (device, slot->fence, NULL);
}

static void
recording_free (IvlVkStream *self, Recording *recording)
{
  slot_deinit (self, &recording->slot);
  g_bytes_unref (recording->key);
  g_free (recording);
}

static IvlVkStream *
stream_new (IvlDevice *device)
{
  IvlVkStream *self = g_new0 (IvlVkStream, 1);
  self->device = ivl_device_ref (device);
  self->accesses = g_array_new (FALSE, FALSE, sizeof (Access));
  self->profile = g_hash_table_new_full (g_str_hash, g_str_equal, NULL, g_free);
  self->recordings = g_ptr_array_new ();
  return self;
}

/* What a slot needs to be recorded. Half made it may be given to slot_deinit. */
static gboolean
slot_init (IvlDevice *device, Slot *slot, VkCommandBufferLevel level, GError **error)
{
  slot->descriptor_pools = g_array_new (FALSE, FALSE, sizeof (VkDescriptorPool));
  VkCommandPoolCreateInfo pool = { .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                   .queueFamilyIndex = device->queue_family };
  VK_TRY (device, vkCreateCommandPool (device->device, &pool, NULL, &slot->pool));
  VkCommandBufferAllocateInfo allocate = { .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                           .commandPool = slot->pool,
                                           .level = level,
                                           .commandBufferCount = 1 };
  VK_TRY (device, vkAllocateCommandBuffers (device->device, &allocate, &slot->commands));
  return TRUE;
fail:
  return FALSE;
}

IvlVkStream *
ivl_vk_stream_new (IvlDevice *device, GError **error)
{
  IvlVkStream *self = stream_new (device);
  for (guint i = 0; i < N_SLOTS; i++) {
    Slot *slot = &self->slots[i];
    slot->query_profiles = g_ptr_array_new ();
    if (!slot_init (device, slot, VK_COMMAND_BUFFER_LEVEL_PRIMARY, error))
      goto fail;
    ivl_vk_set_name (device, VK_OBJECT_TYPE_COMMAND_BUFFER, (guint64) (gsize) slot->commands, "internvl commands %u", i);
    VkQueryPoolCreateInfo clock = { .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                                    .queryType = VK_QUERY_TYPE_TIMESTAMP,
                                    .queryCount = 2 };
    if (device->timestamps)
      VK_TRY (device, vkCreateQueryPool (device->device, &clock, NULL, &slot->clock));
    VkFenceCreateInfo fence = { .sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO };
    VK_TRY (device, vkCreateFence (device->device, &fence, NULL, &slot->fence));
  }
  return self;
fail:
  ivl_vk_stream_free (self);
  return NULL;
}

IvlVkStream *
ivl_vk_stream_new_plan (IvlDevice *device)
{
  IvlVkStream *self = stream_new (device);
  self->plans = true;
  self->current = &self->slots[0];
  return self;
}

void
ivl_vk_stream_free (IvlVkStream *self)
{
  if (!self)
    return;
  if (self->submitted)
    ivl_vk_wait (self, 0, NULL);
  for (guint i = 0; i < self->recordings->len; i++)
    recording_free (self, self->recordings->pdata[i]);
  g_ptr_array_unref (self->recordings);
  for (guint i = 0; i < N_SLOTS; i++)
    slot_deinit (self, &self->slots[i]);
  ivl_vk_buffer_free (self->staging);
  ivl_vk_buffer_free (self->readback);
  ivl_vk_buffer_free (self->scratch);
  ivl_vk_buffer_free (self->turns);
  g_array_unref (self->accesses);
  g_hash_table_unref (self->profile);
  g_clear_error (&self->sticky);
  ivl_device_unref (self->device);
  g_free (self);
}

void
ivl_vk_stream_set_profiling (IvlVkStream *self, bool on)
{
  self->profiling = on && self->device->timestamps;
  g_hash_table_remove_all (self->profile);
}

GHashTable *
ivl_vk_stream_get_profile (IvlVkStream *self)
{
  return self->profile;
}

static void
collect_queries (IvlVkStream *self, Slot *slot)
{
  guint n = slot->query_profiles->len;
  if (!n)
    return;
  g_autofree guint64 *times = g_new (guint64, 2 * n);
  if (vkGetQueryPoolResults (self->device->device, slot->queries, 0, 2 * n, 2 * n * sizeof *times, times,
                             sizeof *times, VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT) == VK_SUCCESS)
    for (guint i = 0; i < n; i++) {
      IvlVkProfile *profile = g_ptr_array_index (slot->query_profiles, i);
      profile->calls++;
      profile->ns += (guint64) ((double) (times[2 * i + 1] - times[2 * i])
                                * self->device->properties.limits.timestampPeriod);
    }
  g_ptr_array_set_size (slot->query_profiles, 0);
}

gboolean
ivl_vk_wait (IvlVkStream *self, guint64 ticket, GError **error)
{
  if (ticket == 0)
    ticket = self->submitted;
  /* A fence covers all that was submitted before. A ticket that no slot has any more was waited for by begin. */
  Slot *slot = NULL;
  for (guint i = 0; i < N_SLOTS; i++)
    if (self->slots[i].ticket && self->slots[i].ticket >= ticket && (!slot || self->slots[i].ticket < slot->ticket))
      slot = &self->slots[i];
  VkResult result = VK_SUCCESS;
  do
    if (slot)
      result = vkWaitForFences (self->device->device, 1, &slot->fence, VK_TRUE, WAIT_NS);
  while (result == VK_TIMEOUT && !g_atomic_int_get (&self->device->lost));
  if (result < 0 || result == VK_TIMEOUT)
    return ivl_vk_fail (self->device, result < 0 ? result : VK_ERROR_DEVICE_LOST, "vkWaitForFences", error);
  for (guint i = 0; i < N_SLOTS; i++)
    if (self->slots[i].ticket && self->slots[i].ticket <= ticket)
      collect_queries (self, &self->slots[i]);
  return TRUE;
}

gboolean
ivl_vk_begin (IvlVkStream *self, GError **error)
{
  g_assert (!self->current);
  IvlDevice *device = self->device;
  if (g_atomic_int_get (&device->lost))
    return ivl_vk_fail (device, VK_ERROR_DEVICE_LOST, "vkBeginCommandBuffer", error);
  Slot *slot = &self->slots[self->next];
  if (slot->ticket && !ivl_vk_wait (self, slot->ticket, error))
    return FALSE;
  VK_TRY (device, vkResetCommandPool (device->device, slot->pool, 0));
  for (guint i = 0; i < slot->descriptor_pools->len; i++)
    vkResetDescriptorPool (device->device, g_array_index (slot->descriptor_pools, VkDescriptorPool, i), 0);
  slot->pool_index = 0;
  if (self->profiling) {
    if (!slot->queries) {
      VkQueryPoolCreateInfo info = { .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                                     .queryType = VK_QUERY_TYPE_TIMESTAMP,
                                     .queryCount = MAX_QUERIES };
      VK_TRY (device, vkCreateQueryPool (device->device, &info, NULL, &slot->queries));
    }
    vkResetQueryPool (device->device, slot->queries, 0, MAX_QUERIES);
  }
  VkCommandBufferBeginInfo info = { .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                    .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT };
  VK_TRY (device, vkBeginCommandBuffer (slot->commands, &info));
  self->current = slot;
  g_array_set_size (self->accesses, 0);
  /* Submissions of a stream run in order but not one after the other without this. */
  VkMemoryBarrier barrier = { .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                              .srcAccessMask = VK_ACCESS_MEMORY_WRITE_BIT,
                              .dstAccessMask = VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT };
  vkCmdPipelineBarrier (slot->commands, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, 0, 1,
                        &barrier, 0, NULL, 0, NULL);
  if (slot->clock) {
    vkResetQueryPool (device->device, slot->clock, 0, 2);
    vkCmdWriteTimestamp (slot->commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, slot->clock, 0);
  }
  return TRUE;
fail:
  return FALSE;
}

IvlGroups
ivl_groups_for (IvlDevice *device, guint64 n, guint lanes)
{
  guint64 groups = (n + lanes - 1) / lanes;
  guint64 limit = device->properties.limits.maxComputeWorkGroupCount[0];
  return (IvlGroups){ (guint32) MIN (groups, limit), (guint32) ((groups + limit - 1) / limit), 1 };
}

/* Between what was recorded and what comes. */
static void
put_barrier (IvlVkStream *self)
{
  VkPipelineStageFlags stages = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
  VkMemoryBarrier barrier = { .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                              .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
                              .dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT
                                               | VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT };
  vkCmdPipelineBarrier (self->current->commands, stages, stages, 0, 1, &barrier, 0, NULL, 0, NULL);
  g_array_set_size (self->accesses, 0);
}

static void
need (IvlVkStream *self, const IvlSpan *span, bool write)
{
  VkDeviceSize end = span->offset + span->size;
  for (guint i = 0; i < self->accesses->len; i++) {
    Access *a = &g_array_index (self->accesses, Access, i);
    if (a->buffer != span->buffer->buffer || !(a->write || write) || a->offset >= end || span->offset >= a->end)
      continue;
    put_barrier (self);
    return;
  }
}

static void
note (IvlVkStream *self, const IvlSpan *span, bool write)
{
  Access a = { span->buffer->buffer, span->offset, span->offset + span->size, write };
  g_array_append_val (self->accesses, a);
}

static VkDescriptorSet
allocate_set (IvlVkStream *self, VkDescriptorSetLayout layout)
{
  Slot *slot = self->current;
  for (;;) {
    bool fresh = slot->pool_index == slot->descriptor_pools->len;
    if (fresh) {
      guint32 sets = self->recording ? SETS_PER_POOL_KEPT : SETS_PER_POOL;
      VkDescriptorPoolSize sizes[] = {
        { VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, sets * IVL_MAX_BINDINGS },
        { VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER, sets * IVL_MAX_TEXELS },
      };
      VkDescriptorPoolCreateInfo info = { .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                                          .maxSets = sets,
                                          .poolSizeCount = G_N_ELEMENTS (sizes),
                                          .pPoolSizes = sizes };
      VkDescriptorPool pool;
      VkResult result = vkCreateDescriptorPool (self->device->device, &info, NULL, &pool);
      if (result < 0) {
        ivl_vk_fail (self->device, result, "vkCreateDescriptorPool", &self->sticky);
        return VK_NULL_HANDLE;
      }
      g_array_append_val (slot->descriptor_pools, pool);
    }
    VkDescriptorSetAllocateInfo info = {
      .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
      .descriptorPool = g_array_index (slot->descriptor_pools, VkDescriptorPool, slot->pool_index),
      .descriptorSetCount = 1,
      .pSetLayouts = &layout
    };
    VkDescriptorSet set;
    VkResult result = vkAllocateDescriptorSets (self->device->device, &info, &set);
    if (result == VK_SUCCESS)
      return set;
    if (fresh) {
      ivl_vk_fail (self->device, result, "vkAllocateDescriptorSets", &self->sticky);
      return VK_NULL_HANDLE;
    }
    slot->pool_index++;
  }
}

void
ivl_vk_dispatch (IvlVkStream *self, IvlKernelId id, const guint32 *specs, guint n_specs, const IvlSpan *spans,
                 const void *push, gsize push_bytes, IvlGroups groups)
{
  g_assert (self->current && push_bytes <= IVL_PUSH_BYTES);
  self->last_profile = NULL;
  if (self->sticky || groups.x == 0 || groups.y == 0 || groups.z == 0)
    return;
  if (self->plans) {
    ivl_vk_pipeline_prepare (self->device, id, specs, n_specs);
    return;
  }
  const IvlKernel *kernel = &ivl_kernels[id];
  const IvlVkPipeline *pipeline = ivl_vk_pipeline_get (self->device, id, specs, n_specs, &self->sticky);
  VkDescriptorSet set = pipeline ? allocate_set (self, pipeline->set_layout) : VK_NULL_HANDLE;
  if (!set)
    return;
  VkCommandBuffer commands = self->current->commands;

  guint n = (guint) strlen (kernel->bindings), n_writes = 0, n_addresses = 0;
  VkDeviceAddress addresses[IVL_MAX_ADDRESSES];
  VkWriteDescriptorSet writes[IVL_MAX_BINDINGS];
  VkDescriptorBufferInfo buffers[IVL_MAX_BINDINGS];
  VkBufferView views[IVL_MAX_BINDINGS];
  for (guint i = 0; i < n; i++) {
    char kind = kernel->bindings[i];
    bool texels = kind == 'u' || kind == 'f';
    need (self, &spans[i], kind == 'w' || kind == 'x');
    if (kind == 'a') {
      g_assert (spans[i].buffer->address && push_bytes <= IVL_PUSH_ADDRESSES);
      addresses[n_addresses++] = spans[i].buffer->address + spans[i].offset;
      continue;
    }
    writes[n_writes++] = (VkWriteDescriptorSet){
      .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
      .dstSet = set,
      .dstBinding = i,
      .descriptorCount = 1,
      .descriptorType = texels ? VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER : VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
      .pBufferInfo = &buffers[i],
      .pTexelBufferView = &views[i],
    };
    if (texels) {
      views[i] = ivl_vk_buffer_view (spans[i].buffer,
                                     kind == 'u' ? VK_FORMAT_R32G32B32A32_UINT : VK_FORMAT_R32G32B32A32_SFLOAT,
                                     spans[i].offset, spans[i].size);
      if (!views[i]) {
        ivl_fail (&self->sticky, IVL_ERROR_INTERNAL, "kernel %s: no texel view of %" G_GUINT64_FORMAT " bytes",
                  kernel->name, (guint64) spans[i].size);
        return;
      }
    } else if (spans[i].size > self->device->properties.limits.maxStorageBufferRange) {
      ivl_fail (&self->sticky, IVL_ERROR_INTERNAL, "kernel %s: binding %u has %" G_GUINT64_FORMAT " bytes, the device "
                "takes %u", kernel->name, i, (guint64) spans[i].size,
                self->device->properties.limits.maxStorageBufferRange);
      return;
    } else {
      buffers[i] = (VkDescriptorBufferInfo){ spans[i].buffer->buffer, spans[i].offset, spans[i].size };
    }
  }
  for (guint i = 0; i < n; i++)
    note (self, &spans[i], kernel->bindings[i] == 'w' || kernel->bindings[i] == 'x');
  vkUpdateDescriptorSets (self->device->device, n_writes, writes, 0, NULL);
  vkCmdBindPipeline (commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline->pipeline);
  vkCmdBindDescriptorSets (commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline->layout, 0, 1, &set, 0, NULL);
  if (push_bytes)
    vkCmdPushConstants (commands, pipeline->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, (guint32) push_bytes, push);
  if (n_addresses)
    vkCmdPushConstants (commands, pipeline->layout, VK_SHADER_STAGE_COMPUTE_BIT, IVL_PUSH_ADDRESSES,
                        n_addresses * sizeof *addresses, addresses);

  GPtrArray *queries = self->current->query_profiles;
  bool timed = self->profiling && 2 * queries->len + 2 <= MAX_QUERIES;
  if (timed)
    vkCmdWriteTimestamp (commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, self->current->queries, 2 * queries->len);
  vkCmdDispatch (commands, groups.x, groups.y, groups.z);
  if (timed) {
    vkCmdWriteTimestamp (commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, self->current->queries, 2 * queries->len + 1);
    IvlVkProfile *profile = g_hash_table_lookup (self->profile, kernel->name);
    if (!profile) {
      profile = g_new0 (IvlVkProfile, 1);
      profile->name = kernel->name;
      g_hash_table_insert (self->profile, (gpointer) kernel->name, profile);
    }
    g_ptr_array_add (queries, profile);
    self->last_profile = profile;
  }
}

void
ivl_vk_note_work (IvlVkStream *self, double flops, double bytes)
{
  if (self->last_profile) {
    self->last_profile->flops += flops;
    self->last_profile->bytes += bytes;
  }
}

void
ivl_vk_copy (IvlVkStream *self, IvlSpan from, IvlSpan to, VkDeviceSize bytes)
{
  if (self->sticky || self->plans || bytes == 0)
    return;
  from.size = to.size = bytes;
  need (self, &from, false);
  need (self, &to, true);
  note (self, &from, false);
  note (self, &to, true);
  VkBufferCopy region = { from.offset, to.offset, bytes };
  vkCmdCopyBuffer (self->current->commands, from.buffer->buffer, to.buffer->buffer, 1, &region);
}

void
ivl_vk_fill (IvlVkStream *self, IvlSpan span, guint32 value)
{
  if (self->sticky || self->plans)
    return;
  need (self, &span, true);
  note (self, &span, true);
  vkCmdFillBuffer (self->current->commands, span.buffer->buffer, span.offset, span.size, value);
}

gboolean
ivl_vk_scratch (IvlVkStream *self, IvlSpan *span)
{
  if (!self->scratch
      && !(self->scratch = ivl_vk_buffer_new (self->device, IVL_VK_DEVICE, IVL_VK_SCRATCH_BYTES, NULL)))
    return FALSE;
  *span = (IvlSpan){ self->scratch, 0, IVL_VK_SCRATCH_BYTES };
  return TRUE;
}

gboolean
ivl_vk_turns (IvlVkStream *self, IvlSpan *span)
{
  const VkDeviceSize bytes = 8 * sizeof (guint32);
  if (!self->turns) {
    if (!(self->turns = ivl_vk_buffer_new (self->device, IVL_VK_UPLOAD, bytes, NULL)))
      return FALSE;
    memset (self->turns->map, 0, bytes);
    ivl_vk_buffer_flush (self->turns);
  }
  *span = (IvlSpan){ self->turns, 0, bytes };
  return TRUE;
}

/* ---- again ---- */

/* A few that ran last are kept; of the others, those that no submission under way runs go. */
static void
keep_recording (IvlVkStream *self, Recording *fresh)
{
  g_ptr_array_insert (self->recordings, 0, fresh);
  while (self->recordings->len > N_RECORDINGS) {
    Recording *oldest = self->recordings->pdata[self->recordings->len - 1];
    if (oldest->ticket > self->submitted || !ivl_vk_wait (self, oldest->ticket, NULL))
      return;
    recording_free (self, oldest);
    g_ptr_array_set_size (self->recordings, (gint) self->recordings->len - 1);
  }
}

static void
run_recording (IvlVkStream *self, Recording *recording)
{
  if (self->accesses->len)
    put_barrier (self);
  vkCmdExecuteCommands (self->current->commands, 1, &recording->slot.commands);
  put_barrier (self);
  recording->ticket = self->submitted + 1;
}

/* FALSE: there is no memory for it. */
static gboolean
begin_recording (IvlVkStream *self, Recording *recording, GError **error)
{
  IvlDevice *device = self->device;
  Slot *slot = &recording->slot;
  if (!slot_init (device, slot, VK_COMMAND_BUFFER_LEVEL_SECONDARY, error))
    return FALSE;
  ivl_vk_set_name (device, VK_OBJECT_TYPE_COMMAND_BUFFER, (guint64) (gsize) slot->commands, "internvl recording");
  VkCommandBufferInheritanceInfo inheritance = { .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_INHERITANCE_INFO };
  /* Two submissions under way may both run it. */
  VkCommandBufferBeginInfo info = { .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                    .flags = VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT,
                                    .pInheritanceInfo = &inheritance };
  VK_TRY (device, vkBeginCommandBuffer (slot->commands, &info));
  return TRUE;
fail:
  return FALSE;
}

bool
ivl_vk_replay (IvlVkStream *self, gconstpointer key, gsize bytes)
{
  g_assert (self->current && !self->recording);
  if (self->plans || self->profiling || self->sticky)
    return false;
  for (guint i = 0; i < self->recordings->len; i++) {
    Recording *found = self->recordings->pdata[i];
    gsize size;
    gconstpointer data = g_bytes_get_data (found->key, &size);
    if (size != bytes || memcmp (data, key, bytes) != 0)
      continue;
    g_ptr_array_remove_index (self->recordings, i);
    g_ptr_array_insert (self->recordings, 0, found);
    run_recording (self, found);
    self->replayed++;
    return true;
  }
  Recording *fresh = g_new0 (Recording, 1);
  fresh->key = g_bytes_new (key, bytes);
  g_autoptr (GError) error = NULL;
  if (!begin_recording (self, fresh, &error)) {
    g_debug ("not recorded apart: %s", error->message);
    recording_free (self, fresh);
    return false;
  }
  if (self->accesses->len)
    put_barrier (self);
  self->recording = fresh;
  self->outer = self->current;
  self->current = &fresh->slot;
  return false;
}

guint64
ivl_vk_stream_get_replayed (const IvlVkStream *self)
{
  return self->replayed;
}

/* Back to what was current before; whose recording it was gets it. */
static Recording *
leave_recording (IvlVkStream *self)
{
  self->current = self->outer;
  self->outer = NULL;
  g_array_set_size (self->accesses, 0);
  return g_steal_pointer (&self->recording);
}

void
ivl_vk_replay_end (IvlVkStream *self)
{
  if (!self->recording)
    return;
  Recording *recording = leave_recording (self);
  VkResult result = vkEndCommandBuffer (recording->slot.commands);
  if (result < 0 && !self->sticky)
    ivl_vk_fail (self->device, result, "vkEndCommandBuffer", &self->sticky);
  if (self->sticky) {
    recording_free (self, recording);
    return;
  }
  run_recording (self, recording);
  keep_recording (self, recording);
}

void
ivl_vk_discard (IvlVkStream *self)
{
  if (!self->current)
    return;
  if (self->recording)
    recording_free (self, leave_recording (self));
  /* The next begin resets the pool, whatever state the commands are in. */
  g_ptr_array_set_size (self->current->query_profiles, 0);
  self->current->ticket = 0;
  self->current = NULL;
  g_clear_error (&self->sticky);
}

gboolean
ivl_vk_submit (IvlVkStream *self, guint64 *ticket, GError **error)
{
  g_assert (self->current);
  IvlDevice *device = self->device;
  if (self->sticky) {
    g_propagate_error (error, g_steal_pointer (&self->sticky));
    goto fail;
  }
  Slot *slot = self->current;
  VkMemoryBarrier barrier = { .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                              .srcAccessMask = VK_ACCESS_MEMORY_WRITE_BIT,
                              .dstAccessMask = VK_ACCESS_HOST_READ_BIT };
  vkCmdPipelineBarrier (slot->commands, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &barrier,
                        0, NULL, 0, NULL);
  if (slot->clock)
    vkCmdWriteTimestamp (slot->commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, slot->clock, 1);
  VK_TRY (device, vkEndCommandBuffer (slot->commands));
  guint64 value = self->submitted + 1;
  VkSubmitInfo info = { .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                        .commandBufferCount = 1,
                        .pCommandBuffers = &slot->commands };
  slot->ticket = 0;
  VK_TRY (device, vkResetFences (device->device, 1, &slot->fence));
  ivl_vk_lock_queue (device);
  VkResult result = vkQueueSubmit (device->queue, 1, &info, slot->fence);
  ivl_vk_unlock_queue (device);
  VK_TRY (device, result);
  self->submitted = value;
  slot->ticket = value;
  self->next = (self->next + 1) % N_SLOTS;
  self->current = NULL;
  if (ticket)
    *ticket = value;
  return TRUE;
fail:
  ivl_vk_discard (self);
  return FALSE;
}

gboolean
ivl_vk_run (IvlVkStream *self, GError **error)
{
  guint64 ticket;
  return ivl_vk_submit (self, &ticket, error) && ivl_vk_wait (self, ticket, error);
}

gboolean
ivl_vk_run_timed (IvlVkStream *self, guint64 *ns, GError **error)
{
  const Slot *slot = self->current;
  gint64 start = g_get_monotonic_time ();
  if (!ivl_vk_run (self, error))
    return FALSE;
  guint64 times[2];
  *ns = (guint64) (g_get_monotonic_time () - start) * 1000;
  if (slot->clock
      && vkGetQueryPoolResults (self->device->device, slot->clock, 0, 2, sizeof times, times, sizeof *times,
                                VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT) == VK_SUCCESS
      && times[1] >= times[0])
    *ns = (guint64) ((double) (times[1] - times[0]) * self->device->properties.limits.timestampPeriod);
  return TRUE;
}

gboolean
ivl_vk_write (IvlVkStream *self, IvlSpan to, const void *data, gsize bytes, GError **error)
{
  g_assert (bytes <= to.size);
  if (to.buffer->map) {
    if (self->submitted && !ivl_vk_wait (self, 0, error))
      return FALSE;
    memcpy ((guint8 *) to.buffer->map + to.offset, data, bytes);
    ivl_vk_buffer_flush (to.buffer);
    return TRUE;
  }
  if (!self->staging && !(self->staging = ivl_vk_buffer_new (self->device, IVL_VK_UPLOAD, STAGING_BYTES, error)))
    return FALSE;
  const gsize part_bytes = STAGING_BYTES / STAGING_PARTS;
  for (gsize done = 0; done < bytes; done += part_bytes) {
    gsize n = MIN (bytes - done, part_bytes);
    guint part = self->next_part++ % STAGING_PARTS;
    VkDeviceSize at = part * part_bytes;
    if (self->staged[part] && !ivl_vk_wait (self, self->staged[part], error))
      return FALSE;
    memcpy ((guint8 *) self->staging->map + at, (const guint8 *) data + done, n);
    ivl_vk_buffer_flush (self->staging);
    if (!ivl_vk_begin (self, error))
      return FALSE;
    ivl_vk_copy (self, (IvlSpan){ self->staging, at, n }, (IvlSpan){ to.buffer, to.offset + done, n }, n);
    if (!ivl_vk_submit (self, &self->staged[part], error))
      return FALSE;
  }
  return TRUE;
}

gboolean
ivl_vk_read (IvlVkStream *self, IvlSpan from, void *data, gsize bytes, GError **error)
{
  g_assert (bytes <= from.size);
  if (from.buffer->map) {
    if (self->submitted && !ivl_vk_wait (self, 0, error))
      return FALSE;
    ivl_vk_buffer_invalidate (from.buffer);
    memcpy (data, (const guint8 *) from.buffer->map + from.offset, bytes);
    return TRUE;
  }
  if (!self->readback && !(self->readback = ivl_vk_buffer_new (self->device, IVL_VK_READBACK, STAGING_BYTES, error)))
    return FALSE;
  for (gsize done = 0; done < bytes; done += STAGING_BYTES) {
    gsize n = MIN (bytes - done, STAGING_BYTES);
    if (!ivl_vk_begin (self, error))
      return FALSE;
    ivl_vk_copy (self, (IvlSpan){ from.buffer, from.offset + done, n }, (IvlSpan){ self->readback, 0, n }, n);
    if (!ivl_vk_run (self, error))
      return FALSE;
    ivl_vk_buffer_invalidate (self->readback);
    memcpy ((guint8 *) data + done, self->readback->map, n);
  }
  return TRUE;
}
