/* InternVL 2.5 inference in Vulkan compute shaders.
 *
 * The model: arXiv 2412.05271. A picture becomes 448x448 tiles; every tile becomes 256 vectors
 * (vision encoder, pixel shuffle, projector) that stand in the prompt where <image> was; the language
 * model answers in text.
 *
 * Use: ivl_device_open -> ivl_model_load (or ivl_model_share) -> ivl_image_new per picture ->
 * ivl_session_new -> ivl_session_ask. Two threads per model batch what all sessions ask for: the scheduler, for words, and
 * the encoder, for pictures.
 *
 * Threads: every function may be called from any thread; an IvlSession takes one question at a time.
 * Ownership: objects are reference counted, *_unref takes NULL. Strings handed out are owned as said.
 * Errors: functions that take a GError ** return NULL or FALSE and set it, in the domain IVL_ERROR; the
 * message names the cause and what to do about it.
 */
#ifndef INTERNVL_H
#define INTERNVL_H

#include <glib.h>
#include <gio/gio.h>

G_BEGIN_DECLS

#pragma GCC visibility push (default)

/* ---- errors ---- */

#define IVL_ERROR (ivl_error_quark ())

typedef enum {
  IVL_ERROR_NO_DEVICE,     /* no Vulkan driver, or none that matches the name */
  IVL_ERROR_DEVICE_LOST,   /* the driver gave up; the device and its models can't be used any more */
  IVL_ERROR_OUT_OF_MEMORY, /* the message holds bytes needed and bytes found */
  IVL_ERROR_UNSUPPORTED,   /* valid, but not something this engine does */
  IVL_ERROR_BAD_MODEL,     /* a model file is missing, corrupt, or contradicts its config.json */
  IVL_ERROR_BAD_ARGUMENT,  /* the caller's mistake */
  IVL_ERROR_CONTEXT_FULL,  /* prompt and answer don't fit the model's context */
  IVL_ERROR_CANCELLED,
  IVL_ERROR_IO,            /* a file can't be read */
  IVL_ERROR_INTERNAL,      /* a broken promise of this library: please report */
} IvlErrorCode;

GQuark ivl_error_quark (void);

/* ---- device ---- */

typedef struct IvlDevice IvlDevice;

/* Opens a Vulkan device. NAME: NULL or "" means $INTERNVL_DEVICE, else the best one (discrete, integrated,
 * virtual, then software); "cpu" / "gpu" by kind; a number as listed by ivl_device_list; or part of a device's
 * name in any case. */
IvlDevice *ivl_device_open (const char *name, GError **error);

/* The host application's own Vulkan objects, borrowed: they must outlive the IvlDevice, see release. Handles are passed
 * as void * so that this header doesn't need vulkan.h. Instance and device must be Vulkan 1.2 or newer; no feature or
 * extension need be enabled. */
typedef struct {
  void *instance;        /* VkInstance */
  void *physical_device; /* VkPhysicalDevice */
  void *device;          /* VkDevice */
  void *queue;           /* VkQueue of a family with compute */
  guint32 queue_family;
  /* Taken round every submission, from any thread; NULL if the queue is the engine's alone. */
  void (*lock_queue) (gpointer data);
  void (*unlock_queue) (gpointer data);
  /* Called once the engine is through with them, on any thread; may be NULL. Not if importing fails. */
  void (*release) (gpointer data);
  gpointer data;
} IvlDeviceImport;
/* Importing the same device and queue again gives the same IvlDevice; then what IMPORT brings is released at once. */
IvlDevice *ivl_device_import (const IvlDeviceImport *import, GError **error);

IvlDevice *ivl_device_ref (IvlDevice *device);
void ivl_device_unref (IvlDevice *device);
const char *ivl_device_get_name (IvlDevice *device); /* borrowed */

/* Names of the devices found, in the order of their numbers; free with g_strfreev. */
char **ivl_device_list (GError **error);

