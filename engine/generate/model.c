/* IvlModel: loading, sharing within a process, the end. */
#include "generate/engine.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_CONTEXT 8192 /* tokens; what the reference's tokenizer files say of these models */
#define DEFAULT_SESSIONS 16
#define MAX_SESSIONS 1024
#define FIRST_KV_TOKENS 2048 /* the cache grows from here */
/* Rows of one decoder forward. Software devices compute no faster with more, and can't be cancelled in between. */
#define MAX_ROWS_SOFTWARE 256
#define MAX_ROWS_GPU 512
/* Vision rows side by side: beyond this, matmuls get no faster. Tiles of several streams go together whatever their size:
 * a few on a GPU, two on software devices, where more only keep decoding waiting. */
#define VIT_ROWS 2048
/* Of a guessed token beside one: software devices are soon bound by arithmetic (docs/speed.md), GPUs by reading weights. */
#define ROW_COST_SOFTWARE 0.25
#define ROW_COST_GPU 0.03
#define FIRST_DRAFT_RATE 0.6
#define VIT_TILES_SOFTWARE 2
#define VIT_TILES_GPU 4

/* An IvlDtype, -1 for the checkpoint's own, -2 for what isn't an IvlWeights. */
static int
choose_dtype (const IvlModelParams *params)
{
  switch (params->weights) {
  case IVL_WEIGHTS_F32:
    return IVL_DTYPE_F32;
  case IVL_WEIGHTS_F16:
    return IVL_DTYPE_F16;
  case IVL_WEIGHTS_BF16:
    return IVL_DTYPE_BF16;
  case IVL_WEIGHTS_Q8:
    return IVL_DTYPE_Q8;
  case IVL_WEIGHTS_Q4:
    return IVL_DTYPE_Q4;
  case IVL_WEIGHTS_AUTO:
    return -1;
  }
  return -2;
}

static gboolean
check_params (IvlModel *self, const IvlModelParams *params, GError **error)
{
  const IvlConfig *config = self->config;
  if (choose_dtype (params) < -1)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "%d isn't a type of weights", params->weights);
  if (params->max_sessions > MAX_SESSIONS)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "max_sessions is %u, must be at most %u", params->max_sessions,
                     MAX_SESSIONS);
  self->max_sessions = params->max_sessions ? params->max_sessions : DEFAULT_SESSIONS;
  if ((guint) params->speculation > IVL_SPECULATION_ALWAYS)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "%d isn't a kind of speculation", params->speculation);
  self->speculation = params->speculation;
  /* Scaled positions reach further by the factor, but not for ever. */
  double factor = config->text.rope_scaling == IVL_ROPE_PLAIN ? 1. : MAX (config->text.rope_factor, 1.);
  double longest = config->text.max_position * factor;
  if (params->context_tokens > longest)
    return ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "A context of %u tokens is more than the %.0f that %s was made for",
                     params->context_tokens, longest, self->name);
  self->context_tokens = params->context_tokens ? params->context_tokens : MIN (config->text.max_position, DEFAULT_CONTEXT);
  return TRUE;
}

/* Refuses before minutes of loading what can't end well. */
static gboolean
check_memory (IvlModel *self, const IvlCheckpoint *checkpoint, int dtype, GError **error)
{
  guint64 need = ivl_weights_estimate (checkpoint, self->config, dtype)
                 + (guint64) self->context_tokens * self->config->text.head_dim * 4 /* of positions, see weights.c */
                 + (guint64) FIRST_KV_TOKENS / IVL_KV_PAGE * ivl_kv_page_bytes (self->config);
  guint64 found = ivl_vk_available_bytes (self->device);
  if (need <= found)
    return TRUE;
  g_autofree char *need_text = ivl_format_bytes (need), *found_text = ivl_format_bytes (found);
  return ivl_fail (error, IVL_ERROR_OUT_OF_MEMORY,
                   "%s (%s) needs %" G_GUINT64_FORMAT " bytes (%s) on Vulkan device \"%s\", which has %" G_GUINT64_FORMAT
                   " (%s); choose a smaller model, a smaller weight type or another device",
                   self->name, self->architecture, need, need_text, self->device->name, found, found_text);
}

static guint
max_decoder_rows (const IvlModel *self)
{
  return self->device->software ? MAX_ROWS_SOFTWARE : MAX_ROWS_GPU;
}

