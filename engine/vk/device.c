/* Choosing a device, asking for features, and turning VkResult into GError. */
#include "vk/device.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vk/shader-threads.h"

/* Devices that take fewer texels in a buffer would have weights cut into many small slices. */
#define LEAST_TEXELS (1u << 23)

static const char *
result_name (VkResult result)
{
  switch (result) {
#define R(name)                                                                                    \
  case name:                                                                                       \
    return #name;
    R (VK_ERROR_OUT_OF_HOST_MEMORY)
    R (VK_ERROR_OUT_OF_DEVICE_MEMORY)
    R (VK_ERROR_INITIALIZATION_FAILED)
    R (VK_ERROR_DEVICE_LOST)
    R (VK_ERROR_MEMORY_MAP_FAILED)
    R (VK_ERROR_LAYER_NOT_PRESENT)
    R (VK_ERROR_EXTENSION_NOT_PRESENT)
    R (VK_ERROR_FEATURE_NOT_PRESENT)
    R (VK_ERROR_INCOMPATIBLE_DRIVER)
    R (VK_ERROR_TOO_MANY_OBJECTS)
    R (VK_ERROR_FORMAT_NOT_SUPPORTED)
    R (VK_ERROR_FRAGMENTED_POOL)
    R (VK_ERROR_OUT_OF_POOL_MEMORY)
    R (VK_ERROR_INVALID_EXTERNAL_HANDLE)
#undef R
  default:
    return "VkResult";
  }
}

gboolean
ivl_vk_fail (IvlDevice *device, VkResult result, const char *call, GError **error)
{
  IvlErrorCode code = IVL_ERROR_INTERNAL;
  const char *remedy = "";
  switch (result) {
  case VK_ERROR_OUT_OF_HOST_MEMORY:
  case VK_ERROR_OUT_OF_DEVICE_MEMORY:
    code = IVL_ERROR_OUT_OF_MEMORY;
    remedy = "; free memory, or use a smaller model, context or weight type";
    break;
  case VK_ERROR_DEVICE_LOST:
    code = IVL_ERROR_DEVICE_LOST;
    remedy = "; the device stopped working: open it again, and see the system log for the driver's reason";
    if (device)
      g_atomic_int_set (&device->lost, 1);
    break;
  case VK_ERROR_INITIALIZATION_FAILED:
  case VK_ERROR_INCOMPATIBLE_DRIVER:
    code = IVL_ERROR_NO_DEVICE;
    remedy = "; install a Vulkan driver (Debian: mesa-vulkan-drivers, which has a software one too)";
    break;
  default:
    break;
  }
  int length = (int) strcspn (call, " (");
  return ivl_fail (error, code, "Vulkan: %.*s failed: %s (%d)%s", length, call, result_name (result), result, remedy);
}

static bool
has_extension (const VkExtensionProperties *extensions, guint32 n, const char *name)
{
  for (guint32 i = 0; i < n; i++)
    if (strcmp (extensions[i].extensionName, name) == 0)
      return true;
  return false;
}

static bool
knows_names (void)
{
  guint32 n = 0;
  if (vkEnumerateInstanceExtensionProperties (NULL, &n, NULL) < 0)
    return false;
  g_autofree VkExtensionProperties *extensions = g_new0 (VkExtensionProperties, n + 1);
  return vkEnumerateInstanceExtensionProperties (NULL, &n, extensions) >= 0
         && has_extension (extensions, n, VK_EXT_DEBUG_UTILS_EXTENSION_NAME);
}

static VkInstance
create_instance (GError **error)
{
  const char *names = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
  VkApplicationInfo app = { .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                            .pApplicationName = "internvl",
                            .pEngineName = "internvl",
                            .apiVersion = VK_API_VERSION_1_2 };
  VkInstanceCreateInfo info = { .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                .pApplicationInfo = &app,
                                .enabledExtensionCount = knows_names (),
                                .ppEnabledExtensionNames = &names };
  VkInstance instance = VK_NULL_HANDLE;
  VkResult result = vkCreateInstance (&info, NULL, &instance);
  if (result != VK_SUCCESS) {
    ivl_vk_fail (NULL, result, "vkCreateInstance", error);
    return VK_NULL_HANDLE;
  }
  return instance;
}

