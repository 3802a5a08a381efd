// What only the platform knows of this phone, gathered for the agent. It decides nothing.
package ai.polyphony;

import android.content.Context;
import android.os.Handler;
import org.json.JSONException;
import org.json.JSONObject;

final class PhoneReport {
    private final Battery battery;
    private final Heat heat;
    private final Memory memory;
    private final Network network;

    /** Lives on the thread of `handler`, where `changed` is called when something is worth telling at once: power, network, throttling. */
    PhoneReport(Context context, Handler handler, Runnable changed) {
        battery = new Battery(context, handler, changed);
        heat = new Heat(context, handler, changed);
        memory = new Memory(context);
        network = new Network(context, handler, changed);
    }

    /** As Agent.tell takes it. */
    String json(boolean paused) {
        try {
            JSONObject report = new JSONObject();
            battery.into(report);
            heat.into(report);
            memory.into(report);
            network.into(report);
            report.put("paused", paused);
            return report.toString();
        } catch (JSONException impossible) {
            // Only numbers that JSON has not are refused, and `put` puts none in.
            throw new IllegalStateException(impossible);
        }
    }

    /** JSON has no NaN and no infinity: what is one of them is not known. */
    static void put(JSONObject report, String key, double value) throws JSONException {
        if (!Double.isNaN(value) && !Double.isInfinite(value)) {
            report.put(key, value);
        }
    }

    boolean isCharging() {
        return battery.isCharging();
    }

    void close() {
        battery.close();
        heat.close();
        network.close();
    }
}