/* ---- model ---- */

typedef struct IvlModel IvlModel;

/* How matrix weights are held on the device. AUTO keeps the checkpoint's own type (F16 where GGUF has quantised ones).
 * What is converted is kept in $INTERNVL_CACHE, else the XDG cache folder, for the next time. Q8 and Q4 are made while loading,
 * in blocks of 32 with a scale: 8.5 and 4.5 bits a weight. Q4 is for the language model's layers; the vision tower,
 * the embeddings and the output head are Q8 then. */
typedef enum {
  IVL_WEIGHTS_AUTO,
  IVL_WEIGHTS_F32,
  IVL_WEIGHTS_F16,
  IVL_WEIGHTS_BF16,
  IVL_WEIGHTS_Q8,
  IVL_WEIGHTS_Q4,
} IvlWeights;

/* Speculation: tokens are guessed from the prompt and from answers before, and verified several at a time. Answers are
 * the same with and without, sampled ones too: bit by bit on software drivers, and on GPUs while all that is forwarded at
 * once is at most 16 tokens; beyond, to within rounding, as the same question alone and beside others is. AUTO: as much as
 * pays, by what is measured while answering; ALWAYS: every guess there is, for tests. Not of answers with choices or a
 * json_schema. */
typedef enum { IVL_SPECULATION_AUTO, IVL_SPECULATION_OFF, IVL_SPECULATION_ALWAYS } IvlSpeculation;

typedef struct {
  IvlWeights weights;
  guint context_tokens; /* KV cache of one session, at most; 0: min (config's max_position_embeddings, 8192) */
  guint max_sessions;   /* sessions that decode side by side; 0: 16 */
  guint64 kv_bytes;     /* KV cache of all sessions, grown as needed up to this; 0: what the device has to spare */
  IvlSpeculation speculation;
} IvlModelParams;

/* Loads a Hugging Face checkpoint folder: config.json, *.safetensors, tokenizer files; or a GGUF text model, its file or
 * a folder of it, with the mmproj file beside it. PARAMS may be NULL.
 * Blocks for seconds to minutes. CANCELLABLE may be NULL. */
IvlModel *ivl_model_load (IvlDevice *device, const char *path, const IvlModelParams *params,
                          GCancellable *cancellable, GError **error);

/* As ivl_device_open + ivl_model_load, but callers in one process that name the same folder, device and
 * parameters get the same model. Concurrent callers wait for the one that loads. */
IvlModel *ivl_model_share (const char *device_name, const char *path, const IvlModelParams *params,
                           GCancellable *cancellable, GError **error);

/* The same on DEVICE, such as a host's. */
IvlModel *ivl_model_share_on (IvlDevice *device, const char *path, const IvlModelParams *params,
                              GCancellable *cancellable, GError **error);

IvlDevice *ivl_model_get_device (IvlModel *model); /* borrowed */
IvlModel *ivl_model_ref (IvlModel *model);
/* Sessions, images, and questions and encoding under way hold references of their own; the last one stops the model's
 * threads. If it goes on one of these, in a callback or after it, what the model held is freed soon after. A process that
 * ends by exit () or by returning from main () waits for that, and gives up, without calling back, what is under way in
 * models that are still referenced. */
void ivl_model_unref (IvlModel *model);
/* The same, and waits until the model is freed: for as long as there are other references. Not in a callback. */
void ivl_model_unref_wait (IvlModel *model);

typedef struct {
  const char *name;         /* borrowed; the folder's last path element */
  const char *architecture; /* borrowed; e.g. "InternViT 24x1024 + Qwen2 24x896" */
  guint tile_size;          /* pixels a side */
  guint tokens_per_tile;
  guint context_tokens;
  guint vocab_size;
  guint64 weight_bytes;     /* on the device */
} IvlModelInfo;
void ivl_model_get_info (IvlModel *model, IvlModelInfo *info);

