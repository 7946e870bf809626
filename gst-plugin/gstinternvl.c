/* The plugin. Registers without looking for a device: a machine that has none yet must not have the plugin
 * blacklisted. */
#include "gstinternvlelement.h"

static gboolean
plugin_init (GstPlugin *plugin)
{
  /* As the vulkan plugin: what is found here depends on the drivers installed. */
  const gchar *env_vars[] = { "VK_DRIVER_FILES", "VK_ICD_FILENAMES", NULL };
  const gchar *paths[] = { "/etc/vulkan/icd.d", "/usr/share/vulkan/icd.d", NULL };

  gst_plugin_add_dependency (plugin, env_vars, paths, NULL, GST_PLUGIN_DEPENDENCY_FLAG_NONE);
  return GST_ELEMENT_REGISTER (internvl, plugin);
}

GST_PLUGIN_DEFINE (GST_VERSION_MAJOR, GST_VERSION_MINOR, internvl, "InternVL 2.5: video to text on Vulkan",
    plugin_init, PACKAGE_VERSION, "LGPL", PACKAGE, PACKAGE_ORIGIN)