static int
compute_family (VkPhysicalDevice physical)
{
  VkQueueFamilyProperties families[32];
  guint32 n = G_N_ELEMENTS (families);
  vkGetPhysicalDeviceQueueFamilyProperties (physical, &n, families);
  int best = -1;
  for (guint32 i = 0; i < n; i++) {
    if (!(families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) || families[i].queueCount == 0)
      continue;
    /* A family without graphics is a compute engine of its own and doesn't wait behind the desktop. */
    if (best < 0 || !(families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT))
      best = (int) i;
  }
  return best;
}

static int
type_rank (VkPhysicalDeviceType type)
{
  switch (type) {
  case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
    return 0;
  case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
    return 1;
  case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
    return 2;
  case VK_PHYSICAL_DEVICE_TYPE_OTHER:
    return 3;
  default:
    return 4;
  }
}

/* Devices that can serve, in the order the driver lists them. */
static GArray *
list_devices (VkInstance instance, GError **error)
{
  guint32 n = 0;
  VkResult result = vkEnumeratePhysicalDevices (instance, &n, NULL);
  g_autofree VkPhysicalDevice *all = g_new0 (VkPhysicalDevice, n + 1);
  if (result >= 0)
    result = vkEnumeratePhysicalDevices (instance, &n, all);
  if (result < 0) {
    ivl_vk_fail (NULL, result, "vkEnumeratePhysicalDevices", error);
    return NULL;
  }
  GArray *list = g_array_new (FALSE, FALSE, sizeof (VkPhysicalDevice));
  for (guint32 i = 0; i < n; i++) {
    VkPhysicalDeviceProperties properties;
    vkGetPhysicalDeviceProperties (all[i], &properties);
    if (properties.apiVersion >= VK_API_VERSION_1_2 && compute_family (all[i]) >= 0)
      g_array_append_val (list, all[i]);
  }
  if (list->len == 0) {
    g_array_unref (list);
    ivl_fail (error, IVL_ERROR_NO_DEVICE,
              "No Vulkan 1.2 device found (%u older or without compute); install a driver (Debian: "
              "mesa-vulkan-drivers, which has a software one too)", n);
    return NULL;
  }
  return list;
}

char **
ivl_device_list (GError **error)
{
  VkInstance instance = create_instance (error);
  if (!instance)
    return NULL;
  GArray *list = list_devices (instance, error);
  char **names = NULL;
  if (list) {
    names = g_new0 (char *, list->len + 1);
    for (guint i = 0; i < list->len; i++) {
      VkPhysicalDeviceProperties properties;
      vkGetPhysicalDeviceProperties (g_array_index (list, VkPhysicalDevice, i), &properties);
      names[i] = g_strdup (properties.deviceName);
    }
    g_array_unref (list);
  }
  vkDestroyInstance (instance, NULL);
  return names;
}