/* Sums since the model was loaded; times are nanoseconds that the device was busy. */
typedef struct {
  guint64 tiles_encoded, tiles_reused, prompt_tokens, generated_tokens, prompt_tokens_reused;
  guint64 encode_ns, prefill_ns, decode_ns;
  guint64 decode_steps; /* batched forwards; generated_tokens / decode_steps = mean batch, times what guesses bring */
  guint64 draft_tokens, draft_tokens_held; /* guessed by speculation, and those of them that were right */
  guint64 encode_batches; /* tiles_encoded / encode_batches = mean batch */
} IvlModelStats;
void ivl_model_get_stats (IvlModel *model, IvlModelStats *stats);

/* ---- who shares a model ---- */

/* One of those that share a model, say a camera. Where work waits (pictures for the encoder, questions for a place, prompts
 * to be read), clients take turns: whoever had least of it, by its share, is next. Answers that are being written all go on
 * together. */
typedef struct IvlClient IvlClient;
IvlClient *ivl_client_new (void);
IvlClient *ivl_client_ref (IvlClient *client);
void ivl_client_unref (IvlClient *client);
/* Every step up doubles the client's share while others wait; nobody is left out. Out of range values are clamped. 0 before
 * it is set. Holds at once. */
#define IVL_PRIORITY_MIN (-8)
#define IVL_PRIORITY_MAX 8
void ivl_client_set_priority (IvlClient *client, gint priority);

/* ---- pictures ---- */

/* A picture in memory, in any layout of samples at constant strides. Component 0, 1, 2 are R, G, B or Y, U, V. */
typedef struct {
  struct {
    const guint8 *data; /* first byte of the top row */
    gssize stride;      /* bytes from a row to the next; negative for bottom-up pictures */
    gsize row_bytes;    /* bytes of a row that may be read */
    guint rows;
  } planes[4];
  guint n_planes;
  struct {
    guint8 plane;
    guint8 pixel_stride; /* bytes from a sample to the next */
    guint8 offset;       /* bytes from the row's start to the first sample */
    guint8 bytes;        /* 1 or 2 (little endian unless big_endian) */
    guint8 big_endian;
    guint8 shift;        /* value = (raw >> shift) & ((1 << depth) - 1) */
    guint8 depth;        /* bits, 1..16 */
    guint8 w_sub, h_sub; /* log2 of the subsampling */
  } components[3];
  guint width, height;
  /* rgb[i] = matrix[i][0..2] . (c0, c1, c2) + matrix[i][3] with samples as value / (2^depth - 1) and RGB in 0..1;
   * then clamped and rounded to 8 bits, as the reference sees pictures. */
  float matrix[3][4];
  /* Part of the picture to use, in pixels; all zero means the whole. */
  guint crop_x, crop_y, crop_width, crop_height;
} IvlPicture;

/* Fills matrix for full-range RGB samples. */
void ivl_picture_set_rgb_matrix (IvlPicture *picture);
/* Fills matrix for Y'CbCr with luma weights KR and KB (BT.709: 0.2126, 0.0722). All components must have DEPTH bits. */
void ivl_picture_set_yuv_matrix (IvlPicture *picture, double kr, double kb, gboolean full_range, guint depth);
/* Packed 8-bit RGB, 3 bytes a pixel. */
void ivl_picture_init_rgb (IvlPicture *picture, const guint8 *data, guint width, guint height, gsize stride);

/* ---- pictures on the device ---- */

/* A picture that the host has in Vulkan images or DMA-BUFs: copied by the device, on the engine's queue. It goes to the
 * encoder without passing through system memory. */
typedef struct IvlDevicePicture IvlDevicePicture;