static gboolean
init_runs (IvlModel *self, const IvlModelParams *params, GError **error)
{
  const IvlConfig *config = self->config;
  guint max_rows = max_decoder_rows (self);
  guint tokens = 1 + config->vision.grid * config->vision.grid;
  guint tiles = MAX (VIT_ROWS / tokens, self->device->software ? VIT_TILES_SOFTWARE : VIT_TILES_GPU);
  tiles = MIN (tiles, ivl_vit_max_tiles (config, self->device));
  guint64 page_bytes = ivl_kv_page_bytes (config);
  guint64 kv_bytes = params->kv_bytes;
  if (!kv_bytes)
    kv_bytes = MAX (ivl_vk_available_bytes (self->device) / 2,
                    page_bytes * (self->context_tokens / IVL_KV_PAGE + 1));
  guint64 most = (guint64) self->max_sessions * ((self->context_tokens + IVL_KV_PAGE - 1) / IVL_KV_PAGE + 1);
  guint max_pages = (guint) CLAMP (kv_bytes / page_bytes, 1, most);
  guint max_logits = self->max_sessions + IVL_DRAFT_ROWS;
  ivl_draft_memory_init (&self->said);
  ivl_draft_costs_init (&self->draft_costs, self->device->software ? ROW_COST_SOFTWARE : ROW_COST_GPU);
  self->draft_rate = FIRST_DRAFT_RATE;
  if (!(self->stream = ivl_vk_stream_new (self->device, error))
      || !(self->vision_stream = ivl_vk_stream_new (self->device, error))
      || !ivl_vit_run_init (&self->vit_run, &self->weights.vit, self->device, tiles, error)
      || !ivl_decoder_run_init (&self->decoder_run, &self->weights.decoder, self->device, max_rows, max_logits,
                                self->context_tokens, error)
      || !ivl_kv_cache_init (&self->kv, &self->weights.decoder, self->device,
                             MIN (FIRST_KV_TOKENS / IVL_KV_PAGE, max_pages), max_pages, error))
    return FALSE;
  return ivl_sampler_init (&self->sampler, self->device, config->text.vocab, max_logits, self->context_tokens,
                           error);
}

/* ---- the threads, and the end of the process ---- */

/* How long a process that ends waits for the threads. A driver may hang. */
#define EXIT_WAIT_US (30 * G_TIME_SPAN_SECOND)

static GMutex living_lock;
static GCond living_changed;
static GList *living;   /* IvlModel *, no references; from their threads' start until they are freed */
static guint64 next_id;
static guint n_threads; /* that run */
static GPrivate is_ours;

/* Threads must not be in a driver that exit () takes down. Questions under way are given up, without a word. */
static void
halt_threads (void)
{
  gint64 end = g_get_monotonic_time () + EXIT_WAIT_US;
  guint own = g_private_get (&is_ours) != NULL;
  g_mutex_lock (&living_lock);
  for (GList *l = living; l; l = l->next) {
    IvlModel *model = l->data;
    g_mutex_lock (&model->lock);
    model->halt = true;
    g_cond_signal (&model->wake);
    g_cond_signal (&model->vision_wake);
    g_mutex_unlock (&model->lock);
  }
  while (n_threads > own && g_cond_wait_until (&living_changed, &living_lock, end)) {
  }
  g_mutex_unlock (&living_lock);
  ivl_vk_pipelines_halt (end);
}

static GPid registered; /* a process forked off has none of the threads */

static void
at_exit (void)
{
  if (getpid () == registered)
    halt_threads ();
}

/* Called when the driver is there: what is registered last is done first. Once more after all models were gone, since the
 * driver may have been unloaded with them and loaded anew. */
static void
wait_at_exit (void)
{
  g_mutex_lock (&living_lock);
  if (!living) {
    registered = getpid ();
    atexit (at_exit);
  }
  g_mutex_unlock (&living_lock);
}

static void
count_threads (gint by)
{
  g_mutex_lock (&living_lock);
  n_threads += (guint) by;
  g_cond_broadcast (&living_changed);
  g_mutex_unlock (&living_lock);
}

/* False if the last reference went in a callback on one of the threads: that comes here once more when it has ended its
 * loop. */
