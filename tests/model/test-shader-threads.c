/* lavapipe's threads that run shaders have a processor each, of those that may be used, for every device; where there are
 * fewer of them, or INTERNVL_DEBUG says so, they are left alone. */
#include <internvl/internvl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "vk/device.h"

static IvlDevice *
open_device (void)
{
  g_autoptr (GError) error = NULL;
  IvlDevice *device = ivl_device_open (NULL, &error);
  g_assert_no_error (error);
  return device;
}

static bool
can_run (void)
{
  cpu_set_t allowed;
  g_assert_cmpint (sched_getaffinity (0, sizeof allowed, &allowed), ==, 0);
  g_autoptr (IvlDevice) device = open_device ();
  if (device->driver != VK_DRIVER_ID_MESA_LLVMPIPE)
    g_test_skip ("the device isn't lavapipe");
  else if (CPU_COUNT (&allowed) < 2 || g_getenv ("LP_NUM_THREADS"))
    g_test_skip ("one processor, or another number of threads");
  else
    return true;
  return false;
}

/* How many of this process's threads may run on one processor only, by processor. */
static guint
count_bound (guint by_processor[CPU_SETSIZE])
{
  guint n = 0;
  memset (by_processor, 0, CPU_SETSIZE * sizeof *by_processor);
  GDir *tasks = g_dir_open ("/proc/self/task", 0, NULL);
  for (const char *task; (task = g_dir_read_name (tasks));) {
    cpu_set_t set;
    if (sched_getaffinity ((pid_t) strtol (task, NULL, 10), sizeof set, &set) != 0 || CPU_COUNT (&set) != 1)
      continue;
    for (guint cpu = 0; cpu < CPU_SETSIZE; cpu++)
      by_processor[cpu] += CPU_ISSET (cpu, &set) != 0;
    n++;
  }
  g_dir_close (tasks);
  return n;
}

static void
check_bound (guint devices)
{
  cpu_set_t allowed;
  sched_getaffinity (0, sizeof allowed, &allowed);
  guint by_processor[CPU_SETSIZE];
  g_assert_cmpuint (count_bound (by_processor), ==, devices * (guint) CPU_COUNT (&allowed));
  for (guint cpu = 0; cpu < CPU_SETSIZE; cpu++)
    g_assert_cmpuint (by_processor[cpu], ==, CPU_ISSET (cpu, &allowed) ? devices : 0);
}

static gpointer
open_on_thread (gpointer unused)
{
  return open_device ();
}

static void
test_each (void)
{
  char before[16], after[16];
  if (!can_run ())
    return;
  pthread_getname_np (pthread_self (), before, sizeof before);
  check_bound (0);
  IvlDevice *devices[3] = { open_device () };
  check_bound (1);
  GThread *threads[2]; /* at the same time */
  for (guint i = 0; i < 2; i++)
    threads[i] = g_thread_new ("open", open_on_thread, NULL);
  for (guint i = 0; i < 2; i++)
    devices[1 + i] = g_thread_join (threads[i]);
  check_bound (3);
  for (guint i = 0; i < 3; i++)
    ivl_device_unref (devices[i]);
  check_bound (0);
  pthread_getname_np (pthread_self (), after, sizeof after);
  g_assert_cmpstr (before, ==, after);
}

static void
test_free (void)
{
  static const struct {
    const char *variable, *value;
  } cases[] = { { "INTERNVL_DEBUG", "unbound" }, { "LP_NUM_THREADS", "1" } };
  if (!can_run ())
    return;
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_setenv (cases[i].variable, cases[i].value, TRUE);
    IvlDevice *device = open_device ();
    guint by_processor[CPU_SETSIZE];
    g_assert_cmpuint (count_bound (by_processor), ==, 0);
    ivl_device_unref (device);
    g_unsetenv (cases[i].variable);
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/shader-threads/each", test_each);
  g_test_add_func ("/shader-threads/free", test_free);
  return g_test_run ();
}
