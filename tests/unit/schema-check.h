/* Whether a text is valid JSON of a schema: a second opinion, written without a look at the engine's. */
#ifndef SCHEMA_CHECK_H
#define SCHEMA_CHECK_H

#include <json-glib/json-glib.h>

/* Fails the test, with both in the message, if TEXT isn't what SCHEMA asks for. */
void schema_check (const char *schema, const char *text);

#endif
