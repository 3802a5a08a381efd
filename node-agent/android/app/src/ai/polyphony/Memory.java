// Memory: what is free, and below what Android begins to end processes. It has to be asked: trim levels no longer come.
package ai.polyphony;

import android.app.ActivityManager;
import android.content.Context;
import org.json.JSONException;
import org.json.JSONObject;

final class Memory {
    private final ActivityManager manager;
    private final ActivityManager.MemoryInfo info = new ActivityManager.MemoryInfo();

    Memory(Context context) {
        manager = (ActivityManager) context.getSystemService(Context.ACTIVITY_SERVICE);
    }

    void into(JSONObject report) throws JSONException {
        manager.getMemoryInfo(info);
        report.put("availableBytes", info.availMem);
        report.put("lowMemoryBytes", info.threshold);
    }
}