static bool
end_threads (IvlModel *self)
{
  GThread *threads[] = { self->thread, self->vision_thread }, *own = g_thread_self ();
  g_mutex_lock (&self->lock);
  bool later = !self->quit && (own == threads[0] || own == threads[1]);
  if (later)
    self->last = own;
  self->quit = true;
  g_cond_signal (&self->wake);
  g_cond_signal (&self->vision_wake);
  g_mutex_unlock (&self->lock);
  for (guint i = 0; i < G_N_ELEMENTS (threads) && !later; i++)
    if (threads[i] == own)
      g_thread_unref (own);
    else if (threads[i])
      g_thread_join (threads[i]);
  return !later;
}

static void
model_free (IvlModel *self)
{
  if (!end_threads (self))
    return;
  const IvlModelStats *stats = &self->stats;
  if (self->thread)
    g_debug ("%s: %" G_GUINT64_FORMAT " tiles in %" G_GUINT64_FORMAT " batches, %" G_GUINT64_FORMAT " tokens in %"
             G_GUINT64_FORMAT " steps", self->name, stats->tiles_encoded, stats->encode_batches, stats->generated_tokens,
             stats->decode_steps);
  if (self->device) {
    ivl_draft_memory_deinit (&self->said);
    ivl_sampler_deinit (&self->sampler);
    ivl_prefix_cache_deinit (&self->prefixes, &self->kv);
    ivl_kv_cache_deinit (&self->kv);
    ivl_decoder_run_deinit (&self->decoder_run);
    ivl_vit_run_deinit (&self->vit_run);
    ivl_vk_stream_free (self->stream);
    ivl_vk_stream_free (self->vision_stream);
    ivl_weights_deinit (&self->weights);
    ivl_vk_pipelines_save (self->device);
  }
  g_clear_pointer (&self->stop_ids, g_hash_table_unref);
  ivl_vocabulary_unref (self->vocabulary);
  ivl_chat_free (self->chat);
  ivl_tokenizer_unref (self->tokenizer);
  ivl_config_free (self->config);
  ivl_device_unref (self->device);
  g_mutex_lock (&living_lock);
  living = g_list_remove (living, self);
  g_cond_broadcast (&living_changed);
  g_mutex_unlock (&living_lock);
  g_mutex_clear (&self->lock);
  g_mutex_clear (&self->kv_lock);
  g_mutex_clear (&self->vocabulary_lock);
  g_cond_clear (&self->wake);
  g_cond_clear (&self->vision_wake);
  g_free (self->name);
  g_free (self->architecture);
  g_free (self->share_key);
  g_free (self);
}

static gpointer
run_thread (IvlModel *self, void (*loop) (IvlModel *))
{
  g_private_set (&is_ours, self);
  loop (self);
  g_mutex_lock (&self->lock);
  bool last = self->last == g_thread_self ();
  g_mutex_unlock (&self->lock);
  if (last)
    model_free (self);
  count_threads (-1);
  return NULL;
}

static gpointer
scheduler_main (gpointer model)
{
  return run_thread (model, ivl_scheduler_run);
}

static gpointer
encoder_main (gpointer model)
{
  return run_thread (model, ivl_encoder_run);
}

static GThread *
start_thread (IvlModel *self, const char *name, GThreadFunc func, GError **error)
{
  count_threads (1);
  GThread *thread = g_thread_try_new (name, func, self, error);
  if (!thread)
    count_threads (-1);
  return thread;
}

static gboolean
start_threads (IvlModel *self, GError **error)
{
  GError *cause = NULL;
  g_mutex_lock (&living_lock);
  self->id = ++next_id;
  living = g_list_prepend (living, self);
  g_mutex_unlock (&living_lock);
  if ((self->thread = start_thread (self, "internvl", scheduler_main, &cause))
      && (self->vision_thread = start_thread (self, "internvl-vision", encoder_main, &cause)))
    return TRUE;
  ivl_fail (error, IVL_ERROR_OUT_OF_MEMORY, "No thread for %s: %s; end other programs, or raise the limit of processes",
            self->name, cause->message);
  g_error_free (cause);
  return FALSE;
}

/* The config's end tokens and the template's, as the reference: no others, however final they sound. */
static void
collect_stop_ids (IvlModel *self)
{
  self->stop_ids = g_hash_table_new (NULL, NULL);
  for (guint i = 0; i < self->config->n_eos; i++)
    g_hash_table_add (self->stop_ids, GUINT_TO_POINTER (self->config->eos[i]));
  g_hash_table_add (self->stop_ids, GUINT_TO_POINTER (ivl_chat_get_end_id (self->chat)));
}

