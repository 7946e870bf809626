#include "settings.h"

#include "errors.h"

#include <json-glib/json-glib.h>

#define DEFAULT_PROMPT "Describe this video."
#define DEFAULT_CHUNK_SIZE 8
#define DEFAULT_MAX_TILES 1
#define DEFAULT_MAX_TOKENS 256
#define DEFAULT_MOTION_THRESHOLD 8
#define DEFAULT_SCENE_THRESHOLD 0.4f
/* As the engine has it. */
#define MAX_CHOICES 65536

enum
{
  PROP_MODEL_PATH = GST_INTERNVL_PROP_FIRST_SETTING,
  PROP_DEVICE,
  PROP_SHARE,
  PROP_WEIGHTS,
  PROP_PROMPT,
  PROP_PROMPT_PATH,
  PROP_SYSTEM_PROMPT,
  PROP_SAMPLING,
  PROP_FRAME_RATE,
  PROP_CHUNK_SIZE,
  PROP_CHUNK_DURATION,
  PROP_CHUNK_STRIDE,
  PROP_FIRST_CHUNK_DURATION,
  PROP_MAX_TILES,
  PROP_REUSE_THRESHOLD,
  PROP_MOTION_THRESHOLD,
  PROP_SCENE_THRESHOLD,
  PROP_MAX_TOKENS,
  PROP_TEMPERATURE,
  PROP_TOP_P,
  PROP_TOP_K,
  PROP_SEED,
  PROP_REPETITION_PENALTY,
  PROP_CHOICES,
  PROP_JSON_SCHEMA,
  PROP_POLICY,
  PROP_PRIORITY,
  PROP_MAX_LATENCY,
  PROP_ON_ERROR,
  PROP_TEXT_FORMAT,
  PROP_POST_MESSAGES,
  PROP_TOKENS,
  PROP_ALERT_ON,
  PROP_ALERT_HOLD,
};

void
gst_internvl_settings_init (GstInternvlSettings *settings)
{
  *settings = (GstInternvlSettings) {
    .share = TRUE,
    .prompt = g_strdup (DEFAULT_PROMPT),
    .chunks = {.chunk_size = DEFAULT_CHUNK_SIZE,.rate_n = 0,.rate_d = 1},
    .max_tiles = DEFAULT_MAX_TILES,
    .motion_threshold = DEFAULT_MOTION_THRESHOLD,
    .scene_threshold = DEFAULT_SCENE_THRESHOLD,
    .generate = IVL_GENERATE_PARAMS_INIT,
    .post_messages = TRUE,
  };
  settings->generate.max_tokens = DEFAULT_MAX_TOKENS;
}

void
gst_internvl_settings_copy (GstInternvlSettings *to, const GstInternvlSettings *from)
{
  gst_internvl_settings_clear (to);
  *to = *from;
  to->model_path = g_strdup (from->model_path);
  to->device = g_strdup (from->device);
  to->prompt = g_strdup (from->prompt);
  to->prompt_path = g_strdup (from->prompt_path);
  to->prompt_from_path = g_strdup (from->prompt_from_path);
  to->system_prompt = g_strdup (from->system_prompt);
  to->choices = from->choices ? g_ptr_array_ref (from->choices) : NULL;
  to->json_schema = g_strdup (from->json_schema);
  to->alert_on = g_strdup (from->alert_on);
  for (guint i = 0; i < GST_INTERNVL_N_CHECKED; i++)
    to->errors[i] = from->errors[i] ? g_error_copy (from->errors[i]) : NULL;
}

void
gst_internvl_settings_clear (GstInternvlSettings *settings)
{
  g_free (settings->model_path);
  g_free (settings->device);
  g_free (settings->prompt);
  g_free (settings->prompt_path);
  g_free (settings->prompt_from_path);
  g_free (settings->system_prompt);
  g_free (settings->alert_on);
  g_clear_pointer (&settings->choices, g_ptr_array_unref);
  g_free (settings->json_schema);
  for (guint i = 0; i < GST_INTERNVL_N_CHECKED; i++)
    g_clear_error (&settings->errors[i]);
}

