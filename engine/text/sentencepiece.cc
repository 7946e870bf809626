#include "text/sentencepiece.h"

#include <sentencepiece_processor.h>

#include <exception>
#include <new>
#include <string>
#include <vector>

using sentencepiece::SentencePieceProcessor;

struct IvlSentencePiece {
  SentencePieceProcessor processor;
};

/* Runs BODY; what it throws becomes *WHY and FALLBACK. */
template <typename Body, typename Result>
static Result
guarded (char **why, Result fallback, Body body) noexcept
{
  try {
    return body ();
  } catch (const std::exception &e) {
    if (why)
      *why = g_strdup (e.what ());
  } catch (...) {
    if (why)
      *why = g_strdup ("unknown exception");
  }
  return fallback;
}

IvlSentencePiece *
ivl_sp_new (const guint8 *data, gsize size, char **why)
{
  return guarded (why, static_cast<IvlSentencePiece *> (nullptr), [&] () -> IvlSentencePiece * {
    auto *self = new IvlSentencePiece;
    try {
      auto status = self->processor.LoadFromSerializedProto ({ reinterpret_cast<const char *> (data), size });
      if (status.ok ())
        return self;
      *why = g_strdup (status.ToString ().c_str ());
    } catch (...) {
      delete self;
      throw;
    }
    delete self;
    return nullptr;
  });
}

void
ivl_sp_free (IvlSentencePiece *self)
{
  delete self;
}

guint
ivl_sp_get_n_pieces (const IvlSentencePiece *self)
{
  return guarded (nullptr, 0u, [&] { return static_cast<guint> (self->processor.GetPieceSize ()); });
}

gint32
ivl_sp_piece_id (const IvlSentencePiece *self, const char *piece, gsize length)
{
  return guarded (nullptr, -1, [&] { return self->processor.PieceToId ({ piece, length }); });
}

const char *
ivl_sp_get_piece (const IvlSentencePiece *self, guint32 id, gsize *length)
{
  *length = 0;
  return guarded (nullptr, "", [&] {
    const std::string &piece = self->processor.IdToPiece (static_cast<int> (id));
    *length = piece.size ();
    return piece.c_str ();
  });
}

gboolean
ivl_sp_encode (const IvlSentencePiece *self, const char *text, gsize length, GArray *ids, char **why)
{
  return guarded (why, FALSE, [&] () -> gboolean {
    std::vector<int> found;
    auto status = self->processor.Encode ({ text, length }, &found);
    if (!status.ok ()) {
      *why = g_strdup (status.ToString ().c_str ());
      return FALSE;
    }
    for (int id : found) {
      guint32 value = static_cast<guint32> (id);
      g_array_append_val (ids, value);
    }
    return TRUE;
  });
}