/* A plane of it. Several may be in one image. */
typedef struct {
  guint64 image;         /* VkImage of the imported device, with the usage TRANSFER_SRC; its first level and layer are read */
  guint32 format;        /* VkFormat of the image */
  guint32 aspect;        /* VkImageAspectFlagBits: COLOR, or PLANE_0, _1, _2 of a multi-planar image */
  guint32 layout;        /* VkImageLayout it is in, and is left in */
  guint32 queue_family;  /* that it belongs to: it is acquired, and the engine's is written here; VK_QUEUE_FAMILY_IGNORED
                          * if it is the engine's or shared */
  guint64 semaphore;     /* timeline VkSemaphore: wait_value is waited for, and signal_value set; 0: what was submitted to
                          * the engine's queue before is done first, and that is enough */
  guint64 wait_value, signal_value;
  guint32 width, height; /* of the image: its first plane's, if it is multi-planar */
} IvlPlaneImage;

/* Submits the copy and returns; IMAGES, one a plane, must stay until ivl_device_picture_wait. LAYOUT says what is where:
 * as for ivl_image_new, except that data and stride are not looked at, and row_bytes and rows are the part of each image
 * that is copied, from its corner. READBACK: for ivl_device_picture_get instead of the encoder. */
IvlDevicePicture *ivl_device_picture_new (IvlDevice *device, const IvlPicture *layout, IvlPlaneImage *images,
                                          gboolean readback, GError **error);

/* A plane in a DMA-BUF, row behind row (linear, in words of DRM). */
typedef struct {
  int fd;         /* borrowed, for the call */
  guint64 offset; /* bytes, of the top row's first one */
  gssize stride;  /* bytes from a row to the next; negative for bottom-up pictures */
} IvlPlaneDmabuf;

/* Whether DEVICE reads DMA-BUFs where they are. Not one that ivl_device_import made. */
gboolean ivl_device_imports_dmabuf (IvlDevice *device);
/* As ivl_device_picture_new, with PLANES, one a plane of LAYOUT (of those that have rows), in DMA-BUFs. Waits for whoever
 * still writes them; what they hold must stay until ivl_device_picture_wait. IVL_ERROR_UNSUPPORTED: the device can't
 * read these, mapped they may well be. IVL_ERROR_BAD_ARGUMENT: a plane reaches outside of its DMA-BUF. */
IvlDevicePicture *ivl_device_picture_new_from_dmabuf (IvlDevice *device, const IvlPicture *layout,
                                                      const IvlPlaneDmabuf *planes, gboolean readback, GError **error);

/* Until the copy is done. */
gboolean ivl_device_picture_wait (IvlDevicePicture *picture, GError **error);
/* The picture in system memory, made for READBACK, after waiting. OUT is valid as long as PICTURE. */
gboolean ivl_device_picture_get (IvlDevicePicture *picture, IvlPicture *out, GError **error);
IvlDevice *ivl_device_picture_get_device (IvlDevicePicture *picture); /* borrowed */
IvlDevicePicture *ivl_device_picture_ref (IvlDevicePicture *picture);
void ivl_device_picture_unref (IvlDevicePicture *picture); /* waits */

/* ---- images ---- */

/* A picture of a model, on its way to embeddings. Encoded once, whoever asks about it and however often. */
typedef struct IvlImage IvlImage;

/* Copies the pixels and returns at once. MAX_TILES: 1 squashes the picture into one tile (frames of a video);
 * more allows the reference's dynamic tiling plus thumbnail (stills). */
IvlImage *ivl_image_new (IvlModel *model, const IvlPicture *picture, guint max_tiles, GError **error);
/* The same for a stream of frames: if the picture differs from PREVIOUS (the frame before; NULL: there is none) by less
 * than THRESHOLD, PREVIOUS's embeddings stand in for its own and nothing is encoded. Compared on the device, after
 * resizing, with the frame that was last encoded: the largest mean absolute difference of any patch, in levels of 0 to
 * 255. THRESHOLD 0: always encoded, as with ivl_image_new. */