void
gst_internvl_settings_install (GObjectClass *klass)
{
  const GParamFlags ready = G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY;
  const GParamFlags playing = G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_PLAYING;

  g_object_class_install_property (klass, PROP_MODEL_PATH, g_param_spec_string ("model-path", "Model",
          "Folder with an InternVL 2.5 model as downloaded from Hugging Face (config.json, *.safetensors, tokenizer), "
          "or a GGUF text model with its mmproj file beside it; else the environment variable INTERNVL_MODEL", NULL, ready));
  g_object_class_install_property (klass, PROP_DEVICE, g_param_spec_string ("device", "Device",
          "Vulkan device: its number, part of its name, \"gpu\" or \"cpu\"; else the environment variable "
          "INTERNVL_DEVICE, else the fastest kind there is", NULL, ready));
  g_object_class_install_property (klass, PROP_SHARE, g_param_spec_boolean ("share", "Share",
          "Elements of this process with the same model and device have one copy of the weights and are batched "
          "together", TRUE, ready));
  g_object_class_install_property (klass, PROP_WEIGHTS, g_param_spec_enum ("weights", "Weights",
          "How the model's matrices are held: fewer bits take less memory and answer sooner, less exactly. A converted "
          "copy is kept in the cache folder (INTERNVL_CACHE), so that the next start is quick",
          gst_internvl_weights_get_type (), IVL_WEIGHTS_AUTO, ready));
  g_object_class_install_property (klass, PROP_PROMPT, g_param_spec_string ("prompt", "Prompt",
          "What to ask about each chunk. {start} and {end} become its times, {frames} those of its frames, {previous} "
          "the last answer, {detections} what regions of interest others marked in its frames", DEFAULT_PROMPT, playing));
  g_object_class_install_property (klass, PROP_PROMPT_PATH, g_param_spec_string ("prompt-path", "Prompt file",
          "Text file (UTF-8) to take the prompt from, instead of the property prompt; read when it is set and when the "
          "element starts", NULL, playing));
  g_object_class_install_property (klass, PROP_SYSTEM_PROMPT, g_param_spec_string ("system-prompt", "System prompt",
          "What the model is told before all else; NULL: what it was trained with", NULL, playing));
  g_object_class_install_property (klass, PROP_SAMPLING, g_param_spec_enum ("sampling", "Sampling",
          "How the frames of a chunk are chosen. scene: four times as many are looked at, cuts between them are found on "
          "the device, and each scene gets its part of chunk-size. motion: as uniform, but a chunk none of whose frames "
          "shows motion is skipped, unless nothing was asked about since something moved", gst_internvl_sampling_get_type (), GST_INTERNVL_SAMPLING_UNIFORM,
          playing));
  g_object_class_install_property (klass, PROP_FRAME_RATE, gst_param_spec_fraction ("frame-rate", "Frame rate",
          "Frames sampled per second of video, by time stamp. 0/1: chunk-size frames over chunk-duration, or 2/1 if "
          "that isn't set either", 0, 1, 1000, 1, 0, 1, playing));
  g_object_class_install_property (klass, PROP_CHUNK_SIZE, g_param_spec_uint ("chunk-size", "Chunk size",
          "Frames of a chunk, at most. Without chunk-duration a chunk lasts chunk-size / frame-rate; with it, fewer "
          "frames are taken if frame-rate is set and gives fewer", 1, 512, DEFAULT_CHUNK_SIZE, playing));
  g_object_class_install_property (klass, PROP_CHUNK_DURATION, g_param_spec_uint64 ("chunk-duration",
          "Chunk duration", "Length of a chunk in nanoseconds; its frames are spread evenly over it. 0: chunk-size / "
          "frame-rate", 0, 24 * 3600 * GST_SECOND, 0, playing));
  g_object_class_install_property (klass, PROP_CHUNK_STRIDE, g_param_spec_uint64 ("chunk-stride", "Chunk stride",
          "Nanoseconds from the start of a chunk to that of the next: shorter than its duration, they overlap; longer, "
          "there is video nobody is asked about. 0: the duration", 0, 24 * 3600 * GST_SECOND, 0, playing));
  g_object_class_install_property (klass, PROP_FIRST_CHUNK_DURATION, g_param_spec_uint64 ("first-chunk-duration",
          "First chunk's duration", "Length in nanoseconds of the first chunk where the stream begins, or begins anew, so "
          "that there is an early answer; it has as many fewer frames. Of a live stream the first that the model is there "
          "for. 0: as all others", 0, 24 * 3600 * GST_SECOND, 0, playing));
  g_object_class_install_property (klass, PROP_MAX_TILES, g_param_spec_uint ("max-tiles", "Tiles of a frame",
          "1: each frame is seen as one square tile, as the model was trained to see video; more: as up to that many "
          "tiles of its own shape and a thumbnail, for small print", 1, 40, DEFAULT_MAX_TILES, ready));
  g_object_class_install_property (klass, PROP_REUSE_THRESHOLD, g_param_spec_float ("reuse-threshold",
          "Reuse threshold", "A frame that differs from the last encoded one by less than this is not encoded: the "
          "other stands in for it. In levels of 0 to 255, as the mean over the patch that changed most. 0: every "
          "frame is encoded", 0, 255, 0, playing));
  g_object_class_install_property (klass, PROP_MOTION_THRESHOLD, g_param_spec_float ("motion-threshold",
          "Motion threshold", "With sampling=motion: a frame that differs from the sampled one before it by less than "
          "this shows no motion. In levels of 0 to 255, as the mean over the patch that changed most", 0, 255,
          DEFAULT_MOTION_THRESHOLD, playing));
  g_object_class_install_property (klass, PROP_SCENE_THRESHOLD, g_param_spec_float ("scene-threshold",
          "Scene threshold", "With sampling=scene: a scene begins with a frame of which more than this part, by its "
          "histogram of luma, is unlike the one before it", 0, 1, DEFAULT_SCENE_THRESHOLD, playing));
  g_object_class_install_property (klass, PROP_MAX_TOKENS, g_param_spec_uint ("max-tokens", "Tokens of an answer",
          "Where an answer is cut off; a token is about three quarters of an English word", 1, 65536,
          DEFAULT_MAX_TOKENS, playing));
  g_object_class_install_property (klass, PROP_TEMPERATURE, g_param_spec_float ("temperature", "Temperature",
          "0: the likeliest token each time; 1: as likely as the model has it; more: wilder", 0, 10, 0, playing));
  g_object_class_install_property (klass, PROP_TOP_P, g_param_spec_float ("top-p", "Top P",
          "With a temperature: choose among the likeliest tokens that sum up to this probability; 1: among all", 0, 1,
          1, playing));
  g_object_class_install_property (klass, PROP_TOP_K, g_param_spec_uint ("top-k", "Top K",
          "With a temperature: choose among this many of the likeliest tokens; 0: among all", 0, 1000000, 0, playing));
  g_object_class_install_property (klass, PROP_SEED, g_param_spec_uint64 ("seed", "Seed",
          "With a temperature: the same seed gives the same answers again", 0, G_MAXUINT64, 0, playing));
  g_object_class_install_property (klass, PROP_REPETITION_PENALTY, g_param_spec_float ("repetition-penalty",
          "Repetition penalty", "Makes tokens that were there already less likely; 1: no", 0.1f, 10, 1, playing));
  g_object_class_install_property (klass, PROP_CHOICES, gst_param_spec_array ("choices", "Choices",
          "The answer is one of these texts, say <yes,no,\"can't tell\">; results then have choice, its index, and (of "
          "up to 256) choice-probabilities. Empty: whatever the model says",
          g_param_spec_string ("choice", "Choice", "An answer", NULL, G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS),
          playing));
  g_object_class_install_property (klass, PROP_JSON_SCHEMA, g_param_spec_string ("json-schema", "JSON Schema",
          "The answer is JSON that is valid by this schema: objects, arrays, strings, numbers, enum; max-tokens must "
          "leave room for the shortest. Not together with choices", NULL, playing));
  g_object_class_install_property (klass, PROP_POLICY, g_param_spec_enum ("policy", "Policy",
          "What happens when the model is slower than the video", gst_internvl_policy_get_type (),
          GST_INTERNVL_POLICY_AUTO, ready));
  g_object_class_install_property (klass, PROP_PRIORITY, g_param_spec_int ("priority", "Priority",
          "Among elements that share a model and wait for it: each step up doubles this one's share of the encoder and "
          "of the reading of prompts. Nobody is left out", IVL_PRIORITY_MIN, IVL_PRIORITY_MAX, 0, playing));
  g_object_class_install_property (klass, PROP_MAX_LATENCY, g_param_spec_uint64 ("max-latency", "Maximum latency",
          "A chunk whose last frame came in longer ago than this, in nanoseconds, when its turn comes is skipped, and "
          "counted as dropped. 0: none is too old", 0, 24 * 3600 * GST_SECOND, 0, playing));
  g_object_class_install_property (klass, PROP_ON_ERROR, g_param_spec_enum ("on-error", "On error",
          "What happens when the model can't be loaded or a question can't be answered",
          gst_internvl_on_error_get_type (), GST_INTERNVL_ON_ERROR_STOP, ready));
  g_object_class_install_property (klass, PROP_TEXT_FORMAT, g_param_spec_enum ("text-format", "Text format",
          "What comes out of text_src", gst_internvl_text_format_get_type (), GST_INTERNVL_TEXT_AUTO, playing));
  g_object_class_install_property (klass, PROP_POST_MESSAGES, g_param_spec_boolean ("post-messages", "Post messages",
          "Post each result on the bus as an element message \"internvl\"", TRUE, playing));
  g_object_class_install_property (klass, PROP_TOKENS, g_param_spec_boolean ("tokens", "Tokens",
          "Post an answer also while it is being written, as element messages \"internvl-tokens\" with text (so far), "
          "piece (what is new), chunk, timestamp and stream-id", FALSE, playing));
  g_object_class_install_property (klass, PROP_ALERT_ON, g_param_spec_string ("alert-on", "Alert on",
          "Words that an answer begins with, in any case, such as \"yes\": the first such answer posts the element "
          "message \"internvl-alert\" with state \"raised\", and the first other one another with \"cleared\". NULL: "
          "no alerts", NULL, playing));
  g_object_class_install_property (klass, PROP_ALERT_HOLD, g_param_spec_uint64 ("alert-hold", "Alert hold",
          "An alert is only cleared once no answer was about it for so many nanoseconds of video, so that one odd "
          "answer doesn't end it", 0, 24 * 3600 * GST_SECOND, 0, playing));
}

