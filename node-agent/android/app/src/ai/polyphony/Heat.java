// Heat as the platform judges it: how much it throttles (Android 10), and how near it is to that (Android 11).
package ai.polyphony;

import android.content.Context;
import android.os.Build;
import android.os.Handler;
import android.os.PowerManager;
import android.os.SystemClock;
import org.json.JSONException;
import org.json.JSONObject;

final class Heat {
    /** Android answers NaN to whoever asks more often. */
    private static final long HEADROOM_MILLIS = 10_000;
    /** How far ahead it is asked to look: until it may be asked again. */
    private static final int FORECAST_SECONDS = 10;
    private static final int UNKNOWN = -1;

    private final PowerManager power;
    /** A PowerManager.OnThermalStatusChangedListener, a name that Android 9 cannot load. */
    private Object listener;
    private int status = UNKNOWN;
    private float headroom = Float.NaN;
    private long headroomAsked;

    /** Calls `changed` on `handler` when the platform's judgement changes. */
    Heat(Context context, Handler handler, Runnable changed) {
        power = (PowerManager) context.getSystemService(Context.POWER_SERVICE);
        if (Build.VERSION.SDK_INT >= 29) {
            listen(handler, changed);
        }
    }

    private void listen(final Handler handler, final Runnable changed) {
        PowerManager.OnThermalStatusChangedListener listener = new PowerManager.OnThermalStatusChangedListener() {
            @Override
            public void onThermalStatusChanged(final int now) {
                handler.post(new Runnable() {
                    @Override
                    public void run() {
                        status = now;
                        changed.run();
                    }
                });
            }
        };
        power.addThermalStatusListener(listener);
        this.listener = listener;
    }

    void into(JSONObject report) throws JSONException {
        if (status != UNKNOWN) {
            report.put("thermalStatus", status);
        }
        if (Build.VERSION.SDK_INT >= 30) {
            long now = SystemClock.elapsedRealtime();
            if (headroomAsked == 0 || now - headroomAsked >= HEADROOM_MILLIS) {
                headroomAsked = now;
                headroom = power.getThermalHeadroom(FORECAST_SECONDS);
            }
            // NaN where the phone cannot tell.
            PhoneReport.put(report, "thermalHeadroom", headroom);
        }
    }

    void close() {
        if (Build.VERSION.SDK_INT >= 29) {
            power.removeThermalStatusListener((PowerManager.OnThermalStatusChangedListener) listener);
        }
    }
}
