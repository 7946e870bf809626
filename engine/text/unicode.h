/* What byte-level BPE needs of Unicode: normal form C and Qwen2's cut into words. */
#ifndef IVL_TEXT_UNICODE_H
#define IVL_TEXT_UNICODE_H

#include <glib.h>

/* As g_utf8_validate, but U+0000 is a character like others. OFFSET (may be NULL) gets the first bad byte's place. */
gboolean ivl_utf8_validate (const char *text, gsize length, gsize *offset);

/* Normal form C of valid UTF-8; NULL if TEXT already is. Free with g_free. Unlike g_utf8_normalize, in O(n log n)
 * time for any text, and U+0000 doesn't end it. */
char *ivl_utf8_nfc (const char *text, gsize length, gsize *nfc_length);

/* Bytes of the first word of TEXT (valid UTF-8, LENGTH > 0) by Qwen2's regular expression
 *   (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 * which matches at every position. Linear: no regular expression engine, so no limits of one. */
gsize ivl_qwen2_word (const char *text, gsize length);

#endif