IvlModel *
ivl_model_load (IvlDevice *device, const char *path, const IvlModelParams *params, GCancellable *cancellable,
                GError **error)
{
  static const IvlModelParams defaults = { 0 };
  if (!params)
    params = &defaults;
  if (!device || !path || !*path) {
    ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "ivl_model_load: no %s given", device ? "path" : "device");
    return NULL;
  }
  IvlModel *self = g_new0 (IvlModel, 1);
  g_autoptr (IvlCheckpoint) checkpoint = NULL;
  self->ref_count = 1;
  g_mutex_init (&self->lock);
  g_mutex_init (&self->kv_lock);
  g_mutex_init (&self->vocabulary_lock);
  g_cond_init (&self->wake);
  g_cond_init (&self->vision_wake);
  self->device = ivl_device_ref (device);
  g_autofree char *canonical = g_canonicalize_filename (path, NULL);
  self->name = g_filename_display_basename (canonical);
  if (!(self->config = ivl_config_load (path, error)))
    goto fail;
  self->architecture = ivl_config_describe (self->config);
  if (self->config->template_name && strcmp (self->config->template_name, "internvl2_5") != 0) {
    ivl_fail (error, IVL_ERROR_UNSUPPORTED,
              "%s was made for the chat template \"%s\"; this engine has internvl2_5, that of InternVL 2.5", self->name,
              self->config->template_name);
    goto fail;
  }
  if (!check_params (self, params, error))
    goto fail;
  int dtype = choose_dtype (params);
  /* The -hf layout's template has no system turn of its own. */
  self->system_prompt = self->config->system_message                 ? self->config->system_message
                        : self->config->layout == IVL_LAYOUT_ORIGINAL ? IVL_CHAT_DEFAULT_SYSTEM
                                                                      : NULL;
  if (!(self->tokenizer = ivl_tokenizer_load (path, error))
      || !(self->chat = ivl_chat_new (self->tokenizer, self->config->tile_tokens, IVL_ENCODE_TAGS, error))
      || !(checkpoint = ivl_checkpoint_open (path, self->config, error))
      || !check_memory (self, checkpoint, dtype, error))
    goto fail;
  wait_at_exit ();
  ivl_model_prepare_pipelines (self, checkpoint, dtype, max_decoder_rows (self));
  if (!ivl_weights_load (&self->weights, device, checkpoint, self->config, dtype, self->context_tokens, cancellable,
                         error)
      || !init_runs (self, params, error))
    goto fail;
  collect_stop_ids (self);
  if (!start_threads (self, error))
    goto fail;
  return self;
fail:
  ivl_vk_pipelines_forget (device);
  model_free (self);
  return NULL;
}

IvlVocabulary *
ivl_model_get_vocabulary (IvlModel *self)
{
  g_mutex_lock (&self->vocabulary_lock);
  if (!self->vocabulary) {
    guint n;
    g_autofree gpointer *keys = g_hash_table_get_keys_as_array (self->stop_ids, &n);
    g_autofree guint32 *ids = g_new (guint32, n + 1);
    for (guint i = 0; i < n; i++)
      ids[i] = GPOINTER_TO_UINT (keys[i]);
    self->vocabulary = ivl_vocabulary_new (self->tokenizer, self->config->text.vocab, ids, n);
  }
  g_mutex_unlock (&self->vocabulary_lock);
  return self->vocabulary;
}

/* ---- sharing ---- */

/* Who waits for another to load looks this often whether it shall go on waiting. */
#define SHARE_WAIT_US (50 * G_TIME_SPAN_MILLISECOND)

typedef struct {
  IvlModel *model; /* no reference: goes from the registry before it goes */
  bool loading;
} Shared;

static GMutex registry_lock;
static GCond registry_changed;
static GHashTable *registry; /* key -> Shared */

