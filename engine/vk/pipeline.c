/* Pipelines by (kernel, specialization constants), and the driver's pipeline cache on disk. */
#include "vk/pipeline.h"

#include <glib/gstdio.h>
#include <string.h>

#include "base/file.h"

typedef struct {
  IvlKernelId kernel;
  guint32 n_specs;
  guint32 specs[IVL_MAX_SPECS];
} PipelineKey;

static guint
key_hash (gconstpointer p)
{
  const guint8 *bytes = p;
  guint h = 2166136261u;
  for (gsize i = 0; i < sizeof (PipelineKey); i++)
    h = (h ^ bytes[i]) * 16777619u;
  return h;
}

static gboolean
key_equal (gconstpointer a, gconstpointer b)
{
  return memcmp (a, b, sizeof (PipelineKey)) == 0;
}

static void
pipeline_free (IvlDevice *device, IvlVkPipeline *self)
{
  vkDestroyPipeline (device->device, self->pipeline, NULL);
  vkDestroyPipelineLayout (device->device, self->layout, NULL);
  vkDestroyDescriptorSetLayout (device->device, self->set_layout, NULL);
  g_free (self);
}

/* The kernel's, and the specialization constants. */
static void
set_name (IvlDevice *device, const IvlVkPipeline *self, const PipelineKey *key)
{
  g_autoptr (GString) name = g_string_new (ivl_kernels[key->kernel].name);
  for (guint32 i = 0; i < key->n_specs; i++)
    g_string_append_printf (name, "%c%u", i ? ',' : ' ', key->specs[i]);
  ivl_vk_set_name (device, VK_OBJECT_TYPE_PIPELINE, (guint64) self->pipeline, "%s", name->str);
}

static IvlVkPipeline *
pipeline_create (IvlDevice *device, const PipelineKey *key, GError **error)
{
  const IvlKernel *kernel = &ivl_kernels[key->kernel];
  IvlVkPipeline *self = g_new0 (IvlVkPipeline, 1);
  VkShaderModule module = VK_NULL_HANDLE;
  const VkPhysicalDeviceLimits *limits = &device->properties.limits;
  guint storage = 0;
  for (const char *letter = kernel->bindings; *letter; letter++)
    storage += strchr ("rwx", *letter) != NULL;
  if (storage > limits->maxPerStageDescriptorStorageBuffers
      || key->specs[0] > MIN (limits->maxComputeWorkGroupInvocations, limits->maxComputeWorkGroupSize[0])) {
    g_free (self);
    ivl_fail (error, IVL_ERROR_INTERNAL, "kernel %s: %u storage buffers and %u invocations, the device takes %u and %u",
              kernel->name, storage, key->specs[0], limits->maxPerStageDescriptorStorageBuffers,
              limits->maxComputeWorkGroupInvocations);
    return NULL;
  }

  VkDescriptorSetLayoutBinding bindings[IVL_MAX_BINDINGS];
  guint32 n_bindings = 0;
  g_assert (strlen (kernel->bindings) <= IVL_MAX_BINDINGS);
  for (guint32 i = 0; kernel->bindings[i]; i++) {
    bool texels = kernel->bindings[i] == 'u' || kernel->bindings[i] == 'f';
    if (kernel->bindings[i] == 'a')
      continue;
    bindings[n_bindings++] = (VkDescriptorSetLayoutBinding){
      .binding = i,
      .descriptorType = texels ? VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER : VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
      .descriptorCount = 1,
      .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
    };
  }
  VkDescriptorSetLayoutCreateInfo set_info = { .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
                                               .bindingCount = n_bindings,
                                               .pBindings = bindings };
  VK_TRY (device, vkCreateDescriptorSetLayout (device->device, &set_info, NULL, &self->set_layout));
  VkPushConstantRange push = { VK_SHADER_STAGE_COMPUTE_BIT, 0, IVL_PUSH_BYTES };
  VkPipelineLayoutCreateInfo layout_info = { .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                             .setLayoutCount = 1,
                                             .pSetLayouts = &self->set_layout,
                                             .pushConstantRangeCount = 1,
                                             .pPushConstantRanges = &push };
  VK_TRY (device, vkCreatePipelineLayout (device->device, &layout_info, NULL, &self->layout));

  VkShaderModuleCreateInfo module_info = { .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                           .codeSize = kernel->spirv_bytes,
                                           .pCode = kernel->spirv };
  VK_TRY (device, vkCreateShaderModule (device->device, &module_info, NULL, &module));
  VkSpecializationMapEntry entries[IVL_MAX_SPECS];
  for (guint32 i = 0; i < key->n_specs; i++)
    entries[i] = (VkSpecializationMapEntry){ i, i * sizeof (guint32), sizeof (guint32) };
  VkSpecializationInfo special = { key->n_specs, entries, key->n_specs * sizeof (guint32), key->specs };
  VkComputePipelineCreateInfo info = { .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
                                       .stage = { .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                                                  .flags = kernel->full_subgroups
                                                             ? VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT_EXT
                                                             : 0,
                                                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                                                  .module = module,
                                                  .pName = "main",
                                                  .pSpecializationInfo = &special },
                                       .layout = self->layout };
  gint64 start = g_get_monotonic_time ();
  VK_TRY (device, vkCreateComputePipelines (device->device, device->pipeline_cache, 1, &info, NULL, &self->pipeline));
  set_name (device, self, key);
  g_debug ("pipeline %s: %.0f ms", kernel->name, (double) (g_get_monotonic_time () - start) / 1e3);
  vkDestroyShaderModule (device->device, module, NULL);
  return self;
fail:
  vkDestroyShaderModule (device->device, module, NULL);
  pipeline_free (device, self);
  return NULL;
}

