// The battery: charge, power, heat, current. Android broadcasts it, and apps may not read /sys.
package ai.polyphony;

import android.content.BroadcastReceiver;
import android.content.Context;
import android.content.Intent;
import android.content.IntentFilter;
import android.os.BatteryManager;
import android.os.Handler;
import org.json.JSONException;
import org.json.JSONObject;

final class Battery extends BroadcastReceiver {
    /** What Android has in place of a number that it does not know. */
    private static final int UNKNOWN = Integer.MIN_VALUE;

    private final Context context;
    private final BatteryManager manager;
    private final Runnable changed;
    private Intent latest;

    /** Calls `changed` on `handler` when power comes or goes. */
    Battery(Context context, Handler handler, Runnable changed) {
        this.context = context;
        this.changed = changed;
        manager = (BatteryManager) context.getSystemService(Context.BATTERY_SERVICE);
        // Sticky: the last one is there at once.
        latest = context.registerReceiver(this, new IntentFilter(Intent.ACTION_BATTERY_CHANGED), null, handler);
    }

    @Override
    public void onReceive(Context context, Intent intent) {
        boolean charged = isCharging();
        latest = intent;
        if (charged != isCharging()) {
            changed.run();
        }
    }

    void into(JSONObject report) throws JSONException {
        if (latest == null) {
            return;
        }
        int level = latest.getIntExtra(BatteryManager.EXTRA_LEVEL, UNKNOWN);
        int scale = latest.getIntExtra(BatteryManager.EXTRA_SCALE, 100);
        if (level >= 0 && scale > 0) {
            PhoneReport.put(report, "batteryPercent", 100.0 * level / scale);
        }
        report.put("charging", isCharging());
        int tenths = latest.getIntExtra(BatteryManager.EXTRA_TEMPERATURE, UNKNOWN);
        if (tenths != UNKNOWN) {
            PhoneReport.put(report, "batteryCelsius", tenths / 10.0);
        }
        int millivolts = latest.getIntExtra(BatteryManager.EXTRA_VOLTAGE, UNKNOWN);
        if (millivolts > 0) {
            report.put("voltageMillivolts", millivolts);
        }
        // As the phone has it: out of the battery is negative by Android's book, but not by every maker's. A phone that does not measure says 0.
        int microamps = manager.getIntProperty(BatteryManager.BATTERY_PROPERTY_CURRENT_NOW);
        if (microamps != UNKNOWN && microamps != 0) {
            report.put("currentMicroamps", microamps);
        }
    }

    /** On power that keeps up: full counts, and so does charging that was stopped to spare the battery; a charger that is too weak does not. */
    boolean isCharging() {
        return latest != null
                && latest.getIntExtra(BatteryManager.EXTRA_PLUGGED, 0) != 0
                && latest.getIntExtra(BatteryManager.EXTRA_STATUS, UNKNOWN) != BatteryManager.BATTERY_STATUS_DISCHARGING;
    }

    void close() {
        context.unregisterReceiver(this);
    }
}