IvlImage *ivl_image_new_after (IvlModel *model, const IvlPicture *picture, guint max_tiles, IvlImage *previous,
                               float threshold, GError **error);
/* The same for a picture on the model's own device. */
IvlImage *ivl_image_new_from_device (IvlModel *model, IvlDevicePicture *picture, guint max_tiles, IvlImage *previous,
                                     float threshold, GError **error);
/* Sets, in place of what ivl_image_new_after was given, the frame that stands in for IMAGE if they are alike: for streams
 * of which not every frame is asked about. No effect once IMAGE is asked about or prefetched. */
void ivl_image_set_previous (IvlImage *image, IvlImage *previous);

/* How a frame differs from the one before it in its stream. */
typedef struct {
  float motion; /* largest mean absolute difference of any patch, in levels of 0 to 255 */
  float scene;  /* 0 ... 1: the part of the picture whose luma is another; of its histogram, so what moves counts little */
} IvlImageChange;

/* CHANGE is NULL if ERROR is set. On the encoder's thread: return soon. */
typedef void (*IvlChangeFunc) (IvlImage *image, const IvlImageChange *change, const GError *error, gpointer user_data);
/* Compares IMAGE with PREVIOUS on the device, before either is encoded (and whether or not it ever will be). DONE is called
 * once. PREVIOUS must have been compared before, with whatever was before that; NULL, or one of another shape: everything
 * is new, motion is 255 and scene 1. Nothing must have been asked about IMAGE yet. */
void ivl_image_compare_async (IvlImage *image, IvlImage *previous, IvlChangeFunc done, gpointer user_data);

/* Whether another frame's embeddings stand in; known once an answer used it. */
gboolean ivl_image_is_reused (IvlImage *image);
IvlImage *ivl_image_ref (IvlImage *image);
void ivl_image_unref (IvlImage *image);
/* Asks for encoding now rather than when first needed by a question, in CLIENT's turn (NULL: nobody's in particular). */
void ivl_image_prefetch (IvlImage *image, IvlClient *client);
guint ivl_image_get_n_tiles (IvlImage *image);

/* ---- questions and answers ---- */

typedef struct {
  guint max_tokens;          /* generated tokens at most */
  float temperature;         /* 0: greedy */
  float top_p;               /* 0..1; 1: off */
  guint top_k;               /* 0: off */
  guint64 seed;              /* same seed, prompt and device: same answer */
  float repetition_penalty;  /* 1: off; over the answer's own tokens, as the reference's chat () has it */
  const char *const *stop;   /* NULL or a NULL-terminated list: the answer ends before the first of these */
} IvlGenerateParams;
#define IVL_GENERATE_PARAMS_INIT { 1024, 0.f, 1.f, 0, 0, 1.f, NULL }

typedef enum {
  IVL_MEDIA_IMAGES, /* one: "<image>\n" + prompt; several: "Image-1: <image>\n..." */
  IVL_MEDIA_VIDEO,  /* "Frame1: <image>\nFrame2: <image>\n..." + prompt; a single frame as one image */
} IvlMedia;

/* A piece of the answer, valid UTF-8, as soon as it is known. Called on the scheduler's thread: return soon. */
typedef void (*IvlTextFunc) (const char *piece, gpointer user_data);