static VkPhysicalDevice
choose_device (VkInstance instance, const char *name, GError **error)
{
  if (!name || !*name)
    name = g_getenv ("INTERNVL_DEVICE");
  GArray *list = list_devices (instance, error);
  if (!list)
    return VK_NULL_HANDLE;

  VkPhysicalDevice chosen = VK_NULL_HANDLE;
  g_autoptr (GString) found = g_string_new (NULL);
  int best = G_MAXINT;
  char *end = NULL;
  guint64 index = name && *name ? g_ascii_strtoull (name, &end, 10) : 0;
  bool by_index = name && *name && end && !*end;
  for (guint i = 0; i < list->len; i++) {
    VkPhysicalDevice candidate = g_array_index (list, VkPhysicalDevice, i);
    VkPhysicalDeviceProperties properties;
    vkGetPhysicalDeviceProperties (candidate, &properties);
    g_string_append_printf (found, "%s%u: %s", i ? ", " : "", i, properties.deviceName);
    bool match = true;
    if (by_index)
      match = index == i;
    else if (name && g_ascii_strcasecmp (name, "cpu") == 0)
      match = properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
    else if (name && g_ascii_strcasecmp (name, "gpu") == 0)
      match = properties.deviceType != VK_PHYSICAL_DEVICE_TYPE_CPU;
    else if (name && *name) {
      g_autofree char *have = g_ascii_strdown (properties.deviceName, -1);
      g_autofree char *want = g_ascii_strdown (name, -1);
      match = strstr (have, want) != NULL;
    }
    int rank = type_rank (properties.deviceType);
    if (match && rank < best) {
      best = rank;
      chosen = candidate;
    }
  }
  g_array_unref (list);
  if (!chosen)
    ivl_fail (error, IVL_ERROR_NO_DEVICE, "No Vulkan device matches \"%s\"; found: %s", name, found->str);
  return chosen;
}

/* INTERNVL_DEBUG: for tests of what the device at hand isn't. */
enum {
  DEBUG_TEXELS = 1 << 0,  /* bulk inputs through texel buffers where they fit */
  DEBUG_BUFFERS = 1 << 1, /* ... through storage buffers */
  DEBUG_MINIMUM = 1 << 2, /* no more than what Vulkan 1.2 asks of every device */
  DEBUG_GPU = 1 << 3,     /* taken for a discrete one: kernels for GPUs, transfers through staging */
  DEBUG_UNBOUND = 1 << 4, /* its threads run on any processor */
  DEBUG_UNDIVIDED = 1 << 5, /* matmuls leave it to the driver who does what */
};

static guint
debug_flags (void)
{
  static const GDebugKey keys[] = {
    { "texels", DEBUG_TEXELS }, { "buffers", DEBUG_BUFFERS }, { "minimum", DEBUG_MINIMUM }, { "gpu", DEBUG_GPU },
    { "unbound", DEBUG_UNBOUND }, { "undivided", DEBUG_UNDIVIDED },
  };
  return g_parse_debug_string (g_getenv ("INTERNVL_DEBUG"), keys, G_N_ELEMENTS (keys));
}

/* Vulkan 1.2, table "Required Limits": those that kernels and buffers depend on. */
static void
limit_to_minimum (VkPhysicalDeviceLimits *limits)
{
  limits->maxTexelBufferElements = 65536;
  limits->maxStorageBufferRange = 1u << 27;
  limits->maxPushConstantsSize = 128;
  limits->maxPerStageDescriptorStorageBuffers = 4;
  limits->maxPerStageDescriptorSampledImages = 16;
  limits->maxComputeSharedMemorySize = 16384;
  limits->maxComputeWorkGroupInvocations = 128;
  for (guint i = 0; i < 3; i++) {
    limits->maxComputeWorkGroupCount[i] = 65535;
    limits->maxComputeWorkGroupSize[i] = i < 2 ? 128 : 64;
  }
  limits->minStorageBufferOffsetAlignment = 256;
  limits->minTexelBufferOffsetAlignment = 256;
}

/* Mesa's software driver from VERSION on. */
static bool
is_lavapipe (const IvlDevice *self, guint version)
{
  return self->driver == VK_DRIVER_ID_MESA_LLVMPIPE && self->mesa >= version;
}

/* lavapipe of Mesa 22.3 and 25.0 gathers from texel buffers and reads storage buffers lane by lane: 16x16 matmuls in f16 from
 * texels 21 GFLOP a CPU-second against 8 (25.0, 256-bit vectors). That of 26 gathers from both: 42 against 21 from texels. */
static bool
gathers_only_texels (const IvlDevice *self)
{
  return is_lavapipe (self, 0) && !is_lavapipe (self, 26);
}