/* On DEVICE, or if that is NULL on what DEVICE_NAME says. */
static IvlModel *
share (IvlDevice *device, const char *device_name, const char *path, const IvlModelParams *params,
       GCancellable *cancellable, GError **error)
{
  static const IvlModelParams defaults = { 0 };
  if (!params)
    params = &defaults;
  if (!path || !*path) {
    ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "ivl_model_share: no path given");
    return NULL;
  }
  g_autofree char *canonical = g_canonicalize_filename (path, NULL);
  /* The model of a device given keeps it, so that its address isn't another's meanwhile. */
  g_autofree char *place = device ? g_strdup_printf ("%p", (void *) device)
                                  : g_strdup_printf ("=%s", device_name ? device_name : "");
  g_autofree char *key = g_strdup_printf ("%s|%d|%d|%u|%u|%" G_GUINT64_FORMAT "|%s", place, params->weights,
                                          params->speculation, params->context_tokens, params->max_sessions,
                                          params->kv_bytes, canonical);
  g_mutex_lock (&registry_lock);
  if (!registry)
    registry = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  Shared *shared;
  while ((shared = g_hash_table_lookup (registry, key)) && shared->loading) {
    if (!cancellable) {
      g_cond_wait (&registry_changed, &registry_lock);
      continue;
    }
    g_cond_wait_until (&registry_changed, &registry_lock, g_get_monotonic_time () + SHARE_WAIT_US);
    if (g_cancellable_is_cancelled (cancellable)) {
      g_mutex_unlock (&registry_lock);
      ivl_fail (error, IVL_ERROR_CANCELLED, "Loading was cancelled");
      return NULL;
    }
  }
  if (shared) {
    IvlModel *model = ivl_model_ref (shared->model);
    g_mutex_unlock (&registry_lock);
    return model;
  }
  shared = g_new0 (Shared, 1);
  shared->loading = true;
  g_hash_table_insert (registry, g_strdup (key), shared);
  g_mutex_unlock (&registry_lock);

  device = device ? ivl_device_ref (device) : ivl_device_open (device_name, error);
  IvlModel *model = device ? ivl_model_load (device, path, params, cancellable, error) : NULL;
  ivl_device_unref (device);

  g_mutex_lock (&registry_lock);
  if (model) {
    shared->model = model;
    shared->loading = false;
    model->share_key = g_steal_pointer (&key);
  } else {
    g_hash_table_remove (registry, key);
  }
  g_cond_broadcast (&registry_changed);
  g_mutex_unlock (&registry_lock);
  return model;
}

IvlModel *
ivl_model_share (const char *device_name, const char *path, const IvlModelParams *params, GCancellable *cancellable,
                 GError **error)
{
  return share (NULL, device_name, path, params, cancellable, error);
}

IvlModel *
ivl_model_share_on (IvlDevice *device, const char *path, const IvlModelParams *params, GCancellable *cancellable,
                    GError **error)
{
  if (!device) {
    ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "ivl_model_share_on: no device given");
    return NULL;
  }
  return share (device, NULL, path, params, cancellable, error);
}

IvlDevice *
ivl_model_get_device (IvlModel *self)
{
  return self->device;
}

IvlModel *
ivl_model_ref (IvlModel *self)
{
  g_atomic_int_inc (&self->ref_count);
  return self;
}

void
ivl_model_unref (IvlModel *self)
{
  if (!self)
    return;
  g_mutex_lock (&registry_lock);
  bool last = g_atomic_int_dec_and_test (&self->ref_count);
  if (last && self->share_key)
    g_hash_table_remove (registry, self->share_key);
  g_mutex_unlock (&registry_lock);
  if (last)
    model_free (self);
}

void
ivl_model_unref_wait (IvlModel *self)
{
  if (!self)
    return;
  guint64 id = self->id;
  ivl_model_unref (self);
  g_mutex_lock (&living_lock);
  for (GList *l = living; l;) {
    if (((IvlModel *) l->data)->id != id) {
      l = l->next;
      continue;
    }
    g_cond_wait (&living_changed, &living_lock);
    l = living;
  }
  g_mutex_unlock (&living_lock);
}

void
ivl_model_get_info (IvlModel *self, IvlModelInfo *info)
{
  *info = (IvlModelInfo){ .name = self->name,
                          .architecture = self->architecture,
                          .tile_size = self->config->vision.image_size,
                          .tokens_per_tile = self->config->tile_tokens,
                          .context_tokens = self->context_tokens,
                          .vocab_size = self->config->text.vocab,
                          .weight_bytes = self->weights.bytes };
}

void
ivl_model_get_stats (IvlModel *self, IvlModelStats *stats)
{
  g_mutex_lock (&self->lock);
  *stats = self->stats;
  g_mutex_unlock (&self->lock);
}