typedef struct {
  const char *system_prompt; /* NULL: the model's own; only read by a session's first question */
  const char *prompt;        /* UTF-8; literal <image> marks where images go, else they are put in front */
  IvlImage *const *images;   /* new ones of this turn */
  guint n_images;
  IvlMedia media;
  IvlGenerateParams params;
  IvlTextFunc text_func;     /* may be NULL */
  gpointer text_data;
  /* Constrained answers: at most one of these two, and no stop strings beside it. Their mistakes are
   * IVL_ERROR_BAD_ARGUMENT with the place; the first such question to a model takes up to a second longer. */
  const char *const *choices; /* NULL, or a NULL-terminated list of at most 65536 texts: the answer is one of these,
                               * and the answer's choice_probabilities say how likely each is. None may be empty,
                               * given twice, or have more tokens than there is room for. temperature and seed hold;
                               * top_p, top_k and repetition_penalty don't matter. Takes a decode step per distinct
                               * token of all choices, or of the answer alone if there are many: see IvlAnswer */
  const char *json_schema;   /* NULL, or a JSON Schema: the answer is JSON that is valid by it, whatever max_tokens is, or
                              * the question is refused: max_tokens must be at least the bytes of the shortest valid
                              * answer. Understood: type (one name), enum, const; properties, required,
                              * additionalProperties (false, which is the default here); items, minItems, maxItems;
                              * minLength, maxLength; minimum and maximum of integers; any other keyword that isn't an
                              * annotation is refused. Compact, one space after ':' and ',' at most; properties in the
                              * schema's order */
} IvlQuestion;

typedef enum { IVL_FINISH_STOP, IVL_FINISH_LENGTH, IVL_FINISH_CANCELLED } IvlFinish;

typedef struct {
  char *text;               /* stripped; special tokens left out except ref, box, quad and their ends */
  IvlFinish finish;
  guint prompt_tokens, generated_tokens, prompt_tokens_reused;
  guint draft_tokens, draft_tokens_held; /* guessed by speculation, and those of them that were right */
  double confidence;        /* mean probability of the generated tokens */
  guint64 encode_ns, prefill_ns, decode_ns; /* wall time of this question's stages */
  /* With choices, and not cancelled; else -1, NULL and 0. Of up to 64 choices with up to 512 tokens together (common
   * beginnings count once) a choice's probability is the model's own of all its tokens and an end after them, over the
   * sum of all choices'; at temperature 0 the answer is the likeliest of them. Of more, the model decides token by token
   * between what the choices allow; that is the probability of the answer, and choices that share a beginning which
   * wasn't taken share its probability evenly. */
  gint choice;               /* index of the answer */
  double *choice_probabilities; /* sums to 1; before temperature */
  guint n_choices;
} IvlAnswer;
void ivl_answer_free (IvlAnswer *answer);

/* A conversation. Holds KV cache only from its first question on. */
typedef struct IvlSession IvlSession;
IvlSession *ivl_session_new (IvlModel *model, GError **error);
IvlSession *ivl_session_ref (IvlSession *session);
void ivl_session_unref (IvlSession *session);

/* Whose turn the session's questions take from now on; before, it is a client of its own. CLIENT is referenced. */
void ivl_session_set_client (IvlSession *session, IvlClient *client);

/* Blocks until answered. A cancelled question returns an answer with the text so far and
 * IVL_FINISH_CANCELLED; a failed one returns NULL, and the conversation is as before the question. */
IvlAnswer *ivl_session_ask (IvlSession *session, const IvlQuestion *question, GError **error);

/* As above without blocking. Everything in QUESTION is copied or referenced. DONE is called once, on the scheduler's
 * thread, with ANSWER (owned by the callee) or ERROR (borrowed). */
typedef void (*IvlAnswerFunc) (IvlSession *session, IvlAnswer *answer, const GError *error, gpointer user_data);
gboolean ivl_session_ask_async (IvlSession *session, const IvlQuestion *question, IvlAnswerFunc done,
                                gpointer user_data, GError **error);

/* Ends the question under way, within one token; no effect if there is none. */
void ivl_session_cancel (IvlSession *session);
/* Forgets the conversation. Fails while a question is under way. */
gboolean ivl_session_reset (IvlSession *session, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlDevice, ivl_device_unref)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlModel, ivl_model_unref)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlClient, ivl_client_unref)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlDevicePicture, ivl_device_picture_unref)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlImage, ivl_image_unref)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlSession, ivl_session_unref)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlAnswer, ivl_answer_free)

#pragma GCC visibility pop

G_END_DECLS

#endif
