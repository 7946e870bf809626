/* Pictures in images of the host's: read back as they went in, and answered like the same in system memory. */
#include "golden.h"

#include <internvl/internvl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vulkan/vulkan.h>

#define MAX_PLANES 3
#define OK(call) g_assert_cmpint (call, ==, VK_SUCCESS)

typedef struct {
  VkInstance instance;
  VkPhysicalDevice physical;
  VkDevice device;
  VkQueue queue;
  VkCommandPool pool;
  IvlDevice *engine;
} Host;

/* Images and what they hold, as rows without gaps. */
typedef struct {
  VkImage images[MAX_PLANES];
  VkDeviceMemory memories[MAX_PLANES];
  guint n_images;
  GByteArray *planes[MAX_PLANES];
  IvlPicture layout;
  IvlPlaneImage places[MAX_PLANES];
} Picture;

static void
set_up (Host *h, gconstpointer timelines)
{
  g_autoptr (GError) error = NULL;
  VkApplicationInfo app = { .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = VK_API_VERSION_1_2 };
  VkInstanceCreateInfo info = { .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &app };
  OK (vkCreateInstance (&info, NULL, &h->instance));
  guint32 n = 1;
  g_assert_cmpint (vkEnumeratePhysicalDevices (h->instance, &n, &h->physical), >=, 0);
  VkPhysicalDeviceVulkan12Features features = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
                                                .timelineSemaphore = VK_TRUE };
  float priority = 1.f;
  VkDeviceQueueCreateInfo queue = { .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                    .queueCount = 1,
                                    .pQueuePriorities = &priority };
  VkDeviceCreateInfo device = { .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                .pNext = timelines ? &features : NULL,
                                .queueCreateInfoCount = 1,
                                .pQueueCreateInfos = &queue };
  OK (vkCreateDevice (h->physical, &device, NULL, &h->device));
  vkGetDeviceQueue (h->device, 0, 0, &h->queue);
  VkCommandPoolCreateInfo pool = { .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO };
  OK (vkCreateCommandPool (h->device, &pool, NULL, &h->pool));
  IvlDeviceImport import = { .instance = h->instance, .physical_device = h->physical, .device = h->device,
                             .queue = h->queue };
  h->engine = ivl_device_import (&import, &error);
  g_assert_no_error (error);
}

static void
tear_down (Host *h, gconstpointer timelines)
{
  ivl_device_unref (h->engine);
  OK (vkDeviceWaitIdle (h->device));
  vkDestroyCommandPool (h->device, h->pool, NULL);
  vkDestroyDevice (h->device, NULL);
  vkDestroyInstance (h->instance, NULL);
}

static VkDeviceMemory
allocate (Host *h, VkMemoryRequirements needed, VkMemoryPropertyFlags flags)
{
  VkPhysicalDeviceMemoryProperties properties;
  VkDeviceMemory memory = VK_NULL_HANDLE;
  vkGetPhysicalDeviceMemoryProperties (h->physical, &properties);
  for (guint32 i = 0; i < properties.memoryTypeCount && !memory; i++)
    if ((needed.memoryTypeBits & 1u << i) && (properties.memoryTypes[i].propertyFlags & flags) == flags) {
      VkMemoryAllocateInfo info = { .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                    .allocationSize = needed.size,
                                    .memoryTypeIndex = i };
      OK (vkAllocateMemory (h->device, &info, NULL, &memory));
    }
  g_assert_true (memory);
  return memory;
}