/* lavapipe of Mesa 25 and newer has fma () done by the processor: 16x16 matmuls in f16 39 GFLOP a CPU-second against 31 with
 * 512-bit vectors, 45 against 36 with 256 (26.2), 40 against 20, 21 against 12 (25.0). That of 22.3 makes a multiplication and
 * an addition of it, at half the speed. */
static bool
fuses (const IvlDevice *self)
{
#if defined(__x86_64__) || defined(__i386__)
  return is_lavapipe (self, 25) && self->software && self->subgroup_size >= 8 && __builtin_cpu_supports ("fma");
#else
  return false;
#endif
}

/* lavapipe of Mesa 25 and newer: a value at the same index for all lanes is one load that broadcasts if read by address. From
 * a storage buffer its index is compared, branched for, loaded, stored and broadcast, a third of the instructions of a 16x16
 * matmul: f16 61 GFLOP a CPU-second against 51 with 512-bit vectors, 37 against 26 with 256 (26.2); attention 17 against 5
 * (25.0). That of 22.3 loads lane by lane, at a fifth of the speed. */
static bool
broadcasts_by_address (const IvlDevice *self)
{
  return is_lavapipe (self, 25);
}

bool
ivl_vk_use_texels (IvlDevice *self, VkDeviceSize bytes, int force)
{
  return (force < 0 ? self->texels : force) && bytes / 16 <= self->properties.limits.maxTexelBufferElements;
}

static void
query_properties (IvlDevice *self)
{
  /* A host's instance gives the function only if the extension is enabled there. */
  self->set_name = (PFN_vkSetDebugUtilsObjectNameEXT)
    vkGetInstanceProcAddr (self->instance, "vkSetDebugUtilsObjectNameEXT");
  guint32 n_extensions = 0;
  vkEnumerateDeviceExtensionProperties (self->physical, NULL, &n_extensions, NULL);
  g_autofree VkExtensionProperties *extensions = g_new0 (VkExtensionProperties, n_extensions + 1);
  vkEnumerateDeviceExtensionProperties (self->physical, NULL, &n_extensions, extensions);
  self->memory_budget = has_extension (extensions, n_extensions, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
  VkPhysicalDeviceExternalMemoryHostPropertiesEXT host = {
    .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT
  };
  VkPhysicalDeviceSubgroupProperties subgroup = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES,
                                                  .pNext = self->host_import ? &host : NULL };
  VkPhysicalDeviceDriverProperties driver = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES,
                                              .pNext = &subgroup };
  VkPhysicalDeviceProperties2 properties = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                             .pNext = &driver };
  vkGetPhysicalDeviceProperties2 (self->physical, &properties);
  self->properties = properties.properties;
  g_strlcpy (self->name, properties.properties.deviceName, sizeof self->name);
  memcpy (self->pipeline_uuid, properties.properties.pipelineCacheUUID, VK_UUID_SIZE);
  self->driver = driver.driverID;
  /* "Mesa 25.0.7 (LLVM 19.1.7)": lavapipe's driverVersion is 0.0.1 up to some of 25. */
  if (sscanf (driver.driverInfo, "Mesa %u.", &self->mesa) != 1)
    self->mesa = 0;
  self->subgroup_size = MAX (subgroup.subgroupSize, 1);
  self->coopmat_lanes = 4 * self->subgroup_size;
  self->subgroup_arithmetic = (subgroup.supportedStages & VK_SHADER_STAGE_COMPUTE_BIT)
                              && (subgroup.supportedOperations & VK_SUBGROUP_FEATURE_ARITHMETIC_BIT);
  self->subgroup_ballot = (subgroup.supportedStages & VK_SHADER_STAGE_COMPUTE_BIT)
                          && (subgroup.supportedOperations & VK_SUBGROUP_FEATURE_BALLOT_BIT);
  self->host_import_alignment = host.minImportedHostPointerAlignment;
  self->software = self->properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
  guint debug = debug_flags ();
  if (debug & DEBUG_GPU) {
    self->software = false;
    self->subgroup_size = 32;
  }
  if (debug & DEBUG_MINIMUM)
    limit_to_minimum (&self->properties.limits);
  self->fused = fuses (self);
  bool divides = self->software && is_lavapipe (self, 0) && !(debug & DEBUG_UNDIVIDED);
  self->processors = divides ? g_get_num_processors () : 0;
  self->addresses = self->addresses && self->software && !(debug & DEBUG_MINIMUM);
  self->broadcasts = self->addresses && broadcasts_by_address (self) && !(debug & (DEBUG_TEXELS | DEBUG_BUFFERS));
  self->texels = debug & DEBUG_TEXELS || (gathers_only_texels (self) && !(debug & (DEBUG_BUFFERS | DEBUG_GPU)));
  if (self->properties.limits.maxTexelBufferElements < LEAST_TEXELS)
    self->texels = false;
  vkGetPhysicalDeviceMemoryProperties (self->physical, &self->memory);
  self->unified = true;
  for (guint32 i = 0; i < self->memory.memoryTypeCount; i++)
    if ((self->memory.memoryTypes[i].propertyFlags & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT)
        && !(self->memory.memoryTypes[i].propertyFlags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT))
      self->unified = false;
  self->unified = self->unified && self->properties.deviceType != VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU
                  && !(debug & DEBUG_GPU);

  VkQueueFamilyProperties families[32];
  guint32 n = G_N_ELEMENTS (families);
  vkGetPhysicalDeviceQueueFamilyProperties (self->physical, &n, families);
  self->timestamps = self->queue_family < n && families[self->queue_family].timestampValidBits > 0
                     && self->properties.limits.timestampPeriod > 0;
}

