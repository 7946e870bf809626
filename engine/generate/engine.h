/* The private side of IvlModel, IvlImage and IvlSession, shared by the files of generate/.
 *
 * Two threads per model, each with a stream of its own and all that is recorded on it: the scheduler answers requests,
 * the encoder looks at images. While one of them records, or turns logits into text, the device works for the other; each
 * has one submission under way at most, so on a device's queue they take turns. Other threads hand work over under `lock`.
 * Continuous batching: every forward takes one token of each request that decodes and fills up with chunks of prompts. */
#ifndef IVL_GENERATE_ENGINE_H
#define IVL_GENERATE_ENGINE_H

#include "generate/choices.h"
#include "generate/constraint.h"
#include "generate/draft.h"
#include "generate/prefix.h"
#include "kernels/image.h"
#include "kernels/sampling.h"
#include "model/weights.h"
#include "text/chat.h"
#include "text/stop.h"
#include "text/tokenizer.h"

typedef struct IvlRequest IvlRequest;

/* Work that others wait for takes about this long at most before they have their turn, unless its smallest part takes
 * longer: layers of the encoder in one submission, prompt tokens beside those who decode. Nobody reads faster. */
#define IVL_TURN_NS (40u * 1000 * 1000)

/* What clients take turns at, each counted in its own unit: tiles, and prompt tokens. */
typedef enum { TURN_ENCODE, TURN_PROMPT, N_TURNS } IvlTurn;

struct IvlClient {
  gint ref_count;
  gint priority;              /* atomic */
  double used[N_TURNS];       /* under model->lock: what it had, by its share */
};

struct IvlModel {
  gint ref_count;
  guint64 id;                 /* no other model of the process has it */
  char *share_key;            /* in the registry of ivl_model_share, or NULL */
  IvlDevice *device;
  char *name, *architecture;
  IvlConfig *config;
  IvlTokenizer *tokenizer;
  IvlChat *chat;
  const char *system_prompt;  /* borrowed; NULL: no system turn unless asked for */
  GHashTable *stop_ids;       /* tokens that end an answer */
  guint context_tokens, max_sessions;
  IvlSpeculation speculation;
  IvlModelWeights weights;
  GMutex vocabulary_lock;
  IvlVocabulary *vocabulary;  /* made when first needed, see ivl_model_get_vocabulary */

  /* the scheduler's alone */
  IvlVkStream *stream;
  IvlDecoderRun decoder_run;
  IvlSampler sampler;
  IvlDraftMemory said;
  IvlDraftCosts draft_costs;
  double draft_rate;          /* with which a guess held lately; where new requests begin */
  double prompt_ns;           /* of a prompt token, lately; 0: not known */

  /* the encoder's alone */
  IvlVkStream *vision_stream;
  IvlVitRun vit_run;

  GMutex kv_lock;             /* for pages: sessions give theirs back from any thread */
  IvlKvCache kv;
  IvlPrefixCache prefixes;
  GQueue sessions;            /* IvlSession *, no references; who was answered last is last */

  GThread *thread, *vision_thread;
  GMutex lock;
  GCond wake;                 /* the scheduler's: there are news, or quit */
  guint64 news;               /* counts what it may want to look at: arrivals, images that are ready, who was cancelled */
  GCond vision_wake;          /* the encoder's: there are images or changes, or quit */
  bool quit;                  /* nobody is left who could want anything */
  bool halt;                  /* the process ends */
  GThread *last;              /* see end_threads */
  GQueue images;              /* IvlImage *, owned references, waiting to be encoded */
  GQueue changes;             /* waiting to be compared; see change.c */
  GQueue arrivals;            /* IvlRequest *, waiting to be taken up */
  double clock[N_TURNS];      /* what the client had whose turn was last: who comes back from a rest begins there */
  IvlModelStats stats;
  guint64 next_serial;
};

typedef enum { IMAGE_NEW, IMAGE_QUEUED, IMAGE_READY, IMAGE_FAILED } IvlImageState;

struct IvlImage {
  gint ref_count;
  IvlModel *model;
  guint64 serial;
  guint n_tiles;
  IvlImagePlan plan;
  IvlVkBuffer *upload;        /* pixels, and tables for them; freed once encoded */
  IvlDevicePicture *picture;  /* owned: or pixels that were on the device; likewise */
  IvlVkBuffer *embeddings;    /* [tiles * tile_tokens, H], once ready; see ivl_image_source */
  IvlVkBuffer *tiles;         /* u8 RGB, to compare later ones with; of images with a threshold, or luma */
  guint32 *luma;              /* histograms; NULL: not compared yet. If there are any, tiles take the place of upload */
  IvlImage *previous;         /* owned, until compared */
  float threshold;
  IvlImage *origin;           /* owned: the one whose embeddings this uses, being like it; NULL: its own */
  IvlClient *client;          /* owned; whose turn it takes, once queued; NULL: nobody's */
  IvlImageState state;        /* under model->lock */
  GError *error;              /* if failed */
};