/* Noise into a plane of IMAGE, which goes to LAYOUT. */
static void
fill_plane (Host *h, VkImage image, VkImageAspectFlags aspect, guint width, guint height, guint texel, VkImageLayout from,
            VkImageLayout layout, GByteArray *bytes)
{
  VkBuffer buffer;
  VkCommandBuffer commands;
  void *map;
  g_byte_array_set_size (bytes, width * height * texel);
  for (guint i = 0; i < bytes->len; i++)
    bytes->data[i] = (guint8) (g_test_rand_int_range (0, 64) + i % width * 192 / width);
  VkBufferCreateInfo info = { .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                              .size = bytes->len,
                              .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT };
  OK (vkCreateBuffer (h->device, &info, NULL, &buffer));
  VkMemoryRequirements needed;
  vkGetBufferMemoryRequirements (h->device, buffer, &needed);
  VkDeviceMemory memory = allocate (h, needed, VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT);
  OK (vkBindBufferMemory (h->device, buffer, memory, 0));
  OK (vkMapMemory (h->device, memory, 0, VK_WHOLE_SIZE, 0, &map));
  memcpy (map, bytes->data, bytes->len);
  VkCommandBufferAllocateInfo allocate_info = { .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                                .commandPool = h->pool,
                                                .commandBufferCount = 1 };
  OK (vkAllocateCommandBuffers (h->device, &allocate_info, &commands));
  VkCommandBufferBeginInfo begin = { .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO };
  OK (vkBeginCommandBuffer (commands, &begin));
  VkImageMemoryBarrier barrier = { .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER,
                                   .srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT,
                                   .dstAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT,
                                   .oldLayout = from,
                                   .newLayout = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL,
                                   .srcQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
                                   .dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
                                   .image = image,
                                   .subresourceRange = { VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1 } };
  vkCmdPipelineBarrier (commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_TRANSFER_BIT, 0, 0, NULL, 0, NULL, 1,
                        &barrier);
  VkBufferImageCopy region = { .imageSubresource = { aspect, 0, 0, 1 }, .imageExtent = { width, height, 1 } };
  vkCmdCopyBufferToImage (commands, buffer, image, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL, 1, &region);
  barrier.oldLayout = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL;
  barrier.newLayout = layout;
  if (layout != VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL)
    vkCmdPipelineBarrier (commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_TRANSFER_BIT, 0, 0, NULL, 0, NULL, 1,
                          &barrier);
  OK (vkEndCommandBuffer (commands));
  VkSubmitInfo submit = { .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &commands };
  OK (vkQueueSubmit (h->queue, 1, &submit, VK_NULL_HANDLE));
  OK (vkQueueWaitIdle (h->queue));
  vkDestroyBuffer (h->device, buffer, NULL);
  vkFreeMemory (h->device, memory, NULL);
}

static VkImage
make_image (Host *h, Picture *p, VkFormat format, guint width, guint height)
{
  VkImageCreateInfo info = { .sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO,
                             .imageType = VK_IMAGE_TYPE_2D,
                             .format = format,
                             .extent = { width, height, 1 },
                             .mipLevels = 1,
                             .arrayLayers = 1,
                             .samples = VK_SAMPLE_COUNT_1_BIT,
                             .usage = VK_IMAGE_USAGE_TRANSFER_SRC_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT
                                      | VK_IMAGE_USAGE_SAMPLED_BIT };
  guint i = p->n_images++;
  OK (vkCreateImage (h->device, &info, NULL, &p->images[i]));
  VkMemoryRequirements needed;
  vkGetImageMemoryRequirements (h->device, p->images[i], &needed);
  p->memories[i] = allocate (h, needed, 0);
  OK (vkBindImageMemory (h->device, p->images[i], p->memories[i], 0));
  return p->images[i];
}

typedef enum { RGBA, NV12_PLANES, NV12_MULTIPLANAR, I420 } Kind;

static gboolean
is_supported (Host *h, VkFormat format)
{
  VkFormatProperties properties;
  VkFormatFeatureFlags wanted = VK_FORMAT_FEATURE_TRANSFER_SRC_BIT | VK_FORMAT_FEATURE_TRANSFER_DST_BIT;
  vkGetPhysicalDeviceFormatProperties (h->physical, format, &properties);
  return (properties.optimalTilingFeatures & wanted) == wanted;
}