#ifdef VK_KHR_cooperative_matrix
/* The largest product of those that divide the shader's tiles and fit its staging. */
static void
query_coopmat (IvlDevice *self)
{
  PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR query
    = (PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR) vkGetInstanceProcAddr (
      self->instance, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
  guint32 n = 0;
  if (!query || query (self->physical, &n, NULL) < 0 || n == 0)
    return;
  g_autofree VkCooperativeMatrixPropertiesKHR *all = g_new0 (VkCooperativeMatrixPropertiesKHR, n);
  for (guint32 i = 0; i < n; i++)
    all[i].sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
  if (query (self->physical, &n, all) < 0)
    return;
  guint64 best = 0;
  for (guint32 i = 0; i < n; i++) {
    const VkCooperativeMatrixPropertiesKHR *c = &all[i];
    if (c->scope != VK_SCOPE_SUBGROUP_KHR || c->AType != VK_COMPONENT_TYPE_FLOAT16_KHR
        || c->BType != VK_COMPONENT_TYPE_FLOAT16_KHR || c->CType != VK_COMPONENT_TYPE_FLOAT32_KHR
        || c->ResultType != VK_COMPONENT_TYPE_FLOAT32_KHR || c->saturatingAccumulation)
      continue;
    guint64 size = (guint64) c->MSize * c->NSize * c->KSize;
    if (c->MSize < 4 || 32 % c->MSize || c->NSize < 4 || 32 % c->NSize || c->KSize < 4 || 32 % c->KSize
        || c->MSize * c->NSize > 256 || size <= best)
      continue;
    best = size;
    self->coopmat_m = c->MSize;
    self->coopmat_n = c->NSize;
    self->coopmat_k = c->KSize;
  }
}
#endif

static gboolean
create_device (IvlDevice *self, GError **error)
{
  guint32 n = 0;
  vkEnumerateDeviceExtensionProperties (self->physical, NULL, &n, NULL);
  g_autofree VkExtensionProperties *extensions = g_new0 (VkExtensionProperties, n + 1);
  vkEnumerateDeviceExtensionProperties (self->physical, NULL, &n, extensions);
  self->host_import = has_extension (extensions, n, VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME);

  const char *enabled[8];
  guint32 n_enabled = 0;
  if (self->host_import)
    enabled[n_enabled++] = VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME;
  self->dmabuf = has_extension (extensions, n, VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME)
                 && has_extension (extensions, n, VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME)
                 && !(debug_flags () & DEBUG_MINIMUM);
  if (self->dmabuf) {
    bool foreign = has_extension (extensions, n, VK_EXT_QUEUE_FAMILY_FOREIGN_EXTENSION_NAME);
    self->dmabuf_family = foreign ? VK_QUEUE_FAMILY_FOREIGN_EXT : VK_QUEUE_FAMILY_EXTERNAL;
    enabled[n_enabled++] = VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME;
    enabled[n_enabled++] = VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME;
    if (foreign)
      enabled[n_enabled++] = VK_EXT_QUEUE_FAMILY_FOREIGN_EXTENSION_NAME;
  }

  VkPhysicalDeviceVulkan12Features v12 = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES };
#ifdef VK_KHR_cooperative_matrix
  VkPhysicalDeviceCooperativeMatrixFeaturesKHR coopmat = {
    .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR
  };
  /* A shader with cooperative matrices must require full subgroups (VUID-RuntimeSpirv-OpTypeCooperativeMatrixKHR-10770). */
  VkPhysicalDeviceSubgroupSizeControlFeaturesEXT full = {
    .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES_EXT
  };
  bool has_coopmat = has_extension (extensions, n, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME)
                     && has_extension (extensions, n, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME);
  if (has_coopmat) {
    coopmat.pNext = &full;
    v12.pNext = &coopmat;
  }
#endif
  VkPhysicalDeviceFeatures2 have = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &v12 };
  vkGetPhysicalDeviceFeatures2 (self->physical, &have);
  VkPhysicalDeviceVulkan12Features want = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
                                            .hostQueryReset = v12.hostQueryReset,
                                            .bufferDeviceAddress = v12.bufferDeviceAddress };
  self->addresses = v12.bufferDeviceAddress;