struct IvlSession {
  gint ref_count;
  IvlModel *model;
  GMutex lock;
  IvlClient *client;          /* owned */
  IvlRequest *busy;           /* borrowed */
  GArray *history;            /* guint32, the conversation so far as the decoder takes it; empty: none */
  GPtrArray *images;          /* IvlImage *, of all turns */
  IvlSequence sequence;       /* the scheduler's while busy; pages under model->kv_lock, and who is idle may lose them */
  GList link;                 /* in model->sessions */
  GArray *cached;             /* guint64 per token of sequence: what it was, to find what can be kept */
};

/* The image that holds the embeddings of IMAGE, once it is ready. */
static inline IvlImage *
ivl_image_source (IvlImage *image)
{
  return image->origin ? image->origin : image;
}

typedef enum { REQUEST_PREFILL, REQUEST_DECODE } IvlRequestState;

/* A question on its way through the scheduler. */
struct IvlRequest {
  IvlSession *session;
  bool owns_session;          /* a reference; a blocking caller holds its own */
  IvlClient *client;          /* owned */
  IvlGenerateParams params;
  char **stop;
  IvlTextFunc text_func;
  gpointer text_data;
  IvlAnswerFunc done;
  gpointer done_data;
  gint cancelled;             /* atomic */

  IvlRequestState state;
  GArray *tokens;             /* guint32: the prompt, IVL_TOKEN_IMAGE for image rows, then what was generated */
  GArray *keys;               /* guint64 per token: equal keys, equal KV */
  GPtrArray *images;          /* IvlImage *, of all turns, in order */
  guint *image_before;        /* image rows before each token of the prompt */
  guint n_prompt, n_reused, n_generated;
  guint n_drafted, n_held;    /* guessed tokens, and those that were right */
  double draft_rate;
  bool begun;                 /* images are ready, and the session's sequence holds a beginning of tokens */
  bool cut_short;             /* by a stop string */
  IvlTextDecoder *decoder;
  IvlStopMatcher *matcher;
  IvlConstraint *constraint;  /* or NULL */
  IvlChoices *choices;        /* or NULL */
  GString *answer;
  double probability_sum;
  gint64 submitted_us, encoded_us, prefilled_us;
};

/* ahead.c: begins to make what will be needed of pipelines, on threads of their own. What can't be is made when it is
 * needed. MAX_ROWS: of a decoder forward. */
void ivl_model_prepare_pipelines (IvlModel *model, const IvlCheckpoint *checkpoint, int dtype, guint max_rows);

/* model.c; borrowed from the model. */
IvlVocabulary *ivl_model_get_vocabulary (IvlModel *model);

/* Generated tokens that there is room for. */
static inline guint
ivl_request_max_tokens (const IvlRequest *request)
{
  return MIN (request->params.max_tokens, request->session->model->context_tokens - request->n_prompt);
}

/* Once all images are ready: image rows get the keys of the embeddings they really use. */
void ivl_request_settle_keys (IvlRequest *request);
/* The scheduler's last words on a request: updates the conversation. ANSWER is NULL if it failed. */
void ivl_session_take_answer (IvlSession *session, IvlRequest *request, const IvlAnswer *answer);
void ivl_request_free (IvlRequest *request);

/* A time that was measured again. A first one has shaders compiled in it, and is soon forgotten. */
static inline double
ivl_ns_lately (double known, double ns)
{
  return known > 0. ? known + (ns - known) / 4. : ns;
}

/* With model->lock: there is something for the scheduler to look at. */
static inline void
ivl_model_tell (IvlModel *model)
{
  model->news++;
  g_cond_signal (&model->wake);
}

/* client.c; all with model->lock. */
/* CLIENT NULL: nobody in particular. */
double ivl_client_used (const IvlClient *client, IvlTurn turn);
/* CLIENT has its turn, of AMOUNT. */
void ivl_client_charge (IvlModel *model, IvlClient *client, IvlTurn turn, double amount);
/* As ivl_image_prefetch. */
void ivl_image_queue (IvlImage *image, IvlClient *client);

/* change.c: how frames differ; on the encoder's thread. */
typedef struct IvlChanges IvlChanges;
IvlChanges *ivl_changes_new (IvlModel *model);
void ivl_changes_free (IvlChanges *changes);
/* Compares a few of those that wait. FALSE if there are none. */
bool ivl_changes_step (IvlChanges *changes);

/* The two threads, until model->quit or halt. */
void ivl_scheduler_run (IvlModel *model);
void ivl_encoder_run (IvlModel *model);

#endif
