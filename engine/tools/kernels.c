/* internvl-kernels: checks every kernel of this build against a C reference on the machine's own device, or times it.
 * Exit status: 0 all right, 1 something failed, 2 wrong arguments or no device. */
#include "check.h"

#include <stdio.h>
#include <string.h>

static const struct {
  const char *name;
  void (*run) (Check *c);
} families[] = {
  { "gemm", check_gemm },   { "norm", check_norm },   { "attention", check_attention },
  { "embed", check_embed }, { "image", check_image }, { "sampling", check_sampling },
};

int
main (int argc, char **argv)
{
  Check c = { 0 };
  g_autofree char *device = NULL, *kernel = NULL, *variant = NULL, *family = NULL;
  gint64 seed = -1;
  GOptionEntry entries[] = {
    { "kernel", 'k', 0, G_OPTION_ARG_STRING, &kernel, "Only kernels that match, * and ? allowed", "NAME" },
    { "variant", 'v', 0, G_OPTION_ARG_STRING, &variant, "Only variants that match, * and ? allowed", "NAME" },
    { "family", 'f', 0, G_OPTION_ARG_STRING, &family, "Only gemm, norm, attention, embed, image or sampling", "NAME" },
    { "seed", 's', 0, G_OPTION_ARG_INT64, &seed, "Repeat the random inputs of an earlier run", "N" },
    { "device", 'd', 0, G_OPTION_ARG_STRING, &device, "Vulkan device: number, part of its name, cpu or gpu", "NAME" },
    { "bench", 'b', 0, G_OPTION_ARG_NONE, &c.bench, "Time the cases, and some larger ones, after checking", NULL },
    { "quick", 'q', 0, G_OPTION_ARG_NONE, &c.quick, "Leave out two in three of the combinations that compile slowly", NULL },
    { "list", 'l', 0, G_OPTION_ARG_NONE, &c.list, "List kernels and variants", NULL },
    { "verbose", 0, 0, G_OPTION_ARG_NONE, &c.verbose, "A line for every case", NULL },
    { NULL },
  };
  g_autoptr (GOptionContext) context = g_option_context_new ("- check and time the Vulkan kernels");
  g_option_context_add_main_entries (context, entries, NULL);
  GError *error = NULL;
  if (!g_option_context_parse (context, &argc, &argv, &error) || argc > 1) {
    fprintf (stderr, "internvl-kernels: %s\n", error ? error->message : "too many arguments");
    return 2;
  }
  c.kernel = kernel;
  c.variant = variant;
  c.seed = seed >= 0 ? (guint64) seed : g_random_int ();
  if (!(c.device = ivl_device_open (device, &error)) || !(c.stream = ivl_vk_stream_new (c.device, &error))) {
    fprintf (stderr, "internvl-kernels: %s\n", error->message);
    return 2;
  }
  if (!c.list)
    printf ("device %s, seed %" G_GUINT64_FORMAT "\n", ivl_device_get_name (c.device), c.seed);
  gboolean known = !family;
  for (guint i = 0; i < G_N_ELEMENTS (families); i++)
    if (!family || strcmp (family, families[i].name) == 0) {
      families[i].run (&c);
      check_flush (&c);
      known = TRUE;
    }
  ivl_vk_stream_free (c.stream);
  ivl_device_unref (c.device);
  if (!known) {
    fprintf (stderr, "internvl-kernels: no family \"%s\"\n", family);
    return 2;
  }
  if (c.list)
    return 0;
  printf ("%u cases passed, %u failed, %u variants skipped; --seed %" G_GUINT64_FORMAT " repeats this\n", c.passed,
          c.failures, c.skipped, c.seed);
  return c.failures > 0;
}