static void
set_string (char **field, const GValue *value)
{
  g_free (*field);
  *field = g_value_dup_string (value);
  /* gst-launch can't say NULL. */
  if (*field && **field == '\0')
    g_clear_pointer (field, g_free);
}

static void
set_text (GstInternvlSettings *settings, char **field, const GValue *value, GstInternvlChecked checked, const char *name)
{
  const char *text = g_value_get_string (value);
  GError **error = &settings->errors[checked];

  g_clear_error (error);
  if (text && !g_utf8_validate (text, -1, NULL))
    g_set_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT, "the %s is not valid UTF-8", name);
  else
    set_string (field, value);
}

static void
set_choices (GstInternvlSettings *settings, const GValue *value)
{
  guint n = gst_value_array_get_size (value);
  g_autoptr (GPtrArray) choices = g_ptr_array_new_full (n + 1, g_free);
  g_autoptr (GHashTable) seen = g_hash_table_new (g_str_hash, g_str_equal);
  GError **error = &settings->errors[GST_INTERNVL_CHECKED_CHOICES];
  const char *wrong = NULL;

  if (n > MAX_CHOICES)
    wrong = "are more than 65536";
  else if (n > 0 && settings->json_schema)
    wrong = "don't go together with a json-schema: unset that first";
  for (guint i = 0; i < n && !wrong; i++) {
    const GValue *item = gst_value_array_get_value (value, i);
    const char *text = G_VALUE_HOLDS_STRING (item) ? g_value_get_string (item) : NULL;

    if (!text || !*text)
      wrong = "hold one that is not a text, or empty";
    else if (!g_utf8_validate (text, -1, NULL))
      wrong = "hold one that is not valid UTF-8";
    else if (!g_hash_table_add (seen, (gpointer) text))
      wrong = "hold one twice";
    else
      g_ptr_array_add (choices, g_strdup (text));
  }
  g_clear_error (error);
  if (wrong) {
    g_set_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT, "the choices %s", wrong);
    return;
  }
  g_ptr_array_add (choices, NULL);
  g_clear_pointer (&settings->choices, g_ptr_array_unref);
  if (n > 0)
    settings->choices = g_steal_pointer (&choices);
}