static gboolean
make_picture (Host *h, Picture *p, Kind kind, guint width, guint height, VkImageLayout layout)
{
  static const guint texels[][3] = { { 4 }, { 1, 2 }, { 1, 2 }, { 1, 1, 1 } };
  static const guint8 component_planes[][3] = { { 0, 0, 0 }, { 0, 1, 1 }, { 0, 1, 1 }, { 0, 1, 2 } };
  static const guint8 offsets[][3] = { { 0, 1, 2 }, { 0, 0, 1 }, { 0, 0, 1 }, { 0, 0, 0 } };
  memset (p, 0, sizeof *p);
  gboolean one = kind == NV12_MULTIPLANAR;
  if (one && !is_supported (h, VK_FORMAT_G8_B8R8_2PLANE_420_UNORM))
    return FALSE;
  VkImage whole = one ? make_image (h, p, VK_FORMAT_G8_B8R8_2PLANE_420_UNORM, width, height) : VK_NULL_HANDLE;
  p->layout.width = width;
  p->layout.height = height;
  p->layout.n_planes = kind == RGBA ? 1 : kind == I420 ? 3 : 2;
  for (guint i = 0; i < p->layout.n_planes; i++) {
    guint w = i ? (width + 1) / 2 : width, rows = i ? (height + 1) / 2 : height, texel = texels[kind][i];
    VkFormat format = one        ? VK_FORMAT_G8_B8R8_2PLANE_420_UNORM
                      : texel == 4 ? VK_FORMAT_R8G8B8A8_UNORM
                      : texel == 2 ? VK_FORMAT_R8G8_UNORM
                                   : VK_FORMAT_R8_UNORM;
    VkImageAspectFlags aspect = one ? VK_IMAGE_ASPECT_PLANE_0_BIT << i : VK_IMAGE_ASPECT_COLOR_BIT;
    VkImage image = one ? whole : make_image (h, p, format, w, rows);
    p->planes[i] = g_byte_array_new ();
    fill_plane (h, image, aspect, w, rows, texel, one && i ? layout : VK_IMAGE_LAYOUT_UNDEFINED, layout, p->planes[i]);
    p->layout.planes[i].row_bytes = w * texel;
    p->layout.planes[i].rows = rows;
    p->places[i] = (IvlPlaneImage){ (guint64) (gsize) image, format, aspect, layout, VK_QUEUE_FAMILY_IGNORED, 0, 0, 0,
                                    one ? width : w, one ? height : rows };
  }
  for (guint c = 0; c < 3; c++) {
    p->layout.components[c].plane = component_planes[kind][c];
    p->layout.components[c].pixel_stride = (guint8) texels[kind][component_planes[kind][c]];
    p->layout.components[c].offset = offsets[kind][c];
    p->layout.components[c].bytes = 1;
    p->layout.components[c].depth = 8;
    p->layout.components[c].w_sub = p->layout.components[c].h_sub = kind != RGBA && c ? 1 : 0;
  }
  if (kind == RGBA)
    ivl_picture_set_rgb_matrix (&p->layout);
  else
    ivl_picture_set_yuv_matrix (&p->layout, 0.2126, 0.0722, FALSE, 8);
  return TRUE;
}

static void
free_picture (Host *h, Picture *p)
{
  for (guint i = 0; i < p->n_images; i++) {
    vkDestroyImage (h->device, p->images[i], NULL);
    vkFreeMemory (h->device, p->memories[i], NULL);
  }
  for (guint i = 0; i < MAX_PLANES; i++)
    if (p->planes[i])
      g_byte_array_unref (p->planes[i]);
}

