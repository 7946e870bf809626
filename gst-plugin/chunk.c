#include "chunk.h"

#include "framemap.h"

GstInternvlFrame *
gst_internvl_frame_new (GstBuffer *buffer, const GstVideoInfo *info)
{
  GstInternvlFrame *frame = g_new0 (GstInternvlFrame, 1);

  g_atomic_ref_count_init (&frame->refs);
  frame->buffer = buffer;
  frame->info = *info;
  frame->region = gst_internvl_seen_region (buffer, info);
  frame->max_tiles = 1;
  frame->timestamp = GST_CLOCK_TIME_NONE;
  return frame;
}

GstInternvlFrame *
gst_internvl_frame_ref (GstInternvlFrame *frame)
{
  g_atomic_ref_count_inc (&frame->refs);
  return frame;
}

void
gst_internvl_frame_unref (GstInternvlFrame *frame)
{
  if (!frame || !g_atomic_ref_count_dec (&frame->refs))
    return;
  ivl_device_picture_unref (frame->picture);
  gst_clear_buffer (&frame->buffer);
  ivl_image_unref (frame->image);
  g_free (frame->detections);
  g_free (frame);
}

void
gst_internvl_chunk_free (GstInternvlChunk *chunk)
{
  if (!chunk)
    return;
  g_ptr_array_unref (chunk->frames);
  g_free (chunk->stream_id);
  g_free (chunk->prompt);
  g_free (chunk->system_prompt);
  g_free (chunk->alert_on);
  g_free (chunk->id);
  g_clear_pointer (&chunk->choices, g_ptr_array_unref);
  g_free (chunk->json_schema);
  g_free (chunk);
}