static void
get_choices (const GstInternvlSettings *settings, GValue *value)
{
  for (guint i = 0; settings->choices && i + 1 < settings->choices->len; i++) {
    GValue item = G_VALUE_INIT;

    g_value_init (&item, G_TYPE_STRING);
    g_value_set_string (&item, g_ptr_array_index (settings->choices, i));
    gst_value_array_append_and_take_value (value, &item);
  }
}

/* What the engine understands of it, it tells when it is asked. */
static void
set_json_schema (GstInternvlSettings *settings, const GValue *value)
{
  const char *text = g_value_get_string (value);
  g_autoptr (JsonParser) parser = json_parser_new ();
  GError **error = &settings->errors[GST_INTERNVL_CHECKED_JSON_SCHEMA];
  g_autoptr (GError) cause = NULL;

  if (text && *text && g_utf8_validate (text, -1, NULL)) {
    g_clear_error (error);
    if (settings->choices)
      g_set_error_literal (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT,
          "a json-schema doesn't go together with choices: empty those first");
    else if (!json_parser_load_from_data (parser, text, -1, &cause))
      g_set_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT, "the json-schema is not JSON: %s",
          cause->message);
    else if (!json_parser_get_root (parser) || !JSON_NODE_HOLDS_OBJECT (json_parser_get_root (parser)))
      g_set_error_literal (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT, "the json-schema is not an object");
    if (*error)
      return;
  }
  set_text (settings, &settings->json_schema, value, GST_INTERNVL_CHECKED_JSON_SCHEMA, "json-schema");
}