static void
assert_reads_back (Host *h, Picture *p)
{
  g_autoptr (GError) error = NULL;
  IvlPicture got;
  g_autoptr (IvlDevicePicture) read = ivl_device_picture_new (h->engine, &p->layout, p->places, TRUE, &error);
  g_assert_no_error (error);
  g_assert_true (ivl_device_picture_get (read, &got, &error));
  g_assert_no_error (error);
  for (guint i = 0; i < got.n_planes; i++)
    for (guint y = 0; y < got.planes[i].rows; y++)
      g_assert_cmpmem (got.planes[i].data + (gssize) y * got.planes[i].stride, got.planes[i].row_bytes,
                       p->planes[i]->data + y * got.planes[i].row_bytes, got.planes[i].row_bytes);
}

static void
test_read_back (Host *h, gconstpointer data)
{
  static const guint sizes[][2] = { { 64, 48 }, { 37, 53 }, { 1, 1 }, { 300, 2 } };
  static const VkImageLayout layouts[] = { VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL, VK_IMAGE_LAYOUT_GENERAL,
                                           VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL };
  for (Kind kind = RGBA; kind <= I420; kind++)
    for (guint s = 0; s < G_N_ELEMENTS (sizes); s++)
      for (guint l = 0; l < G_N_ELEMENTS (layouts); l++) {
        Picture p;
        /* Multi-planar images have even sides. */
        guint odd = kind == NV12_MULTIPLANAR;
        if (!make_picture (h, &p, kind, (sizes[s][0] + odd) & ~odd, (sizes[s][1] + odd) & ~odd, layouts[l])) {
          if (s + l == 0)
            g_test_message ("no multi-planar images on this device");
          continue;
        }
        /* Twice: the image is left as it was. */
        assert_reads_back (h, &p);
        assert_reads_back (h, &p);
        free_picture (h, &p);
      }
}

static char *
ask (IvlModel *model, IvlImage *image)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlSession) session = ivl_session_new (model, &error);
  IvlQuestion question = { .prompt = "What is it?", .images = &image, .n_images = 1,
                           .params = IVL_GENERATE_PARAMS_INIT };
  question.params.max_tokens = 24;
  g_autoptr (IvlAnswer) answer = ivl_session_ask (session, &question, &error);
  g_assert_no_error (error);
  return g_strdup_printf ("%s (%.17g)", answer->text, answer->confidence);
}

static void
test_answers (Host *h, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *path = golden_path ("models", "qwen2-ln-orig", NULL);
  g_autoptr (IvlModel) model = ivl_model_share_on (h->engine, path, NULL, NULL, &error);
  g_assert_no_error (error);
  g_autoptr (IvlModel) same = ivl_model_share_on (h->engine, path, NULL, NULL, &error);
  g_assert_true (same == model);
  g_assert_true (ivl_model_get_device (model) == h->engine);
  for (Kind kind = RGBA; kind <= I420; kind++)
    for (guint crop = 0; crop < 2; crop++) {
      Picture p;
      if (!make_picture (h, &p, kind, 254, 190, VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL))
        continue;
      if (crop) {
        p.layout.crop_x = 33;
        p.layout.crop_y = 17;
        p.layout.crop_width = 111;
        p.layout.crop_height = 90;
      }
      IvlPicture host = p.layout;
      for (guint i = 0; i < host.n_planes; i++) {
        host.planes[i].data = p.planes[i]->data;
        host.planes[i].stride = (gssize) host.planes[i].row_bytes;
      }
      g_autoptr (IvlImage) plain = ivl_image_new (model, &host, 1, &error);
      g_assert_no_error (error);
      g_autoptr (IvlDevicePicture) picture = ivl_device_picture_new (h->engine, &p.layout, p.places, FALSE, &error);
      g_assert_no_error (error);
      g_autoptr (IvlImage) image = ivl_image_new_from_device (model, picture, 1, plain, 1e-6f, &error);
      g_assert_no_error (error);
      g_assert_true (ivl_device_picture_wait (picture, &error));
      free_picture (h, &p);
      g_autofree char *expected = ask (model, plain), *got = ask (model, image);
      g_assert_cmpstr (got, ==, expected);
      /* Encoded by itself: the plain one keeps no tiles to compare with. */
      g_assert_false (ivl_image_is_reused (image));
    }
}