#ifdef VK_KHR_cooperative_matrix
  /* With the memory model on, barriers of the other kernels too need its device scope. */
  if (has_coopmat && coopmat.cooperativeMatrix && full.computeFullSubgroups && v12.shaderFloat16 && v12.vulkanMemoryModel
      && v12.vulkanMemoryModelDeviceScope)
    query_coopmat (self);
  if (self->coopmat_m) {
    enabled[n_enabled++] = VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME;
    enabled[n_enabled++] = VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME;
    want.shaderFloat16 = want.vulkanMemoryModel = want.vulkanMemoryModelDeviceScope = VK_TRUE;
    full = (VkPhysicalDeviceSubgroupSizeControlFeaturesEXT){
      .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES_EXT, .computeFullSubgroups = VK_TRUE
    };
    coopmat = (VkPhysicalDeviceCooperativeMatrixFeaturesKHR){
      .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR, .pNext = &full, .cooperativeMatrix = VK_TRUE
    };
    want.pNext = &coopmat;
  }
#endif
  float priority = 0.5f;
  VkDeviceQueueCreateInfo queue = { .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                    .queueFamilyIndex = self->queue_family,
                                    .queueCount = 1,
                                    .pQueuePriorities = &priority };
  VkDeviceCreateInfo info = { .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                              .pNext = &want,
                              .queueCreateInfoCount = 1,
                              .pQueueCreateInfos = &queue,
                              .enabledExtensionCount = n_enabled,
                              .ppEnabledExtensionNames = enabled };
  VK_TRY (self, vkCreateDevice (self->physical, &info, NULL, &self->device));
  vkGetDeviceQueue (self->device, self->queue_family, 0, &self->queue);
  self->timestamps = v12.hostQueryReset;
  return TRUE;
fail:
  return FALSE;
}