static gboolean
read_prompt (GstInternvlSettings *settings, GError **error)
{
  g_autoptr (GError) cause = NULL;
  g_autofree char *text = NULL;
  gsize length;

  if (!settings->prompt_path) {
    g_clear_pointer (&settings->prompt_from_path, g_free);
    return TRUE;
  }
  if (!g_file_get_contents (settings->prompt_path, &text, &length, &cause)) {
    g_set_error (error, G_FILE_ERROR, cause->code, "the prompt-path can't be read: %s", cause->message);
    return FALSE;
  }
  if (!g_utf8_validate (text, length, NULL)) {
    g_set_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT, "the prompt in %s is not valid UTF-8",
        settings->prompt_path);
    return FALSE;
  }
  g_free (settings->prompt_from_path);
  settings->prompt_from_path = g_strdup (g_strchomp (text));
  return TRUE;
}

gboolean
gst_internvl_settings_set (GstInternvlSettings *settings, guint id, const GValue *value)
{
  switch (id) {
    case PROP_MODEL_PATH:
      set_string (&settings->model_path, value);
      break;
    case PROP_DEVICE:
      set_string (&settings->device, value);
      break;
    case PROP_SHARE:
      settings->share = g_value_get_boolean (value);
      break;
    case PROP_WEIGHTS:
      settings->weights = g_value_get_enum (value);
      break;
    case PROP_PROMPT:
      set_text (settings, &settings->prompt, value, GST_INTERNVL_CHECKED_PROMPT, "prompt");
      break;
    case PROP_PROMPT_PATH:
      set_string (&settings->prompt_path, value);
      g_clear_error (&settings->errors[GST_INTERNVL_CHECKED_PROMPT_PATH]);
      read_prompt (settings, &settings->errors[GST_INTERNVL_CHECKED_PROMPT_PATH]);
      break;
    case PROP_SYSTEM_PROMPT:
      set_text (settings, &settings->system_prompt, value, GST_INTERNVL_CHECKED_SYSTEM_PROMPT, "system-prompt");
      break;
    case PROP_SAMPLING:
      settings->sampling = g_value_get_enum (value);
      break;
    case PROP_FRAME_RATE:
      settings->chunks.rate_n = gst_value_get_fraction_numerator (value);
      settings->chunks.rate_d = gst_value_get_fraction_denominator (value);
      break;
    case PROP_CHUNK_SIZE:
      settings->chunks.chunk_size = g_value_get_uint (value);
      break;
    case PROP_CHUNK_DURATION:
      settings->chunks.chunk_duration = g_value_get_uint64 (value);
      break;
    case PROP_CHUNK_STRIDE:
      settings->chunks.chunk_stride = g_value_get_uint64 (value);
      break;
    case PROP_FIRST_CHUNK_DURATION:
      settings->chunks.first_duration = g_value_get_uint64 (value);
      break;
    case PROP_MAX_TILES:
      settings->max_tiles = g_value_get_uint (value);
      break;
    case PROP_REUSE_THRESHOLD:
      settings->reuse_threshold = g_value_get_float (value);
      break;
    case PROP_MOTION_THRESHOLD:
      settings->motion_threshold = g_value_get_float (value);
      break;
    case PROP_SCENE_THRESHOLD:
      settings->scene_threshold = g_value_get_float (value);
      break;
    case PROP_MAX_TOKENS:
      settings->generate.max_tokens = g_value_get_uint (value);
      break;
    case PROP_TEMPERATURE:
      settings->generate.temperature = g_value_get_float (value);
      break;
    case PROP_TOP_P:
      settings->generate.top_p = g_value_get_float (value);
      break;
    case PROP_TOP_K:
      settings->generate.top_k = g_value_get_uint (value);
      break;
    case PROP_SEED:
      settings->generate.seed = g_value_get_uint64 (value);
      break;
    case PROP_REPETITION_PENALTY:
      settings->generate.repetition_penalty = g_value_get_float (value);
      break;
    case PROP_CHOICES:
      set_choices (settings, value);
      break;
    case PROP_JSON_SCHEMA:
      set_json_schema (settings, value);
      break;
    case PROP_POLICY:
      settings->policy = g_value_get_enum (value);
      break;
    case PROP_PRIORITY:
      settings->priority = g_value_get_int (value);
      break;
    case PROP_MAX_LATENCY:
      settings->max_latency = g_value_get_uint64 (value);
      break;
    case PROP_ON_ERROR:
      settings->on_error = g_value_get_enum (value);
      break;
    case PROP_TEXT_FORMAT:
      settings->text_format = g_value_get_enum (value);
      break;
    case PROP_POST_MESSAGES:
      settings->post_messages = g_value_get_boolean (value);
      break;
    case PROP_TOKENS:
      settings->tokens = g_value_get_boolean (value);
      break;
    case PROP_ALERT_ON:
      set_text (settings, &settings->alert_on, value, GST_INTERNVL_CHECKED_ALERT_ON, "alert-on");
      break;
    case PROP_ALERT_HOLD:
      settings->alert_hold = g_value_get_uint64 (value);
      break;
    default:
      return FALSE;
  }
  return TRUE;
}

