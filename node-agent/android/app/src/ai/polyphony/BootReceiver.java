// Starts the service again when the phone has started, or the app was replaced by a newer one: where the person had started it before.
package ai.polyphony;

import android.content.BroadcastReceiver;
import android.content.Context;
import android.content.Intent;

public final class BootReceiver extends BroadcastReceiver {
    @Override
    public void onReceive(Context context, Intent intent) {
        if (!new Choices(context).isStarted()) {
            return;
        }
        try {
            AgentService.send(context, AgentService.START, null);
        } catch (IllegalStateException refused) {
            // Android 15 refuses dataSync and others at boot, and specialUse not; what later ones refuse, the person can start.
            new Notice(context).showStopped(context.getString(R.string.tap_to_start));
        }
    }
}