/* Of a device that has the extensions: what of it holds for buffers that are copied from. */
static void
query_dmabuf (IvlDevice *self)
{
  VkPhysicalDeviceExternalBufferInfo info = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_BUFFER_INFO,
                                              .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT,
                                              .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT };
  VkExternalBufferProperties properties = { .sType = VK_STRUCTURE_TYPE_EXTERNAL_BUFFER_PROPERTIES };
  vkGetPhysicalDeviceExternalBufferProperties (self->physical, &info, &properties);
  VkExternalMemoryFeatureFlags features = properties.externalMemoryProperties.externalMemoryFeatures;
  self->get_fd_properties = (PFN_vkGetMemoryFdPropertiesKHR) vkGetDeviceProcAddr (self->device,
                                                                                  "vkGetMemoryFdPropertiesKHR");
  self->dmabuf = self->get_fd_properties && (features & VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT);
  self->dmabuf_dedicated = features & VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT;
}

static IvlDevice *
device_alloc (void)
{
  IvlDevice *self = g_new0 (IvlDevice, 1);
  self->ref_count = 1;
  g_mutex_init (&self->queue_lock);
  g_mutex_init (&self->pipeline_lock);
  g_cond_init (&self->pipeline_made);
  g_mutex_init (&self->memory_lock);
  return self;
}

IvlDevice *
ivl_device_open (const char *name, GError **error)
{
  IvlDevice *self = device_alloc ();
  self->instance = create_instance (error);
  if (!self->instance || !(self->physical = choose_device (self->instance, name, error)))
    goto fail;
  self->queue_family = (guint32) compute_family (self->physical);
  IvlShaderThreads threads;
  ivl_shader_threads_begin (&threads);
  bool created = create_device (self, error);
  bool reset = self->timestamps;
  if (created)
    query_properties (self);
  guint bound = ivl_shader_threads_end (&threads, created && is_lavapipe (self, 0) && !(debug_flags () & DEBUG_UNBOUND));
  if (!created)
    goto fail;
  self->timestamps = self->timestamps && reset;
  if (self->dmabuf)
    query_dmabuf (self);
  ivl_vk_pipelines_init (self);
  g_debug ("device: %s, subgroup %u, %s memory, %u threads bound to a processor each", self->name, self->subgroup_size,
           self->unified ? "unified" : "own", bound);
  return self;
fail:
  ivl_device_unref (self);
  return NULL;
}

/* Those alive, to find one again. */
static GMutex imports_lock;
static GList *imports; /* of IvlDevice, no references */

static IvlDevice *
find_import (const IvlDeviceImport *import)
{
  for (GList *l = imports; l; l = l->next) {
    IvlDevice *device = l->data;
    if (device->host.device == import->device && device->host.queue == import->queue)
      return ivl_device_ref (device);
  }
  return NULL;
}

IvlDevice *
ivl_device_import (const IvlDeviceImport *import, GError **error)
{
  if (!import || !import->instance || !import->physical_device || !import->device || !import->queue) {
    ivl_fail (error, IVL_ERROR_BAD_ARGUMENT, "ivl_device_import: a handle is missing");
    return NULL;
  }
  g_mutex_lock (&imports_lock);
  IvlDevice *self = find_import (import);
  if (self) {
    g_mutex_unlock (&imports_lock);
    if (import->release)
      import->release (import->data);
    return self;
  }
  self = device_alloc ();
  self->imported = true;
  self->instance = import->instance;
  self->physical = import->physical_device;
  self->device = import->device;
  self->queue = import->queue;
  self->queue_family = import->queue_family;
  query_properties (self);
  if (self->properties.apiVersion < VK_API_VERSION_1_2) {
    ivl_fail (error, IVL_ERROR_UNSUPPORTED, "Vulkan device \"%s\" of the host is older than Vulkan 1.2", self->name);
    g_mutex_unlock (&imports_lock);
    self->device = VK_NULL_HANDLE;
    ivl_device_unref (self);
    return NULL;
  }
  self->host = *import;
  /* Whether the host enabled hostQueryReset can't be seen, so no timestamps. */
  self->timestamps = false;
  ivl_vk_pipelines_init (self);
  imports = g_list_prepend (imports, self);
  g_mutex_unlock (&imports_lock);
  return self;
}