gboolean
gst_internvl_settings_get (const GstInternvlSettings *settings, guint id, GValue *value)
{
  switch (id) {
    case PROP_MODEL_PATH:
      g_value_set_string (value, settings->model_path);
      break;
    case PROP_DEVICE:
      g_value_set_string (value, settings->device);
      break;
    case PROP_SHARE:
      g_value_set_boolean (value, settings->share);
      break;
    case PROP_WEIGHTS:
      g_value_set_enum (value, settings->weights);
      break;
    case PROP_PROMPT:
      g_value_set_string (value, settings->prompt);
      break;
    case PROP_PROMPT_PATH:
      g_value_set_string (value, settings->prompt_path);
      break;
    case PROP_SYSTEM_PROMPT:
      g_value_set_string (value, settings->system_prompt);
      break;
    case PROP_SAMPLING:
      g_value_set_enum (value, settings->sampling);
      break;
    case PROP_FRAME_RATE:
      gst_value_set_fraction (value, settings->chunks.rate_n, settings->chunks.rate_d);
      break;
    case PROP_CHUNK_SIZE:
      g_value_set_uint (value, settings->chunks.chunk_size);
      break;
    case PROP_CHUNK_DURATION:
      g_value_set_uint64 (value, settings->chunks.chunk_duration);
      break;
    case PROP_CHUNK_STRIDE:
      g_value_set_uint64 (value, settings->chunks.chunk_stride);
      break;
    case PROP_FIRST_CHUNK_DURATION:
      g_value_set_uint64 (value, settings->chunks.first_duration);
      break;
    case PROP_MAX_TILES:
      g_value_set_uint (value, settings->max_tiles);
      break;
    case PROP_REUSE_THRESHOLD:
      g_value_set_float (value, settings->reuse_threshold);
      break;
    case PROP_MOTION_THRESHOLD:
      g_value_set_float (value, settings->motion_threshold);
      break;
    case PROP_SCENE_THRESHOLD:
      g_value_set_float (value, settings->scene_threshold);
      break;
    case PROP_MAX_TOKENS:
      g_value_set_uint (value, settings->generate.max_tokens);
      break;
    case PROP_TEMPERATURE:
      g_value_set_float (value, settings->generate.temperature);
      break;
    case PROP_TOP_P:
      g_value_set_float (value, settings->generate.top_p);
      break;
    case PROP_TOP_K:
      g_value_set_uint (value, settings->generate.top_k);
      break;
    case PROP_SEED:
      g_value_set_uint64 (value, settings->generate.seed);
      break;
    case PROP_REPETITION_PENALTY:
      g_value_set_float (value, settings->generate.repetition_penalty);
      break;
    case PROP_CHOICES:
      get_choices (settings, value);
      break;
    case PROP_JSON_SCHEMA:
      g_value_set_string (value, settings->json_schema);
      break;
    case PROP_POLICY:
      g_value_set_enum (value, settings->policy);
      break;
    case PROP_PRIORITY:
      g_value_set_int (value, settings->priority);
      break;
    case PROP_MAX_LATENCY:
      g_value_set_uint64 (value, settings->max_latency);
      break;
    case PROP_ON_ERROR:
      g_value_set_enum (value, settings->on_error);
      break;
    case PROP_TEXT_FORMAT:
      g_value_set_enum (value, settings->text_format);
      break;
    case PROP_POST_MESSAGES:
      g_value_set_boolean (value, settings->post_messages);
      break;
    case PROP_TOKENS:
      g_value_set_boolean (value, settings->tokens);
      break;
    case PROP_ALERT_ON:
      g_value_set_string (value, settings->alert_on);
      break;
    case PROP_ALERT_HOLD:
      g_value_set_uint64 (value, settings->alert_hold);
      break;
    default:
      return FALSE;
  }
  return TRUE;
}