/* A timeline that the host goes on with. */
static void
test_semaphore (Host *h, gconstpointer data)
{
  Picture p;
  VkSemaphore semaphore;
  VkSemaphoreTypeCreateInfo type = { .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                     .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE };
  VkSemaphoreCreateInfo info = { .sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &type };
  OK (vkCreateSemaphore (h->device, &info, NULL, &semaphore));
  g_assert_true (make_picture (h, &p, NV12_PLANES, 64, 48, VK_IMAGE_LAYOUT_GENERAL));
  for (guint i = 0; i < 2; i++) {
    p.places[i].semaphore = (guint64) (gsize) semaphore;
    p.places[i].wait_value = 5;
    p.places[i].signal_value = 6;
  }
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlDevicePicture) picture = ivl_device_picture_new (h->engine, &p.layout, p.places, TRUE, &error);
  g_assert_no_error (error);
  guint64 value;
  OK (vkGetSemaphoreCounterValue (h->device, semaphore, &value));
  g_assert_cmpuint (value, ==, 0);
  VkSemaphoreSignalInfo signal = { .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO, .semaphore = semaphore, .value = 5 };
  OK (vkSignalSemaphore (h->device, &signal));
  g_assert_true (ivl_device_picture_wait (picture, &error));
  /* The same submission's, but drivers may signal it a moment after the fence. */
  guint64 next = 6;
  VkSemaphoreWaitInfo wait = { .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO, .semaphoreCount = 1,
                               .pSemaphores = &semaphore, .pValues = &next };
  OK (vkWaitSemaphores (h->device, &wait, 10 * 1000000000ull));
  OK (vkGetSemaphoreCounterValue (h->device, semaphore, &value));
  g_assert_cmpuint (value, ==, 6);
  vkDestroySemaphore (h->device, semaphore, NULL);
  free_picture (h, &p);
}

static void
expect (Host *h, Picture *p, IvlErrorCode code)
{
  g_autoptr (GError) error = NULL;
  g_assert_null (ivl_device_picture_new (h->engine, &p->layout, p->places, FALSE, &error));
  g_assert_error (error, IVL_ERROR, (gint) code);
}

static void
test_bad (Host *h, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  Picture p;
  g_assert_true (make_picture (h, &p, RGBA, 64, 48, VK_IMAGE_LAYOUT_GENERAL));
  IvlPlaneImage good = p.places[0];
  p.places[0].format = VK_FORMAT_BC1_RGB_UNORM_BLOCK;
  expect (h, &p, IVL_ERROR_UNSUPPORTED);
  p.places[0] = good;
  p.places[0].layout = VK_IMAGE_LAYOUT_UNDEFINED;
  expect (h, &p, IVL_ERROR_BAD_ARGUMENT);
  p.places[0] = good;
  p.places[0].image = 0;
  expect (h, &p, IVL_ERROR_BAD_ARGUMENT);
  p.places[0] = good;
  p.layout.planes[0].row_bytes--;
  expect (h, &p, IVL_ERROR_UNSUPPORTED);
  p.layout.planes[0].row_bytes++;
  p.places[0].height--;
  expect (h, &p, IVL_ERROR_BAD_ARGUMENT);
  p.places[0] = good;
  p.layout.n_planes = 5;
  expect (h, &p, IVL_ERROR_BAD_ARGUMENT);
  p.layout.n_planes = 1;

  /* On another device than the model's, and for another purpose. */
  g_autofree char *path = golden_path ("models", "qwen2-ln-orig", NULL);
  g_autoptr (IvlDevicePicture) picture = ivl_device_picture_new (h->engine, &p.layout, p.places, FALSE, &error);
  g_assert_no_error (error);
  g_autoptr (IvlModel) model = ivl_model_share (NULL, path, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_null (ivl_image_new_from_device (model, picture, 1, NULL, 0, &error));
  g_assert_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT);
  g_clear_error (&error);
  IvlPicture got;
  g_assert_false (ivl_device_picture_get (picture, &got, &error));
  g_assert_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT);
  g_assert_true (ivl_device_picture_wait (picture, NULL));
  free_picture (h, &p);
}