/* What the table has for a key; all of it under pipeline_lock. Who sets UNDER_WAY makes it. */
typedef struct {
  enum { WAITING, UNDER_WAY, MADE } state;
  IvlVkPipeline *pipeline; /* once made */
} Entry;

static void
key_init (PipelineKey *key, IvlKernelId kernel, const guint32 *specs, guint n_specs)
{
  g_assert (n_specs <= IVL_MAX_SPECS);
  memset (key, 0, sizeof *key); /* padding takes part in the hash */
  key->kernel = kernel;
  key->n_specs = n_specs;
  memcpy (key->specs, specs, n_specs * sizeof *specs);
}

static Entry *
add_entry (IvlDevice *device, const PipelineKey *key)
{
  Entry *entry = g_new0 (Entry, 1);
  g_hash_table_insert (device->pipelines, g_memdup2 (key, sizeof *key), entry);
  return entry;
}

/* With pipeline_lock, which is let go meanwhile. ENTRY, of KEY, goes if it fails. */
static const IvlVkPipeline *
make_entry (IvlDevice *device, const PipelineKey *key, Entry *entry, GError **error)
{
  entry->state = UNDER_WAY;
  g_mutex_unlock (&device->pipeline_lock);
  IvlVkPipeline *pipeline = pipeline_create (device, key, error);
  g_mutex_lock (&device->pipeline_lock);
  if (pipeline) {
    entry->state = MADE;
    entry->pipeline = pipeline;
    device->pipeline_cache_dirty = true;
  } else {
    g_hash_table_remove (device->pipelines, key);
  }
  g_cond_broadcast (&device->pipeline_made);
  return pipeline;
}

const IvlVkPipeline *
ivl_vk_pipeline_get (IvlDevice *device, IvlKernelId kernel, const guint32 *specs, guint n_specs, GError **error)
{
  PipelineKey key;
  key_init (&key, kernel, specs, n_specs);
  g_mutex_lock (&device->pipeline_lock);
  Entry *entry;
  while ((entry = g_hash_table_lookup (device->pipelines, &key)) && entry->state == UNDER_WAY)
    g_cond_wait (&device->pipeline_made, &device->pipeline_lock);
  const IvlVkPipeline *pipeline = entry && entry->state == MADE
                                    ? entry->pipeline
                                    : make_entry (device, &key, entry ? entry : add_entry (device, &key), error);
  g_mutex_unlock (&device->pipeline_lock);
  return pipeline;
}

/* ---- ahead ---- */

#define MOST_WORKERS 8

static GMutex making_lock;
static GCond made;
static guint n_making; /* by workers, of all devices */
static bool halted;

static bool
begin_making (void)
{
  g_mutex_lock (&making_lock);
  bool going = !halted;
  n_making += going;
  g_mutex_unlock (&making_lock);
  return going;
}

static void
end_making (void)
{
  g_mutex_lock (&making_lock);
  n_making--;
  g_cond_broadcast (&made);
  g_mutex_unlock (&making_lock);
}

bool
ivl_vk_pipelines_halt (gint64 until)
{
  g_mutex_lock (&making_lock);
  halted = true;
  while (n_making > 0 && g_cond_wait_until (&made, &making_lock, until)) {
  }
  bool none = n_making == 0;
  g_mutex_unlock (&making_lock);
  return none;
}

static void
prepare (gpointer data, gpointer user_data)
{
  g_autofree PipelineKey *key = data;
  IvlDevice *device = user_data;
  if (!begin_making ())
    return;
  g_mutex_lock (&device->pipeline_lock);
  Entry *entry = g_hash_table_lookup (device->pipelines, key);
  if (entry && entry->state == WAITING)
    make_entry (device, key, entry, NULL);
  g_mutex_unlock (&device->pipeline_lock);
  end_making ();
}

void
ivl_vk_pipeline_prepare (IvlDevice *device, IvlKernelId kernel, const guint32 *specs, guint n_specs)
{
  PipelineKey key;
  key_init (&key, kernel, specs, n_specs);
  g_mutex_lock (&device->pipeline_lock);
  if (!device->pipeline_workers)
    device->pipeline_workers = g_thread_pool_new (prepare, device, (gint) MIN (g_get_num_processors (), MOST_WORKERS), FALSE,
                                                  NULL);
  if (device->pipeline_workers && !g_hash_table_contains (device->pipelines, &key)) {
    add_entry (device, &key);
    g_thread_pool_push (device->pipeline_workers, g_memdup2 (&key, sizeof key), NULL);
  }
  g_mutex_unlock (&device->pipeline_lock);
}

