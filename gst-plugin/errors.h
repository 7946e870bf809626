/* GError of the engine -> error message of the element: the one place where that is decided. */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

/* Posts ERROR (borrowed) on the bus with what to do about it. Any thread, without locks held. */
void gst_internvl_post_error (GstElement *element, const GError *error);
/* The same text as a warning. SUPPRESSED: how many like it weren't posted since the last one. */
void gst_internvl_post_warning (GstElement *element, const GError *error, guint suppressed);

/* How to get a model, for messages about a missing one. */
#define GST_INTERNVL_HOW_TO_GET_A_MODEL \
  "Set the property model-path (or the environment variable INTERNVL_MODEL) to a folder as downloaded from " \
  "Hugging Face, with config.json, *.safetensors and the tokenizer's files: for instance " \
  "\"huggingface-cli download OpenGVLab/InternVL2_5-1B --local-dir InternVL2_5-1B\" (also -2B, -4B, -8B, ...), or " \
  "the small models/nano of this project's repository."

G_END_DECLS