void
ivl_vk_lock_queue (IvlDevice *self)
{
  if (self->host.lock_queue)
    self->host.lock_queue (self->host.data);
  else
    g_mutex_lock (&self->queue_lock);
}

void
ivl_vk_unlock_queue (IvlDevice *self)
{
  if (self->host.unlock_queue)
    self->host.unlock_queue (self->host.data);
  else
    g_mutex_unlock (&self->queue_lock);
}

IvlDevice *
ivl_device_ref (IvlDevice *self)
{
  g_atomic_int_inc (&self->ref_count);
  return self;
}

void
ivl_device_unref (IvlDevice *self)
{
  if (!self)
    return;
  if (self->imported)
    g_mutex_lock (&imports_lock);
  bool last = g_atomic_int_dec_and_test (&self->ref_count);
  if (self->imported) {
    if (last)
      imports = g_list_remove (imports, self);
    g_mutex_unlock (&imports_lock);
  }
  if (!last)
    return;
  if (self->device) {
    ivl_vk_pipelines_deinit (self);
    if (!self->imported)
      vkDestroyDevice (self->device, NULL);
  }
  if (self->instance && !self->imported)
    vkDestroyInstance (self->instance, NULL);
  if (self->host.release)
    self->host.release (self->host.data);
  g_mutex_clear (&self->queue_lock);
  g_mutex_clear (&self->pipeline_lock);
  g_cond_clear (&self->pipeline_made);
  g_mutex_clear (&self->memory_lock);
  g_free (self);
}

const char *
ivl_device_get_name (IvlDevice *self)
{
  return self->name;
}

gboolean
ivl_device_imports_dmabuf (IvlDevice *self)
{
  return self->dmabuf;
}

static guint64
host_available_bytes (void)
{
  g_autofree char *text = NULL;
  guint64 kib = 0;
  if (g_file_get_contents ("/proc/meminfo", &text, NULL, NULL)) {
    const char *line = strstr (text, "MemAvailable:");
    if (line)
      kib = g_ascii_strtoull (line + strlen ("MemAvailable:"), NULL, 10);
  }
  if (kib)
    return kib * 1024;
  return (guint64) sysconf (_SC_AVPHYS_PAGES) * (guint64) sysconf (_SC_PAGESIZE);
}

guint64
ivl_vk_available_bytes (IvlDevice *self)
{
  if (self->software)
    return host_available_bytes ();
  VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
    .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT
  };
  VkPhysicalDeviceMemoryProperties2 memory = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
                                               .pNext = self->memory_budget ? &budget : NULL };
  vkGetPhysicalDeviceMemoryProperties2 (self->physical, &memory);
  guint64 best = 0;
  for (guint32 i = 0; i < self->memory.memoryHeapCount; i++) {
    if (!(self->memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT))
      continue;
    guint64 left = self->memory.memoryHeaps[i].size;
    if (self->memory_budget)
      left = budget.heapBudget[i] > budget.heapUsage[i] ? budget.heapBudget[i] - budget.heapUsage[i] : 0;
    best = MAX (best, left);
  }
  return best;
}

void
ivl_vk_set_name (IvlDevice *self, VkObjectType type, guint64 handle, const char *format, ...)
{
  if (!self->set_name || !handle)
    return;
  va_list args;
  va_start (args, format);
  g_autofree char *name = g_strdup_vprintf (format, args);
  va_end (args);
  self->set_name (self->device, &(VkDebugUtilsObjectNameInfoEXT){
                                  .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_OBJECT_NAME_INFO_EXT,
                                  .objectType = type, .objectHandle = handle, .pObjectName = name });
}
