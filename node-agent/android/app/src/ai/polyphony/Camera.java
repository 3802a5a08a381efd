// The camera: shows its pictures on a texture, and hands the brightness of them on, as many as somebody has time for.
package ai.polyphony;

import android.content.Context;
import android.graphics.ImageFormat;
import android.graphics.SurfaceTexture;
import android.hardware.camera2.CameraAccessException;
import android.hardware.camera2.CameraCaptureSession;
import android.hardware.camera2.CameraCharacteristics;
import android.hardware.camera2.CameraDevice;
import android.hardware.camera2.CameraManager;
import android.hardware.camera2.CaptureRequest;
import android.media.Image;
import android.media.ImageReader;
import android.os.Handler;
import android.os.HandlerThread;
import android.util.Size;
import android.view.Surface;
import java.nio.ByteBuffer;
import java.util.Arrays;

final class Camera extends CameraDevice.StateCallback implements ImageReader.OnImageAvailableListener {
    /** Enough to read a code that fills half of the picture; more only takes longer. */
    private static final int MOST_PIXELS = 1280 * 720;

    /** Is told on the camera's own thread. */
    interface Watcher {
        /** The picture's size as it is shown. */
        void opened(int width, int height);

        /** One picture. True ends them. */
        boolean saw(byte[] luma, int width, int height);

        void failed();
    }

    private final CameraManager manager;
    private final SurfaceTexture texture;
    private final Watcher watcher;
    private final HandlerThread thread = new HandlerThread("polyphony-camera");
    private final Handler handler;
    private CameraDevice device;
    private ImageReader reader;
    private Surface shown;
    private byte[] luma = new byte[0];
    /** Whether an answer of the camera's is still to come. */
    private boolean opening;
    private boolean closed;

    /** Opens it. The person has allowed that before. */
    Camera(Context context, SurfaceTexture texture, Watcher watcher) {
        this.texture = texture;
        this.watcher = watcher;
        manager = (CameraManager) context.getSystemService(Context.CAMERA_SERVICE);
        thread.start();
        handler = new Handler(thread.getLooper());
        handler.post(new Runnable() {
            @Override
            public void run() {
                open();
            }
        });
    }

    private void open() {
        try {
            String id = outward();
            if (id == null) {
                watcher.failed();
                return;
            }
            CameraCharacteristics its = manager.getCameraCharacteristics(id);
            Size size = size(its);
            texture.setDefaultBufferSize(size.getWidth(), size.getHeight());
            reader = ImageReader.newInstance(size.getWidth(), size.getHeight(), ImageFormat.YUV_420_888, 2);
            reader.setOnImageAvailableListener(this, handler);
            manager.openCamera(id, this, handler);
            opening = true;
            // Most are built in across the device, and their pictures are turned for showing.
            Integer turned = its.get(CameraCharacteristics.SENSOR_ORIENTATION);
            boolean across = turned != null && turned % 180 != 0;
            watcher.opened(across ? size.getHeight() : size.getWidth(), across ? size.getWidth() : size.getHeight());
        } catch (CameraAccessException | SecurityException | IllegalArgumentException refused) {
            watcher.failed();
        }
    }

    /** The camera that looks away from the person, or else any. Null without one. */
    private String outward() throws CameraAccessException {
        String any = null;
        for (String id : manager.getCameraIdList()) {
            Integer facing = manager.getCameraCharacteristics(id).get(CameraCharacteristics.LENS_FACING);
            if (facing != null && facing == CameraCharacteristics.LENS_FACING_BACK) {
                return id;
            }
            any = any == null ? id : any;
        }
        return any;
    }

    /** The largest that is not too large. */
    private static Size size(CameraCharacteristics its) {
        Size best = new Size(640, 480);
        int most = 0;
        for (Size size : its.get(CameraCharacteristics.SCALER_STREAM_CONFIGURATION_MAP)
                .getOutputSizes(ImageFormat.YUV_420_888)) {
            int pixels = size.getWidth() * size.getHeight();
            if (pixels <= MOST_PIXELS && pixels > most) {
                best = size;
                most = pixels;
            }
        }
        return best;
    }

    @Override
    public void onOpened(CameraDevice opened) {
        device = opened;
        opening = false;
        if (closed) {
            release();
            return;
        }
        shown = new Surface(texture);
        try {
            device.createCaptureSession(Arrays.asList(shown, reader.getSurface()), new Session(), handler);
        } catch (CameraAccessException | IllegalStateException | IllegalArgumentException refused) {
            watcher.failed();
        }
    }

    /** Asks for pictures, one after the other, in focus. */
    private final class Session extends CameraCaptureSession.StateCallback {
        @Override
        public void onConfigured(CameraCaptureSession session) {
            if (closed) {
                return;
            }
            try {
                CaptureRequest.Builder request = device.createCaptureRequest(CameraDevice.TEMPLATE_PREVIEW);
                request.addTarget(shown);
                request.addTarget(reader.getSurface());
                request.set(CaptureRequest.CONTROL_AF_MODE, CaptureRequest.CONTROL_AF_MODE_CONTINUOUS_PICTURE);
                session.setRepeatingRequest(request.build(), null, handler);
            } catch (CameraAccessException | IllegalStateException | IllegalArgumentException refused) {
                watcher.failed();
            }
        }

        @Override
        public void onConfigureFailed(CameraCaptureSession session) {
            watcher.failed();
        }
    }

    @Override
    public void onImageAvailable(ImageReader from) {
        Image image = closed ? null : from.acquireLatestImage();
        if (image == null) {
            return;
        }
        int width = image.getWidth();
        int height = image.getHeight();
        copy(image.getPlanes()[0], width, height);
        image.close();
        if (watcher.saw(luma, width, height)) {
            from.setOnImageAvailableListener(null, null);
        }
    }

    /** The first plane is brightness, a byte a pixel; its rows may have gaps after them. */
    private void copy(Image.Plane plane, int width, int height) {
        if (luma.length != width * height) {
            luma = new byte[width * height];
        }
        ByteBuffer from = plane.getBuffer();
        for (int row = 0; row < height; row++) {
            from.position(row * plane.getRowStride());
            from.get(luma, row * width, width);
        }
    }

    @Override
    public void onDisconnected(CameraDevice gone) {
        lose(gone);
    }

    @Override
    public void onError(CameraDevice broken, int why) {
        lose(broken);
    }

    private void lose(CameraDevice lost) {
        device = lost;
        opening = false;
        if (closed) {
            release();
        } else {
            watcher.failed();
        }
    }

    /** On its own thread, so that no picture is being read meanwhile. */
    void close() {
        handler.post(new Runnable() {
            @Override
            public void run() {
                closed = true;
                release();
            }
        });
    }

    /** Where it is still being opened, its answer leads here once more. */
    private void release() {
        if (device != null) {
            device.close();
        }
        if (reader != null) {
            reader.close();
        }
        if (shown != null) {
            shown.release();
        }
        if (!opening) {
            thread.quitSafely();
        }
    }
}
