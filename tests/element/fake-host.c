/* What the fake engine has not: a host's device, and pictures on it. */
#include "fake-engine.h"

IvlDevice *
ivl_device_import (const IvlDeviceImport *import, GError **error)
{
  g_set_error_literal (error, IVL_ERROR, IVL_ERROR_UNSUPPORTED, "the fake engine runs on no device");
  return NULL;
}

IvlModel *
ivl_model_share_on (IvlDevice *device, const char *path, const IvlModelParams *params, GCancellable *cancellable,
    GError **error)
{
  g_assert_not_reached ();
}

IvlDevice *
ivl_model_get_device (IvlModel *model)
{
  return NULL;
}

IvlDevicePicture *
ivl_device_picture_new (IvlDevice *device, const IvlPicture *layout, IvlPlaneImage *images, gboolean readback,
    GError **error)
{
  g_assert_not_reached ();
}

IvlDevicePicture *
ivl_device_picture_new_from_dmabuf (IvlDevice *device, const IvlPicture *layout, const IvlPlaneDmabuf *planes,
    gboolean readback, GError **error)
{
  g_set_error_literal (error, IVL_ERROR, IVL_ERROR_UNSUPPORTED, "no DMA-BUFs here");
  return NULL;
}

gboolean
ivl_device_picture_wait (IvlDevicePicture *picture, GError **error)
{
  g_assert_not_reached ();
}

gboolean
ivl_device_picture_get (IvlDevicePicture *picture, IvlPicture *out, GError **error)
{
  g_assert_not_reached ();
}

IvlDevice *
ivl_device_picture_get_device (IvlDevicePicture *picture)
{
  g_assert_not_reached ();
}

void
ivl_device_picture_unref (IvlDevicePicture *picture)
{
  g_assert_null (picture);
}

IvlImage *
ivl_image_new_from_device (IvlModel *model, IvlDevicePicture *picture, guint max_tiles, IvlImage *previous,
    float threshold, GError **error)
{
  g_assert_not_reached ();
}