GError *
gst_internvl_settings_take_error (GstInternvlSettings *settings)
{
  for (guint i = 0; i < GST_INTERNVL_N_CHECKED; i++)
    if (settings->errors[i])
      return g_steal_pointer (&settings->errors[i]);
  return NULL;
}

char *
gst_internvl_settings_get_model_path (const GstInternvlSettings *settings)
{
  const char *path = settings->model_path ? settings->model_path : g_getenv ("INTERNVL_MODEL");

  return path && *path ? g_strdup (path) : NULL;
}

const char *
gst_internvl_settings_get_prompt (const GstInternvlSettings *settings)
{
  if (settings->prompt_path && settings->prompt_from_path)
    return settings->prompt_from_path;
  return settings->prompt ? settings->prompt : DEFAULT_PROMPT;
}

static gboolean
has_gguf (const char *folder)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  gboolean found = FALSE;
  for (const char *name; dir && !found && (name = g_dir_read_name (dir));)
    found = g_str_has_suffix (name, ".gguf");
  return found;
}

gboolean
gst_internvl_settings_check (GstInternvlSettings *settings, GError **error)
{
  g_autofree char *path = gst_internvl_settings_get_model_path (settings);

  if (!path) {
    g_set_error_literal (error, IVL_ERROR, IVL_ERROR_BAD_MODEL, "No model is set");
    return FALSE;
  }
  if (!g_file_test (path, G_FILE_TEST_EXISTS)) {
    g_set_error (error, IVL_ERROR, IVL_ERROR_BAD_MODEL, "There is no model at %s", path);
    return FALSE;
  }
  if (g_file_test (path, G_FILE_TEST_IS_DIR)) {
    g_autofree char *config = g_build_filename (path, "config.json", NULL);
    if (!g_file_test (config, G_FILE_TEST_EXISTS) && !has_gguf (path)) {
      g_set_error (error, IVL_ERROR, IVL_ERROR_BAD_MODEL, "%s is not a model: it has no config.json", path);
      return FALSE;
    }
  }
  if (settings->prompt_path) {
    if (!read_prompt (settings, error))
      return FALSE;
    /* It was not there when it was set, and is now. */
    g_clear_error (&settings->errors[GST_INTERNVL_CHECKED_PROMPT_PATH]);
  }
  for (guint i = 0; i < GST_INTERNVL_N_CHECKED; i++)
    if (settings->errors[i]) {
      g_propagate_error (error, g_error_copy (settings->errors[i]));
      return FALSE;
    }
  return TRUE;
}

char *
gst_internvl_settings_find_odd_time (const GstInternvlSettings *settings)
{
  const struct
  {
    const char *name;
    GstClockTime value;
  } times[] = {
    {"chunk-duration", settings->chunks.chunk_duration}, {"chunk-stride", settings->chunks.chunk_stride},
    {"first-chunk-duration", settings->chunks.first_duration}, {"alert-hold", settings->alert_hold},
  };

  for (guint i = 0; i < G_N_ELEMENTS (times); i++)
    if (times[i].value > 0 && times[i].value < GST_MSECOND)
      return g_strdup_printf ("%s is %" G_GUINT64_FORMAT " nanoseconds, less than any frame lasts; a second is 1000000000",
          times[i].name, times[i].value);
  return NULL;
}