void
ivl_vk_pipelines_forget (IvlDevice *device)
{
  GHashTableIter iter;
  gpointer entry;
  g_mutex_lock (&device->pipeline_lock);
  g_hash_table_iter_init (&iter, device->pipelines);
  while (g_hash_table_iter_next (&iter, NULL, &entry))
    if (((Entry *) entry)->state == WAITING)
      g_hash_table_iter_remove (&iter);
  g_mutex_unlock (&device->pipeline_lock);
}

/* ---- the cache file: a SHA-256 of the payload in hex, a newline, the driver's blob. Drivers have crashed on
 * damaged blobs, so a blob is only passed on if it is the one that was written. ---- */

#define DIGEST_CHARS 64

static char *
cache_path (IvlDevice *device)
{
  g_autofree char *folder = ivl_cache_folder ();
  g_autoptr (GString) file = g_string_new ("pipelines-");
  for (guint i = 0; i < VK_UUID_SIZE; i++)
    g_string_append_printf (file, "%02x", device->pipeline_uuid[i]);
  g_string_append_printf (file, "-%08x.bin", device->properties.driverVersion);
  return g_build_filename (folder, file->str, NULL);
}

void
ivl_vk_pipelines_init (IvlDevice *device)
{
  device->pipelines = g_hash_table_new_full (key_hash, key_equal, g_free, g_free);
  g_autofree char *path = cache_path (device);
  g_autofree char *data = NULL;
  gsize size = 0;
  VkPipelineCacheCreateInfo info = { .sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO };
  if (g_file_get_contents (path, &data, &size, NULL) && size > DIGEST_CHARS + 1) {
    const guint8 *blob = (const guint8 *) data + DIGEST_CHARS + 1;
    gsize blob_size = size - DIGEST_CHARS - 1;
    g_autofree char *digest = g_compute_checksum_for_data (G_CHECKSUM_SHA256, blob, blob_size);
    if (memcmp (digest, data, DIGEST_CHARS) == 0) {
      info.initialDataSize = blob_size;
      info.pInitialData = blob;
    } else {
      g_info ("pipeline cache %s is damaged and will be made anew", path);
    }
  }
  if (vkCreatePipelineCache (device->device, &info, NULL, &device->pipeline_cache) != VK_SUCCESS)
    device->pipeline_cache = VK_NULL_HANDLE;
}

void
ivl_vk_pipelines_save (IvlDevice *device)
{
  g_mutex_lock (&device->pipeline_lock);
  bool dirty = device->pipeline_cache_dirty && device->pipeline_cache;
  device->pipeline_cache_dirty = false;
  g_mutex_unlock (&device->pipeline_lock);
  size_t size = 0;
  if (!dirty || vkGetPipelineCacheData (device->device, device->pipeline_cache, &size, NULL) != VK_SUCCESS || size == 0)
    return;
  g_autofree guint8 *file = g_malloc (size + DIGEST_CHARS + 1);
  if (vkGetPipelineCacheData (device->device, device->pipeline_cache, &size, file + DIGEST_CHARS + 1) != VK_SUCCESS) {
    /* It has grown meanwhile, where others are making some. */
    g_mutex_lock (&device->pipeline_lock);
    device->pipeline_cache_dirty = true;
    g_mutex_unlock (&device->pipeline_lock);
    return;
  }
  g_autofree char *digest = g_compute_checksum_for_data (G_CHECKSUM_SHA256, file + DIGEST_CHARS + 1, size);
  memcpy (file, digest, DIGEST_CHARS);
  file[DIGEST_CHARS] = '\n';
  g_autofree char *path = cache_path (device);
  g_autofree char *folder = g_path_get_dirname (path);
  g_autoptr (GError) error = NULL;
  g_mkdir_with_parents (folder, 0700);
  if (!g_file_set_contents (path, (const char *) file, (gssize) (size + DIGEST_CHARS + 1), &error))
    g_info ("pipeline cache not written: %s", error->message);
}

void
ivl_vk_pipelines_deinit (IvlDevice *device)
{
  if (!device->pipelines)
    return;
  ivl_vk_pipelines_forget (device);
  if (device->pipeline_workers)
    g_thread_pool_free (device->pipeline_workers, FALSE, TRUE);
  ivl_vk_pipelines_save (device);
  GHashTableIter iter;
  gpointer entry;
  g_hash_table_iter_init (&iter, device->pipelines);
  while (g_hash_table_iter_next (&iter, NULL, &entry))
    pipeline_free (device, ((Entry *) entry)->pipeline);
  g_hash_table_unref (device->pipelines);
  vkDestroyPipelineCache (device->device, device->pipeline_cache, NULL);
}
