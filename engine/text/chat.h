/* The chat template internvl2_5, as token ids.
 *
 *   [bos] <|im_start|> "system\n" SYSTEM <|im_end|> "\n"
 *   <|im_start|> "user\n" QUESTION <|im_end|> "\n" <|im_start|> "assistant\n"   ANSWER <|im_end|> "\n"   ... again
 *
 * Text between two special tokens is encoded in one go, as the reference does, so "user\n" and the question share
 * tokens if the vocabulary says so. In questions each literal "<image>" becomes <img>, tokens_per_tile times the
 * picture's tiles of <IMG_CONTEXT>, </img>. If a turn has pictures and its question has no "<image>", they
 * go in front:
 *   one picture                    "<image>\n"
 *   several                        "Image-1: <image>\nImage-2: <image>\n" ...
 *   several, frames of a video     "Frame1: <image>\nFrame2: <image>\n" ...
 * In system texts and answers "<image>" is plain text.
 *
 * A conversation can be rendered whole (ivl_chat_render), or turn by turn (ivl_chat_continue). With
 *   context 1 = render (turn 1)             generated 1 = what the model answered to it
 *   context k = context k-1 + generated k-1 + continue (turn k)
 * everything before continue's own ids is unchanged, so its KV cache stays good. Generated ids stand as they came; to
 * render the conversation whole with the answers as text (which the reference does) gives the same ids whenever the
 * answer's text is encoded, behind "assistant\n", as the ids that the model chose. Two things can differ: spellings that
 * the model chose but the tokenizer wouldn't, and names of added tokens that are no special ones (<tool_call>), which
 * stay in the text: the reference parses them again, IVL_ENCODE_LITERAL doesn't.
 */
#ifndef IVL_TEXT_CHAT_H
#define IVL_TEXT_CHAT_H

#include <internvl/internvl.h>

#include "text/tokenizer.h"

G_BEGIN_DECLS

/* The system text of the template, for checkpoints whose config.json has no "system_message" of their own. The -hf
 * layout has no system turn by default. */
#define IVL_CHAT_DEFAULT_SYSTEM                                                                                        \
  "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"

typedef struct IvlChat IvlChat;

/* Which added tokens are recognised inside system texts, questions and answers: IVL_ENCODE_LITERAL (none, right for
 * text of strangers), IVL_ENCODE_TAGS (for questions about <ref>things</ref>) or IVL_ENCODE_SPECIAL (all, as the
 * reference; text then can end its turn). Fails with IVL_ERROR_BAD_MODEL if the tokenizer lacks a token. Immutable
 * afterwards, for any number of threads. */
IvlChat *ivl_chat_new (IvlTokenizer *tokenizer, guint tokens_per_tile, IvlEncodeFlags parse, GError **error);
void ivl_chat_free (IvlChat *self); /* NULL is fine */

guint32 ivl_chat_get_image_id (const IvlChat *self); /* <IMG_CONTEXT> */
guint32 ivl_chat_get_end_id (const IvlChat *self);   /* <|im_end|> */

typedef struct {
  const char *question;
  gssize question_length;   /* bytes; -1: NUL-terminated */
  const guint *image_tiles; /* tiles of each picture of this turn */
  guint n_images;
  IvlMedia media;
  const char *answer;       /* NUL-terminated; NULL in the last turn, which is to be answered. White space round it
                             * is the caller's to strip, as the reference does */
} IvlChatTurn;

/* Appends a conversation from its very start to IDS (guint32). SYSTEM: text of the system turn, "" for an empty one,
 * NULL for no system turn. Fails with IVL_ERROR_BAD_ARGUMENT, IDS unchanged, if there are more or less "<image>"
 * than pictures, or text isn't UTF-8 or has U+0000 in it. */
gboolean ivl_chat_render (const IvlChat *self, const char *system, const IvlChatTurn *turns, guint n_turns,
                          GArray *ids, GError **error);

/* Appends what follows an answer: <|im_end|> unless ENDED (the answer's ids include it), "\n", TURN, "assistant\n".
 * Put other end tokens than <|im_end|> that a model stopped with out of the context first. */
gboolean ivl_chat_continue (const IvlChat *self, gboolean ended, const IvlChatTurn *turn, GArray *ids,
                            GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (IvlChat, ivl_chat_free)

G_END_DECLS

#endif
