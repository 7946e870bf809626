/* Every kernel keeps to what Vulkan 1.2 asks of each device. */
#include "vk/pipeline.h"

#include <string.h>

static void
test_descriptors (void)
{
  for (guint i = 0; i < IVL_N_KERNELS; i++) {
    const IvlKernel *kernel = &ivl_kernels[i];
    guint storage = 0, texels = 0, addresses = 0;
    for (const char *letter = kernel->bindings; *letter; letter++) {
      storage += strchr ("rwx", *letter) != NULL;
      texels += strchr ("uf", *letter) != NULL;
      addresses += *letter == 'a';
    }
    g_test_message ("%s: %u storage buffers, %u texel buffers", kernel->name, storage, texels);
    g_assert_cmpuint (storage, <=, 4);  /* maxPerStageDescriptorStorageBuffers */
    g_assert_cmpuint (texels, <=, IVL_MAX_TEXELS);   /* of 16 that are required */
    g_assert_cmpuint (addresses, <=, IVL_MAX_ADDRESSES);
    g_assert_cmpuint (storage + texels + addresses, ==, strlen (kernel->bindings));
    g_assert_cmpuint (storage + texels + addresses, <=, IVL_MAX_BINDINGS);
  }
}

/* The SPIR-V's shared variables: "minimum" of INTERNVL_DEBUG can't see those. */
static guint
type_bytes (const guint32 *spirv, gsize words, guint32 id)
{
  for (gsize at = 5; at < words; at += MAX (spirv[at] >> 16, 1)) {
    const guint32 *op = spirv + at;
    guint code = op[0] & 0xffff;
    if (code < 19 || code > 32 || op[1] != id)
      continue;
    switch (code) {
    case 20: /* OpTypeBool */
      return 4;
    case 21: /* OpTypeInt */
    case 22: /* OpTypeFloat */
      return op[2] / 8;
    case 23: /* OpTypeVector */
      return type_bytes (spirv, words, op[2]) * op[3];
    case 28: /* OpTypeArray: the length is a constant, or the workgroup's size times something */
      for (gsize c = 5; c < words; c += MAX (spirv[c] >> 16, 1))
        if ((spirv[c] & 0xffff) == 43 && spirv[c + 2] == op[3]) /* OpConstant */
          return type_bytes (spirv, words, op[2]) * spirv[c + 3];
      return type_bytes (spirv, words, op[2]) * 128;
    default:
      return 0;
    }
  }
  return 0;
}

static void
test_shared_memory (void)
{
  guint most = 0;
  for (guint i = 0; i < IVL_N_KERNELS; i++) {
    const IvlKernel *kernel = &ivl_kernels[i];
    const guint32 *spirv = kernel->spirv;
    gsize words = kernel->spirv_bytes / 4;
    guint bytes = 0;
    for (gsize at = 5; at < words; at += MAX (spirv[at] >> 16, 1))
      if ((spirv[at] & 0xffff) == 59 && spirv[at + 3] == 4) /* OpVariable, Workgroup */
        for (gsize t = 5; t < words; t += MAX (spirv[t] >> 16, 1))
          if ((spirv[t] & 0xffff) == 32 && spirv[t + 1] == spirv[at + 1]) /* OpTypePointer */
            bytes += type_bytes (spirv, words, spirv[t + 3]);
    g_test_message ("%s: %u bytes shared", kernel->name, bytes);
    if (bytes > 16384 && !g_strrstr (kernel->name, "_gpu")) /* those ask first */
      g_error ("%s needs %u bytes of shared memory, every device has 16384", kernel->name, bytes);
    most = MAX (most, bytes);
  }
  g_assert_cmpuint (most, >=, 2048); /* the histogram's: something was found */
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/kernel-table/descriptors", test_descriptors);
  g_test_add_func ("/kernel-table/shared-memory", test_shared_memory);
  return g_test_run ();
}