/* NV12 of 40 x 12 in files with rows 64 bytes apart, upside down; and planes that aren't in their file. */
static void
test_dmabuf (void)
{
  static const IvlPlaneDmabuf bad[] = { { 0, 4096 - 39, 64 },    { 0, 11 * 64 - 1, -64 }, { 0, 0, G_MAXSSIZE / 4 },
                                        { 0, G_MAXUINT64, -64 }, { 0, G_MAXINT64, 64 },   { 0, 0, G_MINSSIZE } };
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlDevice) device = ivl_device_open (NULL, &error);
  g_assert_no_error (error);
  IvlPicture got, layout = { .planes = { { .row_bytes = 40, .rows = 12 }, { .row_bytes = 40, .rows = 6 } },
                             .n_planes = 2, .width = 40, .height = 12 };
  IvlPlaneDmabuf planes[2] = { { .offset = 11 * 64 + 3, .stride = -64 }, { .offset = 5 * 64 + 3, .stride = -64 } };
  guint8 *maps[2];
  for (guint i = 0; i < 2; i++) {
    planes[i].fd = memfd_create ("plane", MFD_CLOEXEC);
    g_assert_cmpint (ftruncate (planes[i].fd, 4096), ==, 0);
    maps[i] = mmap (NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, planes[i].fd, 0);
    for (guint j = 0; j < 4096; j++)
      maps[i][j] = (guint8) g_test_rand_int ();
  }
  if (ivl_device_imports_dmabuf (device)) {
    g_autoptr (IvlDevicePicture) picture = ivl_device_picture_new_from_dmabuf (device, &layout, planes, TRUE, &error);
    g_assert_no_error (error);
    g_assert_true (ivl_device_picture_get (picture, &got, &error));
    for (guint i = 0; i < 2; i++)
      for (guint y = 0; y < layout.planes[i].rows; y++)
        g_assert_cmpmem (got.planes[i].data + (gssize) y * got.planes[i].stride, 40,
                         maps[i] + (gssize) planes[i].offset + (gssize) y * planes[i].stride, 40);
    for (guint i = 0; i < G_N_ELEMENTS (bad); i++) {
      IvlPlaneDmabuf wrong[2] = { bad[i], planes[1] };
      wrong[0].fd = planes[0].fd;
      g_assert_null (ivl_device_picture_new_from_dmabuf (device, &layout, wrong, TRUE, &error));
      g_assert_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT);
      g_clear_error (&error);
    }
  } else {
    g_assert_null (ivl_device_picture_new_from_dmabuf (device, &layout, planes, TRUE, &error));
    g_assert_error (error, IVL_ERROR, IVL_ERROR_UNSUPPORTED);
    g_test_skip ("this device doesn't read DMA-BUFs");
  }
  for (guint i = 0; i < 2; i++) {
    munmap (maps[i], 4096);
    close (planes[i].fd);
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add ("/device-picture/read-back", Host, NULL, set_up, test_read_back, tear_down);
  g_test_add ("/device-picture/answers", Host, NULL, set_up, test_answers, tear_down);
  g_test_add ("/device-picture/semaphore", Host, GINT_TO_POINTER (1), set_up, test_semaphore, tear_down);
  g_test_add_func ("/device-picture/dmabuf", test_dmabuf);
  g_test_add ("/device-picture/bad", Host, NULL, set_up, test_bad, tear_down);
  return g_test_run ();
}
