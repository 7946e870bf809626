/* ivl_device_import: the engine on the host application's own Vulkan device and queue. */
#include "golden.h"

#include <internvl/internvl.h>
#include <vulkan/vulkan.h>

typedef struct {
  VkInstance instance;
  VkPhysicalDevice physical;
  VkDevice device;
  VkQueue queue;
} Host;

static void
host_open (Host *h)
{
  VkApplicationInfo app = { .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = VK_API_VERSION_1_2 };
  VkInstanceCreateInfo info = { .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &app };
  g_assert_cmpint (vkCreateInstance (&info, NULL, &h->instance), ==, VK_SUCCESS);
  guint32 n = 1;
  g_assert_cmpint (vkEnumeratePhysicalDevices (h->instance, &n, &h->physical), >=, 0);
  g_assert_cmpuint (n, ==, 1);
  float priority = 1.f;
  VkDeviceQueueCreateInfo queue = { .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                    .queueCount = 1,
                                    .pQueuePriorities = &priority };
  VkDeviceCreateInfo device = { .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                .queueCreateInfoCount = 1,
                                .pQueueCreateInfos = &queue };
  g_assert_cmpint (vkCreateDevice (h->physical, &device, NULL, &h->device), ==, VK_SUCCESS);
  vkGetDeviceQueue (h->device, 0, 0, &h->queue);
}

static void
host_close (Host *h)
{
  vkDestroyDevice (h->device, NULL);
  vkDestroyInstance (h->instance, NULL);
}

static char *
ask (IvlDevice *device)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *path = golden_path ("models", "qwen2-ln-orig", NULL);
  g_autoptr (IvlModel) model = ivl_model_load (device, path, NULL, NULL, &error);
  g_assert_no_error (error);
  g_autoptr (IvlSession) session = ivl_session_new (model, &error);
  guint width, height;
  g_autofree guint8 *rgb = golden_picture ("odd37x53", &width, &height);
  IvlPicture picture;
  ivl_picture_init_rgb (&picture, rgb, width, height, 3 * width);
  g_autoptr (IvlImage) image = ivl_image_new (model, &picture, 1, &error);
  g_assert_no_error (error);
  IvlQuestion question = { .prompt = "What is it?", .images = &image, .n_images = 1,
                           .params = IVL_GENERATE_PARAMS_INIT };
  question.params.max_tokens = 24;
  g_autoptr (IvlAnswer) answer = ivl_session_ask (session, &question, &error);
  g_assert_no_error (error);
  return g_steal_pointer (&answer->text);
}

typedef struct {
  GMutex lock;
  gint submissions, released;
} Queue;

static void
queue_lock (gpointer data)
{
  Queue *queue = data;
  g_mutex_lock (&queue->lock);
  queue->submissions++;
}

static void
queue_unlock (gpointer data)
{
  g_mutex_unlock (&((Queue *) data)->lock);
}

static void
queue_release (gpointer data)
{
  ((Queue *) data)->released++;
}

static void
test_import (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (IvlDevice) own = ivl_device_open (NULL, &error);
  g_assert_no_error (error);
  g_autofree char *expected = ask (own);

  Host host = { 0 };
  host_open (&host);
  Queue queue = { .submissions = 0 };
  g_mutex_init (&queue.lock);
  IvlDeviceImport import = { host.instance, host.physical, host.device, host.queue, 0,
                             queue_lock, queue_unlock, queue_release, &queue };
  IvlDevice *device = ivl_device_import (&import, &error);
  g_assert_no_error (error);
  g_autofree char *got = ask (device);
  g_assert_cmpstr (got, ==, expected);
  g_assert_cmpint (queue.submissions, >, 0);
  g_assert_cmpint (queue.released, ==, 0);
  ivl_device_unref (device);
  g_assert_cmpint (queue.released, ==, 1);
  /* The host's objects are still the host's. */
  g_assert_cmpint (vkDeviceWaitIdle (host.device), ==, VK_SUCCESS);
  host_close (&host);
  g_mutex_clear (&queue.lock);
}

static void
test_incomplete (void)
{
  g_autoptr (GError) error = NULL;
  IvlDeviceImport import = { 0 };
  g_assert_null (ivl_device_import (&import, &error));
  g_assert_error (error, IVL_ERROR, IVL_ERROR_BAD_ARGUMENT);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/import/answers", test_import);
  g_test_add_func ("/import/incomplete", test_incomplete);
  return g_test_run ();
}
