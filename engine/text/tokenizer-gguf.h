/* The tokenizer inside a GGUF text model: tokenizer.ggml.model "gpt2" (with pre "qwen2") or "llama".
 *
 * "gpt2" is byte-level BPE by tokens and merges. "llama" is SentencePiece BPE by tokens and scores: the SentencePiece
 * model is written anew from them and goes the way of a folder's tokenizer.model, so that both encode alike. Control and
 * user-defined tokens become added tokens, control ones special. The converter marks by their looks what Qwen2.5's own
 * files call plain (<|fim_prefix|> and the like): that is undone by name. */
#ifndef IVL_TEXT_TOKENIZER_GGUF_H
#define IVL_TEXT_TOKENIZER_GGUF_H

#include "tensor/gguf.h"
#include "text/tokenizer.h"

IvlTokenizer *ivl_tokenizer_new_from_gguf (const IvlGguf *file, GError **error);

#endif
