// Scans the code that a host shows, until it has found a join link. Other codes are passed over.
package ai.polyphony;

import android.app.Activity;
import android.content.Intent;
import android.graphics.Matrix;
import android.graphics.SurfaceTexture;
import android.os.Bundle;
import android.view.TextureView;
import android.widget.Toast;

public final class ScanActivity extends Activity implements TextureView.SurfaceTextureListener, Camera.Watcher {
    /** What the result has the link as. */
    static final String LINK = "link";

    private TextureView picture;
    private Camera camera;

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        setContentView(R.layout.scan);
        picture = (TextureView) findViewById(R.id.picture);
        picture.setSurfaceTextureListener(this);
        if (!Agent.isThere()) {
            giveUp(R.string.no_library);
        } else if (!Permissions.hasCamera(this) && state == null) {
            Permissions.askCamera(this);
        }
    }

    @Override
    protected void onResume() {
        super.onResume();
        if (picture.isAvailable()) {
            open(picture.getSurfaceTexture());
        }
    }

    @Override
    protected void onPause() {
        if (camera != null) {
            camera.close();
            camera = null;
        }
        super.onPause();
    }

    @Override
    public void onRequestPermissionsResult(int request, String[] permissions, int[] results) {
        // Without results it was interrupted, not answered.
        if (results.length > 0 && !Permissions.hasCamera(this)) {
            giveUp(R.string.no_camera);
        }
    }

    private void open(SurfaceTexture texture) {
        if (camera == null && Permissions.hasCamera(this) && !isFinishing()) {
            camera = new Camera(this, texture, this);
        }
    }

    @Override
    public void onSurfaceTextureAvailable(SurfaceTexture texture, int width, int height) {
        open(texture);
    }

    @Override
    public void onSurfaceTextureSizeChanged(SurfaceTexture texture, int width, int height) {}

    @Override
    public boolean onSurfaceTextureDestroyed(SurfaceTexture texture) {
        return true;
    }

    @Override
    public void onSurfaceTextureUpdated(SurfaceTexture texture) {}

    @Override
    public void opened(final int width, final int height) {
        runOnUiThread(new Runnable() {
            @Override
            public void run() {
                fill(width, height);
            }
        });
    }

    /** The view stretches its picture: this takes that back, and lets what does not fit hang over. */
    private void fill(int width, int height) {
        float acrossView = (float) picture.getWidth() / width;
        float downView = (float) picture.getHeight() / height;
        float scale = Math.max(acrossView, downView);
        Matrix matrix = new Matrix();
        matrix.setScale(scale / acrossView, scale / downView, picture.getWidth() / 2f, picture.getHeight() / 2f);
        picture.setTransform(matrix);
    }

    @Override
    public boolean saw(byte[] luma, int width, int height) {
        final String link = JoinLink.in(Agent.readCode(luma, width, height));
        if (link == null) {
            return false;
        }
        runOnUiThread(new Runnable() {
            @Override
            public void run() {
                setResult(RESULT_OK, new Intent().putExtra(LINK, link));
                finish();
            }
        });
        return true;
    }

    @Override
    public void failed() {
        runOnUiThread(new Runnable() {
            @Override
            public void run() {
                giveUp(R.string.no_camera);
            }
        });
    }

    private void giveUp(int why) {
        if (!isFinishing()) {
            Toast.makeText(this, why, Toast.LENGTH_LONG).show();
            finish();
        }
    }
}
